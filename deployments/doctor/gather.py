"""The facts of this host, as they are now. What can't be found out becomes a fact of its own, never an exception."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from caisson.build_group import why_no_group
from caisson.builder import find_builders, read_deadline
from caisson.disk import DiskUsage, read_disk_usage
from caisson.disk_state import read_state
from caisson.docker_engine import DockerEngine
from caisson.engine import Engine, EngineInfo
from caisson.errors import CaissonError, ServiceUnreachable, SettingsInvalid
from caisson.file_facts import FileFacts, read_file_facts
from caisson.settings import Settings
from deployments.doctor.facts import BuilderFacts, BuilderImageFacts, GatewayFacts, HostFacts, ServiceFacts
from deployments.gateway import answers
from deployments.names import POOL, build_deployment
from deployments.prefect_api import PrefectApi
from deployments.service_store import store_file
from deployments.state import find_running
from deployments.token_store import TokenStore

# What deployments/setup/builder-image.sh writes and compares; a test holds the two together.
_CONTENT_LABEL = "caisson.builder.content"
_BASE_IMAGE = "debian:trixie-slim"
_BUILDER_DIRECTORY = Path(__file__).parent.parent / "builder"
_TIMEOUT_SECONDS = 5
_APPARMOR_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_CGROUP_FILES = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/cgroup.controllers"))


def gather(settings: Settings) -> HostFacts:
    """Look at everything; takes as long as the engine and the API take to answer."""
    engine_info: EngineInfo | None = None
    engine_error = ""
    image: BuilderImageFacts | None = None
    builders: tuple[BuilderFacts, ...] = ()
    try:
        with DockerEngine(settings.docker_host, timeout=_TIMEOUT_SECONDS) as engine:
            engine_info = engine.info()
            image, builders = _builder_image(engine, settings), _builders(engine)
    except CaissonError as error:
        engine_error = error.message
    docker_disk, docker_disk_error = _disk(settings.docker_data_root or (engine_info.data_root if engine_info else ""))
    state_disk, _ = _disk(str(settings.state_dir))
    disk_state = read_state(settings.state_dir)
    return HostFacts(
        settings=settings,
        now=datetime.now(UTC),
        socket=_socket(settings),
        engine=engine_info,
        engine_error=engine_error,
        state_dir=_directory(settings.state_dir),
        guard_dir=_directory(settings.guard_dir),
        gives_to_builders=os.geteuid() == 0 or settings.builder_uid in os.getgroups(),
        docker_disk=docker_disk,
        docker_disk_error=docker_disk_error,
        state_disk=state_disk,
        disk_looked=disk_state.looked,
        prunes_overdue=disk_state.overdue_told,
        builder_image=image,
        builders=builders,
        cgroup_files=any(os.access(path, os.R_OK) for path in _CGROUP_FILES),
        no_group=why_no_group(engine_info) if engine_info else "",
        apparmor_profiles=_apparmor_profiles(),
        seccomp=read_file_facts(Path(settings.seccomp_profile)) if settings.seccomp_profile else None,
        known_hosts=read_file_facts(Path(settings.ssh_known_hosts)) if settings.ssh_known_hosts else None,
        service=_service(settings),
        gateway=_gateway(settings),
        installed_at=_installed_at(),
    )


def _gateway(settings: Settings) -> GatewayFacts:
    running = find_running(settings)
    if running is None or not running.gateway_url:
        return GatewayFacts()
    try:
        tokens = TokenStore.of(settings).all() if store_file(settings).exists() else []
    except CaissonError:
        # Then it does not answer, and its log says why.
        tokens = []
    now = datetime.now(UTC)
    valid = sum(not token.expired(now) for token in tokens)
    return GatewayFacts(running.gateway_url, answers=answers(running.gateway_url), tokens=valid)


def _socket(settings: Settings) -> FileFacts:
    try:
        return read_file_facts(Path(settings.docker_socket))
    except SettingsInvalid:
        return FileFacts(settings.docker_host)


def _directory(path: Path) -> FileFacts:
    """A directory that Caisson makes when it is not there: then whether it could is asked of the nearest one above."""
    found = read_file_facts(path)
    if found.exists:
        return found
    nearest = next((parent for parent in path.parents if parent.exists()), Path("/"))
    writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return FileFacts(str(path), kind="directory", writable=writable)


def _disk(path: str) -> tuple[DiskUsage | None, str]:
    if not path:
        return None, ""
    if not Path(path).exists() and not Path(path).parent.exists():
        return None, f"{path} does not exist here"
    try:
        return read_disk_usage(Path(path)), ""
    except OSError as error:
        return None, f"{path}: {error.strerror}"


def _builder_image(engine: Engine, settings: Settings) -> BuilderImageFacts:
    image = engine.inspect_image(settings.builder_image)
    if image is None:
        return BuilderImageFacts(present=False)
    return BuilderImageFacts(
        present=True,
        created=image.created,
        size=image.size,
        user=image.user,
        content=image.labels.get(_CONTENT_LABEL, ""),
        wanted=_wanted_content(engine),
    )


def _wanted_content(engine: Engine) -> str:
    """The hash that the image would have if it were made now; empty where there is no checkout to make it from."""
    base = engine.inspect_image(_BASE_IMAGE)
    if base is None or not (_BUILDER_DIRECTORY / "Dockerfile").exists():
        return ""
    options = ("--exclude", "__pycache__", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner")
    command = ["tar", "--create", "--directory", str(_BUILDER_DIRECTORY), *options, "."]
    try:
        archive = subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return hashlib.sha256(base.id.encode() + archive).hexdigest()


def _builders(engine: Engine) -> tuple[BuilderFacts, ...]:
    return tuple(BuilderFacts(builder.name, read_deadline(builder)) for builder in find_builders(engine))


def _apparmor_profiles() -> frozenset[str] | None:
    try:
        lines = _APPARMOR_PROFILES.read_text().splitlines()
    except OSError:
        return None
    return frozenset(line.rpartition(" (")[0] for line in lines)


def _service(settings: Settings) -> ServiceFacts:
    running = None if settings.api_url else find_running(settings)
    api_url = settings.api_url or (running.api_url if running else "")
    if not api_url:
        return ServiceFacts()
    try:
        with PrefectApi(api_url, auth=settings.api_auth) as api:
            return _ask(api, settings)
    except ServiceUnreachable as error:
        return ServiceFacts(api_url=api_url, error=error.message, fix=error.hint)


def _ask(api: PrefectApi, settings: Settings) -> ServiceFacts:
    pool, deployment = POOL, build_deployment(settings)
    version = api.get("/admin/version")
    found = _get_or_none(api, f"/work_pools/{pool}")
    workers = api.post(f"/work_pools/{pool}/workers/filter", {}) if found else []
    asked_at, clock = _clock(api)
    return ServiceFacts(
        api_url=api.api_url,
        version=str(version),
        asked_at=asked_at,
        clock=clock,
        pool=pool,
        pool_exists=found is not None,
        pool_paused=bool(found and found.get("is_paused")),
        workers_online=sum(
            worker.get("status") == "ONLINE" and worker.get("name") == settings.host_name for worker in workers
        ),
        deployment=deployment,
        deployment_exists=_get_or_none(api, f"/deployments/name/{deployment}") is not None,
    )


def _get_or_none(api: PrefectApi, path: str) -> dict[str, object] | None:
    try:
        answer = api.get(path)
    except ServiceUnreachable as error:
        if error.details.get("status") == 404:
            return None
        raise
    return answer if isinstance(answer, dict) else None


def _clock(api: PrefectApi) -> tuple[datetime, datetime | None]:
    """This host's clock and the API's at the same moment, from the Date header of its answer (RFC 9110, 6.6.1)."""
    try:
        with urllib.request.urlopen(f"{api.api_url}/health", timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return datetime.now(UTC), parsedate_to_datetime(str(answer.headers["Date"]))
    except (OSError, ValueError, TypeError):
        return datetime.now(UTC), None


def _installed_at() -> datetime | None:
    try:
        files = importlib.metadata.files("caisson") or []
        return datetime.fromtimestamp(max(Path(str(file.locate())).stat().st_mtime for file in files), UTC)
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return None
