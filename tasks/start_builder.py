"""Step: the throw-away builder, created, checked as it really is, started, its limits read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caisson.build import Build
from caisson.builder import StartedBuilder, start_builder
from caisson.engine import ContainerID
from caisson.errors import EngineLost
from caisson.mounts import builder_policy, mounts_of_inspect, require_allowed, resolve_on_host
from caisson.plan import Socket
from caisson.posture import ExpectedPosture, check_posture
from caisson.report import PostureReport
from caisson.sizes import format_size
from tasks.step import step


@step("start_builder")
def start(build: Build, container: ContainerID, socket: Socket) -> StartedBuilder:
    """Start the created builder after its effective mounts have passed the policy; raises ``MountRefused``."""
    created = build.engine.inspect_container(container)
    if created is None:
        raise EngineLost("The builder is gone before it was started.")
    require_allowed(builder_policy(socket.path).check(mounts_of_inspect(created.raw), resolve_on_host))
    builder = start_builder(build.engine, container)
    build.record.posture = [
        PostureReport(title=item.title, status=item.status, reason=item.reason, source=item.source)
        for item in check_posture(builder.inspected, _expected(build, socket))
    ]
    limits = build.spec.limits
    build.log.line(
        f"{build.identity.container_name} ({container[:12]}) runs as uid {build.settings.builder_uid}: "
        f"{limits.cpus:g} cpus, {format_size(limits.memory)} memory, {limits.pids} processes, "
        f"{format_size(limits.workspace)} workspace; it destroys itself at {build.identity.deadline:%H:%M:%S %Z}"
    )
    return builder


def _expected(build: Build, socket: Socket) -> ExpectedPosture:
    raise NotImplementedError
