"""What happened to a repository, in the same words for every provider; and how a payload is read. Pure.

Whatever is read here was signed by the provider, and written by whoever may push or open a pull request: refs, names,
paths and messages are strangers' words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from caisson.git import check_ref, is_full_sha

MAX_DEPTH = 64
# More than these count as changed everywhere: matching them would take longer than a build that was not needed.
MAX_PATHS = 1_000
MAX_PATH_CHARACTERS = 200_000
_MAX_MESSAGE = 100_000
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ZEROS = re.compile(r"0+")
_SHA = re.compile(r"[0-9a-f]{12,64}")
# GitHub, "Skipping workflow runs"; GitLab, "Skip a pipeline"; both take any capitals.
_SKIP = re.compile(
    r"\[(?:skip[ -]ci|ci[ -]skip|no[ -]ci|skip[ -]actions|actions[ -]skip)\]|^skip-checks:[ ]*true[ ]*$",
    re.IGNORECASE | re.MULTILINE,
)


class Provider(StrEnum):
    """Whose webhooks they are; Forgejo's are Gitea's, with names of its own for the headers."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    BITBUCKET = "bitbucket"


class EventKind(StrEnum):
    """What a rule can be about."""

    PUSH = "push"
    TAG = "tag"
    PULL_REQUEST = "pull_request"


class Malformed(ValueError):
    """The payload is none that the provider documents; the message names the field."""


@dataclass(frozen=True)
class Event:
    """Something that may be built.

    ``repository`` is its full name at the provider (``team/app``), ``ref`` what is to be built, ``branch`` the branch
    pushed to or the one that a pull request is for, ``tag`` the tag's name, ``number`` the pull request's. ``sha`` is
    the commit as the payload has it; where that is not its whole SHA, ``ref`` alone decides. ``message`` is where a
    wish to skip is looked for. ``paths`` are the changed files; None where the payload does not list all of them.
    """

    kind: EventKind
    repository: str
    ref: str
    sha: str
    branch: str = ""
    tag: str = ""
    number: int = 0
    message: str = ""
    paths: tuple[str, ...] | None = None
    from_fork: bool = False

    @property
    def commit(self) -> str:
        """The whole SHA of the commit to build; empty where the payload has less."""
        return self.sha if is_full_sha(self.sha) else ""

    def __str__(self) -> str:
        """What happened, in a few words."""
        if self.kind is EventKind.PULL_REQUEST:
            return f"pull request {self.number} for {self.branch}{' from a fork' if self.from_fork else ''}"
        return f"tag {self.tag}" if self.kind is EventKind.TAG else f"push to {self.branch}"


@dataclass(frozen=True)
class Ignored:
    """Something that builds nothing, whatever the rules say."""

    reason: str


def skip_marker(message: str) -> str:
    """The words in a commit's message that ask for no build; empty: none.

    >>> skip_marker("Spelling\\n\\n[Skip CI]"), skip_marker("skip ci")
    ('[Skip CI]', '')
    """
    found = _SKIP.search(message[:_MAX_MESSAGE])
    return found[0].strip() if found else ""


def read_payload(body: bytes) -> Mapping[str, Any]:
    """The JSON object of a delivery; raises ``Malformed`` for anything else, and for one nested too deeply.

    >>> read_payload(b'{"ref": "refs/heads/main"}')["ref"]
    'refs/heads/main'
    """
    depth = 0
    for bracket in _STRING.sub(b"", body).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise Malformed(f"the payload is nested more than {MAX_DEPTH} deep")
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        hint = "; set the webhook's content type to application/json" if body.startswith(b"payload=") else ""
        raise Malformed(f"the payload is not JSON{hint}") from None
    if not isinstance(payload, dict):
        raise Malformed("the payload is not a JSON object")
    return payload


def find(payload: Any, *keys: str) -> Any:
    """The value at a path of keys; None where there is none.

    >>> find({"a": {"b": 1}}, "a", "b"), find({"a": []}, "a", "b")
    (1, None)
    """
    for key in keys:
        payload = payload.get(key) if isinstance(payload, Mapping) else None
    return payload


def text(payload: Any, *keys: str) -> str:
    """The string at a path of keys; raises ``Malformed`` where it is none, or is empty."""
    value = find(payload, *keys)
    if not isinstance(value, str) or not value:
        raise Malformed(f"the payload's {'.'.join(keys)} is not a text")
    return value


def some_text(payload: Any, *keys: str) -> str:
    """The string at a path of keys; empty where there is none."""
    value = find(payload, *keys)
    return value if isinstance(value, str) else ""


def number(payload: Any, *keys: str) -> int:
    """The positive number at a path of keys; raises ``Malformed`` where it is none."""
    value = find(payload, *keys)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**53:
        raise Malformed(f"the payload's {'.'.join(keys)} is not a positive number")
    return value


def ref_name(full: str, prefix: str) -> str:
    """The name in a full ref; raises ``Malformed`` where git would not allow the ref.

    >>> ref_name("refs/heads/release/1", "refs/heads/")
    'release/1'
    """
    try:
        return check_ref(full).removeprefix(prefix)
    except ValueError as error:
        raise Malformed(f"the payload's ref {error}") from None


def sha(payload: Any, *keys: str) -> str:
    """The commit at a path of keys, whole or at least 12 digits; raises ``Malformed`` where it is none."""
    value = text(payload, *keys).lower()
    if not _SHA.fullmatch(value):
        raise Malformed(f"the payload's {'.'.join(keys)} is not the SHA of a commit")
    return value


def is_zeros(value: str) -> bool:
    """Whether a SHA stands for nothing: before a ref was made, after it was deleted.

    >>> is_zeros("0" * 40), is_zeros("0123"), is_zeros("")
    (True, False, False)
    """
    return _ZEROS.fullmatch(value) is not None


def changed_paths(commits: Any, *, most_files: int = 0) -> tuple[str, ...] | None:
    """Every file that the commits added, modified or removed; None where one of them has no whole list.

    ``most_files`` is how many a provider lists of one commit at the most, 0 where it documents none.

    >>> changed_paths([{"added": ["a"], "modified": ["b"], "removed": None}])
    ('a', 'b')
    >>> changed_paths([{"id": "1"}]) is None
    True
    """
    if not isinstance(commits, list) or not commits:
        return None
    found: dict[str, None] = {}
    for commit in commits:
        lists = [find(commit, key) for key in ("added", "modified", "removed")]
        if all(names is None for names in lists):
            return None
        files = [name for names in lists if isinstance(names, list) for name in names if isinstance(name, str)]
        if most_files and len(files) >= most_files:
            return None
        found.update(dict.fromkeys(files))
    return _within_bounds(found)


def _within_bounds(paths: Iterable[str]) -> tuple[str, ...] | None:
    listed = tuple(paths)
    if not listed or len(listed) > MAX_PATHS or sum(map(len, listed)) > MAX_PATH_CHARACTERS:
        return None
    return listed
