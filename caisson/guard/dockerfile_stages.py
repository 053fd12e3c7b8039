"""What a builder would fetch for a Dockerfile: each image and each ADD source, its variables replaced. Pure.

Source: moby/buildkit frontend/dockerfile/dockerfile2llb/convert.go (v0.8 to v0.32) and moby/moby builder/dockerfile
(20.10 to 26.1) for the classic builder. The two differ: in the classic one an ENV, also the base image's, wins over
an ARG, and ARGs end with their stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from caisson.guard.dockerfile import Dockerfile, Instruction, Stage
from caisson.guard.dockerfile_words import UNKNOWN, Budget, DockerfileError, Word, expand

Kind = Literal["buildkit", "classic"]

SCRATCH = "scratch"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY")
# The classic builder lets these be used without an ARG.
_CLASSIC_ARGS = frozenset((*_PROXIES, *(name.lower() for name in _PROXIES)))
# What BuildKit sets by itself; TARGETSTAGE and the versions of the system only in some versions of it.
_UNSURE_ARGS = ("BUILDOSVERSION", "TARGETOSVERSION", "TARGETSTAGE")
_HEREDOC_SOURCE = re.compile(r"[0-9]*<<")
_INDEX = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True)
class BuildInputs:
    """What a build is given beside its Dockerfile; ``platform`` (``linux/amd64``) is both the engine's and the image's,
    and is empty if it is not known. ``target`` is the stage that is asked for, empty for the last."""

    builder: Kind
    build_args: tuple[tuple[str, str], ...] = ()
    platform: str = ""
    target: str = ""


@dataclass(frozen=True)
class ImageUse:
    """An image that a builder would read; ``by`` is FROM, ``COPY --from`` or ``RUN --mount=from``."""

    line: int
    by: str
    name: Word


@dataclass(frozen=True)
class AddSource:
    """One source of an ADD: a path, or something to fetch."""

    line: int
    name: Word


@dataclass(frozen=True)
class ResolvedStage:
    """A stage as a builder would begin it; ``parent`` is the stage that it goes on from, if it does, and ``platform``
    what FROM asks for, empty for the engine's own."""

    index: int
    name: str
    line: int
    base: Word
    parent: int | None
    platform: Word
    labels: tuple[tuple[Word, Word], ...]
    images: tuple[ImageUse, ...]
    sources: tuple[AddSource, ...]
    runs: tuple[Instruction, ...]


def resolve_stages(file: Dockerfile, inputs: BuildInputs, budget: Budget | None = None) -> tuple[ResolvedStage, ...]:
    """All stages, also those that a build may not reach; raises ``DockerfileError`` where every build would end."""
    resolver = _Resolver(file, inputs, budget or Budget())
    return tuple(resolver.stage(stage) for stage in file.stages)


@dataclass
class _Scope:
    """The variables of a stage. ``open``: the base image may have set others."""

    open: bool = False
    env: dict[str, Word] = field(default_factory=dict)
    """What the image will have in its environment."""
    state: dict[str, Word] = field(default_factory=dict)
    """BuildKit: ENV and ARG, the later of which wins. Classic: ARG alone."""

    def child(self) -> _Scope:
        return _Scope(self.open, dict(self.env), dict(self.state))


class _Resolver:
    def __init__(self, file: Dockerfile, inputs: BuildInputs, budget: Budget) -> None:
        self._file, self._inputs, self._budget = file, inputs, budget
        self._given = {name: Word.of(value) for name, value in inputs.build_args}
        self._classic = inputs.builder == "classic"
        self._globals = self._global_args()
        self._names: dict[str, int] = {}
        self._scopes: list[_Scope] = []

    def _expand(self, text: str, values: Mapping[str, Word]) -> Word:
        return expand(text, self._file.escape, values.get, self._budget)

    def _global_args(self) -> dict[str, Word]:
        values = self._classic_args() if self._classic else self._platform_args()
        for instruction in self._file.args:
            with_line = _At(instruction.line)
            for name, default in instruction.pairs:
                value = self._given.get(name)
                if value is None and default is not None:
                    with with_line:
                        value = self._expand(default, values)
                if value is not None:
                    values[name] = value
                elif self._classic:
                    values.pop(name, None)
        return values

    def _classic_args(self) -> dict[str, Word]:
        return {name: value for name, value in self._given.items() if name in _CLASSIC_ARGS}

    def _platform_args(self) -> dict[str, Word]:
        system, _, rest = self._inputs.platform.partition("/")
        machine, _, variant = rest.partition("/")
        values: dict[str, Word] = dict.fromkeys(_UNSURE_ARGS, UNKNOWN)
        for prefix in ("BUILD", "TARGET"):
            for suffix, value in (
                ("PLATFORM", self._inputs.platform),
                ("OS", system),
                ("ARCH", machine),
                ("VARIANT", variant),
            ):
                values[prefix + suffix] = Word.of(value) if self._inputs.platform else UNKNOWN
        return {name: self._given.get(name, value) for name, value in values.items()}

    def stage(self, stage: Stage) -> ResolvedStage:
        with _At(stage.start.line):
            base = self._expand(stage.base, self._globals)
            if base.empty:
                raise DockerfileError(f"FROM {stage.base[:40]} names nothing")
            platform = self._expand(stage.start.flag("platform"), self._globals)
        parent = self._names.get((base.text or "").lower())
        scope = self._scope(base, parent)
        images: list[ImageUse] = []
        sources: list[AddSource] = []
        labels: dict[Word, Word] = {}
        runs: list[Instruction] = []
        if parent is None and base.text != SCRATCH:
            images.append(ImageUse(stage.start.line, "FROM", base))
        for instruction in stage.instructions:
            with _At(instruction.line):
                effective = instruction.trigger or instruction
                images += self._images(effective, is_trigger=instruction.trigger is not None)
                if effective.name == "RUN":
                    runs.append(effective)
                if instruction.trigger is not None:
                    sources += self._sources(effective, None)
                    continue
                sources += self._sources(instruction, scope)
                if instruction.name == "LABEL":
                    labels |= {self._in(scope, key): self._in(scope, value or "") for key, value in instruction.pairs}
                elif instruction.name == "ENV":
                    self._set_env(scope, instruction)
                elif instruction.name == "ARG":
                    self._set_args(scope, instruction)
        self._scopes.append(scope)
        if stage.name:
            self._names[stage.name] = stage.index
        return ResolvedStage(
            stage.index,
            stage.name,
            stage.start.line,
            base,
            parent,
            platform,
            tuple(labels.items()),
            tuple(images),
            tuple(sources),
            tuple(runs),
        )

    def _scope(self, base: Word, parent: int | None) -> _Scope:
        if parent is None:
            return _Scope(open=base.text != SCRATCH)
        before = self._scopes[parent]
        self._budget.spend(len(before.env) + len(before.state))
        scope = before.child()
        if self._classic:
            scope.state = {}
        else:
            scope.state |= scope.env
        # A trigger of the parent runs first, in the newest versions of BuildKit also within one file.
        for instruction in self._file.stages[parent].instructions:
            if instruction.trigger is not None and instruction.trigger.name in ("ENV", "ARG"):
                for name, _ in instruction.trigger.pairs:
                    if "$" in name or "\\" in name or '"' in name or "'" in name:
                        raise DockerfileError("ONBUILD sets a variable whose name is not plain", instruction.line)
                    scope.env[name] = scope.state[name] = UNKNOWN
        return scope

    def _in(self, scope: _Scope, text: str) -> Word:
        return expand(text, self._file.escape, lambda name: self._lookup(scope, name), self._budget)

    def _lookup(self, scope: _Scope, name: str) -> Word | None:
        if self._classic:
            if (value := scope.env.get(name)) is not None:
                return value
            if scope.open or name == "PATH":
                return UNKNOWN
            if (value := scope.state.get(name)) is not None:
                return value
            return self._given.get(name) if name in _CLASSIC_ARGS else None
        if (value := scope.state.get(name)) is not None:
            return value
        # Every image has a PATH, if not its own then a usual one.
        return UNKNOWN if scope.open or name == "PATH" else None

    def _set_env(self, scope: _Scope, instruction: Instruction) -> None:
        values = [(self._in(scope, key), self._in(scope, value or "")) for key, value in instruction.pairs]
        for key, value in values:
            name = key.text
            if name is None:
                raise DockerfileError("ENV sets a variable whose name can't be known before the build")
            scope.env[name] = value
            if not self._classic:
                scope.state[name] = value

    def _set_args(self, scope: _Scope, instruction: Instruction) -> None:
        for name, default in instruction.pairs:
            value = self._given.get(name)
            if value is None:
                value = self._globals.get(name) if default is None else self._in(scope, default)
            if value is not None:
                scope.state[name] = value
            elif self._classic:
                scope.state.pop(name, None)

    def _sources(self, instruction: Instruction, scope: _Scope | None) -> Iterator[AddSource]:
        """Without a scope: of an ONBUILD, in which a later build's variables count, read by the default escape."""
        if instruction.name != "ADD":
            return
        for source in instruction.args[:-1]:
            if _HEREDOC_SOURCE.match(source):
                continue
            name = expand(source, "\\", lambda _: UNKNOWN, self._budget) if scope is None else self._in(scope, source)
            yield AddSource(instruction.line, name)

    def _images(self, instruction: Instruction, *, is_trigger: bool) -> Iterator[ImageUse]:
        """Images that are named beside FROM; a name counts as a stage's only where that stage is above.

        The classic builder takes a stage below for an image; and what a trigger names is looked up in a later build.
        """
        if instruction.name == "COPY" and (name := instruction.flag("from")):
            if any(character in name for character in "$'\"\\`"):
                raise DockerfileError("COPY --from takes no variables; name a stage that begins with 'FROM $…'")
            if is_trigger or not (name.lower() in self._names or _INDEX.fullmatch(name)):
                yield from _image(instruction.line, "COPY --from", name)
        if instruction.name == "RUN":
            for mount in instruction.flag_values("mount"):
                name = _mounted_from(mount)
                if is_trigger or name.lower() not in self._names:
                    yield from _image(instruction.line, "RUN --mount=from", name)


def _image(line: int, by: str, name: str) -> Iterator[ImageUse]:
    if name and name != SCRATCH:
        yield ImageUse(line, by, Word.of(name))


def _mounted_from(mount: str) -> str:
    """What a ``--mount`` has as its ``from``; the last one counts, whatever the type."""
    if any(character in mount for character in '"\r\n'):
        raise DockerfileError("a --mount has quotes in it, which is not read here; leave them out")
    name = ""
    for entry in mount.split(","):
        key, _, value = entry.partition("=")
        if key.lower() == "from":
            if "$" in value:
                raise DockerfileError("RUN --mount=from takes no variables; name a stage that begins with 'FROM $…'")
            name = value
    return name


@dataclass(frozen=True)
class _At:
    """Gives an error of an expansion its line."""

    line: int

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, DockerfileError) and not error.line:
            raise DockerfileError(error.reason, self.line) from None
