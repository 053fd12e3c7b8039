"""Which tags and OCI labels a commit's image gets, and which of them follow a ref. Pure.

The rules, and their order, are those of docker/metadata-action, made safe for a registry that several builds share:

- A tag that stands for several versions (``1``, ``1.2``, ``latest``) only moves forward: a release 1.2.3 that is made
  after 1.2.9 must not take ``1.2`` back. So it is given for the highest release of its line only.
- A pre-release gets its own version and no other tag of a version.
- A branch or git tag whose name belongs to another rule (``latest``, ``sha-…``, ``1.2`` beside a release 1.2.0) is
  tagged as ``branch-NAME`` or ``tag-NAME``: whoever may push a branch must not thereby publish a release.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from caisson.errors import RequestInvalid
from caisson.git import RefKind
from caisson.reference import MAX_TAG, Tag
from caisson.request import DefaultBranchTag, TagRules
from caisson.semver import Version

_NOT_IN_TAG = re.compile(r"[^A-Za-z0-9_.-]+")
_OF_OTHER_RULES = re.compile(r"latest|edge|sha-[0-9a-f]{7,64}|pr-[0-9]+")
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:(?P<user>[^/?#]*)@)?(?P<rest>[^?#]*)", re.IGNORECASE)
_SHORT_SHA = 7
_DIGEST_LENGTH = 8
_OCI = "org.opencontainers.image"
_RESERVED_LABELS = "caisson."
_FOLLOW_REFS = frozenset({"branch", "default_branch", "pull_request", "raw"})
DERIVED_LABELS = frozenset(
    f"{_OCI}.{key}" for key in ("created", "ref.name", "revision", "source", "title", "url", "version")
)
"""Labels that Caisson derives from the commit, its ref and the time of the build."""
# Unicode's control characters, line and paragraph separators, and its bidirectional controls (UAX 9, section 2).
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Commit:
    """The commit that is built, and how it was asked for.

    ``ref_name`` is the branch's or tag's name, the pull request's number, or empty for a bare SHA; ``remote_tags`` are
    the names of all tags of the remote.
    """

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


def follows_ref(rule: str) -> bool:
    """Whether a rule's tags move with what a ref means: the one that was asked for last has them. The others stand for
    one commit, or move by versions.

    >>> follows_ref("branch"), follows_ref("sha"), follows_ref("semver")
    (True, False, False)
    """
    return rule in _FOLLOW_REFS


def rule_problems(rules: TagRules) -> list[tuple[str, str]]:
    """What is wrong with the rules themselves, as ``(field, message)``; can be known before anything is cloned.

    >>> rule_problems(TagRules(raw=["stable", "a b"]))[0][0]
    'tags.raw.1'
    """
    problems = []
    for index, text in enumerate(rules.raw):
        try:
            Tag(text)
        except ValueError as error:
            problems.append((f"tags.raw.{index}", str(error)))
    switches = (rules.sha, rules.sha_short, rules.branch, rules.pull_request, rules.semver, rules.raw)
    if not any(switches) and rules.default_branch is DefaultBranchTag.NONE:
        problems.append(("tags", "every rule is off, so the image would have no tag; turn one on, or give one in raw"))
    return problems


def plan_tags(commit: Commit, rules: TagRules) -> tuple[PlannedTag, ...]:
    """The tags of a commit's image, the most telling first, none of them twice.

    Raises ``RequestInvalid`` for a raw tag outside the grammar, and when no rule gives a tag.
    """
    problems = rule_problems(rules)
    if problems:
        raise RequestInvalid.from_fields(problems)
    # The order is metadata-action's, by priority: semver 900, ref 600, raw 200, sha 100.
    planned: dict[Tag, PlannedTag] = {}
    for item in (
        *_version_tags(commit, rules),
        *_ref_tags(commit, rules),
        *_default_branch_tags(commit, rules),
        *(PlannedTag(Tag(text), "raw", "asked for") for text in rules.raw),
        *_sha_tags(commit, rules),
    ):
        planned.setdefault(item.tag, item)
    if not planned:
        built = f"{commit.ref_kind.replace('_', ' ')} {commit.ref_name}".strip()
        raise RequestInvalid.from_fields(
            [("tags", f"no rule that is on gives a tag for a build of {built}; turn on sha, or give a tag in raw")]
        )
    return tuple(planned.values())


def _version_tags(commit: Commit, rules: TagRules) -> Iterator[PlannedTag]:
    version = _version_of(commit)
    if version is None or not rules.semver:
        return
    yield PlannedTag(Tag(version.tag), "semver", f"version {commit.ref_name}")
    if version.is_prerelease:
        return
    releases = _releases(commit.remote_tags)
    lines = [(name, [other for other in releases if name in other.lines()]) for name in version.lines()]
    for name, line in (*lines, ("latest", releases)):
        if all(other.precedence <= version.precedence for other in line):
            of = "" if name == "latest" else f" of {name}"
            yield PlannedTag(Tag(name), "semver", f"{version} is the highest release{of}")


def _ref_tags(commit: Commit, rules: TagRules) -> Iterator[PlannedTag]:
    name = commit.ref_name
    if commit.ref_kind == "pull_request" and rules.pull_request:
        yield PlannedTag(Tag(sanitise(f"pr-{name}")), "pull_request", f"pull request {name}")
    elif commit.ref_kind == "branch" and rules.branch:
        yield PlannedTag(_named_tag(commit), "branch", f"branch {name}")
    elif commit.ref_kind == "tag" and rules.semver and _version_of(commit) is None:
        yield PlannedTag(_named_tag(commit), "tag", f"tag {name}, which is no semantic version")


def _default_branch_tags(commit: Commit, rules: TagRules) -> Iterator[PlannedTag]:
    if commit.ref_kind != "branch" or not commit.is_default_branch:
        return
    rule = rules.default_branch
    if rule in (DefaultBranchTag.LATEST, DefaultBranchTag.EDGE):
        yield PlannedTag(Tag(rule.value), "default_branch", "the default branch")
    elif rule is DefaultBranchTag.AUTO:
        if _releases(commit.remote_tags):
            yield PlannedTag(Tag("edge"), "default_branch", "the default branch; latest is the highest release")
        else:
            yield PlannedTag(Tag("latest"), "default_branch", "the default branch of a repository without releases")


def _sha_tags(commit: Commit, rules: TagRules) -> Iterator[PlannedTag]:
    if rules.sha:
        yield PlannedTag(Tag(f"sha-{commit.sha}"), "sha", "the commit")
    if rules.sha_short:
        yield PlannedTag(Tag(f"sha-{commit.sha[:_SHORT_SHA]}"), "sha_short", "the commit, short")


def _version_of(commit: Commit) -> Version | None:
    version = Version.parse(commit.ref_name) if commit.ref_kind == "tag" else None
    return version if version and len(version.tag) <= MAX_TAG else None


def _versions(tags: Iterable[str]) -> list[Version]:
    return [version for version in map(Version.parse, tags) if version is not None]


def _releases(tags: Iterable[str]) -> list[Version]:
    return [version for version in _versions(tags) if not version.is_prerelease]


def _named_tag(commit: Commit) -> Tag:
    """The tag for a branch or git tag by its name, which may not be one that another rule gives."""
    tag = sanitise(commit.ref_name)
    if _OF_OTHER_RULES.fullmatch(tag) or _names_a_version(tag, commit.remote_tags):
        return Tag(sanitise(f"{commit.ref_kind}-{commit.ref_name}"))
    return Tag(tag)


def _names_a_version(tag: str, remote_tags: Iterable[str]) -> bool:
    if not tag[0].isdigit():
        return False
    return any(tag == version.tag or tag in version.lines() for version in _versions(remote_tags))


def sanitise(name: str) -> str:
    """A tag for the name of any ref: what a tag can't hold becomes ``-``, as in metadata-action.

    A name that loses what tells it from others, by its length or by letters that are not ASCII, gets the beginning of
    its SHA-256 in exchange.

    >>> sanitise("feature/x#1"), sanitise("größe"), sanitise("日本")
    ('feature-x-1', 'gr-e-d353a267', 'ref-cf2abf0c')
    """
    tag = _NOT_IN_TAG.sub("-", name).lstrip(".-")
    if name.isascii() and 0 < len(tag) <= MAX_TAG:
        return tag
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{tag[: MAX_TAG - _DIGEST_LENGTH - 1].rstrip('.-') or 'ref'}-{digest}"


def label_problem(label: tuple[str, str]) -> str:
    """What is wrong with a request's label, key and value; empty: nothing.

    Labels that Caisson derives tell where an image comes from, so no request may say otherwise; and what a terminal or
    a page would obey, or show in another order than it is written, is no text.

    >>> label_problem(("team", "web")), label_problem(("caisson.build", "x"))
    ('', "'caisson.build' is reserved: labels below caisson. are Caisson's own")
    """
    key, value = label
    if key.startswith(_RESERVED_LABELS):
        return f"{key[:80]!r} is reserved: labels below {_RESERVED_LABELS} are Caisson's own"
    if key in DERIVED_LABELS:
        return f"{key!r} is derived from the commit; leave it out (so are {_others(key)})"
    found = _NOT_TEXT.search(value)
    if found:
        return f"{key[:80]!r} has the control character U+{ord(found[0]):04X} in its value; leave it out"
    return ""


def _others(key: str) -> str:
    return ", ".join(sorted(other.removeprefix(f"{_OCI}.") for other in DERIVED_LABELS - {key}))


def oci_labels(
    commit: Commit, *, source: str, tags: tuple[PlannedTag, ...], labels: Mapping[str, str]
) -> dict[str, str]:
    """Labels by the pre-defined annotation keys of the OCI image spec, and the request's own ``labels`` besides.

    ``created`` is not among them: it is the time of the build, which must not decide whether one is needed. Raises
    ``RequestInvalid`` for what ``label_problem`` refuses.
    """
    problems = [("labels", problem) for problem in map(label_problem, sorted(labels.items())) if problem]
    if problems:
        raise RequestInvalid.from_fields(problems)
    source = _without_credentials(source)
    version = _version_of(commit)
    ours = {
        "source": source,
        "revision": commit.sha,
        "version": str(version or tags[0].tag),
        "ref.name": f"pr-{commit.ref_name}" if commit.ref_kind == "pull_request" else commit.ref_name or commit.sha,
        "title": _title(source),
    }
    if source.startswith(("http://", "https://")):
        ours["url"] = source.removesuffix("/").removesuffix(".git")
    return {**{f"{_OCI}.{key}": value for key, value in ours.items()}, **labels}


def _without_credentials(source: str) -> str:
    """The URL without user, password, query and fragment; only ssh keeps its login name, which is no secret.

    >>> _without_credentials("https://token@example.com/a.git?key=x"), _without_credentials("ssh://git:pw@example.com/a")
    ('https://example.com/a.git', 'ssh://git@example.com/a')
    """
    match = _URL.match(source)
    if match is None:
        return re.sub(r"^[^@/]*:[^@/]*@", "", source)
    login = (match["user"] or "").partition(":")[0] if match["scheme"].lower() == "ssh" else ""
    return f"{match['scheme']}://{login}{'@' if login else ''}{match['rest']}"


def _title(source: str) -> str:
    return re.split(r"[/:]", source.rstrip("/"))[-1].removesuffix(".git")
