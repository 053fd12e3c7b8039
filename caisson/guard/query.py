"""Strict readers of what Docker's clients put into a query: form encoding, and JSON within it. Pure.

dockerd's own readers are lenient: Go's forms take both spellings of a key, its JSON the last of two equal keys. What
has two readings is denied here, so that what was judged is what the engine will read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from caisson.guard.verdict import Denied

# What RFC 3986 allows in a query, without the ';' that some readers split at.
_QUERY = re.compile(r"(?:[A-Za-z0-9._~*:/@,=&+!$'()?-]|%[0-9A-Fa-f]{2})*")
_KEY = re.compile(r"[a-z]{1,32}")
_MOST_PAIRS = 64


def parse_query(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a query, decoded, in their order; raises ``Denied`` by the rule ``query``.

    >>> parse_query("t=a%3Ab&q=1")
    (('t', 'a:b'), ('q', '1'))
    """
    if not _QUERY.fullmatch(text):
        raise Denied("query", "The query has a character in it that has to be percent-encoded.")
    pairs = []
    for item in text.split("&") if text else ():
        key, equals, value = item.partition("=")
        # Keys are never encoded: %74=… would be a second spelling of t=….
        if not equals or not _KEY.fullmatch(key):
            raise Denied("query", f"The query has {_shown(item)} in it, which is not KEY=VALUE with a plain key.")
        pairs.append((key, _decode(key, value)))
    if len(pairs) > _MOST_PAIRS:
        raise Denied("query", f"The query has {len(pairs)} values; {_MOST_PAIRS} at most.")
    return tuple(pairs)


def _decode(key: str, value: str) -> str:
    plain = value.replace("+", " ")
    raw = re.sub(r"%(..)", lambda match: chr(int(match[1], 16)), plain).encode("latin-1")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Denied("query", f"The value of {key} is not UTF-8.") from None
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise Denied("query", f"The value of {key} has a control character in it.")
    return text


def write_query(pairs: tuple[tuple[str, str], ...]) -> str:
    """The query that ``parse_query`` reads as these pairs.

    >>> write_query((("t", "a:b"), ("q", "1")))
    't=a%3Ab&q=1'
    """
    return "&".join(f"{key}={quote_plus(value)}" for key, value in pairs)


def parse_json(text: str, what: str) -> Any:
    """A JSON value in which no key comes twice; raises ``Denied`` by the rule ``json``."""
    try:
        return load_strict(text)
    except (ValueError, RecursionError):
        raise Denied("json", f"{what} is not strict JSON.") from None


def load_strict(text: str | bytes) -> Any:
    """A JSON value in which no key comes twice, and nothing that only Python takes for JSON; bytes are UTF-8.

    Raises ``ValueError``, and ``RecursionError`` for one that is nested too deep.
    """
    # Of bytes, Python would take UTF-16 and 32 too, and what is not quite UTF-8.
    decoded = text.decode() if isinstance(text, bytes) else text
    value = json.loads(decoded, object_pairs_hook=_unique, parse_constant=_no_constant)
    # A lone surrogate can be escaped in JSON, and Go reads each as the same replacement character.
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def write_json(value: Mapping[str, str | None]) -> str:
    """A mapping as one line of ASCII."""
    return json.dumps(value, separators=(",", ":"))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")
