"""Patterns over branches, tags and paths, as rules write them. Pure.

``*`` stands for any characters but a slash, ``**`` for any, ``?`` for one that is no slash; ``**/`` at the beginning of
a part may stand for nothing, as in GitHub's filters. Whoever may push chooses the names and paths that are matched, so
the time is bounded by the lengths of pattern and text (shift-and), where a regular expression could take for ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

MAX_PATTERN = 256
_PIECE = re.compile(r"\*\*+|\*|\?|[^*?]", re.DOTALL)
# Before "**/" at the beginning of a part: a state of its own, from which the star and its slash are passed over.
_GATE = ""


@dataclass(frozen=True)
class _Compiled:
    """Bit i is the state in which the first i pieces of the pattern are matched."""

    literals: dict[str, int]
    any_one: int
    star: int
    double_star: int
    gate: int
    final: int
    prefix: str
    suffix: str


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> _Compiled:
    pieces = _pieces(pattern)
    literals: dict[str, int] = {}
    any_one = star = double_star = gate = 0
    for index, piece in enumerate(pieces):
        bit = 1 << index
        if piece == "**":
            double_star |= bit
        elif piece == _GATE:
            gate |= bit
        elif piece == "*":
            star |= bit
        elif piece == "?":
            any_one |= bit
        else:
            literals[piece] = literals.get(piece, 0) | bit
    first, *_ = re.split(r"[*?]", pattern, maxsplit=1)
    last = re.split(r"[*?]", pattern)[-1]
    # "**/x" matches "x" too, so the slash is no part of what a text must end in.
    suffix = last.removeprefix("/") if "**/" in pattern else last
    return _Compiled(literals, any_one, star, double_star, gate, 1 << len(pieces), first, suffix)


def _pieces(pattern: str) -> list[str]:
    found = [piece[:2] if piece[0] == "*" else piece for piece in _PIECE.findall(pattern)]
    pieces: list[str] = []
    for index, piece in enumerate(found):
        begins = index == 0 or found[index - 1] == "/"
        if piece == "**" and begins and found[index + 1 : index + 2] == ["/"]:
            pieces.append(_GATE)
        pieces.append(piece)
    return pieces


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern stands for the whole text.

    >>> matches("release/*", "release/1.2"), matches("release/*", "release/1/2"), matches("**/*.md", "README.md")
    (True, False, True)
    """
    compiled = _compiled(pattern)
    if not (text.startswith(compiled.prefix) and text.endswith(compiled.suffix)):
        return False
    states = _closure(compiled, 1)
    for character in text:
        moved = (states & compiled.literals.get(character, 0)) << 1 | states & compiled.double_star
        if character != "/":
            moved |= (states & compiled.any_one) << 1 | states & compiled.star
        if not moved:
            return False
        states = _closure(compiled, moved)
    return bool(states & compiled.final)


def _closure(compiled: _Compiled, states: int) -> int:
    """The states with those that stars standing for nothing lead to."""
    empty = compiled.star | compiled.double_star | compiled.gate
    while True:
        more = states | (states & empty) << 1 | (states & compiled.gate) << 3
        if more == states:
            return states
        states = more


def matches_any(patterns: tuple[str, ...], text: str) -> bool:
    """Whether one of the patterns stands for the text; none does where there are none."""
    return any(matches(pattern, text) for pattern in patterns)


def check_pattern(pattern: str) -> str:
    """The pattern itself; raises ``ValueError`` for one that can't be meant.

    >>> check_pattern("docs/**")
    'docs/**'
    """
    if not pattern or len(pattern) > MAX_PATTERN or not pattern.isprintable():
        raise ValueError(f"{pattern[:80]!r} is not a pattern of 1 to {MAX_PATTERN} characters, such as release/*")
    if pattern.startswith("!"):
        raise ValueError(f"{pattern[:80]!r} begins with '!', which negates nothing here; leave it out")
    if pattern.startswith(("/", "./", "refs/")):
        raise ValueError(f"{pattern[:80]!r} begins where no name does; leave out what stands before the name")
    return pattern
