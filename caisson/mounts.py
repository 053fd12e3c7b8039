"""Which mounts a container may have: ``MountPolicy``, an ordered list of rules over values. Pure.

Rules of this module:

- The first rule is the oldest one: never ``/``, ``/Users``, ``/home``, ``/root``, ``/etc``, nor what is below or above
  them. Nothing lifts it, no allowlist and no setting.
- An empty allowlist allows nothing. What no rule refuses is still refused unless it is on the allowlist.
- A path is judged by every spelling: as it is written, with its slashes and dots collapsed, and with its symlinks
  resolved; letters are compared without case, in Unicode's compatibility form (macOS's file systems do). The roots
  are resolved likewise: where ``/home`` is a symlink to ``/data/home``, both are refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from caisson.errors import MountRefused
from caisson.hostpath import PathKind, Resolved, Resolver, resolve_for_engine, resolve_on_host
from caisson.mount_doors import Mount, MountKind, mounts_of_body, mounts_of_inspect, shown
from caisson.mount_paths import (
    FIRST_RULE_ROOTS,
    HOST_ROOTS,
    RUNTIME_SOCKETS,
    DeniedRoot,
    PathParts,
    fold,
    relation,
)

__all__ = [
    "FIRST_RULE_ROOTS",
    "HOST_ROOTS",
    "RULES",
    "AllowedBind",
    "DeniedRoot",
    "Mount",
    "MountKind",
    "MountPolicy",
    "PathKind",
    "Resolved",
    "Resolver",
    "Rule",
    "Verdict",
    "builder_policy",
    "mounts_of_body",
    "mounts_of_inspect",
    "require_allowed",
    "resolve_for_engine",
    "resolve_on_host",
]


@dataclass(frozen=True)
class AllowedBind:
    """One bind that may be: ``source`` spelt exactly so, at ``target``; ``read_only`` where it has to be.

    ``kind`` is what has to be at the source. A socket's other end is a process, whose rights come with it.
    """

    source: str
    target: str
    read_only: bool = True
    kind: PathKind = "socket"


@dataclass(frozen=True)
class Verdict:
    """The decision on one mount: by which rule (its name in ``RULES``), and why, as the middle of a sentence."""

    decision: Literal["allow", "deny"]
    rule: str
    mount: Mount
    reason: str

    @property
    def allowed(self) -> bool:
        return self.decision == "allow"


@dataclass(frozen=True)
class _Root:
    """A denied root in one of its spellings."""

    root: DeniedRoot
    parts: PathParts


@dataclass(frozen=True)
class _Case:
    """A mount with all that the rules look at. ``spellings`` are the paths of its source that are judged."""

    mount: Mount
    spellings: tuple[tuple[str, PathParts], ...]
    resolved: Resolved | None
    binds: tuple[AllowedBind, ...]
    tmpfs: tuple[str, ...]
    first_roots: tuple[_Root, ...]
    host_roots: tuple[_Root, ...]

    @property
    def listed(self) -> tuple[AllowedBind, ...]:
        """The entries of the allowlist for this source and target."""
        return tuple(b for b in self.binds if (b.source, b.target) == (self.mount.source, self.mount.target))

    @property
    def is_listed_socket(self) -> bool:
        """Whether it is on the allowlist as a socket; that one is really there is the last rule's."""
        return any(bind.kind == "socket" for bind in self.listed)


@dataclass(frozen=True)
class Rule:
    """One rule: ``refuse`` gives the reason against a case, or an empty string."""

    name: str
    sentence: str
    refuse: Callable[[_Case], str] = field(repr=False)


@dataclass(frozen=True)
class MountPolicy:
    """Allows the binds and the tmpfs targets that are listed, and nothing else.

    ``denied_roots`` are refused besides those of the first rule. Raises ``ValueError`` for a denied root that is not
    an absolute path.
    """

    allowed_binds: tuple[AllowedBind, ...] = ()
    allowed_tmpfs: tuple[str, ...] = ()
    denied_roots: tuple[DeniedRoot, ...] = HOST_ROOTS

    def __post_init__(self) -> None:
        for root in self.denied_roots:
            if not root.path.startswith("/"):
                raise ValueError(f"denied_roots: {root.path!r} is not an absolute path")

    def check(self, mounts: Iterable[Mount], resolve: Resolver) -> tuple[Verdict, ...]:
        """One verdict a mount, in their order. ``resolve`` must see files as the engine does."""
        first, host = tuple(_roots(FIRST_RULE_ROOTS, resolve)), tuple(_roots(self.denied_roots, resolve))
        return tuple(self._verdict(mount, resolve, first, host) for mount in mounts)

    def _verdict(self, mount: Mount, resolve: Resolver, first: tuple[_Root, ...], host: tuple[_Root, ...]) -> Verdict:
        resolved = resolve(mount.source) if mount.kind == "bind" and _can_resolve(mount.source) else None
        case = _Case(
            mount=mount,
            spellings=tuple(dict.fromkeys(_spellings(mount, resolved, resolve))),
            resolved=resolved,
            binds=self.allowed_binds,
            tmpfs=self.allowed_tmpfs,
            first_roots=first,
            host_roots=host,
        )
        for rule in RULES:
            if reason := rule.refuse(case):
                return Verdict("deny", rule.name, mount, reason)
        return Verdict("allow", "allowlist", mount, "it is on the allowlist")


def _roots(roots: tuple[DeniedRoot, ...], resolve: Resolver) -> Iterator[_Root]:
    for root in roots:
        for parts in dict.fromkeys((fold(root.path), fold(resolve(root.path).path))):
            yield _Root(root, parts)


def _spellings(mount: Mount, resolved: Resolved | None, resolve: Resolver) -> Iterator[tuple[str, PathParts]]:
    if mount.kind in ("bind", "device") and mount.source.startswith("/") and len(mount.source) <= _LONGEST_PATH:
        yield mount.source, fold(mount.source)
        if resolved is not None:
            yield resolved.path, fold(resolved.path)
    for option in mount.options:
        # A volume's driver mounts what its option says: the local driver's device=/etc is a bind of /etc.
        value = option.partition("=")[2]
        if _can_resolve(value):
            yield value, fold(value)
            yield resolve(value).path, fold(resolve(value).path)


# Linux's PATH_MAX; a longer source can't be mounted, and would take long to compare.
_LONGEST_PATH = 4096


def _can_resolve(path: str) -> bool:
    return path.startswith("/") and len(path) <= _LONGEST_PATH and "\x00" not in path and not _has_surrogate(path)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _against(case: _Case, roots: tuple[_Root, ...]) -> str:
    for spelling, parts in case.spellings:
        for root in roots:
            if lies := relation(parts, root.parts):
                source = case.mount.source or case.mount.kind
                alias = "" if spelling == source else f", which leads to {shown(spelling)},"
                known = "" if (spelling, lies) == (root.root.path, "is") else f"{root.root.path}, "
                return f"{shown(source)}{alias} {lies} {known}{root.root.what}"
    return ""


def _first_rule(case: _Case) -> str:
    return _against(case, case.first_roots)


def _host_roots(case: _Case) -> str:
    listed = case.is_listed_socket
    return _against(case, tuple(root for root in case.host_roots if not (listed and root.root.sockets)))


def _runtime_sockets(case: _Case) -> str:
    for spelling, parts in case.spellings:
        if parts and parts[-1] in RUNTIME_SOCKETS:
            return f"{shown(spelling)} is the socket of another container runtime"
    return ""


_DRIVE = re.compile(r"/*[A-Za-z]:")


def _spelling(case: _Case) -> str:
    source = case.mount.source
    if case.mount.kind != "bind":
        return ""
    if not source:
        return "its source is empty"
    if len(source) > _LONGEST_PATH:
        return f"its source has {len(source)} characters, more than any path"
    checks = (
        ("\x00" in source, "has a NUL character in it"),
        (_has_surrogate(source), "has a character in it that is not valid Unicode"),
        (any(unicodedata.category(c) in ("Cc", "Cf") for c in source), "has an invisible character in it"),
        ("\\" in source, "has a backslash in it"),
        (_DRIVE.match(source) is not None, "has a drive letter"),
        (source.startswith("~"), "starts with '~', which no engine expands"),
        (not source.startswith("/"), "is not an absolute path"),
        (".." in source.split("/"), "climbs with '..'"),
        (source != f"/{'/'.join(part for part in source.split('/') if part not in ('', '.'))}", "is not spelt plainly"),
    )
    return next((f"{shown(source)} {problem}" for wrong, problem in checks if wrong), "")


_NEVER: dict[MountKind, str] = {
    "volume": "a volume outlives its container, and one made earlier can be a bind of any directory",
    "image": "an image's files are no part of a builder",
    "npipe": "named pipes are Windows's",
    "cluster": "cluster volumes are the swarm's",
    "device": "devices are the host's",
    "container": "it brings another container's files with it",
    "host": "it opens the host's own files",
}


def _kind(case: _Case) -> str:
    if case.mount.kind == "unknown":
        return f"it {case.mount.source}"
    return _NEVER.get(case.mount.kind, "")


def _allowlist(case: _Case) -> str:
    mount = case.mount
    if mount.kind == "tmpfs":
        listed = mount.target in case.tmpfs and not mount.source
        return "" if listed else f"a tmpfs at {shown(mount.target)} is not on the allowlist"
    if case.listed:
        return ""
    targets = [bind.target for bind in case.binds if bind.source == mount.source]
    if targets:
        return f"{shown(mount.source)} is allowed at {' or '.join(targets)} only, not at {shown(mount.target)}"
    return f"{shown(mount.source)} is not on the allowlist"


def _read_only(case: _Case) -> str:
    if case.mount.kind != "bind" or case.mount.read_only or not all(bind.read_only for bind in case.listed):
        return ""
    return f"{shown(case.mount.source)} is allowed read-only, and this mount is writable"


def _options(case: _Case) -> str:
    if case.mount.kind != "bind" or not case.mount.options:
        return ""
    return f"it has the options {shown(','.join(case.mount.options))}; only ro is allowed"


def _content(case: _Case) -> str:
    if case.mount.kind != "bind":
        return ""
    found = case.resolved.kind if case.resolved else "unreadable"
    if any(bind.kind == found and (case.mount.read_only or not bind.read_only) for bind in case.listed):
        return ""
    wanted = " or ".join(dict.fromkeys(bind.kind for bind in case.listed))
    return f"what is at {shown(case.mount.source)} is {found}, not a {wanted}"


RULES = (
    # Nothing lifts this one, so it comes first and names the root that an alias hides.
    Rule("first-rule", "Never /, /Users, /home, /root or /etc, nor what is below or above them", _first_rule),
    # Root on the host by another way, which no allowlist should open by accident.
    Rule("runtime-sockets", "Never the socket of another container runtime", _runtime_sockets),
    # The one exception: an allowlisted socket, below the directories where sockets live.
    Rule("host-roots", "Never a directory of the host's own, nor what is below or above it", _host_roots),
    # A path that can be read in two ways is refused, not repaired.
    Rule("spelling", "A source is an absolute path, spelt plainly", _spelling),
    # Only binds and tmpfs can be judged by their path.
    Rule("kind", "Nothing but a bind or a tmpfs, and nothing that is not understood", _kind),
    # The rule that really holds: all the others only name what is wrong, or guard the list itself.
    Rule("allowlist", "Only what is listed, spelt exactly so", _allowlist),
    Rule("read-only", "Read-only where the list says so", _read_only),
    # Shared propagation carries mounts out to the host; z and Z relabel the host's file.
    Rule("options", "No option but read-only", _options),
    # The engine makes a directory of a missing source; a directory in the socket's place opens it.
    Rule("content", "What is at the source is what the list says", _content),
)

_SENTENCES = {rule.name: rule.sentence for rule in RULES}


def builder_policy(
    socket_path: str,
    *,
    socket_target: str = "/var/run/docker.sock",
    tmpfs: tuple[str, ...] = ("/app", "/tmp"),  # noqa: S108
) -> MountPolicy:
    """The policy of a builder: one bind, the engine's socket, read-only; and tmpfs for the workspace and ``/tmp``.

    ``socket_path`` is the path as the engine sees it, spelt exactly as in the container's body.
    """
    return MountPolicy(allowed_binds=(AllowedBind(socket_path, socket_target),), allowed_tmpfs=tmpfs)


def require_allowed(verdicts: Iterable[Verdict]) -> None:
    """Raise ``MountRefused`` if any verdict denies: the first in the sentence, all of them in its details."""
    denied = [verdict for verdict in verdicts if not verdict.allowed]
    if not denied:
        return
    first = denied[0]
    door = first.mount.door or "mount"
    what = door if first.mount.kind == "unknown" else f"{door} ({first.mount})"
    others = f"; {len(denied) - 1} more refused" if len(denied) > 1 else ""
    raise MountRefused(
        f"The container's {what} is refused by the rule {first.rule!r} ({_SENTENCES[first.rule]}): "
        f"{first.reason}{others}.",
        hint="A builder mounts the engine's socket and nothing else; CAISSON_DOCKER_HOST says where that is.",
        details={
            "refused": [
                {
                    "mount": str(verdict.mount),
                    "door": verdict.mount.door,
                    "rule": verdict.rule,
                    "reason": verdict.reason,
                }
                for verdict in denied
            ]
        },
    )
