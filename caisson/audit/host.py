"""The facts of an audit, as they are now, and what is remembered of the last one. The thin, impure side."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from caisson.audit.compare import AuditMemory
from caisson.audit.facts import AuditFacts, CareFacts, DaemonFacts, EngineConfig, ScheduleFacts
from caisson.disk import DiskUsage, read_file_system
from caisson.disk_state import read_state
from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerInfo, Engine, EngineDescription
from caisson.errors import CaissonError, SettingsInvalid
from caisson.file_facts import FileFacts, read_file_facts
from caisson.hostpath import Resolved, Resolver, resolve_for_engine
from caisson.private_file import write_private
from caisson.settings import Settings

_TIMEOUT_SECONDS = 30.0
_MOST_CONFIG_BYTES = 1 << 20


def gather_audit(settings: Settings, now: datetime, schedules: Mapping[str, ScheduleFacts] | None) -> AuditFacts:
    """Look at everything; takes as long as the engine takes to answer one call a container. Never raises for it."""
    engine: EngineDescription | None = None
    containers: tuple[ContainerInfo, ...] = ()
    problem = ""
    try:
        with DockerEngine(settings.docker_host, timeout=_TIMEOUT_SECONDS) as docker:
            engine, containers = look_at_engine(docker)
    except CaissonError as error:
        engine, problem = None, error.message
    disk, disk_problem = _disk(settings, engine)
    return AuditFacts(
        settings=settings,
        now=now,
        engine_problem=problem,
        containers=containers,
        daemon=DaemonFacts(engine, read_engine_config(settings.engine_config), _socket(settings)),
        care=CareFacts(
            settings=settings,
            now=now,
            uid=os.geteuid(),
            state=read_state(settings.state_dir),
            disk=disk,
            disk_problem=disk_problem,
            guard_dir=read_file_facts(settings.guard_dir),
            state_dir=read_file_facts(settings.state_dir),
            schedules=schedules,
        ),
        resolve=resolver(settings),
    )


def look_at_engine(engine: Engine) -> tuple[EngineDescription, tuple[ContainerInfo, ...]]:
    """What the engine says of itself, and each of its containers, in any state, as inspected."""
    description = engine.describe()
    inspected = (engine.inspect_container(container.id) for container in engine.list_containers({}))
    # One that has gone since it was listed is none any more.
    return description, tuple(container for container in inspected if container is not None)


def read_engine_config(path: Path) -> EngineConfig:
    """daemon.json, as far as this user may read it. Never raises."""
    file = read_file_facts(path)
    if not file.exists:
        return EngineConfig(str(path), problem=f"{path} can't be read ({file.error})", file=file)
    try:
        text = path.read_bytes()[:_MOST_CONFIG_BYTES]
        values = json.loads(text)
    except OSError as error:
        return EngineConfig(str(path), problem=f"{path} can't be read ({error.strerror or error})", file=file)
    except ValueError:
        return EngineConfig(str(path), problem=f"{path} is no JSON", file=file)
    if not isinstance(values, dict):
        return EngineConfig(str(path), problem=f"{path} is no JSON object", file=file)
    return EngineConfig(str(path), values, file=file)


def resolver(settings: Settings) -> Resolver:
    """Paths as the engine sees them: its socket and the guarded ones may have another path there than here."""
    try:
        socket = settings.docker_socket
    except SettingsInvalid:
        socket = ""
    plain = resolve_for_engine(socket, settings.engine_socket or socket)
    there = settings.engine_guard_dir

    @lru_cache(maxsize=4096)
    def resolve(path: str) -> Resolved:
        if there and path.startswith(f"{there}/"):
            return Resolved(path, plain(f"{settings.guard_dir}{path.removeprefix(there)}").kind)
        return plain(path)

    return resolve


def _socket(settings: Settings) -> FileFacts:
    try:
        return read_file_facts(Path(settings.docker_socket))
    except SettingsInvalid as error:
        return FileFacts(settings.docker_host, error=error.message)


def _disk(settings: Settings, engine: EngineDescription | None) -> tuple[DiskUsage | None, str]:
    told = engine.info.get("DockerRootDir") if engine is not None else None
    path = settings.docker_data_root or (told if isinstance(told, str) else "")
    if not path:
        return None, "the engine did not tell where its data is"
    try:
        return read_file_system(Path(path)), ""
    except OSError as error:
        return None, f"{path}: {(error.strerror or str(error)).lower()}"


def memory_file(state_dir: Path) -> Path:
    return state_dir / "audit.json"


def read_memory(state_dir: Path) -> AuditMemory | None:
    """The last audit; None where there was none, or what is there can't be read."""
    try:
        return AuditMemory.model_validate_json(memory_file(state_dir).read_bytes())
    except (OSError, ValidationError):
        return None


def write_memory(state_dir: Path, memory: AuditMemory) -> None:
    """Remember it; raises ``OSError``."""
    # Like the service does: an audit that opened the directory to others would be its own finding.
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(memory_file(state_dir), memory.model_dump_json())
