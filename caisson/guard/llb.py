"""What BuildKit has made of a Dockerfile, read from its own words: the definition (LLB) that ``Solve`` answers. Pure.

The frontend answers with steps that nobody has begun; they are done when the client hands them on (``Return``). They
have in them what no reader of the Dockerfile sees: what base images that the engine pulls have after ONBUILD, and what
their variables make of a source. ``frontend/gateway/pb/gateway.proto`` and ``solver/pb/ops.proto``, v0.8 to v0.29.

A definition is the daemon's, and trusted to be what it will do; what is not known in it is denied all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from caisson.guard import buildkit_schema as schemas
from caisson.guard.dockerfile import Instruction
from caisson.guard.dockerfile_stages import AddSource, ImageUse
from caisson.guard.dockerfile_words import Word
from caisson.guard.protobuf import Message, ProtobufError, Schema, parse
from caisson.guard.verdict import Denied

_SANDBOX, _INSECURE = 0, 1
_NETWORKS = {0: "", 1: "host", 2: ""}


@dataclass(frozen=True)
class Steps:
    """What would be done that asks for more than files: as a Dockerfile would say it, each once, in no line."""

    images: tuple[ImageUse, ...] = ()
    sources: tuple[AddSource, ...] = ()
    runs: tuple[Instruction, ...] = ()


def read_answer(answer: bytes) -> tuple[str, Steps] | None:
    """The reference that an answer to the bridge's ``Solve`` names, and the steps behind it; None: it has none of both.

    Raises ``Denied`` for what is not known.
    """
    result = _read(schemas.BRIDGE_ANSWER, answer).message("result")
    reference = result.message("ref") if result is not None else None
    if reference is None or not reference.text("id") or not reference.has("def"):
        return None
    definition = reference.values["def"]
    assert isinstance(definition, bytes)
    return reference.text("id"), read_definition(definition)


def read_definition(definition: bytes) -> Steps:
    """The steps of a definition; raises ``Denied`` for what is not known.

    >>> fetch = b"\\x1a\\x0e\\x0a\\x0chttp://10.1/"
    >>> [str(source.name) for source in read_definition(b"\\x0a\\x10" + fetch).sources]
    ['http://10.1/']
    """
    images: dict[ImageUse, None] = {}
    sources: dict[AddSource, None] = {}
    runs: dict[Instruction, None] = {}
    operations = _read(schemas.DEFINITION, definition).values.get("def", ())
    assert isinstance(operations, tuple)
    for data in operations:
        assert isinstance(data, bytes)
        operation = _read(schemas.OPERATION, data)
        if operation.has("build"):
            raise Denied("build-steps", "A step of the build is a build of its own, which no Dockerfile asks for.")
        if (source := operation.message("source")) is not None:
            for found in _sources(source):
                if isinstance(found, ImageUse):
                    images[found] = None
                else:
                    sources[found] = None
        if (step := operation.message("exec")) is not None and (run := _run(step)) is not None:
            runs[run] = None
    return Steps(tuple(images), tuple(sources), tuple(runs))


def _read(schema: Schema, data: bytes) -> Message:
    try:
        return parse(schema, data)
    except ProtobufError as error:
        raise Denied("build-steps", f"What the engine would do is not understood: {error}.") from error


def _sources(source: Message) -> Iterator[ImageUse | AddSource]:
    identifier = source.text("identifier")
    scheme, _, rest = identifier.partition("://")
    if scheme == "docker-image":
        yield ImageUse(0, "FROM", Word.of(rest))
    elif scheme in ("http", "https", "git"):
        yield AddSource(0, Word.of(identifier))
        if url := source.texts("attrs").get("git.fullurl"):
            yield AddSource(0, Word.of(url))
    elif scheme != "local":
        # local: a directory that the builder itself serves over its session.
        raise Denied("build-steps", f"The engine would read {identifier[:80]!r}, which is of no known kind.")


def _run(step: Message) -> Instruction | None:
    network, security = step.number("network"), step.number("security")
    if network not in _NETWORKS or security not in (_SANDBOX, _INSECURE):
        raise Denied("build-steps", "A step of the build has a network or a confinement of no known kind.")
    flags = (
        *((("network", "host"),) if _NETWORKS[network] else ()),
        *((("security", "insecure"),) if security == _INSECURE else ()),
        *((("device", "of the host"),) if step.has("cdiDevices") else ()),
    )
    return Instruction("RUN", 0, 0, flags=flags) if flags else None
