"""One logical line of a Dockerfile: its instruction, flags and arguments, each by its own rule. Pure.

Source: moby/buildkit frontend/dockerfile/parser/{line_parsers,split_command}.go, v0.8 to v0.32.
"""

from __future__ import annotations

import json
import re

from caisson.guard.dockerfile_words import GO_SPACES, DockerfileError

_BLANKS = re.compile(r"[\t\v\f\r ]+")
_JSON_STRING = r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"'
JSON_STRINGS = re.compile(rf"\[[ \t\r\n]*(?:{_JSON_STRING}(?:[ \t\r\n]*,[ \t\r\n]*{_JSON_STRING})*)?[ \t\r\n]*\]")


def split_command(code: str, escape: str) -> tuple[str, tuple[str, ...], str]:
    """Instruction in capitals, flags, and the rest of a logical line."""
    parts = _BLANKS.split(code.strip(GO_SPACES), maxsplit=1)
    name = parts[0]
    if not name.isascii():
        raise DockerfileError(f"{name[:40]!r} is no instruction; builders fold some letters outside ASCII")
    flags, rest = _flags(parts[1], escape) if len(parts) == 2 else ((), "")
    return name.upper(), flags, rest.strip(GO_SPACES)


def _flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """The ``--name=value`` words at the start, unquoted, and what follows them."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at] in "\t\n\v\f\r ":
            at += 1
        if not text.startswith("--", at):
            return tuple(flags), text[at:]
        word, at = _flag(text, at, escape)
        if word == "--":
            return tuple(flags), text[at:]
        flags.append(word)


def _flag(text: str, at: int, escape: str) -> tuple[str, int]:
    word, quote = [], ""
    while at < len(text):
        character = text[at]
        if not character.isascii():
            # Builders look at these byte by byte, and take some bytes for spaces.
            raise DockerfileError("a flag has a character outside ASCII in it")
        if character in ("\\", "`") and escape == "`":
            raise DockerfileError("a flag has an escape character in it, which builders read in different ways")
        at += 1
        if quote:
            if character == quote:
                quote = ""
                continue
        elif character in "\t\n\v\f\r ":
            break
        elif character in "'\"":
            quote = character
            continue
        if character == escape:
            if at == len(text):
                break
            if not text[at].isascii():
                raise DockerfileError("a flag has a character outside ASCII in it")
            character = text[at]
            at += 1
        word.append(character)
    return "".join(word), at


def read_arguments(name: str, rest: str, escape: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...], bool]:
    """Arguments, pairs, and whether they are a JSON list."""
    if name in ("ENV", "LABEL"):
        return (), _pairs(name, rest, escape), False
    if name == "ARG":
        return tuple(_quoted_words(rest, escape)), (), False
    if name == "HEALTHCHECK":
        return tuple(_BLANKS.split(rest, maxsplit=1)) if rest else (), (), False
    if name in ("ADD", "COPY", "VOLUME", "CMD", "ENTRYPOINT", "RUN", "SHELL"):
        listed = _json_list(rest, strict=name in ("ADD", "COPY"))
        if listed is not None:
            return listed, (), True
    if name in ("ADD", "COPY", "VOLUME", "EXPOSE", "FROM"):
        return tuple(_BLANKS.split(rest)) if rest else (), (), False
    return (rest,) if rest else (), (), False


def _json_list(rest: str, *, strict: bool) -> tuple[str, ...] | None:
    """The strings of a JSON list; ``None`` for what builders take for plain words or a shell's command."""
    text = rest.lstrip(GO_SPACES)
    match = JSON_STRINGS.match(text)
    if match is not None and not text[match.end() :].strip(" \t\r\n"):
        return tuple(_no_surrogate(part) for part in json.loads(match[0]))
    if match is not None and strict:
        raise DockerfileError("something follows a JSON list, which builders read in different ways")
    if match is None and text.startswith("["):
        try:
            other = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if isinstance(other, list):
            raise DockerfileError("a JSON list has something else than strings in it")
    return None


def _no_surrogate(text: str) -> str:
    """Half of a pair is what Go replaces, where Python keeps it."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _pairs(name: str, rest: str, escape: str) -> tuple[tuple[str, str], ...]:
    words = _quoted_words(rest, escape)
    if not words:
        return ()
    if "=" not in words[0]:
        parts = _BLANKS.split(rest, maxsplit=1)
        if len(parts) < 2:
            raise DockerfileError(f"{name} needs a name and a value")
        return ((parts[0], parts[1]),)
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(f"{name} has {word[:40]!r} in it, where name=value is needed")
        pairs.append((key, value))
    return tuple(pairs)


def _quoted_words(rest: str, escape: str) -> list[str]:
    """Words that are split at blanks outside of quotes; quotes and escapes stay in them."""
    words: list[str] = []
    current: list[str] = []
    quote, started, at = "", False, 0
    while at < len(rest):
        character = rest[at]
        at += 1
        if not quote and character in GO_SPACES:
            if started or current:
                words.append("".join(current))
            current, started = [], False
            continue
        if not quote and character in "'\"":
            quote, started = character, True
        elif quote and character == quote:
            quote = ""
        elif character == escape and quote != "'":
            if at == len(rest):
                break
            current.append(character)
            character = rest[at]
            at += 1
        current.append(character)
    if started or current:
        words.append("".join(current))
    return words
