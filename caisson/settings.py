"""Settings: environment (``CAISSON_*``), ``.env``, then ``caisson.toml``; read once, frozen.

Bytes are written as people write them (``2g``, ``512MiB``) and kept as numbers.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from caisson.bindings import HostBinding
from caisson.connection import read_connection
from caisson.disk_limits import Bound, DiskLimits, parse_limits
from caisson.errors import SettingsInvalid
from caisson.queueing import Supersede
from caisson.reference import Repository, parse_reference
from caisson.retention.policy import RetentionPolicy
from caisson.sizes import format_size, parse_size

_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ACCEPTED = re.compile(r"[a-z][a-z0-9-]*(?:@[^@\s]+)?")
_TAKEN_NAMES = frozenset({"shared", "any", "default"})


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _port_or_none(value: Any) -> Any:
    return 0 if value == "" else value


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("must be an absolute path")
    return value


def _credential_hosts(value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    for patterns in value.values():
        for pattern in patterns:
            HostBinding.parse(pattern)
    return value


def _registry(value: str) -> str:
    if value:
        Repository(value.removeprefix("http://"), "team/app")
    return value


def _registries(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        Repository(text, "team/app")
    return value


def _network(value: str) -> str:
    if value.lower() == "host" or value.lower().startswith("container:"):
        raise ValueError(
            f"{value[:80]!r} is another's network, whose loopback the builder must not reach; "
            "name a Docker network, or leave it empty for the engine's bridge"
        )
    return value


def _host_name(value: str) -> str:
    if not _HOST_NAME.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is not 1 to 63 letters, digits, dots, dashes and underscores")
    if value in _TAKEN_NAMES or value.startswith("care-"):
        raise ValueError(f"{value!r} is a name that Caisson gives to its own queues; set CAISSON_HOST_NAME to another")
    return value


def _references(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        parse_reference(text)
    return value


def _frontends(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        reference = parse_reference(text)
        if reference.tag is None and reference.digest is None:
            raise ValueError(f"{text!r} has neither a tag nor a digest, and old versions read files in another way")
    return value


def _accepted(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        if not _ACCEPTED.fullmatch(text):
            raise ValueError(f"{text[:80]!r} is no rule of the audit, nor rule@container-name-pattern")
    return value


def _byte_bound(value: str) -> str:
    Bound.of_bytes(value)
    return value


def _inode_bound(value: str) -> str:
    Bound.of_inodes(value)
    return value


Bytes = Annotated[int, BeforeValidator(_size), Field(ge=0)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
ByteBound = Annotated[str, AfterValidator(_byte_bound)]
InodeBound = Annotated[str, AfterValidator(_inode_bound)]


class Settings(BaseSettings):
    """Every setting of Caisson on one host. ``caisson doctor --settings`` prints this table."""

    model_config = SettingsConfigDict(
        env_prefix="CAISSON_", env_file=".env", toml_file="caisson.toml", frozen=True, extra="ignore"
    )

    # Where things are
    state_dir: AbsolutePath = Field(Path("/var/lib/caisson"), description="Directory for state: database, logs, ledger")
    docker_host: str = Field(
        "unix:///var/run/docker.sock", description="The engine's address; builds need a unix socket"
    )
    engine_socket: str = Field(
        "", description="Path of that socket as the engine's own host sees it, where it is another; empty: the same"
    )
    guard_dir: AbsolutePath = Field(
        Path("/run/caisson"), description="Directory of the guarded sockets; it belongs to Caisson's user alone"
    )
    engine_guard_dir: str = Field(
        "", description="Path of that directory as the engine's own host sees it, where it is another; empty: the same"
    )
    builder_image: str = Field("caisson-builder:latest", description="Image of the throw-away builder")
    host_name: Annotated[str, AfterValidator(_host_name)] = Field(
        default_factory=lambda: os.uname().nodename,
        description="Stable name of this host: its worker, its queues and its deployments",
    )

    # Service
    server_host: str = Field("127.0.0.1", description="Address that the Prefect server listens on")
    server_names: tuple[str, ...] = Field(
        (),
        description="Names by which the server is reached, where a proxy before it has others; those of this host and "
        "addresses always are",
    )
    server_port: int = Field(4200, description="Port of the Prefect server", ge=1, le=65535)
    gateway_host: str = Field("127.0.0.1", description="Address that Caisson's own API listens on")
    gateway_port: Annotated[int, BeforeValidator(_port_or_none)] = Field(
        4280, description="Port of Caisson's own API; 0 or empty: it is off", ge=0, le=65535
    )
    gateway_names: tuple[str, ...] = Field(
        (),
        description="Names besides those of the loopback by which clients reach it there, such as a proxy's: "
        '`["caisson.example.com"]`',
    )
    gateway_rate: float = Field(100, description="Requests a second that one token may send to it, on average", gt=0)
    api_url: str = Field("", description="Prefect API to use; empty: the Caisson that runs on this host, if one does")
    api_auth: str = Field("", description="`user:password` that the API asks for (Prefect's basic auth)", repr=False)
    database_url: str = Field(
        "",
        description="`postgresql+asyncpg://…` for more than a few builds at once; empty: SQLite",
        repr=False,
    )
    concurrency: int = Field(3, description="Builds at once on this host", ge=1, le=256)
    repository_concurrency: int = Field(
        0, description="Builds of one repository at once on this host; 0: no limit of their own", ge=0, le=256
    )
    supersede: Supersede = Field(
        "queued",
        description="Which older builds of a branch a newer push cancels: `queued`, `running` ones too, or `off`",
    )
    build_attempts: int = Field(
        2, description="Tries of a build whose engine or network failed, each with a new builder", ge=1, le=5
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description="How the service logs: `text`, or `json`, an object a line with time, level, logger, message, host "
        "and, where they are known, flow_run_id and build_id",
    )
    fork_server: bool = Field(True, description="Start runs from a warm process (0.7 s instead of 2 s)")
    drain_seconds: float = Field(20, description="How long running builds may go on after SIGTERM", ge=0)
    heartbeat_seconds: int = Field(
        30,
        description="How often this host's worker says that it lives; three misses in a row: it is gone",
        ge=1,
        # Three of them, and the time to notice and settle, are to be less than two minutes.
        le=30,
    )
    cache_wait_seconds: float = Field(
        2,
        description="How long a build that any host may take is left to a host that has its repository's build cache",
        ge=0,
        le=600,
    )
    poll_seconds: float = Field(10, description="Safety poll of the worker; runs are picked up by events", gt=0)
    webhooks_file: str = Field(
        "", description="File of the webhooks that git hosts may call (docs/webhooks.md); empty: none"
    )

    # Limits: the default of a request that names none, and the ceiling that none may exceed
    cpus: float = Field(1.0, description="Default cores for a build", gt=0)
    max_cpus: float = Field(64, description="Most cores that a request may ask for", gt=0)
    memory: Bytes = Field(2 << 30, description="Default memory for a build, swap and tmpfs workspace included")
    max_memory: Bytes = Field(64 << 30, description="Most memory that a request may ask for")
    pids: int = Field(1024, description="Default processes and threads for a build", ge=16)
    max_pids: int = Field(32768, description="Most processes that a request may ask for", ge=16)
    workspace_size: Bytes = Field(1 << 30, description="Default size of the workspace /app")
    max_workspace_size: Bytes = Field(32 << 30, description="Largest workspace that a request may ask for")
    timeout_minutes: float = Field(30, description="Default time for a build", gt=0)
    max_timeout_minutes: float = Field(240, description="Longest time that a request may ask for", gt=0)
    log_bytes: Bytes = Field(
        64 << 20,
        description="How much of what its steps print a build's log keeps; a line counts for 64 bytes at least, and "
        "the last lines of each step are always kept",
    )
    deadline_grace_seconds: float = Field(
        60, description="How long after the timeout the builder destroys itself, whatever else is dead", ge=1
    )
    workspace: Literal["tmpfs", "layer"] = Field(
        "tmpfs",
        description="tmpfs: in memory, size-limited; layer: the container's own layer, for huge repositories",
    )
    hold_steps: bool = Field(
        True,
        description="Hold RUN steps to the build's limits; false: for hosts where BuildKit can't cache held steps",
    )
    require_limits: bool = Field(
        False, description="Refuse a build whose RUN steps the kernel does not show to be held to the limits"
    )

    # Security
    socket: Literal["guard", "raw"] = Field(
        "guard",
        description="guard: a builder's socket can build that build's image and nothing else; "
        "raw: it has the engine's own, which is root on this host",
    )
    builder_uid: int = Field(
        10001,
        description="User that the builder's steps run as, never 0; the next one keeps the deadline",
        ge=1,
        le=2**31 - 2,
    )
    allow_protocols: tuple[str, ...] = Field(
        ("https", "http", "ssh", "git"), description="Git protocols that a request may use"
    )
    apparmor_profile: str = Field("", description="AppArmor profile of the builder; empty: the engine's default")
    selinux_label: str = Field("", description="SELinux label of the builder, such as `type:container_t`")
    seccomp_profile: str = Field("", description="Path of a seccomp profile; empty: the engine's default")
    ssh_known_hosts: str = Field(
        "", description="Path of a known_hosts file for ssh; empty: a host's key is taken at first sight"
    )
    builder_network: Annotated[str, AfterValidator(_network)] = Field(
        "", description="Docker network of the builder; empty: the engine's bridge"
    )
    allow_loopback: bool = Field(
        False, description="Allow repositories on loopback, which is the builder's own, never this host's"
    )
    credential_hosts: Annotated[dict[str, tuple[str, ...]], AfterValidator(_credential_hosts)] = Field(
        {},
        description='Where each git credential may be sent: `{"NAME": ["git.example.com"]}`, each '
        "`[scheme://]host[:port]`; without a scheme https and ssh. One that is not here is sent nowhere",
    )

    images: tuple[str, ...] = Field(
        (),
        description='Image repositories that requests may name, such as `["team/*", "registry.example.com/*"]`; '
        "`*` is any part of a name; empty: any, also one that is on this host already",
    )

    # What Dockerfiles may ask for
    dockerfile_base_images: Annotated[tuple[str, ...], AfterValidator(_references)] = Field(
        (),
        description="The only images that builds may begin with or copy from, as repositories or with tag or digest; "
        "empty: any that no other rule denies",
    )
    dockerfile_shared_repositories: Annotated[tuple[str, ...], AfterValidator(_references)] = Field(
        (), description="Image repositories built here that every build may begin with or copy from"
    )
    dockerfile_frontends: Annotated[tuple[str, ...], AfterValidator(_frontends)] = Field(
        (),
        description="Images that `# syntax=` may name, each with its tag or digest; on a guarded socket the engine's "
        "own reader reads the file all the same",
    )
    dockerfile_allowed_hosts: tuple[str, ...] = Field(
        (), description="Hosts, `.domains`, addresses and networks that ADD may fetch from, even private ones"
    )
    dockerfile_registries: Annotated[tuple[str, ...], AfterValidator(_registries)] = Field(
        (),
        description="Registries inside the network that images may be read from, each `host[:port]`, besides "
        "CAISSON_REGISTRY",
    )
    dockerfile_unjudged_hosts: bool = Field(
        False,
        description="Allow FROM and ADD from names that have no address on this host, such as behind a proxy",
    )
    dockerfile_unresolved: bool = Field(
        False, description="Allow FROM and ADD of what only the base image's own variables can tell"
    )

    # Disk
    docker_data_root: str = Field(
        "", description="Docker's data root as this host sees it, where the engine names another path; empty: ask it"
    )
    containerd_root: str = Field(
        "", description="containerd's root as this host sees it, where its store is used; empty: its usual places"
    )
    disk_high: ByteBound = Field(
        "85%", description="From here Docker's disk is under pressure: percent in use, or such as `20g free`"
    )
    disk_low: ByteBound = Field("75%", description="Below this the pressure is over; in the same form")
    disk_critical: ByteBound = Field("95%", description="From here no build starts; in the same form")
    disk_inodes_high: InodeBound = Field(
        "85%", description="Likewise for inodes: percent in use, or such as `500000 free`"
    )
    disk_inodes_low: InodeBound = Field("75%", description="Likewise for inodes")
    disk_inodes_critical: InodeBound = Field("95%", description="Likewise for inodes")
    retention: RetentionPolicy = Field(
        RetentionPolicy(),
        description="What a prune keeps and removes: JSON, or a table `[retention]` in caisson.toml",
    )
    monitor_seconds: int = Field(
        60,
        description="How often Docker's disk is looked at; 0: never. It acts when it is changed: a schedule that was "
        "edited in Prefect stays",
        ge=0,
        le=86_400,
    )
    prune_seconds: int = Field(
        21_600,
        description="How often images are pruned, 6 hours by default; 0: never on a schedule. It acts when it is "
        "changed: a schedule that was edited in Prefect stays. No success for twice as long is told as an alert",
        ge=0,
        le=2_592_000,
    )
    prune_on_pressure: bool = Field(
        True, description="Prune at once when Docker's disk is under pressure, and again while it stays so"
    )
    audit_seconds: int = Field(
        86_400,
        description="How often this host is audited, once a day by default; 0: never on a schedule. It acts when it is "
        "changed: a schedule that was edited in Prefect stays",
        ge=0,
        le=2_592_000,
    )
    audit_accept: Annotated[tuple[str, ...], AfterValidator(_accepted)] = Field(
        (),
        description='Findings of the audit that are accepted, as `["icc", "memory@web-*"]`: a rule, or a rule and a '
        "pattern of container names. They are shown as accepted, never hidden",
    )
    engine_config: AbsolutePath = Field(
        Path("/etc/docker/daemon.json"),
        description="The engine's daemon.json as this host sees it, for what its API does not tell",
    )
    metrics_dir: str = Field(
        "", description="Directory for node_exporter's text files; empty: `metrics` in the state directory"
    )
    otlp_endpoint: str = Field(
        "",
        description="OpenTelemetry collector that builds' traces go to, as `http://collector:4318`; empty: none. It "
        "needs caisson[traces]",
    )
    min_free_bytes: Bytes = Field(1 << 30, description="Free bytes that a build needs before it may start")
    min_free_inodes: int = Field(50_000, description="Free inodes that a build needs before it may start", ge=0)

    # Registry
    registry: Annotated[str, AfterValidator(_registry)] = Field(
        "",
        description="The one registry that gets user and password: `host[:port]`, or `http://host[:port]` without TLS",
    )
    registry_username: str = Field("", description="User for push to that registry")
    registry_password: str = Field("", description="Password for push to that registry", repr=False)
    push_attempts: int = Field(3, description="Tries of a push on network faults and 5xx", ge=1, le=10)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def keeper_uid(self) -> int:
        """User of the builder's main process, which ends at the deadline: another than the steps'."""
        return self.builder_uid + 1

    @property
    def step_user(self) -> str:
        """User and group of every program that is run in the builder, as ``uid:gid``."""
        return f"{self.builder_uid}:{self.builder_uid}"

    @property
    def disk_limits(self) -> DiskLimits:
        """The disk's bounds as values; raises ``ValueError`` where they are not in order."""
        return parse_limits(
            low=self.disk_low,
            high=self.disk_high,
            critical=self.disk_critical,
            inodes_low=self.disk_inodes_low,
            inodes_high=self.disk_inodes_high,
            inodes_critical=self.disk_inodes_critical,
        )

    @property
    def docker_socket(self) -> str:
        """Path of the engine's unix socket on this host; raises ``SettingsInvalid`` for any other address."""
        scheme, separator, path = self.docker_host.partition("://")
        if not separator or scheme != "unix" or not path.startswith("/"):
            raise SettingsInvalid(
                f"docker_host: {self.docker_host!r} is not a unix socket.",
                hint="Set CAISSON_DOCKER_HOST to unix:///path/of/docker.sock.",
            )
        return path


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; raises ``SettingsInvalid`` that names each wrong setting by its variable."""
    try:
        settings = Settings(**overrides)
    except (SettingsError, tomllib.TOMLDecodeError) as error:
        raise SettingsInvalid(
            f"The settings can't be read: {error}.",
            hint="Lists and tables are JSON in variables, such as '[\"https\"]'.",
        ) from None
    except ValidationError as error:
        problems = "; ".join(f"{_variable_of(item['loc'])}: {item['msg']}" for item in error.errors())
        raise SettingsInvalid(f"The settings are invalid: {problems}.") from None
    _check_ceilings(settings)
    _check_disk_limits(settings)
    return _with_connection(settings)


def _with_connection(settings: Settings) -> Settings:
    """With the API that this host has joined, unless the settings name another; its password goes nowhere else."""
    connection = read_connection(settings.state_dir)
    if connection is None or settings.api_url.rstrip("/") not in ("", connection.api_url):
        return settings
    return settings.model_copy(update={"api_url": connection.api_url, "api_auth": connection.token})


def _variable_of(where: tuple[int | str, ...]) -> str:
    """
    >>> _variable_of(("retention", "otherwise", "keep_last"))
    'CAISSON_RETENTION, otherwise.keep_last'
    """
    name, *parts = (str(part) for part in where or ("?",))
    return ", ".join(filter(None, (f"CAISSON_{name.upper()}", ".".join(parts))))


def _check_disk_limits(settings: Settings) -> None:
    try:
        settings.disk_limits  # noqa: B018
    except ValueError as error:
        resource, _, what = str(error).partition(": ")
        prefix = "CAISSON_DISK" if resource == "disk" else "CAISSON_DISK_INODES"
        raise SettingsInvalid(f"{prefix}_LOW, {prefix}_HIGH, {prefix}_CRITICAL: {what}.") from None


def _check_ceilings(settings: Settings) -> None:
    """A default above its own ceiling would refuse every request that names no limit."""
    for name, shown in _CEILINGS.items():
        default, most = getattr(settings, name), getattr(settings, f"max_{name}")
        if default > most:
            variable = f"CAISSON_{name.upper()}"
            raise SettingsInvalid(
                f"{variable}: the default of {shown(default)} is above its own ceiling of {shown(most)}.",
                hint=f"Lower it, or raise CAISSON_MAX_{name.upper()}.",
            )


_CEILINGS: Mapping[str, Callable[[float], str]] = {
    "cpus": "{:g}".format,
    "memory": lambda size: format_size(int(size)),
    "pids": "{:g}".format,
    "workspace_size": lambda size: format_size(int(size)),
    "timeout_minutes": "{:g}".format,
}
