"""Which tags and OCI labels a commit's image gets. Pure.

The rules are those of docker/metadata-action, with versions by semver.org 2.0.0 and labels by the OCI image spec,
"Annotations". A tag that names a line of versions (``1``, ``1.2``, ``latest``) only ever moves forward.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import total_ordering
from typing import Literal

from caisson.errors import RequestInvalid
from caisson.reference import Tag
from caisson.request import DefaultBranchTag, TagRules

RefKind = Literal["branch", "tag", "pull_request", "commit"]

# https://semver.org/#is-there-a-suggested-regular-expression-regex-to-check-a-semver-string, with an optional "v".
_SEMVER = re.compile(
    r"v?(?P<major>0|[1-9]\d*)\.(?P<minor>0|[1-9]\d*)\.(?P<patch>0|[1-9]\d*)"
    r"(?:-(?P<pre>(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+(?P<build>[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)
_NOT_IN_TAG = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_TAG = 128


@dataclass(frozen=True)
class Commit:
    """What was built: the commit, and how it was asked for."""

    sha: str
    ref_kind: RefKind
    ref_name: str
    is_default_branch: bool
    remote_tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedTag:
    """A tag, the rule that gives it, and why."""

    tag: Tag
    rule: str
    reason: str


@total_ordering
@dataclass(frozen=True)
class Version:
    """A semantic version; ordered by its precedence (semver.org §11), build metadata left out."""

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()
    build: str = ""

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """The version of a git tag, such as ``v1.2.3``; None when it is none."""
        match = _SEMVER.fullmatch(text)
        if match is None or len(text) > _MAX_TAG:
            return None
        pre = tuple(match["pre"].split(".")) if match["pre"] else ()
        return cls(int(match["major"]), int(match["minor"]), int(match["patch"]), pre, match["build"] or "")

    def _key(self) -> tuple[object, ...]:
        identifiers = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.pre)
        # A release is higher than any of its pre-releases.
        return (self.major, self.minor, self.patch, not self.pre, identifiers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key() == other._key()

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        pre = f"-{'.'.join(self.pre)}" if self.pre else ""
        # "+" is not in the grammar of a tag.
        build = f"-{self.build}" if self.build else ""
        return f"{self.major}.{self.minor}.{self.patch}{pre}{build}"


def plan_tags(commit: Commit, rules: TagRules) -> tuple[PlannedTag, ...]:
    """The tags of a commit's image, the most specific last; raises ``RequestInvalid`` when no rule gives one."""
    planned = [
        *_sha_tags(commit, rules),
        *_branch_tags(commit, rules),
        *_version_tags(commit, rules),
        *_raw_tags(rules),
    ]
    unique = {str(item.tag): item for item in reversed(planned)}
    if not unique:
        raise RequestInvalid.from_fields(
            [("tags", "no rule gives a tag for this ref; turn one on, or name one in raw")]
        )
    return tuple(item for item in planned if unique[str(item.tag)] is item)


def _sha_tags(commit: Commit, rules: TagRules) -> Iterable[PlannedTag]:
    if rules.sha:
        yield PlannedTag(Tag(f"sha-{commit.sha}"), "sha", "the commit")
    if rules.sha_short:
        yield PlannedTag(Tag(f"sha-{commit.sha[:7]}"), "sha_short", "the commit, short")


def _branch_tags(commit: Commit, rules: TagRules) -> Iterable[PlannedTag]:
    if commit.ref_kind == "pull_request" and rules.pull_request:
        yield PlannedTag(Tag(sanitise(f"pr-{commit.ref_name}")), "pull_request", f"pull request {commit.ref_name}")
    if commit.ref_kind != "branch":
        return
    if rules.branch:
        yield PlannedTag(Tag(sanitise(commit.ref_name)), "branch", f"branch {commit.ref_name}")
    if commit.is_default_branch:
        extra, reason = _default_branch_tag(commit, rules.default_branch)
        if extra:
            yield PlannedTag(Tag(extra), "default_branch", reason)


def _default_branch_tag(commit: Commit, rule: DefaultBranchTag) -> tuple[str, str]:
    if rule is DefaultBranchTag.NONE:
        return "", ""
    if rule is not DefaultBranchTag.AUTO:
        return rule.value, "the default branch"
    if _releases(commit.remote_tags):
        return "edge", "the default branch, where latest is the highest release"
    return "latest", "the default branch of a repository without releases"


def _version_tags(commit: Commit, rules: TagRules) -> Iterable[PlannedTag]:
    version = Version.parse(commit.ref_name) if commit.ref_kind == "tag" else None
    if commit.ref_kind == "tag" and version is None:
        if rules.semver or rules.branch:
            yield PlannedTag(Tag(sanitise(commit.ref_name)), "tag", f"tag {commit.ref_name}, which is no version")
        return
    if version is None or not rules.semver:
        return
    yield PlannedTag(Tag(sanitise(str(version))), "semver", f"version {commit.ref_name}")
    if version.pre:
        return
    releases = _releases(commit.remote_tags)
    lines = (
        (
            f"{version.major}.{version.minor}",
            [v for v in releases if (v.major, v.minor) == (version.major, version.minor)],
        ),
        (f"{version.major}", [v for v in releases if v.major == version.major]),
        ("latest", releases),
    )
    for name, line in lines:
        if name == "0":
            # Below 1.0.0 anything may change at any time (semver.org §4): no promise is made by a tag "0".
            continue
        if version >= max(line, default=version):
            yield PlannedTag(
                Tag(name), "semver", f"{version} is the highest release{'' if name == 'latest' else f' of {name}'}"
            )


def _releases(tags: Iterable[str]) -> list[Version]:
    return [version for version in map(Version.parse, tags) if version is not None and not version.pre]


def _raw_tags(rules: TagRules) -> Iterable[PlannedTag]:
    for text in rules.raw:
        try:
            yield PlannedTag(Tag(text), "raw", "asked for")
        except ValueError as error:
            raise RequestInvalid.from_fields([("tags.raw", str(error))]) from None


def sanitise(name: str) -> str:
    """A tag for any name of a ref; names that would collide by the change get a digest of themselves.

    >>> sanitise("feature/x"), sanitise("main")
    ('feature-x', 'main')
    """
    tag = _NOT_IN_TAG.sub("-", name).lstrip(".-") or "ref"
    if len(tag) <= _MAX_TAG:
        return tag
    return f"{tag[: _MAX_TAG - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def oci_labels(
    commit: Commit, *, source: str, tags: tuple[PlannedTag, ...], labels: Mapping[str, str]
) -> dict[str, str]:
    """Labels by the OCI image spec's pre-defined annotation keys, the request's own last; all but ``created``."""
    versions = [item.tag for item in tags if item.rule in ("semver", "tag", "branch", "pull_request", "raw")]
    prefix = "org.opencontainers.image"
    return {
        f"{prefix}.source": source,
        f"{prefix}.revision": commit.sha,
        f"{prefix}.version": str(versions[0] if versions else tags[0].tag),
        f"{prefix}.ref.name": commit.ref_name or commit.sha,
        **labels,
    }
