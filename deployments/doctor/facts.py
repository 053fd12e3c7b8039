"""What doctor knows of a host before it judges it, and what it says then. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from caisson.disk import DiskUsage
from caisson.engine import EngineInfo
from caisson.file_facts import FileFacts
from caisson.settings import Settings

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Item:
    """One thing that was looked at; ``fix`` is what to do about it, empty when it is ok."""

    name: str
    status: Status
    message: str
    fix: str = ""


@dataclass(frozen=True)
class BuilderImageFacts:
    """The builder's image; ``content`` is the label that says what it was made from, ``wanted`` what it should say.

    ``wanted`` is empty where that can't be told (no checkout of the project on this host).
    """

    present: bool
    created: str = ""
    size: int = 0
    user: str = ""
    content: str = ""
    wanted: str = ""


@dataclass(frozen=True)
class BuilderFacts:
    """A builder container that is on the engine now, and the deadline on its label."""

    name: str
    deadline: datetime | None


@dataclass(frozen=True)
class ServiceFacts:
    """The Prefect API and this host's part in it; None where it was not asked or did not tell."""

    api_url: str = ""
    error: str = ""
    """Why it can't be used, empty when it can; ``fix`` is the way out."""
    fix: str = ""
    version: str = ""
    clock: datetime | None = None
    """Its clock, when it answered."""
    asked_at: datetime | None = None
    pool: str = ""
    pool_exists: bool | None = None
    pool_paused: bool = False
    workers_online: int | None = None
    deployment: str = ""
    deployment_exists: bool | None = None


@dataclass(frozen=True)
class GatewayFacts:
    """Caisson's own API on this host; ``url`` is empty where none runs."""

    url: str = ""
    answers: bool = False
    tokens: int = 0


@dataclass(frozen=True)
class HostFacts:
    """All that the checks want to know, gathered before any of them runs."""

    settings: Settings
    now: datetime
    socket: FileFacts
    engine: EngineInfo | None
    engine_error: str
    state_dir: FileFacts
    guard_dir: FileFacts
    gives_to_builders: bool = True
    """Whether the kernel lets this user give a file to the builders' group."""
    docker_disk: DiskUsage | None = None
    docker_disk_error: str = ""
    state_disk: DiskUsage | None = None
    disk_looked: datetime | None = None
    """When the monitor last looked at Docker's disk."""
    prunes_overdue: datetime | None = None
    """When the monitor last told that no prune has succeeded for long; None where one has since."""
    builder_image: BuilderImageFacts | None = None
    builders: tuple[BuilderFacts, ...] = ()
    cgroup_files: bool = True
    no_group: str = ""
    """Why builds have no control group of Caisson's own; empty when they have."""
    apparmor_profiles: frozenset[str] | None = None
    """Profiles loaded in the kernel; None where they can't be read."""
    seccomp: FileFacts | None = None
    known_hosts: FileFacts | None = None
    service: ServiceFacts = ServiceFacts()
    gateway: GatewayFacts = GatewayFacts()
    installed_at: datetime | None = None
