"""The flow ``build_image``: from a git repository to a tagged image. It reads as its list of steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

from prefect import Task, flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Cancelled

from caisson.asking import asked_at
from caisson.build import Build, read_file_setting
from caisson.build_disk import BuildDisk
from caisson.builder import BuildTimeout
from caisson.disk_places import seen_places
from caisson.disk_watch import find_critical
from caisson.docker_engine import DockerEngine
from caisson.errors import BuildCancelled, CaissonError
from caisson.guard.base_images import JudgedBases
from caisson.guard.dockerfile_names import Names
from caisson.guard_plan import dockerfile_policy, image_owners
from caisson.host_addresses import read_host_addresses
from caisson.plan import choose_builder, container_body
from caisson.report import BuildReport
from caisson.request import BuildRequest
from caisson.settings import Settings, load_settings
from caisson.spec import make_spec
from tasks.attempts import Attempts
from tasks.build_image import build_image as build_image_step
from tasks.check_disk import check_disk
from tasks.check_dockerfile import check_dockerfile
from tasks.check_mounts import check_mounts
from tasks.clone import clone
from tasks.hold_group import hold_group
from tasks.hold_guard import hold_guard
from tasks.hold_lease import hold_lease
from tasks.publish_report import publish_report, reports_unbegun
from tasks.push_image import push_image
from tasks.remove_builder import remove_builder
from tasks.resolve_commit import resolve_commit
from tasks.reuse_image import reuse_image, spec_turn
from tasks.secrets import load_secrets
from tasks.start_builder import start_builder
from tasks.tag_image import tag_image

P = ParamSpec("P")
R = TypeVar("R")


class StepCaller(Protocol):
    """How a step is run: as a Prefect task, or as the plain function below it."""

    def __call__(self, step: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...


def as_task(step: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a step as a Prefect task, called directly: a submitted one could not be interrupted."""
    return step(*args, **kwargs)


def as_function(step: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a step without Prefect, in this process."""
    return step.fn(*args, **kwargs)


@flow(
    name="build-image",
    description="Builds an image from a git repository in a throw-away builder whose only mount is the Docker socket.",
    flow_run_name="{request.image}",
    persist_result=False,
)
def build_image(request: BuildRequest) -> BuildReport | State[Any]:
    """Build an image from a git repository, tag it, push it if asked, and report."""
    flow_run_id = str(flow_run.get_id() or "")
    with reports_unbegun(request, None, flow_run_id):
        settings = load_settings()
    try:
        return run_build(request, settings, call=as_task, flow_run_id=flow_run_id, asked=_asked())
    except BuildCancelled as cancelled:
        # By the engine's side, of which Prefect does not know: to raise it would make the run a failed one.
        return Cancelled(message=str(cancelled))


def _asked() -> datetime | None:
    """When the run was asked for; None without Prefect."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return asked_at(run.labels, run.created or datetime.now(UTC)) if run is not None else None


def run_build(
    request: BuildRequest,
    settings: Settings,
    *,
    call: StepCaller,
    flow_run_id: str = "",
    asked: datetime | None = None,
    on_start: Callable[[Build], None] | None = None,
) -> BuildReport:
    """The whole chain, tried again where that can help; raises a ``CaissonError``, with its report published first."""
    attempts = Attempts(settings)
    while True:
        attempts.clean_slate()
        report = _try(request, settings, attempts, call=call, flow_run_id=flow_run_id, asked=asked, on_start=on_start)
        if report is not None:
            return report


def _try(
    request: BuildRequest,
    settings: Settings,
    attempts: Attempts,
    *,
    call: StepCaller,
    flow_run_id: str,
    asked: datetime | None,
    on_start: Callable[[Build], None] | None,
) -> BuildReport | None:
    """The chain once; None: it is to be tried again."""
    with contextlib.ExitStack() as stack:
        with reports_unbegun(request, settings, flow_run_id):
            spec = attempts.fit(make_spec(request, settings))
            secrets = load_secrets(name for name in (*spec.secrets, spec.git_credentials) if name)
            engine = stack.enter_context(DockerEngine(settings.docker_host))
            build = stack.enter_context(
                Build(request, spec, settings, engine, secrets=secrets, flow_run_id=flow_run_id, asked=asked)
            )
        attempts.tell(build)
        if on_start is not None:
            on_start(build)
        try:
            with hold_lease(build):
                run_steps(build, call)
                if spec.push:
                    attempts.push(build, lambda: call(push_image, build))
        except BaseException as error:
            if attempts.may_try_again(build, error):
                return None
            # A step's failure is clean already; what is decided between steps can fail too.
            failure = build.scrub(error) if isinstance(error, CaissonError) else error
            publish_report(build, build.report(failure))
            raise failure from None
        report = build.report()
        publish_report(build, report)
        return report


def run_steps(build: Build, call: StepCaller) -> None:
    """The chain until its push, with the build's lease held; raises a ``CaissonError`` and leaves no builder behind."""
    settings, record = build.settings, build.record
    record.engine = build.engine.info()
    build.fit_limits()
    build.check_image_name()
    spec = build.spec
    if spec.push:
        build.decide_registry_auth()
    record.chosen = choose_builder(
        spec.builder,
        engine=record.engine,
        needs_buildkit=bool(spec.secrets),
        require_limits=settings.require_limits,
        hold_steps=settings.hold_steps,
    )
    owners = image_owners(spec.repository_url, build.ledger.builds.tags_by_source())
    dockerfiles = dockerfile_policy(settings, record.engine.version, owners, read_host_addresses())
    # For both: what the step has asked for, the guard need not ask again, and what it has judged the guard lets pass.
    names, bases = Names(), JudgedBases()
    with hold_group(build) as group, hold_guard(build, dockerfiles, names, bases) as socket:
        body = container_body(
            spec,
            build.identity,
            socket,
            settings,
            seccomp=read_file_setting(settings.seccomp_profile, "seccomp_profile"),
            now=datetime.now(UTC),
            cgroup_parent=group.path,
        )
        call(check_mounts, build, body, socket)
        call(check_disk, build)
        try:
            builder = call(start_builder, build, body, socket, group)
            find_full_disk = partial(find_critical, settings.disk_limits, seen_places(record.engine, settings))
            with (
                BuildTimeout(
                    build.engine, builder.id, seconds=spec.limits.timeout_seconds, left=build.seconds_left()
                ) as build.timeout,
                BuildDisk(build.engine, builder.id, find_full_disk) as build.disk,
            ):
                chosen = call(resolve_commit, build, builder)
                with spec_turn(build) as turn:
                    image = call(reuse_image, build, chosen, turn)
                    if image is None:
                        call(clone, build, builder, chosen)
                        call(check_dockerfile, build, builder, dockerfiles, names, bases)
                        image = call(build_image_step, build, builder)
                    call(tag_image, build, image)
            call(remove_builder, build, builder.id)
        except BaseException:
            # Once more where a cancel came into the clean-up; and what ended the build is the failure to tell, whatever
            # becomes of this.
            if build.container is not None:
                with contextlib.suppress(Exception):
                    call(remove_builder, build, build.container)
            raise
