"""``*`` and ``?`` in ``${name#pattern}``, by BuildKit, in time that grows with pattern times value. Pure.

Source: moby/buildkit frontend/dockerfile/shell/lex.go, which makes a regular expression of the pattern.
"""

from __future__ import annotations

# Go's scanner skips it where a text begins, so that "\ufeffhttp://…" is a URL.
BYTE_ORDER_MARK = "\ufeff"

# In a list of tokens, beside plain characters: any one character, and any number of them.
_ANY, _STAR = "any", "star"


def trim(value: str, pattern: str, *, from_end: bool, longest: bool) -> str:
    """The value without the part at its start (or end) that the pattern matches; raises ``ValueError``.

    >>> trim("a.tar.gz", ".*", from_end=True, longest=True), trim("a.tar.gz", "*.", from_end=False, longest=False)
    ('a', 'tar.gz')
    """
    if "\n" in value:
        raise ValueError("a value of several lines is not followed here")
    tokens = _tokens(pattern)
    if not from_end:
        return value[_match_end(tokens, value, longest) :]
    reverse = value[::-1]
    return reverse[_match_end(tokens[::-1], reverse, longest) :][::-1]


def _tokens(pattern: str) -> list[str]:
    tokens, characters = [], iter(pattern.removeprefix(BYTE_ORDER_MARK))
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            if not following or following not in "*?\\}/":
                raise ValueError(f"the pattern {pattern!r} has a backslash before what needs none")
            tokens.append(following)
        else:
            tokens.append({"*": _STAR, "?": _ANY}.get(character, character))
    return tokens


def _match_end(tokens: list[str], value: str, longest: bool) -> int:
    """Where the shortest or the longest match from the start of ``value`` ends; 0 if there is none."""
    ends = {0}
    for token in tokens:
        if token == _STAR:
            ends = set(range(min(ends), len(value) + 1))
        else:
            ends = {end + 1 for end in ends if end < len(value) and token in (_ANY, value[end])}
        if not ends:
            return 0
    return max(ends) if longest else min(ends)
