"""``caisson guard``: a guarded socket for one image, by hand, for as long as the command runs."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caisson.errors import RequestInvalid, SettingsInvalid

if TYPE_CHECKING:
    from caisson.engine import ContainerInfo
    from caisson.guard.policy import GuardPolicy
    from caisson.guard_plan import ImageOwners
    from caisson.reference import Repository
    from caisson.settings import Settings

EXAMPLES = """
caisson guard --socket /run/user/1000/guard.sock --image team/app:1
DOCKER_HOST=unix:///run/user/1000/guard.sock docker build --provenance=false -t team/app:1 .
caisson guard --socket /run/ci/7.sock --image team/app:7 --label ci.job=7 --build-id job7 --for 30m --memory 4g
caisson guard --socket /tmp/look.sock --image team/app:1 --audit-only --audit /tmp/look.jsonl
"""


def guard(
    socket: Annotated[Path, typer.Option("--socket", metavar="PATH", help="Where to make the socket.")],
    image: Annotated[str, typer.Option("--image", metavar="REF", help="The one image that can be built, with a tag.")],
    group: Annotated[
        int | None,
        typer.Option("--group", metavar="GID", min=0, help="Group that may connect.  [default: only this user]"),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="URL", help="The engine: unix:///PATH.  [default: CAISSON_DOCKER_HOST]")
    ] = "",
    container: Annotated[
        str, typer.Option("--container", metavar="ID", help="Serve that container only.  [default: who may connect]")
    ] = "",
    memory: Annotated[str, typer.Option("--memory", "-m", metavar="SIZE", help="Of RUN steps, such as 2g.")] = "2g",
    cpus: Annotated[float, typer.Option("--cpus", metavar="N", help="Cores of RUN steps.")] = 1.0,
    network: Annotated[str, typer.Option("--network", metavar="NAME", help="default or none.")] = "default",
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label the image so; may be repeated.")
    ] = None,
    build_id: Annotated[
        str, typer.Option("--build-id", metavar="ID", help="What the audit calls the build.  [default: a new one]")
    ] = "",
    duration: Annotated[
        str, typer.Option("--for", metavar="TIME", help="End after that, such as 30m.  [default: never]")
    ] = "",
    audit: Annotated[
        Path | None, typer.Option("--audit", metavar="FILE", help="Append each decision as a line of JSON.")
    ] = None,
    audit_only: Annotated[
        bool,
        typer.Option(
            "--audit-only", help="Pass every byte as it came; say what would be denied. The socket is then unguarded."
        ),
    ] = False,
) -> None:
    """Guard the Docker socket: it builds one image, no more.

    Whoever connects can do that, and nothing else. It runs until Ctrl-C, and the socket is gone with it. Denials
    are printed as they happen. On the classic builder each RUN step has the limits, on BuildKit all of them together:
    by a control group of the guard's or, with --container and version 1 of control groups, by that container's.
    """
    from caisson.build_group import group_key
    from caisson.durations import parse_duration
    from caisson.guard.audit import Audit, Entry
    from caisson.guard.dockerfile_check import dockerfile_check, steps_check
    from caisson.guard.dockerfile_names import Names
    from caisson.guard.engine_facts import ask_engine
    from caisson.guard.peer import is_container_id
    from caisson.guard.policy import GuardPolicy
    from caisson.guard.server import Guard
    from caisson.guard_plan import dockerfile_policy
    from caisson.host_addresses import read_host_addresses
    from caisson.reference import parse_reference
    from caisson.settings import load_settings
    from caisson.sizes import parse_size
    from caisson.untrusted import clean

    settings = load_settings(**({"docker_host": engine} if engine else {}))
    try:
        reference = parse_reference(image)
        seconds = parse_duration(duration).total_seconds() if duration else None
        policy = GuardPolicy(
            image=reference,
            build_id=build_id or uuid.uuid4().hex[:12],
            labels=_labels(label or []),
            cache_mount_namespace=f"caisson-{group_key(str(reference.repository))}",
            memory=parse_size(memory),
            cpus=cpus,
            network_mode=network,
            frontends=frozenset(settings.dockerfile_frontends),
        )
    except ValueError as error:
        raise RequestInvalid(f"The guard's policy is invalid: {error}.", hint="`caisson guard --help`.") from None

    if container and not is_container_id(container):
        raise RequestInvalid(
            f"--container: {container[:80]!r} is not the whole ID of a container.",
            hint="Give it as `docker ps --no-trunc` prints it.",
        )

    def echo(entry: Entry) -> None:
        if entry.event == "decision" and (entry.would_deny or not entry.verdict.allowed):
            what = "would deny" if entry.would_deny else "denied"
            request = clean(f"{entry.method} {entry.path}".strip()[:200])
            typer.echo(f"{what} {request} ({entry.verdict.rule}): {clean(entry.verdict.reason)}", err=True)

    try:
        log = Audit(audit, build=policy.build_id, most_lines=policy.limits.audit_lines, echo=echo)
    except OSError as error:
        raise SettingsInvalid(f"--audit: {audit} can't be written ({error.strerror}).") from None
    facts, _ = ask_engine(Path(settings.docker_socket))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())
    owners = _built_for_others(settings, reference.repository)
    dockerfiles = dockerfile_policy(settings, facts.version, owners, read_host_addresses())
    names = Names()
    with ExitStack() as stack:
        group_path = "" if audit_only else stack.enter_context(_steps_group(settings, policy, container))
        guarded = Guard(
            replace(policy, cgroup_parent=group_path),
            engine_socket=settings.docker_socket,
            socket_path=socket.absolute(),
            gid=group,
            audit=log,
            check_dockerfile=dockerfile_check(dockerfiles, names),
            check_steps=steps_check(dockerfiles, names),
            serve_anyone=not container,
            only_report=audit_only,
        )
        stack.enter_context(guarded)
        if container:
            guarded.serve_only(container)
        doing, can = ("Watching", "anything passes") if audit_only else ("Guarding", f"it can build {policy.image}")
        typer.echo(f"{doing} {socket} as {policy.build_id}: {can}. Ctrl-C ends it.")
        if not stop.wait(seconds):
            typer.echo(f"The time that --for gave it ({duration}) is over.")
    summary = guarded.summary()
    allowed = sum(count for verdict, _, count in summary.counts if verdict == "allow")
    typer.echo(f"{allowed} allowed, {summary.denied} {'would have been ' if audit_only else ''}denied.")


def _labels(given: Iterable[str]) -> tuple[tuple[str, str], ...]:
    labels = []
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--label: {text[:80]!r} is not KEY=VALUE")
        labels.append((key, value))
    return tuple(labels)


def _built_for_others(settings: Settings, own: Repository) -> ImageOwners:
    """The image repositories of Caisson's builds on this host, by its ledger, but for the one that is built here."""
    from caisson.guard_plan import ImageOwners
    from caisson.ledger import Ledger
    from caisson.reference import parse_reference

    file = settings.state_dir / "ledger.sqlite"
    if not os.path.isfile(file):  # noqa: PTH113 - that of a directory that may not be read is none
        return ImageOwners()
    with Ledger(file) as ledger:
        built = frozenset(parse_reference(text).repository for _, text in ledger.builds.tags_by_source())
    return ImageOwners(built - {own})


@contextmanager
def _steps_group(settings: Settings, policy: GuardPolicy, container: str) -> Iterator[str]:
    """The control group of RUN steps: the container's, or one with the limits; empty, with a warning, for neither."""
    from caisson.build_group import group_key, hold_group
    from caisson.docker_engine import DockerEngine
    from caisson.engine import ContainerID
    from caisson.plan import buildkit_holds
    from caisson.spec import Limits

    with DockerEngine(settings.docker_host) as engine:
        info = engine.info()
        own = _container_group(engine.inspect_container(ContainerID(container))) if container else ""
    if not buildkit_holds(info):
        _warn(
            f"On BuildKit --memory and --cpus don't hold RUN steps: engine {info.version} has no control group for them"
        )
    if own:
        yield own
        return
    limits = Limits(policy.cpus, policy.memory, settings.pids, 0, 0)
    with hold_group(group_key(str(policy.image.repository)), limits, info) as group:
        if not group.path:
            _warn(f"On BuildKit --memory and --cpus don't hold RUN steps: {group.reason}")
        yield group.path


def _container_group(found: ContainerInfo | None) -> str:
    """The control group of a container, where RUN steps can be put below it: in version 1 of control groups only."""
    from caisson.cgroups import find_cgroup

    cgroup = find_cgroup(found.pid) if found else None
    return cgroup.path if found and cgroup and cgroup.version == 1 and found.id in cgroup.path else ""


def _warn(text: str) -> None:
    typer.echo(f"Warning: {text}.", err=True)
