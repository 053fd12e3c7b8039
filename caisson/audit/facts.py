"""All that the audit's rules look at, gathered before any of them runs. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from caisson.disk import DiskUsage
from caisson.disk_state import DiskState
from caisson.engine import ContainerInfo, EngineDescription
from caisson.file_facts import FileFacts
from caisson.hostpath import Resolver
from caisson.settings import Settings


@dataclass(frozen=True)
class EngineConfig:
    """``daemon.json`` as far as it can be read; ``problem`` says why it could not, and ``values`` is None then."""

    path: str
    values: Mapping[str, Any] | None = None
    problem: str = ""
    file: FileFacts = field(default_factory=lambda: FileFacts("daemon.json"))


@dataclass(frozen=True)
class ScheduleFacts:
    """A deployment as Prefect has it: how many schedules are active, and whether it is paused as a whole."""

    active: int
    paused: bool


@dataclass(frozen=True, eq=False)
class ContainerFacts:
    """One container as inspected, and what its rules need to know besides; equal to itself alone."""

    container: ContainerInfo
    settings: Settings
    engine: EngineDescription
    resolve: Resolver

    @property
    def raw(self) -> Mapping[str, Any]:
        return self.container.raw


@dataclass(frozen=True)
class DaemonFacts:
    """The engine's own word of itself, None where it could not be asked, and its files."""

    engine: EngineDescription | None
    config: EngineConfig
    socket: FileFacts


@dataclass(frozen=True)
class CareFacts:
    """What looks after the disk. ``schedules`` by flow name, None where Prefect could not be asked."""

    settings: Settings
    now: datetime
    uid: int
    state: DiskState
    disk: DiskUsage | None
    disk_problem: str
    guard_dir: FileFacts
    state_dir: FileFacts
    schedules: Mapping[str, ScheduleFacts] | None


@dataclass(frozen=True)
class AuditFacts:
    """Everything of one host at one moment; ``engine_problem`` says why the engine could not be asked."""

    settings: Settings
    now: datetime
    engine_problem: str
    containers: tuple[ContainerInfo, ...]
    daemon: DaemonFacts
    care: CareFacts
    resolve: Resolver = field(repr=False)
