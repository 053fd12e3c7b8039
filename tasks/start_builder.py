"""Step: the throw-away builder, created, checked as it really is, started, its limits read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caisson.build import Build
from caisson.build_group import BuildGroup
from caisson.builder import StartedBuilder
from caisson.builder import start_builder as start_container
from caisson.errors import EngineLost
from caisson.mounts import mounts_of_inspect, require_allowed
from caisson.outcome import require_confirmed
from caisson.plan import BUILDER_ENVIRONMENT, Socket
from caisson.posture import ExpectedPosture, check_posture
from caisson.report import PostureReport
from caisson.sizes import format_size
from tasks.check_mounts import judge_mounts
from tasks.step import step


@step("start_builder")
def start_builder(build: Build, body: Mapping[str, Any], socket: Socket, group: BuildGroup) -> StartedBuilder:
    """Create the builder, and start it after its effective mounts have passed the policy.

    Raises ``BuilderImageMissing``, ``MountRefused``.
    """
    build.require_time()
    container = build.container = build.engine.create_container(build.identity.container_name, body)
    build.record.builder_removed = False
    created = build.engine.inspect_container(container)
    if created is None:
        raise EngineLost("The builder is gone before it was started.")
    require_allowed(judge_mounts(mounts_of_inspect(created.raw), socket))
    builder = start_container(build.engine, container, group.cgroup)
    if group.cgroup and builder.cgroup is not group.cgroup:
        build.record.notes.append(f"The engine did not put the builder into {group.path}: its own group holds it.")
    build.record.posture = _posture(build, builder, socket, group)
    if build.settings.require_limits:
        require_confirmed(build.spec.limits, builder.limits)
    if build.guard is not None:
        # Nothing runs in the builder before this.
        build.guard.serve_only(container, cgroup_parent=steps_group(build, builder))
    limits = build.spec.limits
    build.log.line(
        f"{build.identity.container_name} ({container[:12]}) runs its steps as uid {build.settings.builder_uid}: "
        f"{limits.cpus:g} cpus, {format_size(limits.memory)} memory, {limits.pids} processes, "
        f"{format_size(limits.workspace)} workspace; it destroys itself at {build.identity.deadline:%H:%M:%S %Z}"
    )
    return builder


def steps_group(build: Build, builder: StartedBuilder) -> str:
    """The control group of the RUN steps; empty where they can't be held, and the engine has its own."""
    chosen = build.record.chosen
    return builder.cgroup.path if chosen is not None and chosen.holds_steps and builder.cgroup is not None else ""


def _posture(build: Build, builder: StartedBuilder, socket: Socket, group: BuildGroup) -> list[PostureReport]:
    limits, engine = build.spec.limits, build.record.engine
    assert engine is not None
    expected = ExpectedPosture(
        keeper_uid=build.settings.keeper_uid,
        step_uid=build.settings.builder_uid,
        socket=socket.path,
        socket_gid=socket.gid,
        memory=limits.memory,
        cpus=limits.cpus,
        pids=limits.pids,
        labels=build.identity.labels(),
        environment=BUILDER_ENVIRONMENT,
        security_options=engine.security_options,
        guarded=socket.is_guarded,
        cgroup_parent=group.path,
    )
    return [
        PostureReport(title=item.title, status=item.status, reason=item.reason, source=item.source)
        for item in check_posture(builder.inspected, expected)
    ]
