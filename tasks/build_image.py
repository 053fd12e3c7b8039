"""Step: the image, built in the builder through the socket, its RUN steps held to the build's limits."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from caisson.build import Build
from caisson.builder import StartedBuilder
from caisson.cgroup_watch import CgroupWatch
from caisson.disk_places import docker_data_root
from caisson.engine import ImageInfo
from caisson.errors import BuildFailed, CaissonError
from caisson.guard_plan import find_refusal
from caisson.new_bytes import new_bytes, read_layer_times
from caisson.outcome import classify_build_failure, judge_limits, require_held, require_labels
from caisson.plan import build_command
from caisson.progress import BuildKitProgress, ClassicProgress, ProgressParser
from caisson.report import LimitsReport
from caisson.request import Builder
from tasks.start_builder import steps_group
from tasks.step import step


@step("build")
def build_image(build: Build, builder: StartedBuilder) -> ImageInfo:
    """Build, with progress as live log lines; raises ``BuildStepFailed``, ``OutOfMemory`` and their kin."""
    chosen = build.record.chosen
    assert chosen is not None
    variables = {name: f"CAISSON_BUILD_SECRET_{number}" for number, name in enumerate(build.spec.secrets)}
    argv, env = build_command(
        build.spec,
        builder=chosen.builder,
        reference=build.identity.reference,
        cgroup_parent=steps_group(build, builder),
        labels=build.image_labels,
        secret_env=variables,
    )
    if build.guard is not None:
        build.guard.use_labels(build.image_labels)
    parser: ProgressParser = (
        BuildKitProgress(build.log.redactor)
        if chosen.builder is Builder.BUILDKIT
        else ClassicProgress(build.image_labels, build.log.redactor)
    )
    build.record.progress = parser.progress
    build.log.line(f"{chosen.builder.value}: {chosen.reason}")
    with contextlib.ExitStack() as stack:
        watch = (
            stack.enter_context(CgroupWatch(builder.cgroup, builder.own)) if builder.cgroup and builder.own else None
        )
        try:
            exit_code = build.engine.exec(
                builder.id,
                argv,
                user=build.settings.step_user,
                on_output=lambda _, chunk: build.log.lines(parser.feed(chunk)),
                env={**env, **{variable: build.secrets[name] for name, variable in variables.items()}},
            )
        finally:
            build.log.lines(parser.close())
            tail = build.log.tail()
            limits = _judge(build, builder, watch)
    if exit_code:
        raise _failure(build, exit_code, tail)
    if build.settings.require_limits:
        require_held(limits)
    image = build.engine.inspect_image(build.identity.reference)
    if image is None:
        raise BuildFailed("The build ended well, but its image is not on the engine.")
    require_labels(image, build.image_labels)
    _record(build, image)
    return image


def _record(build: Build, image: ImageInfo) -> None:
    record = build.record
    record.image_id, record.size = image.id, image.size
    assert record.engine is not None
    record.new_bytes, record.new_bytes_exact = new_bytes(
        image.layers,
        build.engine.history(image.id),
        read_layer_times(docker_data_root(record.engine, build.settings), record.engine.storage_driver, image.layers),
        began=build.started.timestamp(),
        bases_here=record.bases_here,
    )
    if record.progress.clipped:
        record.notes.append("The engine's BuildKit clipped the log of a step (its own limit of lines and speed).")
    build.ledger.builds.record_build(
        build_id=build.identity.build_id,
        spec_hash=record.spec_hash,
        sha=record.sha,
        repository_url=build.spec.repository_url.display(),
        image_id=image.id,
        finished=(now := datetime.now(UTC)),
        seconds=(now - build.started).total_seconds(),
    )


def _judge(build: Build, builder: StartedBuilder, watch: CgroupWatch | None) -> LimitsReport:
    if watch is not None:
        build.record.evidence = watch.evidence(since=build.record.progress.failing_since)
    assert build.record.chosen is not None
    limits = build.record.limits = judge_limits(
        planned=build.spec.limits,
        kernel=builder.limits,
        chosen=build.record.chosen,
        progress=build.record.progress,
        evidence=build.record.evidence,
    )
    build.log.line(f"limits: {limits.status}: {limits.reason}")
    return limits


def _failure(build: Build, exit_code: int, tail: list[str]) -> CaissonError:
    return classify_build_failure(
        exit_code=exit_code,
        progress=build.record.progress,
        evidence=build.record.evidence,
        limits=build.spec.limits,
        tail=tail,
        refusal=find_refusal(build.guard.summary()) if build.guard is not None else None,
    )
