"""Step: the planned container through the mount policy, before anything is created."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from caisson.build import Build
from caisson.mounts import Mount, Verdict, builder_policy, mounts_of_body, require_allowed, resolve_for_engine
from caisson.plan import Socket
from tasks.step import step


@step("check_mounts")
def check_mounts(build: Build, body: Mapping[str, Any], socket: Socket) -> None:
    """Refuse a container body with any mount but the Docker socket; raises ``MountRefused``."""
    verdicts = judge_mounts(mounts_of_body(body), socket)
    for verdict in verdicts:
        build.log.line(f"{verdict.mount.source or verdict.mount.kind} → {verdict.mount.target}: {verdict.reason}")
    require_allowed(verdicts)


def judge_mounts(mounts: Iterable[Mount], socket: Socket) -> tuple[Verdict, ...]:
    """The builder's policy over mounts, planned or effective."""
    return builder_policy(socket.path).check(mounts, resolve_for_engine(socket.on_this_host, socket.path))
