"""A Dockerfile as its stages and instructions, or an error; nothing is expanded yet. Pure.

Source: moby/buildkit frontend/dockerfile/instructions/parse.go, v0.8 (Docker 20.10) to v0.32. Flags that only newer
versions know are known here as well: an older builder refuses the file by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from caisson.guard.dockerfile_lines import Dialect, Node, decode, read_lines
from caisson.guard.dockerfile_words import DockerfileError

# Each stage begins with the variables of another: a bound on stages is one on that work.
MAX_STAGES = 1000

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
# Builders disagree on whether quotes and variables count in the name of an ARG.
_ARG_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_ONBUILD = re.compile(r"[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*", re.IGNORECASE)

_TEXT, _TEXTS, _SWITCH = "text", "texts", "switch"
_FLAGS: dict[str, dict[str, str]] = {
    "ADD": {
        "checksum": _TEXT,
        "chmod": _TEXT,
        "chown": _TEXT,
        "exclude": _TEXTS,
        "keep-git-dir": _SWITCH,
        "link": _SWITCH,
        "unpack": _SWITCH,
    },
    "COPY": {
        "chmod": _TEXT,
        "chown": _TEXT,
        "exclude": _TEXTS,
        "from": _TEXT,
        "link": _SWITCH,
        "parents": _SWITCH,
    },
    "FROM": {"platform": _TEXT},
    "HEALTHCHECK": {
        "interval": _TEXT,
        "retries": _TEXT,
        "start-interval": _TEXT,
        "start-period": _TEXT,
        "timeout": _TEXT,
    },
    "RUN": {"device": _TEXTS, "mount": _TEXTS, "network": _TEXT, "security": _TEXT},
}
# Least and most arguments.
_MANY = 1 << 30
_ARGUMENTS = {
    "ADD": (2, _MANY),
    "ARG": (1, _MANY),
    "CMD": (0, _MANY),
    "COPY": (2, _MANY),
    "ENTRYPOINT": (0, _MANY),
    "ENV": (0, 0),
    "EXPOSE": (1, _MANY),
    "FROM": (1, 3),
    "HEALTHCHECK": (1, 2),
    "LABEL": (0, 0),
    "MAINTAINER": (1, 1),
    "ONBUILD": (1, 1),
    "RUN": (0, _MANY),
    "SHELL": (1, _MANY),
    "STOPSIGNAL": (1, 1),
    "USER": (1, 1),
    "VOLUME": (1, _MANY),
    "WORKDIR": (1, 1),
}
_IGNORES_FLAGS = frozenset({"ARG", "STOPSIGNAL"})


@dataclass(frozen=True)
class Instruction:
    """One instruction, checked as far as builders check it before they begin.

    ``args`` are unexpanded; ``pairs`` are those of ENV, LABEL and ARG (``None``: an ARG without a default);
    ``trigger`` is what an ONBUILD holds, as the builder of a later image will read it.
    """

    name: str
    line: int
    end_line: int
    flags: tuple[tuple[str, str], ...] = ()
    args: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str | None], ...] = ()
    is_json: bool = False
    heredocs: tuple[str, ...] = ()
    trigger: Instruction | None = None

    def flag(self, name: str) -> str:
        """The value of a flag that is given once; empty if it is not given."""
        return next((value for key, value in self.flags if key == name), "")

    def flag_values(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self.flags if key == name)


@dataclass(frozen=True)
class Stage:
    """What stands between one FROM and the next; ``name`` in lower case, empty if it has none."""

    index: int
    name: str
    start: Instruction
    instructions: tuple[Instruction, ...]

    @property
    def base(self) -> str:
        """What FROM names, unexpanded."""
        return self.start.args[0]


@dataclass(frozen=True)
class Dockerfile:
    """A whole file; ``args`` are the ARGs before the first FROM."""

    escape: str
    args: tuple[Instruction, ...]
    stages: tuple[Stage, ...]


@dataclass
class _OpenStage:
    start: Instruction
    instructions: list[Instruction] = field(default_factory=list)


def parse_dockerfile(source: bytes | str, dialect: Dialect) -> Dockerfile:
    """The file as both builders of an engine would read it.

    Raises ``DockerfileError`` for what they would refuse, for what versions of them read in different ways, and for
    what is larger than is read here.

    >>> text = "from debian as Build\\nRUN make\\nFROM scratch\\nCOPY --from=build /a /"
    >>> file = parse_dockerfile(text, Dialect.HEREDOCS)
    >>> [(stage.name, stage.base, len(stage.instructions)) for stage in file.stages]
    [('build', 'debian', 1), ('', 'scratch', 1)]
    """
    lines = read_lines(decode(source), dialect)
    args: list[Instruction] = []
    stages: list[_OpenStage] = []
    for node in lines.nodes:
        try:
            instruction = _instruction(node, dialect)
        except DockerfileError as error:
            raise DockerfileError(error.reason, error.line or node.line) from None
        if instruction.name == "FROM":
            stages.append(_OpenStage(instruction))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.name == "ARG":
            args.append(instruction)
        else:
            raise DockerfileError(f"{instruction.name} stands before the first FROM", node.line)
    if not stages:
        # BuildKit 0.8 and 0.13 fail on such a file with an index out of range, and the whole engine with them.
        raise DockerfileError("it has no FROM")
    if len(stages) > MAX_STAGES:
        raise DockerfileError(f"it has {len(stages)} stages; {MAX_STAGES} at most are read")
    return Dockerfile(
        lines.escape,
        tuple(args),
        tuple(
            Stage(index, _stage_name(stage.start), stage.start, tuple(stage.instructions))
            for index, stage in enumerate(stages)
        ),
    )


def _instruction(node: Node, dialect: Dialect) -> Instruction:
    name = node.name
    if name not in _ARGUMENTS:
        raise DockerfileError(f"{name[:40]!r} is no instruction")
    least, most = _ARGUMENTS[name]
    if not least <= len(node.args) <= most or (most == 0 and not node.pairs):
        raise DockerfileError(f"{name} has too few or too many arguments")
    if name == "SHELL" and not node.is_json:
        raise DockerfileError("SHELL needs a JSON list")
    if name == "FROM":
        _check_from(node)
    if name == "HEALTHCHECK":
        _check_healthcheck(node)
    pairs: tuple[tuple[str, str | None], ...] = node.pairs
    if name == "ARG":
        pairs = tuple(_arg(word) for word in node.args)
    if any(not key for key, _ in pairs):
        raise DockerfileError(f"{name} has a value without a name")
    return Instruction(
        name,
        node.line,
        node.end_line,
        () if name in _IGNORES_FLAGS else _read_flags(name, node.flags),
        node.args,
        pairs,
        node.is_json,
        tuple(heredoc.name for heredoc in node.heredocs),
        _trigger(node, dialect) if name == "ONBUILD" else None,
    )


def _check_from(node: Node) -> None:
    if len(node.args) == 1:
        return
    # Go folds 'ſ' to 's': what is not ASCII here could be a name or none.
    if len(node.args) != 3 or node.args[1].lower() != "as":
        raise DockerfileError("FROM takes an image, or an image, AS and a name")
    if not node.args[2].isascii() or not _STAGE_NAME.fullmatch(node.args[2].lower()):
        raise DockerfileError(f"{node.args[2][:40]!r} can't be the name of a stage")


def _stage_name(start: Instruction) -> str:
    return start.args[2].lower() if len(start.args) == 3 else ""


def _check_healthcheck(node: Node) -> None:
    kind = node.args[0].upper()
    if kind not in ("NONE", "CMD") or (len(node.args) == 2) != (kind == "CMD"):
        raise DockerfileError("HEALTHCHECK takes NONE, or CMD and a command")


def _arg(word: str) -> tuple[str, str | None]:
    name, equals, value = word.partition("=")
    if not _ARG_NAME.fullmatch(name):
        raise DockerfileError(f"ARG has the name {name[:40]!r}, which builders read in different ways")
    return name, value if equals else None


def _read_flags(name: str, words: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    kinds, read, seen = _FLAGS.get(name, {}), [], set()
    for word in words:
        flag, equals, value = word.removeprefix("--").partition("=")
        kind = kinds.get(flag)
        if kind is None:
            raise DockerfileError(f"{name} has no flag '--{flag[:40]}'")
        if flag in seen and kind != _TEXTS:
            raise DockerfileError(f"{name} has the flag '--{flag}' twice")
        seen.add(flag)
        if kind != _SWITCH and not equals:
            raise DockerfileError(f"the flag '--{flag}' of {name} has no value")
        if kind == _SWITCH and (value.lower() not in ("true", "false") if equals else False):
            raise DockerfileError(f"the flag '--{flag}' of {name} is either true or false")
        read.append((flag, value))
    return tuple(read)


def _trigger(node: Node, dialect: Dialect) -> Instruction:
    """What ONBUILD keeps is text, which the later build reads again, by the default escape character."""
    text = "".join(
        [
            _ONBUILD.sub("", node.code, count=1),
            *(f"\n{heredoc.content}{heredoc.name}" for heredoc in node.heredocs),
        ]
    )
    nodes = read_lines(text, dialect).nodes
    if len(nodes) != 1:
        raise DockerfileError("ONBUILD takes one instruction")
    if nodes[0].name in ("FROM", "MAINTAINER", "ONBUILD"):
        raise DockerfileError(f"ONBUILD can't hold {nodes[0].name}")
    try:
        trigger = _instruction(nodes[0], dialect)
    except DockerfileError as error:
        raise DockerfileError(error.reason, node.line) from None
    return Instruction(
        trigger.name,
        node.line,
        node.end_line,
        trigger.flags,
        trigger.args,
        trigger.pairs,
        trigger.is_json,
        trigger.heredocs,
    )
