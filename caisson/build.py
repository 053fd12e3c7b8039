"""One build in progress: what its steps share, and what becomes its report."""

from __future__ import annotations

import hashlib
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from caisson.bindings import registry_auth, registry_host
from caisson.build_disk import BuildDisk
from caisson.builder import BuildTimeout, timed_out
from caisson.buildlog import BuildLog
from caisson.cgroup_watch import CgroupEvidence
from caisson.clone import Source
from caisson.engine import ContainerID, Engine, EngineInfo, RegistryAuth
from caisson.errors import CaissonError, EngineRefused, RequestInvalid, SettingsInvalid
from caisson.git import Chosen
from caisson.git_credentials import GitCredentials, git_environment
from caisson.guard.server import Guard
from caisson.leases import Lease
from caisson.ledger import Ledger
from caisson.plan import (
    LABEL_IMAGE_BUILD,
    LABEL_IMAGE_FLOW_RUN,
    LABEL_IMAGE_HOST,
    LABEL_SPEC,
    BuildIdentity,
    ChosenBuilder,
    Socket,
)
from caisson.progress import BuildProgress
from caisson.report import (
    BuildReport,
    DockerfileStepReport,
    GuardReport,
    LimitsReport,
    Outcome,
    PostureReport,
    StepReport,
    TagReport,
    describe_failure,
    outcome_of_failure,
)
from caisson.request import BuildRequest
from caisson.settings import Settings
from caisson.spec import BuildSpec, fit_cpus
from caisson.tagging import Commit, PlannedTag, oci_labels, plan_tags


@dataclass
class BuildRecord:
    """What is known of a build until now; each step fills in its part."""

    sha: str = ""
    spec_hash: str = ""
    chosen: ChosenBuilder | None = None
    engine: EngineInfo | None = None
    image_id: str = ""
    size: int = 0
    bases_here: bool = False
    new_bytes: int = 0
    new_bytes_exact: bool = True
    reused: bool = False
    tags: list[TagReport] = field(default_factory=list)
    steps: list[StepReport] = field(default_factory=list)
    progress: BuildProgress = field(default_factory=BuildProgress)
    limits: LimitsReport | None = None
    posture: list[PostureReport] = field(default_factory=list)
    guard: GuardReport | None = None
    builder_removed: bool | None = None
    notes: list[str] = field(default_factory=list)
    evidence: CgroupEvidence = field(default_factory=CgroupEvidence)


class Build:
    """A validated request on its way, with all that its steps need. A context manager: closes log and ledger.

    Not a dataclass on purpose: Prefect looks into dataclasses that are passed to tasks, and this holds secrets.
    """

    def __init__(
        self,
        request: BuildRequest,
        spec: BuildSpec,
        settings: Settings,
        engine: Engine,
        *,
        secrets: Mapping[str, str],
        flow_run_id: str = "",
        asked: datetime | None = None,
        now: datetime | None = None,
    ) -> None:
        self.spec, self.settings, self.engine, self.secrets = spec, settings, engine, secrets
        self._asked_cpus = request.limits.cpus
        self.started = now or datetime.now(UTC)
        # What a ref alone means is as new as the look at it.
        self.asked = asked if asked is not None and request.commit else self.started
        self.clock = time.monotonic()
        seconds = spec.limits.timeout_seconds + settings.deadline_grace_seconds
        build_id = uuid.uuid4().hex[:12]
        self.identity = BuildIdentity(
            build_id=build_id,
            flow_run_id=flow_run_id,
            request_hash=hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:16],
            host=settings.host_name,
            deadline=self.started + timedelta(seconds=seconds),
        )
        credentials = GitCredentials.parse(secrets[spec.git_credentials]) if spec.git_credentials else None
        self.source = Source(
            url=spec.repository_url,
            env=git_environment(
                spec.repository_url,
                credentials,
                protocols=settings.allow_protocols,
                known_hosts=read_file_setting(settings.ssh_known_hosts, "ssh_known_hosts"),
                lfs=spec.lfs,
            ),
            submodules=spec.submodules,
            lfs=spec.lfs,
            has_credentials=credentials is not None,
        )
        self.record = BuildRecord()
        self.log = BuildLog(
            log_file(settings, flow_run_id or build_id),
            [*secrets.values(), *(credentials.secrets() if credentials else ()), settings.registry_password],
            most_bytes=settings.log_bytes,
        )
        self.ledger = Ledger(settings.state_dir / "ledger.sqlite")
        self.container: ContainerID | None = None
        self.timeout: BuildTimeout | None = None
        self.disk: BuildDisk | None = None
        self.guard: Guard | None = None
        self.lease: Lease | None = None
        self.registry_auth: RegistryAuth | None = None
        self.tags: tuple[PlannedTag, ...] = ()
        self.image_labels: dict[str, str] = {}
        self.follows = ""

    def __enter__(self) -> Build:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.log.__exit__(None, None, None)
        self.ledger.__exit__()

    def hold(self, *names: str) -> None:
        """Add references and image IDs to the build's lease; waits for one removal of a prune at most.

        Raises ``BuildTimedOut`` where that lasts longer than the build may.
        """
        assert self.lease is not None
        self.lease.add(*names)

    def seconds_left(self) -> float:
        """What is left of the build's timeout, which counts from its beginning to the end of its push."""
        return self.spec.limits.timeout_seconds - (time.monotonic() - self.clock)

    def require_time(self) -> None:
        """Raises ``BuildTimedOut`` when nothing is left of the timeout."""
        if self.seconds_left() <= 0:
            raise timed_out(self.spec.limits.timeout_seconds)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step of the chain and record how it ended; failures leave it without a secret in them."""
        begin = time.monotonic()
        try:
            yield
        except CaissonError as error:
            meant = self.timeout.explain(error) if self.timeout else error
            clean = self.scrub(self.disk.explain(meant) if self.disk else meant)
            self._finished(name, begin, "failed", clean.message)
            raise clean from None
        except Exception as error:
            # Any other exception is a defect; its text still must not carry a secret into Prefect's state.
            clean_text = self.log.redact(f"{type(error).__name__}: {error}")
            self._finished(name, begin, "failed", clean_text)
            raise CaissonError(f"Caisson failed in step {name}: {clean_text}.", hint="Please report this.") from None
        except BaseException:
            self._finished(name, begin, "failed", "interrupted")
            raise
        self._finished(name, begin, "completed", "")

    def _finished(self, name: str, begin: float, state: str, reason: str) -> None:
        start, seconds = round(begin - self.clock, 3), round(time.monotonic() - begin, 3)
        self.record.steps.append(
            StepReport.model_validate(
                {"name": name, "state": state, "start": start, "seconds": seconds, "reason": reason}
            )
        )

    def fit_limits(self) -> None:
        """No more cores than the engine has; raises ``RequestInvalid`` where the request itself named more."""
        assert self.record.engine is not None
        self.spec, note = fit_cpus(self.spec, asked=self._asked_cpus, engine_cpus=self.record.engine.cpus)
        if note:
            self.record.notes.append(note)

    def check_image_name(self) -> None:
        """Whether the engine takes the image's name at all; raises ``RequestInvalid`` before anything is built.

        Engine 20.10 knows no registries by IPv6 address, 26.1 does; from which version on is for the engine to say.
        """
        image = self.spec.image
        if not image.registry.startswith("["):
            return
        try:
            self.engine.inspect_image(f"{image}:latest")
        except EngineRefused:
            version = self.record.engine.version if self.record.engine else "here"
            raise RequestInvalid.from_fields(
                [("image", f"engine {version} takes no IPv6 address as a registry ({image.registry}); give its name")]
            ) from None

    def decide_registry_auth(self) -> None:
        """Whether the push gets the host's credential; raises ``SettingsInvalid`` before anything is built."""
        settings, registry = self.settings, self.spec.image.registry
        assert self.record.engine is not None
        self.registry_auth = registry_auth(
            registry,
            bound_to=settings.registry,
            username=settings.registry_username,
            password=settings.registry_password,
            engine=self.record.engine,
            addresses=_addresses(registry_host(registry)) if settings.registry_username else (),
        )

    def decide_labels(self, chosen: Chosen) -> None:
        """Which tags and labels the commit gets, and with them the spec's hash."""
        self.record.sha = chosen.sha
        commit = Commit(
            sha=chosen.sha,
            ref_kind=chosen.kind,
            ref_name=chosen.name,
            is_default_branch=chosen.is_default_branch,
            remote_tags=chosen.remote_tags,
        )
        self.tags = plan_tags(commit, self.spec.tags)
        self.follows = f"{self.spec.repository_url.canonical()} {chosen.kind} {chosen.name}"
        labels = oci_labels(
            commit, source=self.spec.repository_url.display(), tags=self.tags, labels=dict(self.spec.labels)
        )
        assert self.record.chosen is not None
        self.record.spec_hash = self.spec.hash(chosen.sha, self.record.chosen.builder, labels)
        # Of this one build: they decide neither on a reuse nor on the cache, for both builders label last.
        of_build = {
            "org.opencontainers.image.created": self.started.isoformat(timespec="seconds"),
            LABEL_IMAGE_BUILD: self.identity.build_id,
            LABEL_IMAGE_FLOW_RUN: self.identity.flow_run_id,
            LABEL_IMAGE_HOST: self.identity.host,
        }
        known = {key: value for key, value in of_build.items() if value}
        self.image_labels = {**known, LABEL_SPEC: self.record.spec_hash, **labels}

    def scrub(self, error: CaissonError) -> CaissonError:
        """The same failure without a secret in its sentence, hint or details."""
        return type(error)(
            self.log.redact(error.message), hint=self.log.redact(error.hint), details=_scrub(error.details, self.log)
        )

    def report(self, failure: BaseException | None = None) -> BuildReport:
        """The report as of now; ``failure`` is what ended the build, None after success."""
        record = self.record
        outcome: Outcome = "reused" if record.reused else "built"
        if failure is not None:
            outcome = outcome_of_failure(failure)
        return BuildReport(
            outcome=outcome,
            build_id=self.identity.build_id,
            flow_run_id=self.identity.flow_run_id,
            host=self.settings.host_name,
            engine=record.engine.version if record.engine else "",
            repository_url=self.spec.repository_url.display(),
            ref=self.spec.ref,
            sha=record.sha,
            spec_hash=record.spec_hash,
            builder=record.chosen.builder.value if record.chosen else "",
            builder_reason=record.chosen.reason if record.chosen else "",
            image_id=record.image_id,
            image=str(self.spec.image),
            tags=record.tags,
            size=record.size,
            new_bytes=record.new_bytes,
            new_bytes_exact=record.new_bytes_exact,
            started=self.started,
            seconds=round(time.monotonic() - self.clock, 3),
            steps=record.steps,
            dockerfile_steps=[
                DockerfileStepReport(
                    name=self.log.redact(step.name),
                    # One that another build has begun and this one shares can be older than this one.
                    start=None if step.began is None else max(0.0, round(step.began - self.started.timestamp(), 3)),
                    seconds=round(step.seconds, 3),
                    cached=step.cached,
                    error=self.log.redact(step.error),
                )
                for step in record.progress.steps
                if step.started or step.cached
            ],
            limits=record.limits,
            posture=record.posture,
            guard=record.guard,
            builder_removed=record.builder_removed,
            notes=[*record.notes, *_log_notes(self.log)],
            log_tail=self.log.tail(),
            log_file=str(self.log.path),
            failure=describe_failure(failure) if failure is not None else None,
        )


def _log_notes(log: BuildLog) -> list[str]:
    if not log.left_out:
        return []
    return [
        f"The log is not whole: {log.left_out:,} lines came after as many bytes as it may have (CAISSON_LOG_BYTES)."
    ]


def _scrub(value: object, log: BuildLog) -> dict[str, object]:
    def walk(item: object) -> object:
        if isinstance(item, str):
            return log.redact(item)
        if isinstance(item, dict):
            return {key: walk(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [walk(inner) for inner in item]
        return item

    cleaned = walk(value)
    assert isinstance(cleaned, dict)
    return cleaned


def _addresses(host: str) -> list[str]:
    try:
        return [str(address[4][0]).partition("%")[0] for address in socket.getaddrinfo(host, None)]
    except OSError:
        # The engine will tell, should it have no address either.
        return []


def log_file(settings: Settings, run: str) -> Path:
    """Where the whole log of a flow run (or of a build without one) is kept on this host."""
    return settings.state_dir / "builds" / f"{run}.log"


def report_file(settings: Settings, run: str) -> Path:
    """Where the report of a flow run (or of a build without one) is kept on this host, as JSON."""
    return settings.state_dir / "builds" / f"{run}.json"


def audit_file(settings: Settings, run: str) -> Path:
    """Where the guard's decisions of a flow run (or of a build without one) are kept on this host, a line each."""
    return settings.state_dir / "builds" / f"{run}.guard.jsonl"


def read_socket(settings: Settings) -> Socket:
    """The engine's socket as the builder gets it; raises ``SettingsInvalid`` when there is none."""
    path = settings.docker_socket
    try:
        gid = os.stat(path).st_gid  # noqa: PTH116
    except OSError as error:
        raise SettingsInvalid(
            f"docker_host: the socket {path} can't be read ({error.strerror}).",
            hint="Start Docker, or set CAISSON_DOCKER_HOST.",
        ) from None
    return Socket(path=settings.engine_socket or path, gid=gid, on_this_host=path)


def read_file_setting(path: str, setting: str) -> str:
    """The text of a file that a setting names, empty without one; raises ``SettingsInvalid`` when it can't be read."""
    if not path:
        return ""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsInvalid(
            f"{setting}: {path} can't be read ({reason}).", hint=f"Correct CAISSON_{setting.upper()}, or unset it."
        ) from None
