"""The base images that a classic build begins with, each of which was judged before it. Pure.

The classic builder runs what a base image has after ONBUILD as it comes to FROM, and pulls the image there if the
engine has it not: nobody can look at it in between. So the flow has each of them on the engine before the build and
judges it there, and the guard lets no Dockerfile pass that begins with another (moby/moby ``builder/dockerfile``, 20.10
to 26.1). What BuildKit would do is seen as a whole (``llb``).
"""

from __future__ import annotations

from collections.abc import Iterator

from caisson.guard.dockerfile import parse_dockerfile
from caisson.guard.dockerfile_lines import Dialect, decode
from caisson.guard.dockerfile_stages import BuildInputs, ImageUse, ResolvedStage, resolve_stages
from caisson.guard.verdict import Denied
from caisson.reference import Reference, parse_reference


def base_images(dockerfile: bytes, dialect: Dialect, inputs: BuildInputs) -> tuple[ImageUse, ...]:
    """What a build begins its stages with, up to its target; raises ``DockerfileError``.

    >>> text = b"FROM a AS x\\nFROM x\\nCOPY --from=b / /\\nFROM c\\n"
    >>> [str(image.name) for image in base_images(text, Dialect.HEREDOCS, BuildInputs("classic", target="X"))]
    ['a']
    """
    stages = resolve_stages(parse_dockerfile(decode(dockerfile), dialect), inputs)
    return tuple(image for stage in _needed(stages, inputs.target) for image in stage.images if image.by == "FROM")


def _needed(stages: tuple[ResolvedStage, ...], target: str) -> tuple[ResolvedStage, ...]:
    """The classic builder builds all of them until its target, needed or not."""
    last = max((stage.index for stage in stages if stage.name and stage.name == target.lower()), default=len(stages))
    return stages[: last + 1]


class JudgedBases:
    """Base images that are on the engine, and whose triggers were judged there. Threads may share it.

    Not a dataclass on purpose: Prefect hands a task a copy of one.
    """

    def __init__(self) -> None:
        self._known: set[Reference] = set()

    def add(self, name: str) -> None:
        """Raises ``ValueError`` for what is no reference."""
        self._known.add(parse_reference(name).or_latest())

    def check(self, dockerfile: bytes, dialect: Dialect, inputs: BuildInputs) -> None:
        """Raise ``Denied`` for a Dockerfile that begins with another image. What is not known before the build is for
        ``DockerfilePolicy.unresolved`` to decide."""
        for image in _unknown(base_images(dockerfile, dialect, inputs), self._known):
            raise Denied(
                "base-image-unjudged",
                f"Dockerfile, line {image.line}: FROM {str(image.name)[:120]!r} was not looked at before the build.",
            )


def _unknown(images: tuple[ImageUse, ...], known: set[Reference]) -> Iterator[ImageUse]:
    for image in images:
        text = image.name.text
        if text is not None and parse_reference(text).or_latest() not in known:
            yield image
