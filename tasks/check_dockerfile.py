"""Step: the Dockerfile as it was checked out, through the policy, before any engine reads it."""

from __future__ import annotations

from contextlib import closing

from caisson.build import Build
from caisson.builder import StartedBuilder
from caisson.engine import ImageInfo, Stream
from caisson.errors import DockerfileInvalid, EngineFault
from caisson.guard.base_images import JudgedBases, base_images
from caisson.guard.dockerfile_hosts import Resolver
from caisson.guard.dockerfile_policy import DockerfilePolicy
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard_plan import LARGEST_DOCKERFILE, build_inputs, require_allowed_dockerfile, require_allowed_triggers
from caisson.images_read import images_read
from caisson.leases import EVERYTHING
from caisson.plan import dockerfile_path
from caisson.pull import PULL_SILENCE_SECONDS
from tasks.step import step


@step("check_dockerfile")
def check_dockerfile(
    build: Build, builder: StartedBuilder, policy: DockerfilePolicy, resolve: Resolver, bases: JudgedBases
) -> None:
    """Refuse a Dockerfile that is none, or asks for too much; raises ``DockerfileInvalid``, ``DockerfileDenied``.

    Its images are held from here on. What the classic builder begins with is pulled where it is missing, and is told to
    ``bases``.
    """
    chosen, engine = build.record.chosen, build.record.engine
    assert chosen is not None
    assert engine is not None
    content = _read(build, builder)
    inputs = build_inputs(build.spec, chosen.builder, engine)
    require_allowed_dockerfile(content, policy, inputs, resolve)
    images = _hold(build, images_read(content, policy.dialect, inputs))
    begins_with = _bases(content, policy, inputs)
    for name in begins_with:
        images[name] = images.get(name) or build.engine.inspect_image(name) or _pull(build, name)
    for name, image in images.items():
        require_allowed_triggers(name, image.triggers, policy, inputs, resolve)
    for name in begins_with:
        bases.add(name)
    build.log.line(f"{build.spec.dockerfile or 'Dockerfile'}: {len(content)} bytes, nothing in it that is not allowed")


def _hold(build: Build, images: frozenset[str] | None) -> dict[str, ImageInfo]:
    """Hold them, or everything where they can't be told; returns those that are on the engine by now."""
    if images is None:
        build.hold(EVERYTHING)
        return {}
    build.hold(*images)
    found = {name: image for name in sorted(images) if (image := build.engine.inspect_image(name)) is not None}
    # Also by ID: another build may move the name meanwhile.
    build.hold(*(image.id for image in found.values()))
    build.record.bases_here = len(found) == len(images)
    return found


def _bases(content: bytes, policy: DockerfilePolicy, inputs: BuildInputs) -> tuple[str, ...]:
    if inputs.builder != "classic":
        return ()
    names = (image.name.text for image in base_images(content, policy.dialect, inputs))
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _pull(build: Build, name: str) -> ImageInfo:
    build.log.line(f"pulling {name}")
    silence = max(1.0, min(PULL_SILENCE_SECONDS, build.seconds_left()))
    with closing(build.engine.pull_image(name, silence=silence)) as lines:
        for line in lines:
            build.require_time()
            if line:
                build.log.line(line)
    image = build.engine.inspect_image(name)
    if image is None:
        raise EngineFault(f"The base image {name} was pulled, and is not on the engine.")
    build.hold(image.id)
    return image


def _read(build: Build, builder: StartedBuilder) -> bytes:
    content, complaint = bytearray(), bytearray()

    def take(stream: Stream, chunk: bytes) -> None:
        (content if stream == "stdout" else complaint).extend(chunk)

    argv = ["head", f"--bytes={LARGEST_DOCKERFILE + 1}", "--", dockerfile_path(build.spec)]
    exit_code = build.engine.exec(builder.id, argv, user=build.settings.step_user, on_output=take)
    if exit_code:
        said = (complaint or content).decode(errors="replace").strip().splitlines()
        # 1 is what head says of a file; anything else is of a process that did not run.
        failure = DockerfileInvalid if exit_code == 1 else EngineFault
        raise failure(
            f"The Dockerfile {build.spec.dockerfile or 'Dockerfile'} can't be read (exit code {exit_code}).",
            details={"exit_code": exit_code, "output": said[-1][:500] if said else ""},
        )
    return bytes(content)
