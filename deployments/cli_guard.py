"""``caisson guard``: a guarded socket for one image, by hand, for as long as the command runs."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from caisson.errors import RequestInvalid, SettingsInvalid

EXAMPLES = """
caisson guard --socket /run/user/1000/guard.sock --image team/app:1
DOCKER_HOST=unix:///run/user/1000/guard.sock docker build --provenance=false -t team/app:1 .
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
    memory: Annotated[str, typer.Option("--memory", "-m", metavar="SIZE", help="Of each RUN step, such as 2g.")] = "2g",
    cpus: Annotated[float, typer.Option("--cpus", metavar="N", help="Cores of each RUN step.")] = 1.0,
    network: Annotated[str, typer.Option("--network", metavar="NAME", help="default or none.")] = "default",
    audit: Annotated[
        Path | None, typer.Option("--audit", metavar="FILE", help="Append each decision as a line of JSON.")
    ] = None,
    audit_only: Annotated[
        bool, typer.Option("--audit-only", help="Deny nothing; say what would be denied. The socket is then unguarded.")
    ] = False,
) -> None:
    """Guard the Docker socket, so that only one image can be built.

    Whoever connects can do that, and nothing else. It runs until Ctrl-C, and the socket is gone with it. Denials
    are printed as they happen.
    """
    from caisson.errors import CaissonError
    from caisson.guard.audit import Audit, Entry
    from caisson.guard.dockerfile_check import dockerfile_check
    from caisson.guard.dockerfile_names import Names
    from caisson.guard.engine_facts import ask_engine
    from caisson.guard.policy import GuardPolicy
    from caisson.guard.server import Guard
    from caisson.guard_plan import dockerfile_policy
    from caisson.reference import parse_reference
    from caisson.settings import load_settings
    from caisson.sizes import parse_size
    from caisson.untrusted import clean

    settings = load_settings(**({"docker_host": engine} if engine else {}))
    try:
        policy = GuardPolicy(
            image=parse_reference(image),
            memory=parse_size(memory),
            cpus=cpus,
            network_mode=network,
            frontends=frozenset(settings.dockerfile_frontends),
        )
    except ValueError as error:
        raise RequestInvalid(f"The guard's policy is invalid: {error}.", hint="`caisson guard --help`.") from None

    def echo(entry: Entry) -> None:
        if entry.event == "decision" and (entry.would_deny or not entry.verdict.allowed):
            what = "would deny" if entry.would_deny else "denied"
            request = clean(f"{entry.method} {entry.path}".strip()[:200])
            typer.echo(f"{what} {request} ({entry.verdict.rule}): {clean(entry.verdict.reason)}", err=True)

    try:
        log = Audit(audit, echo=echo)
    except OSError as error:
        raise SettingsInvalid(f"--audit: {audit} can't be written ({error.strerror}).") from None
    facts, _ = ask_engine(Path(settings.docker_socket))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())
    guarded = Guard(
        policy,
        engine_socket=settings.docker_socket,
        socket_path=socket.absolute(),
        gid=group,
        audit=log,
        check_dockerfile=dockerfile_check(dockerfile_policy(settings, facts.version), Names()),
        serve_anyone=not container,
        only_report=audit_only,
    )
    with guarded:
        if container:
            try:
                guarded.serve_only(container)
            except ValueError as error:
                raise CaissonError(
                    f"--container: {error}.", hint="Give it as `docker ps --no-trunc` prints it."
                ) from None
        typer.echo(f"{'Watching' if audit_only else 'Guarding'} {socket}: it can build {policy.image}. Ctrl-C ends it.")
        stop.wait()
    summary = guarded.summary()
    allowed = sum(count for verdict, _, count in summary.counts if verdict == "allow")
    typer.echo(f"{allowed} allowed, {summary.denied} {'would have been ' if audit_only else ''}denied.")
