"""The lines of a Dockerfile: directives, continuations, comments, heredocs, flags and arguments, by BuildKit. Pure.

Source: moby/buildkit frontend/dockerfile/parser, v0.8 (Docker 20.10) to v0.32, which the classic builder uses too.
Where versions differ, a ``Dialect`` says which is meant if people write such files; else the file is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from caisson.guard.dockerfile_arguments import JSON_STRINGS, read_arguments, split_command
from caisson.guard.dockerfile_words import GO_SPACES, DockerfileError, split_words

# A Go bufio.Scanner gives up on more; the line's end is not counted.
MAX_LINE = (64 << 10) - 1
# Of the whole file. BuildKit has no bound of its own; the largest that people write are a tenth of this.
MAX_SIZE = 1 << 20

HEREDOC_INSTRUCTIONS = frozenset({"ADD", "COPY", "RUN"})
_DIRECTIVE = re.compile(r"(?P<name>[a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=(?P<rest>.*)", re.DOTALL)
_DIRECTIVE_SPACES = "\t\n\f\r "
_HEREDOC = re.compile(r"[0-9]*<<(?P<chomp>-?)(?P<blanks>[\t\n\f\r ]*)(?P<name>[^<]*)")


class Dialect(Enum):
    """What a builder makes of ``<<``: the one difference between versions that ordinary Dockerfiles run into."""

    NO_HEREDOCS = "before BuildKit 0.10 (Docker 23)"
    HEREDOCS = "BuildKit 0.10 to 0.21 (Docker 23 to 28.1)"
    SPACED_HEREDOCS = "BuildKit 0.22 (Docker 28.2) and later"

    @classmethod
    def of_engine(cls, version: str) -> Dialect:
        """The dialect of both builders that an engine brings; raises ``ValueError`` for what is no version.

        >>> [Dialect.of_engine(version).name for version in ("20.10.24+dfsg1", "26.1.5", "28.2.2")]
        ['NO_HEREDOCS', 'HEREDOCS', 'SPACED_HEREDOCS']
        """
        match = re.match(r"(\d{1,4})\.(\d{1,4})(?![0-9])", version, re.ASCII)
        if match is None:
            raise ValueError(f"{version[:40]!r} is not the version of an engine; give one such as 26.1.5")
        numbers = (int(match[1]), int(match[2]))
        if numbers < (23, 0):
            return cls.NO_HEREDOCS
        return cls.HEREDOCS if numbers < (28, 2) else cls.SPACED_HEREDOCS


@dataclass(frozen=True)
class Syntax:
    """A ``# syntax=`` directive, or what some version takes for one: the image that reads the rest of the file."""

    line: int
    value: str


@dataclass(frozen=True)
class Heredoc:
    name: str
    content: str


@dataclass(frozen=True)
class Node:
    """One instruction as it stands: ``args`` split by the instruction's own rule, nothing expanded.

    ``pairs`` are the names and values of ``ENV`` and ``LABEL``. ``code`` is the logical line, continuations joined.
    """

    name: str
    line: int
    end_line: int
    flags: tuple[str, ...]
    args: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    is_json: bool
    heredocs: tuple[Heredoc, ...]
    code: str


@dataclass(frozen=True)
class Lines:
    escape: str
    nodes: tuple[Node, ...]


def decode(source: bytes | str) -> str:
    """The text of a Dockerfile, without its byte-order mark; raises ``DockerfileError`` for what is none."""
    try:
        data = source.encode() if isinstance(source, str) else source
        if len(data) > MAX_SIZE:
            raise DockerfileError(f"it has {len(data)} bytes; a Dockerfile has {MAX_SIZE} at most")
        text = data.decode().removeprefix("\ufeff")
    except UnicodeError:
        raise DockerfileError("it is not UTF-8, and what builders make of the rest differs; save it as UTF-8") from None
    if "\x00" in text:
        raise DockerfileError("it has a NUL byte in it")
    return text


def read_lines(text: str, dialect: Dialect) -> Lines:
    """All instructions of a text that ``decode`` gave; raises ``DockerfileError``."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE or (len(line) > MAX_LINE // 4 and len(line.encode()) > MAX_LINE):
            raise DockerfileError(f"it has more than {MAX_LINE} bytes", number)
        if line.endswith("\r\r"):
            raise DockerfileError("it ends with two carriage returns, of which older builders remove one", number)
    escape = _escape(lines)
    return Lines(escape, tuple(_Reader(lines, escape, dialect).nodes()))


def _directive(comment: str) -> tuple[str, str] | None:
    """Name and value of what looks like a directive behind its ``#``."""
    match = _DIRECTIVE.match(comment)
    if match is None or not match["rest"]:
        return None
    return match["name"].lower(), match["rest"].strip(_DIRECTIVE_SPACES)


def _escape(lines: list[str]) -> str:
    """The escape character; refused where versions of BuildKit disagree on it (``check`` came with 0.14)."""
    older = _escape_by(lines, _DIRECTIVE_SPACES, frozenset({"syntax", "escape"}))
    newer = _escape_by(lines, GO_SPACES, frozenset({"syntax", "escape", "check"}))
    if older != newer:
        raise DockerfileError("builders disagree on whether '# escape=' counts here; put it into the first line", 1)
    return newer


def _escape_by(lines: list[str], spaces: str, known: frozenset[str]) -> str:
    escape, seen = "\\", set()
    for number, line in enumerate(lines, 1):
        stripped = line.rstrip("\r").lstrip(GO_SPACES)
        directive = _directive(stripped[1:].lstrip(spaces)) if stripped.startswith("#") else None
        if directive is None or directive[0] not in known:
            break
        name, value = directive
        if name in seen:
            raise DockerfileError(f"the directive {name!r} is given twice", number)
        seen.add(name)
        if name == "escape":
            if value not in ("\\", "`"):
                raise DockerfileError("'# escape=' takes a backslash or a backtick", number)
            escape = value
    return escape


def find_syntax(text: str) -> Syntax | None:
    """The syntax directive of a text that ``decode`` gave, as the most generous version finds it.

    BuildKit 0.8 lets any name stand before it; 0.11 and later pass over a ``#!`` line and know ``//`` as well.
    """
    lines = text.split("\n")
    start = 1 if lines[0].startswith("#!") else 0
    for prefix in ("#", "//"):
        for number, line in enumerate(lines[start:], start + 1):
            stripped = line.strip(GO_SPACES)
            directive = _directive(stripped[len(prefix) :].lstrip(GO_SPACES)) if stripped.startswith(prefix) else None
            if directive is None:
                break
            if directive[0] == "syntax":
                return Syntax(number, directive[1])
    return None


class _Reader:
    """From physical lines to instructions; the cursor only ever moves on."""

    def __init__(self, lines: list[str], escape: str, dialect: Dialect) -> None:
        self._lines, self._escape, self._dialect = lines, escape, dialect
        self._at = 0

    def nodes(self) -> list[Node]:
        nodes = []
        while self._at < len(self._lines):
            start = self._at + 1
            try:
                node = self._node(start)
            except DockerfileError as error:
                raise DockerfileError(error.reason, error.line or start) from None
            if node is not None:
                nodes.append(node)
        return nodes

    def _node(self, start: int) -> Node | None:
        first = self._take().lstrip(GO_SPACES)
        line, more = self._without_continuation("" if first.startswith("#") else first)
        if not more and not line:
            return None
        pieces = [line]
        while more and self._at < len(self._lines):
            raw = self._take()
            stripped = raw.lstrip(GO_SPACES)
            if not stripped or stripped.startswith("#"):
                continue
            line, more = self._without_continuation(raw)
            pieces.append(line)
        return self._instruction("".join(pieces), start)

    def _take(self) -> str:
        self._at += 1
        return self._lines[self._at - 1].rstrip("\r")

    def _without_continuation(self, line: str) -> tuple[str, bool]:
        """A last escape character means that the line goes on, unless one stands before it."""
        stripped = line.rstrip(" \t")
        if stripped.endswith(self._escape) and stripped[-2:] != self._escape * 2:
            return stripped[:-1], True
        return line, False

    def _instruction(self, code: str, start: int) -> Node:
        name, flags, rest = split_command(code, self._escape)
        args, pairs, is_json = read_arguments(name, rest, self._escape)
        heredocs: tuple[Heredoc, ...] = ()
        if (
            self._dialect is not Dialect.NO_HEREDOCS
            and "<<" in code
            and _takes_heredocs(name, rest, self._escape, is_json)
        ):
            heredocs = tuple(self._heredoc(name, chomp, start) for name, chomp in self._heredocs_of(code))
        return Node(name, start, self._at, flags, args, pairs, is_json, heredocs, code)

    def _heredocs_of(self, code: str) -> list[tuple[str, bool]]:
        spaced = self._dialect is Dialect.SPACED_HEREDOCS
        try:
            words, newer = split_words(code, raw=True, spaced=spaced)
        except DockerfileError as error:
            if "heredoc" in error.reason:
                raise
            # BuildKit looks for heredocs on such a line no further, and takes it as it is.
            return []
        found = [heredoc for word in words if (heredoc := parse_heredoc(word, spaced=spaced)) is not None]
        if found and newer:
            raise DockerfileError("a heredoc and a substitution that older builders don't know stand in one line")
        return found

    def _heredoc(self, name: str, chomp: bool, start: int) -> Heredoc:
        content: list[str] = []
        while self._at < len(self._lines):
            raw = self._lines[self._at]
            line = self._take()
            if (line.lstrip("\t") if chomp else line) == name:
                return Heredoc(name, "".join(f"{line}\n" for line in content))
            content.append(raw)
        raise DockerfileError(f"the heredoc {name!r} has no end", start)


def parse_heredoc(word: str, *, spaced: bool) -> tuple[str, bool] | None:
    """Name of the heredoc that a word begins, and whether tabs before its lines are dropped; ``None`` if none."""
    match = _HEREDOC.fullmatch(word)
    if match is None:
        return None
    rest = match["name"] if spaced else match["blanks"] + match["name"]
    if not rest:
        return None
    names, _ = split_words(rest, raw=False, spaced=spaced)
    return (names[0], bool(match["chomp"])) if len(names) == 1 else None


def _takes_heredocs(name: str, rest: str, escape: str, is_json: bool) -> bool:
    if name == "ONBUILD" and rest:
        name, _, rest = split_command(rest, escape)
        is_json = read_arguments(name, rest, escape)[2]
    if name in HEREDOC_INSTRUCTIONS and not is_json and JSON_STRINGS.match(rest.lstrip(GO_SPACES)):
        raise DockerfileError("a heredoc follows a JSON list, which builders read in different ways")
    return name in HEREDOC_INSTRUCTIONS and not is_json
