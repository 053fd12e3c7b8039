"""Which images a build of a Dockerfile may read, for the build's lease. Pure."""

from __future__ import annotations

from caisson.guard.dockerfile import parse_dockerfile
from caisson.guard.dockerfile_lines import Dialect, decode
from caisson.guard.dockerfile_policy import frontends_of
from caisson.guard.dockerfile_stages import BuildInputs, resolve_stages
from caisson.guard.dockerfile_words import DockerfileError
from caisson.reference import parse_reference


def images_read(content: bytes, dialect: Dialect, inputs: BuildInputs) -> frozenset[str] | None:
    """The images, by the names that the Dockerfile has for them; None: some can't be told before the build.

    >>> text = b"FROM a AS x\\nFROM x\\nCOPY --from=b:1 / /\\n"
    >>> sorted(images_read(text, Dialect.HEREDOCS, BuildInputs("buildkit")))
    ['a', 'b:1']
    """
    try:
        text = decode(content)
        stages = resolve_stages(parse_dockerfile(text, dialect), inputs)
    except DockerfileError:
        # Another reader (``# syntax=``) can have its own rules.
        return None
    names = {image.name.text for stage in stages for image in stage.images}
    names |= {frontend.image for frontend in frontends_of(text, inputs)}
    known = frozenset(name for name in names if name is not None)
    return known if len(known) == len(names) and all(map(_is_reference, known)) else None


def _is_reference(text: str) -> bool:
    try:
        parse_reference(text)
    except ValueError:
        return False
    return True
