"""Step: the Dockerfile as it was checked out, through the policy, before any engine reads it."""

from __future__ import annotations

from caisson.build import Build
from caisson.builder import StartedBuilder
from caisson.engine import Stream
from caisson.errors import DockerfileInvalid
from caisson.guard.dockerfile_policy import DockerfilePolicy
from caisson.guard_plan import LARGEST_DOCKERFILE, build_inputs, require_allowed_dockerfile
from caisson.plan import dockerfile_path
from tasks.step import step


@step("check_dockerfile")
def check_dockerfile(build: Build, builder: StartedBuilder, policy: DockerfilePolicy) -> None:
    """Refuse a Dockerfile that is none, or asks for too much; raises ``DockerfileInvalid``, ``DockerfileDenied``."""
    chosen, engine = build.record.chosen, build.record.engine
    assert chosen is not None
    assert engine is not None
    content = _read(build, builder)
    require_allowed_dockerfile(content, policy, build_inputs(build.spec, chosen.builder, engine))
    build.log.line(f"{build.spec.dockerfile or 'Dockerfile'}: {len(content)} bytes, nothing in it that is not allowed")


def _read(build: Build, builder: StartedBuilder) -> bytes:
    content = bytearray()

    def take(stream: Stream, chunk: bytes) -> None:
        if stream == "stdout":
            content.extend(chunk)

    argv = ["head", f"--bytes={LARGEST_DOCKERFILE + 1}", "--", dockerfile_path(build.spec)]
    if build.engine.exec(builder.id, argv, user=build.settings.step_user, on_output=take):
        raise DockerfileInvalid(f"The Dockerfile {build.spec.dockerfile or 'Dockerfile'} can't be read.")
    return bytes(content)
