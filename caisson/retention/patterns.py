"""Patterns over repositories, tags and references, as policies write them. Pure.

``*`` stands for any characters within one part of a repository's path, ``**`` for any parts, ``?`` for one character. A
repository is matched in its short form (``debian``, ``team/app``) and in its full one (``docker.io/library/debian``).
"""

from __future__ import annotations

import re
from functools import lru_cache

from caisson.reference import Reference, Repository

_REPOSITORY = re.compile(r"[a-z0-9A-Z._:/*?\[\]-]{1,255}")
_TAG = re.compile(r"[\w.*?-]{1,128}", re.ASCII)
# Each one more makes the search of a long text that does not match longer by the text's length.
_MOST_STARS = 8


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*|\*|\?)", pattern)
    wild = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wild.get(piece) or re.escape(piece) for piece in pieces))


def check_repository_pattern(text: str) -> str:
    """The pattern itself; raises ``ValueError`` for one that can't be meant."""
    if not _REPOSITORY.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not a pattern of repositories; write one such as team/* or **")
    return _few_stars(text)


def check_tag_pattern(text: str) -> str:
    """The pattern itself; raises ``ValueError`` for one that can't be meant."""
    if not _TAG.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not a pattern of tags; write one such as v* or latest")
    return _few_stars(text)


def check_reference_pattern(text: str) -> str:
    """``REPOSITORY`` or ``REPOSITORY:TAG``, each a pattern; raises ``ValueError`` for one that can't be meant."""
    repository, tag = _split(text)
    check_repository_pattern(repository)
    if tag is not None:
        check_tag_pattern(tag)
    return text


def _few_stars(text: str) -> str:
    if len(re.findall(r"\*+", text)) > _MOST_STARS:
        raise ValueError(f"{text[:80]!r} has more than {_MOST_STARS} stars")
    return text


def matches_repository(pattern: str, repository: Repository) -> bool:
    """
    >>> from caisson.reference import parse_repository
    >>> app = parse_repository("team/app")
    >>> matches_repository("team/*", app), matches_repository("*", app)
    (True, False)
    >>> matches_repository("docker.io/**", parse_repository("debian"))
    True
    """
    compiled = _compiled(pattern)
    return bool(compiled.fullmatch(repository.familiar()) or compiled.fullmatch(repository.canonical()))


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text matches: for names that are no image repositories, such as those of git servers.

    >>> matches("github.com/team/*", "github.com/team/app"), matches("github.com/*", "github.com/team/app")
    (True, False)
    """
    return bool(_compiled(pattern).fullmatch(text))


def matches_tag(pattern: str, tag: str) -> bool:
    """
    >>> matches_tag("v1.*", "v1.2"), matches_tag("v1.*", "xv1.2")
    (True, False)
    """
    return bool(_compiled(pattern).fullmatch(tag))


def matches_reference(pattern: str, reference: Reference) -> bool:
    """Without a tag, the pattern takes every tag and digest of the repositories it matches.

    >>> from caisson.reference import parse_reference
    >>> matches_reference("debian", parse_reference("debian:trixie"))
    True
    >>> matches_reference("localhost:5000/*:1.*", parse_reference("localhost:5000/app:2.0"))
    False
    """
    repository, tag = _split(pattern)
    if not matches_repository(repository, reference.repository):
        return False
    return tag is None or (reference.tag is not None and matches_tag(tag, reference.tag.value))


def _split(pattern: str) -> tuple[str, str | None]:
    # A colon before the last slash belongs to the registry's port.
    head, slash, last = pattern.rpartition("/")
    last, colon, tag = last.partition(":")
    return f"{head}{slash}{last}", tag if colon else None
