"""The socket of a build: a guarded one that is gone when the build ends, or the engine's own where that is set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caisson.build import Build, audit_file, read_socket
from caisson.errors import SettingsInvalid
from caisson.guard.audit import Audit
from caisson.guard.base_images import JudgedBases
from caisson.guard.dockerfile_check import dockerfile_check, steps_check
from caisson.guard.dockerfile_names import Names
from caisson.guard.dockerfile_policy import DockerfilePolicy
from caisson.guard.server import Guard
from caisson.guard_plan import guard_policy, guard_report
from caisson.plan import Socket


@contextmanager
def hold_guard(build: Build, dockerfiles: DockerfilePolicy, names: Names, bases: JudgedBases) -> Iterator[Socket]:
    """What the builder mounts; the guard serves nobody until it is told the container."""
    settings, identity = build.settings, build.identity
    if settings.socket == "raw":
        yield read_socket(settings)
        return
    policy = guard_policy(build.spec, identity, settings)
    file = audit_file(settings, identity.flow_run_id or identity.build_id)
    try:
        audit = Audit(file, build=identity.build_id, most_lines=policy.limits.audit_lines)
    except OSError as error:
        raise SettingsInvalid(
            f"state_dir: the guard's audit {file} can't be written ({error.strerror}).",
            hint="Make CAISSON_STATE_DIR a directory that Caisson can write to.",
        ) from None
    guard = Guard(
        policy,
        engine_socket=settings.docker_socket,
        directory=settings.guard_dir,
        gid=settings.builder_uid,
        audit=audit,
        check_dockerfile=dockerfile_check(dockerfiles, names, bases),
        check_steps=steps_check(dockerfiles, names),
    )
    with guard:
        build.guard = guard
        seen_by_engine = Path(settings.engine_guard_dir or settings.guard_dir) / guard.socket_path.name
        try:
            yield Socket(
                str(seen_by_engine), settings.builder_uid, on_this_host=str(guard.socket_path), is_guarded=True
            )
        finally:
            build.record.guard = guard_report(guard.summary(), str(file))
