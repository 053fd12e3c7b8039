"""The engine as Caisson sees it: a protocol in domain types, with no word of any client library.

``docker_engine.DockerEngine`` is the real one. Every method raises ``EngineUnreachable`` when the engine does not
answer, and ``EngineRefused`` for an answer that has no kind of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NewType, Protocol

if TYPE_CHECKING:
    from caisson.engine_disk import EngineDisk

ContainerID = NewType("ContainerID", str)
ImageID = NewType("ImageID", str)
"""``sha256:…``: the config's digest on overlay2, the manifest's on the containerd store."""


def short_id(identifier: str) -> str:
    """The first twelve characters of an image ID or a digest, as Docker shows them.

    >>> short_id("sha256:0123456789abcdef")
    '0123456789ab'
    """
    return identifier.removeprefix("sha256:")[:12]


Stream = Literal["stdout", "stderr"]
DiskPart = Literal["image", "container", "volume", "build-cache"]
OnOutput = Callable[[Stream, bytes], None]


@dataclass(frozen=True)
class EngineInfo:
    """What the engine says of itself (``GET /info`` and ``GET /version``)."""

    version: str
    api_version: str
    storage_driver: str
    cgroup_driver: str
    cgroup_version: int
    data_root: str
    security_options: tuple[str, ...]
    cpus: int
    memory: int
    containerd_store: bool
    live_restore: bool = False
    swap_limit: bool = True
    platform: str = ""
    """What it builds for, such as ``linux/amd64``; empty where it does not tell."""
    insecure_registries: tuple[str, ...] = ()
    """Names (``host[:port]``) and networks of registries that the engine reaches without TLS if it has to."""
    id: str = ""
    """What tells it from other engines, also after a restart; empty where it does not tell."""

    @property
    def api(self) -> tuple[int, int]:
        """The API version as numbers, to be compared: ``(1, 41)``."""
        major, _, minor = self.api_version.partition(".")
        return int(major), int(minor or 0)


@dataclass(frozen=True)
class ImageInfo:
    """One image (``GET /images/{name}/json``); ``size`` in bytes, layers shared with others included.

    ``layers`` are diff IDs, the base's first. ``parent`` is the image that the classic builder made it from.
    ``last_tag_time`` is None where the engine has none (its zero, ``0001-01-01``). ``triggers`` are what its Dockerfile
    had after ONBUILD. A listing has no layers, no such time and no triggers.
    """

    id: ImageID
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    labels: Mapping[str, str]
    size: int
    layers: tuple[str, ...]
    created: str
    user: str = ""
    parent: ImageID | None = None
    last_tag_time: datetime | None = None
    triggers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One entry of an image's history: bytes, and when it was made (seconds since 1970)."""

    size: int
    created: float


@dataclass(frozen=True)
class ContainerInfo:
    """One container; ``raw`` is the engine's own ``inspect`` answer, for checks of what really came about.

    ``image`` is the ID of its image, ``image_name`` what it was asked for by. ``finished`` is when it last ended, None
    where it never did; a listing does not tell it. ``volumes`` are the names of those that it has, anonymous ones too.
    """

    id: ContainerID
    name: str
    state: str
    labels: Mapping[str, str]
    pid: int = 0
    raw: Mapping[str, Any] = field(default_factory=dict)
    image: ImageID = ImageID("")
    image_name: str = ""
    finished: datetime | None = None
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineEvent:
    """One of the engine's events: what happened (``action``) to what (``subject``, an ID or a name), in nanoseconds."""

    time_ns: int
    type: str
    action: str
    subject: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RegistryAuth:
    """Credentials for one push; never shown, logged or stored."""

    username: str
    password: str = field(repr=False)
    registry: str = ""


@dataclass(frozen=True)
class PushProgress:
    """One line of a push: ``current`` and ``total`` in bytes, 0 where the engine does not tell."""

    layer: str
    status: str
    current: int = 0
    total: int = 0


@dataclass(frozen=True)
class EngineDescription:
    """The engine's own answers, for checks of how it is set up: ``GET /info``, ``/version``, ``/networks/bridge`` and
    ``/volumes``.

    ``bridge`` is the default bridge, None where there is none or the engine did not tell. ``volumes`` are the driver's
    options by the volume's name, None where it did not tell; they may hold a share's password.
    """

    info: Mapping[str, Any]
    version: Mapping[str, Any]
    bridge: Mapping[str, Any] | None = None
    volumes: Mapping[str, Mapping[str, str]] | None = field(default=None, repr=False)


class Engine(Protocol):
    """A container engine. All calls block; one object serves one thread at a time, except ``remove_container``."""

    def info(self) -> EngineInfo: ...

    def describe(self) -> EngineDescription:
        """What it says of its own set-up, unread."""
        ...

    def create_container(self, name: str, body: Mapping[str, Any]) -> ContainerID:
        """Create from a Docker API body (``POST /containers/create``), with nothing added to it.

        Raises ``BuilderImageMissing`` when the body's image is not on the host.
        """
        ...

    def start_container(self, container: ContainerID) -> None: ...

    def inspect_container(self, container: ContainerID | str) -> ContainerInfo | None:
        """The container, or None when there is none of that ID or name."""
        ...

    def list_containers(self, labels: Mapping[str, str | None]) -> list[ContainerInfo]:
        """Containers in any state that have all the labels; a value of None matches any value."""
        ...

    def exec(
        self,
        container: ContainerID,
        argv: Sequence[str],
        *,
        user: str,
        on_output: OnOutput,
        env: Mapping[str, str] | None = None,
        workdir: str = "",
    ) -> int:
        """Run a program in the container as ``user`` (``uid:gid``), no shell between; returns its exit code.

        ``on_output`` gets raw chunks in order. ``env`` may hold secrets: the engine's inspect does not show an
        exec's environment. Raises ``EngineLost`` when the engine or the container goes away meanwhile, and
        ``EngineFault`` when it can't start the program, also not when it is asked again, or does not tell how it ended.
        """
        ...

    def remove_container(self, container: ContainerID, *, timeout: float = 30) -> bool:
        """Kill and remove with its anonymous volumes, wait until it is gone; False when it was gone before.

        Raises ``EngineRefused`` when it is still there after ``timeout`` seconds.
        """
        ...

    def inspect_image(self, image: str) -> ImageInfo | None: ...

    def list_images(
        self, labels: Mapping[str, str] | None = None, *, repository: str = "", intermediate: bool = False
    ) -> list[ImageInfo]:
        """Images that have all the labels and, where a repository is named, a tag of it; each with all its tags.

        With ``intermediate`` also those that the classic builder left below others. ``created`` is in seconds since
        1970 here.
        """
        ...

    def events(self, *, since_ns: int = 0) -> list[EngineEvent]:
        """The events that the engine still has, oldest first: the last 256 at most, none from before its start.

        With ``since_ns`` those of that nanosecond and later, by the engine's clock; none for one that is to come.
        """
        ...

    def history(self, image: str) -> list[Layer]:
        """Each step of the image, oldest first; those of 0 bytes have no layer."""
        ...

    def disk_usage(self, *, timeout: float, parts: Collection[DiskPart] = ()) -> EngineDisk:
        """What fills the disk (``GET /system/df``): slow with many files in volumes, so bounded by a time-out.

        With ``parts`` no more than those, from API 1.42 on; an older engine tells all all the same.
        Never ask twice at once. Raises ``EngineUnreachable`` after ``timeout`` seconds; the engine goes on with it.
        """
        ...

    def tag_image(self, image: ImageID, reference: str) -> None:
        """Point ``repository:tag`` at the image, by its ID."""
        ...

    def untag_image(self, reference: str) -> bool:
        """Remove one tag, never by force; False when there was none. The image goes if it was its last."""
        ...

    def remove_image(self, image: ImageID | str, *, timeout: float) -> bool:
        """Remove an image by its ID, or one of its names; never by force, and never its untagged parents with it.

        False when there was none. Raises ``RemovalRefused`` where that takes force, and ``EngineUnreachable`` after
        ``timeout`` seconds; the engine goes on with it then.
        """
        ...

    def remove_ended_container(self, container: ContainerID) -> bool:
        """Remove a container that does not run, never by force, and leave its volumes; False when it was gone before.

        Raises ``RemovalRefused`` when it runs.
        """
        ...

    def remove_volume(self, name: str) -> bool:
        """Remove a volume, never by force; False when there was none.

        Raises ``RemovalRefused`` when a container has it.
        """
        ...

    def prune_build_cache(
        self, *, keep_bytes: int, timeout: float, reserved_bytes: int = 0, min_free_bytes: int = 0
    ) -> int:
        """Have BuildKit bring its cache down to ``keep_bytes`` by its own order; returns bytes that it says are freed.

        Where the engine has words for it (``cache_bounds``), further while less than ``min_free_bytes`` is free on its
        disk, but never below ``reserved_bytes``.
        Never what is in use, and never ``all``: what images hold too stays.
        """
        ...

    def push_image(
        self, reference: str, auth: RegistryAuth | None, *, silence: float = ...
    ) -> Generator[PushProgress, None, str]:
        """Push one tag. The generator's return value is the digest that the registry recorded.

        Raises ``PushDenied`` (401, 403), ``RegistryUnreachable`` (network, 5xx, nothing heard for ``silence`` seconds)
        or ``EngineLost``.
        """
        ...

    def pull_image(self, reference: str, *, silence: float = ...) -> Generator[str, None, None]:
        """Pull one image, for the engine's own platform and without credentials; gives lines for people, or empty ones.

        Raises ``BuildFailed`` where it can't be had, ``BaseImageUnreachable`` (network, 5xx, nothing heard for
        ``silence`` seconds) or ``EngineLost``.
        """
        ...

    def close(self) -> None: ...
