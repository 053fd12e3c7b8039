"""What one build may do on its guarded socket: ``GuardPolicy``, validated where it is built. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from caisson.reference import Reference, parse_reference

# Older engines know fewer ways to be asked, newer ones more: between these two the guard knows them all.
OLDEST_API, NEWEST_API = (1, 41), (1, 45)

_CGROUP = re.compile(r"/?[A-Za-z0-9_.:@-]+(?:/[A-Za-z0-9_.:@-]+)*")
_NETWORK = re.compile(r"default|none|[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,255}")
# 0 is "no limit" to the engine, and less than this is refused by it (6 MiB).
_LEAST_MEMORY = 6 << 20


@dataclass(frozen=True)
class GuardLimits:
    """What a client may cost the guard. Bytes, seconds, counts; raises ``ValueError`` for one that is not above 0."""

    connections: int = 32
    builds_at_once: int = 1
    grpc_at_once: int = 8
    """Connections of BuildKit's clients; one build has one or two."""
    head_bytes: int = 256 << 10
    headers: int = 64
    header_seconds: float = 10
    """For a whole request head, from its first byte on."""
    idle_seconds: float = 300
    """For the next request of a connection."""
    body_seconds: float = 120
    """For the next bytes of a body, and for a call of BuildKit's to be whole."""
    wait_seconds: float = 900
    """For all bytes of a body together, as long as they are slower than ``least_rate``: only waiting for the client
    counts, not what the engine takes."""
    least_rate: int = 4 << 10
    """Bytes a second."""
    send_seconds: float = 900
    """For a client to take some of what it is sent."""
    engine_seconds: float = 10
    """For the engine to take a connection."""
    context_bytes: int = 64 << 30
    answer_bytes: int = 8 << 20
    """Of an answer of the engine that the guard reads whole, to write its own from it."""
    audit_lines: int = 20_000
    """Then every further request is denied: a log that ends is no log."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0 or not math.isfinite(value):
                raise ValueError(f"limits.{name}: {value} is not above 0")


@dataclass(frozen=True)
class GuardPolicy:
    """One build, and all that it may do. Raises ``ValueError`` with one sentence for what can't be a policy.

    - ``image``: the build's own name, with a tag; the only image that it can name or ask about.
    - ``labels``: what the image is labelled with, by the guard.
    - ``cgroup_parent``: the control group of every RUN step; empty: the engine's own choice.
    - ``memory`` (bytes, swap included) and ``cpus`` (cores) of a step on the classic builder.
    - ``network_mode``: ``default``, ``none`` or the name of a network; never the host's or a container's.
    - ``cache_mount_namespace``: whose cache mounts the build shares; empty: BuildKit's own choice.
    - ``frontends``: images that may be a ``# syntax=``.
    - ``may_pull``: whether base images may be looked up anew (``--pull``): not where they were judged as they are now.
    - ``may_build``: False until all that is written into the image is known; till then clients can only ask.
    """

    image: Reference
    build_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    cgroup_parent: str = ""
    memory: int = 2 << 30
    cpus: float = 1.0
    network_mode: str = "default"
    cache_mount_namespace: str = ""
    frontends: frozenset[str] = frozenset()
    may_pull: bool = True
    may_build: bool = True
    api_version: tuple[int, int] = OLDEST_API
    limits: GuardLimits = field(default_factory=GuardLimits)

    def __post_init__(self) -> None:
        if self.image.tag is None or self.image.digest is not None:
            raise ValueError(f"image: {self.image} has to have a tag and no digest")
        if len(dict(self.labels)) != len(self.labels) or not all(key for key, _ in self.labels):
            raise ValueError("labels: a label is empty or named twice")
        if self.cgroup_parent and not (_CGROUP.fullmatch(self.cgroup_parent) and _climbs_not(self.cgroup_parent)):
            raise ValueError(f"cgroup_parent: {self.cgroup_parent!r} is not a control group")
        if self.memory < _LEAST_MEMORY:
            raise ValueError(f"memory: {self.memory} bytes are less than any engine takes")
        if not math.isfinite(self.cpus) or self.cpus < 0.01:
            raise ValueError(f"cpus: {self.cpus} is less than 0.01")
        if not _NETWORK.fullmatch(self.network_mode) or self.network_mode in ("host", "container"):
            raise ValueError(f"network_mode: {self.network_mode!r} is not default, none or the name of a network")
        if self.cache_mount_namespace and not _NAMESPACE.fullmatch(self.cache_mount_namespace):
            raise ValueError(f"cache_mount_namespace: {self.cache_mount_namespace!r} is not a plain name")
        if not OLDEST_API <= self.api_version <= NEWEST_API:
            raise ValueError(f"api_version: {self.api} is not from 1.41 to 1.45, which the guard knows")

    @property
    def api(self) -> str:
        """The one API version that the guard speaks with the engine, such as ``1.41``."""
        return f"{self.api_version[0]}.{self.api_version[1]}"

    def is_own_image(self, name: str) -> bool:
        """Whether a client's name for an image, however it is spelt, means the build's own."""
        try:
            return parse_reference(name) == self.image
        except ValueError:
            return False

    @property
    def cpu_quota(self) -> int:
        """Microseconds of processor in each ``CPU_PERIOD``."""
        return int(self.cpus * CPU_PERIOD)


CPU_PERIOD = 100_000


def _climbs_not(path: str) -> bool:
    return not {".", ".."} & set(path.split("/"))


def choose_api(engine: tuple[int, int], engine_oldest: tuple[int, int]) -> tuple[int, int]:
    """The newest API version that both the guard and the engine know; raises ``ValueError`` when there is none.

    >>> choose_api((1, 41), (1, 12)), choose_api((1, 52), (1, 44))
    ((1, 41), (1, 45))
    """
    chosen = min(engine, NEWEST_API)
    if chosen < max(engine_oldest, OLDEST_API):
        shown = [".".join(str(number) for number in version) for version in (engine_oldest, engine)]
        raise ValueError(f"the engine speaks API {shown[0]} to {shown[1]}, and the guard 1.41 to 1.45")
    return chosen
