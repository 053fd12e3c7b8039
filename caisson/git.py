"""Git URLs, refs and what a remote says of them; parsed and decided without running git. Pure.

A name that is both a branch and a tag means the branch, as for ``git clone --branch``; a name that is also a short SHA
means the name. ``refs/tags/NAME`` and a full SHA say the other.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import unquote

from caisson.errors import RefNotFound

RefKind = Literal["branch", "tag", "pull_request", "commit"]

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^@/]*)@)?(?P<host>\[[0-9A-Fa-f:]+\]|[^:/@\[\]]*)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/.*)?"
)
# git-clone(1), "GIT URLS": scp-like only without a slash before the first colon.
_SCP = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>\[[0-9A-Fa-f:]+\]|[^:/@\[\]]+):(?P<path>[^:].*)")
_HOST = re.compile(r"\[[0-9A-Fa-f:]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9._-]*")
DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
_FULL_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.IGNORECASE)
_SHORT_SHA = re.compile(r"[0-9a-f]{7,63}", re.IGNORECASE)
_PULL = re.compile(r"refs/(?:pull|merge-requests|pull-requests)/(?P<number>[0-9]+)/(?:head|merge|from)")
# git-check-ref-format(1), rules 1 to 10.
_BAD_REF = re.compile(r"\.\.|@\{|//|/\.|\.lock(?:/|$)|[ ~^:?*\[\\]|^[./]|[./]$|^@$")
_MAX_REF = 255
# Comparing names costs some 10 µs each.
_MAX_COMPARED = 5_000


@dataclass(frozen=True)
class RepositoryURL:
    """A git URL without credentials; ``user`` is the login name of ssh, such as ``git``."""

    scheme: str
    host: str
    path: str
    user: str = ""
    port: int | None = None
    scp: bool = False

    def __str__(self) -> str:
        """The URL as git takes it."""
        user = f"{self.user}@" if self.user else ""
        if self.scp:
            return f"{user}{self.host}:{self.path}"
        return f"{self.scheme}://{user}{self.host}{f':{self.port}' if self.port else ''}{self.path}"

    def display(self) -> str:
        """The URL as people may see it; there are no credentials in it to begin with."""
        return str(self)

    def canonical(self) -> str:
        """One form for the usual spellings of the same repository, for the spec's hash.

        >>> parse_repository_url("https://Example.com:443/team/App.git/", ["https"]).canonical()
        'https://example.com/team/App'
        """
        scheme, slashes, host = self.origin().partition("://")
        path = self.path.strip("/").removesuffix(".git")
        return f"{scheme}{slashes}{f'{self.user}@' if self.user else ''}{host}/{path}"

    def origin(self) -> str:
        """``scheme://host[:port]`` in lower case, without the default port: whom credentials are for."""
        port = f":{self.port}" if self.port and self.port != DEFAULT_PORTS.get(self.scheme) else ""
        return f"{self.scheme}://{self.host.lower()}{port}"


def parse_repository_url(text: str, allowed_protocols: Collection[str]) -> RepositoryURL:
    """Parse https, http, ssh, git and scp-like URLs; raises ``ValueError`` for all else, never repeating a secret.

    >>> parse_repository_url("git@example.com:team/app.git", ["ssh"]).canonical()
    'ssh://git@example.com/team/app'
    """
    if not text:
        raise ValueError("is empty; give the URL of a git repository")
    if not _is_plain(text):
        raise ValueError("has a space, a control character or a backslash in it")
    if text.startswith("-"):
        raise ValueError("begins with '-', like an option; give a URL")
    # git-remote-ext(1) and its kin: HELPER::ADDRESS runs git-remote-HELPER, and ext runs any command.
    helper = re.match(r"([A-Za-z0-9+.-]*)::", text)
    if helper:
        raise ValueError(f"names the remote helper {helper[1][:20]!r}, which is not allowed")
    if "://" not in text:
        return _parse_scp(text, allowed_protocols)
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError("is not a URL such as https://example.com/team/app.git")
    scheme, user, path = match["scheme"].lower(), match["user"] or "", match["path"] or ""
    _require_protocol(scheme, allowed_protocols)
    if ":" in user or (match["user"] is not None and scheme != "ssh"):
        raise ValueError("has credentials in it; name a secret in git_credentials instead")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"has the port {port}, which is not one")
    return RepositoryURL(scheme, _host(match["host"]), _path(path), _user(user) if match["user"] else "", port)


def _parse_scp(text: str, allowed: Collection[str]) -> RepositoryURL:
    match = _SCP.fullmatch(text)
    if match is None or text.startswith(("/", ".", "~")) or text.split(":")[0].lower() in (*DEFAULT_PORTS, "file"):
        # Not repeated where it may be "user:token@host".
        shown = "" if "@" in text else f"{text[:80]!r} "
        raise ValueError(f"{shown}is not a URL such as https://example.com/team/app.git")
    _require_protocol("ssh", allowed)
    if "@" in match["path"].split("/")[0] and not match["user"]:
        raise ValueError("has credentials in it, or no scheme; name a secret in git_credentials instead")
    user = _user(match["user"]) if match["user"] else ""
    return RepositoryURL("ssh", _host(match["host"]), _path(match["path"]), user, scp=True)


def _is_plain(text: str) -> bool:
    return text.isprintable() and " " not in text and "\\" not in text


def _require_protocol(scheme: str, allowed: Collection[str]) -> None:
    if scheme not in allowed:
        raise ValueError(
            f"uses the protocol {scheme[:20]!r}, which is not allowed; allowed: {', '.join(sorted(allowed))}"
        )


def _user(user: str) -> str:
    if not _USER.fullmatch(user):
        raise ValueError("has a login name that is not one (letters, digits, '.', '_', '-')")
    return user


def _host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError(f"has no valid host: {host[:60]!r}" if host else "has no host")
    return host


def _path(path: str) -> str:
    # git decodes the path of ssh and git URLs itself, and so would see what is hidden in it.
    decoded = unquote(path)
    if not path.strip("/"):
        raise ValueError("has no path; give the URL of a repository")
    if path.lstrip("/").startswith("-") or decoded.lstrip("/").startswith("-"):
        raise ValueError("has a path that begins with '-', like an option")
    if ".." in decoded.split("/"):
        raise ValueError("has '..' in its path")
    if not decoded.isprintable() or "\\" in decoded:
        raise ValueError("has a control character or a backslash in its path")
    if "?" in path or "#" in path:
        raise ValueError("has a query or a fragment in it; give the ref in its own field")
    return path


def check_ref(text: str) -> str:
    """A branch, tag, SHA or full ref, as git allows it (git-check-ref-format); raises ``ValueError``.

    >>> check_ref("refs/pull/7/head")
    'refs/pull/7/head'
    """
    if not text:
        raise ValueError("is empty")
    if re.match(r"(?:refs/(?:heads|tags)/)?-", text):
        raise ValueError(f"{text[:80]!r} begins with '-', like an option")
    if _BAD_REF.search(text) or not _is_plain(text) or len(text) > _MAX_REF:
        raise ValueError(f"{text[:80]!r} is not a ref that git allows (git-check-ref-format)")
    return text


def is_full_sha(ref: str) -> bool:
    """Whether the ref is a whole commit SHA, and needs no look-up.

    >>> is_full_sha("a" * 40), is_full_sha("main")
    (True, False)
    """
    return _FULL_SHA.fullmatch(ref) is not None


def check_commit(text: str, ref: str) -> str:
    """A full commit SHA, which the ref must not contradict; raises ``ValueError``.

    >>> check_commit("A" * 40, "main") == "a" * 40
    True
    """
    if not is_full_sha(text):
        raise ValueError(f"{text[:80]!r} is not a full commit SHA of 40 or 64 hexadecimal digits")
    if is_full_sha(ref) and ref.lower() != text.lower():
        raise ValueError(f"is another than the ref, {ref[:80]!r}; leave one of them out")
    return text.lower()


@dataclass(frozen=True)
class RemoteRefs:
    """What ``git ls-remote --symref`` said: full ref names to commits, and annotated tags to their own objects."""

    refs: Mapping[str, str]
    default_branch: str = ""
    head: str = ""
    tag_objects: Mapping[str, str] = field(default_factory=dict)

    def tags(self) -> tuple[str, ...]:
        """Names of all tags, sorted."""
        return tuple(sorted(name.removeprefix("refs/tags/") for name in self.refs if name.startswith("refs/tags/")))

    def branches(self) -> tuple[str, ...]:
        """Names of all branches, sorted."""
        return tuple(sorted(name.removeprefix("refs/heads/") for name in self.refs if name.startswith("refs/heads/")))


@dataclass(frozen=True)
class Chosen:
    """The commit that a ref means.

    ``sha`` is empty for a short SHA that the remote does not advertise. ``fetch_ref`` is the ref that the commit was
    found by, and ``fetch_object`` the object to fetch for it: an annotated tag's own, else the commit. ``note`` tells
    people of another meaning that the ref could have had.
    """

    sha: str
    kind: RefKind
    name: str
    fetch_ref: str = ""
    is_default_branch: bool = False
    remote_tags: tuple[str, ...] = field(default=(), repr=False)
    fetch_object: str = ""
    note: str = ""


def parse_ls_remote(output: bytes) -> RemoteRefs:
    """Parse the output of ``git ls-remote --symref``; lines that are none of it are passed over."""
    refs: dict[str, str] = {}
    tag_objects: dict[str, str] = {}
    default, head = "", ""
    # Not splitlines(): a ref may hold what Unicode takes for a line's end.
    for line in output.decode("utf-8", "replace").split("\n"):
        value, _, name = line.partition("\t")
        if name == "HEAD" and value.startswith("ref: "):
            default = value.removeprefix("ref: ").removeprefix("refs/heads/")
        elif not _FULL_SHA.fullmatch(value):
            continue
        elif name == "HEAD":
            head = value
        elif name.endswith("^{}"):
            # The line before was the tag's own object; this is the commit that it means.
            tag_objects[name[:-3]], refs[name[:-3]] = refs.get(name[:-3], value), value
        elif name.startswith("refs/"):
            refs[name] = value
    return RemoteRefs(refs, default, head, tag_objects)


def choose_commit(remote: RemoteRefs, ref: str) -> Chosen:
    """The commit that ``ref`` means; empty or ``HEAD`` means the remote's HEAD.

    Raises ``RefNotFound`` with the names that are near, or with the commits that a short SHA may mean.
    """
    if ref in ("", "HEAD"):
        return _choose_head(remote)
    for full in (ref, f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}"):
        if full in remote.refs:
            return _choose_ref(remote, ref, full)
    if is_full_sha(ref):
        return _choose_full_sha(remote, ref.lower())
    if _SHORT_SHA.fullmatch(ref):
        return _choose_short_sha(remote, ref.lower())
    near = _near(ref, [*remote.branches(), *remote.tags()])
    raise RefNotFound(
        f"The ref {ref!r} is not in the repository.",
        hint=f"Did you mean {' or '.join(near)}?" if near else "Check its spelling, and that it is pushed.",
        details={"near": near},
    )


def pin_commit(chosen: Chosen, commit: str) -> Chosen:
    """The ref as it was chosen, and with it its tags, but of the very ``commit``; unchanged where that is empty."""
    if not commit or chosen.sha == commit:
        return chosen
    return replace(chosen, sha=commit, fetch_object="")


def _choose_head(remote: RemoteRefs) -> Chosen:
    if not remote.head:
        branches = list(remote.branches()[:3])
        raise RefNotFound(
            "The repository's HEAD has no commit.",
            hint=f"Name a ref, such as {branches[0]}." if branches else "Push a branch first.",
            details={"near": branches},
        )
    if remote.default_branch:
        name = remote.default_branch
        return Chosen(remote.head, "branch", name, f"refs/heads/{name}", True, remote.tags())
    return Chosen(remote.head, "commit", "", "HEAD", False, remote.tags())


def _choose_ref(remote: RemoteRefs, ref: str, full: str) -> Chosen:
    sha, tags = remote.refs[full], remote.tags()
    pull = _PULL.fullmatch(full)
    if full.startswith("refs/heads/"):
        name = full.removeprefix("refs/heads/")
        both = ref == name and f"refs/tags/{name}" in remote.refs
        note = f"{name} is a branch and a tag: the branch is taken; refs/tags/{name} means the tag" if both else ""
        return Chosen(sha, "branch", name, full, name == remote.default_branch, tags, note=note)
    if full.startswith("refs/tags/"):
        name = full.removeprefix("refs/tags/")
        return Chosen(sha, "tag", name, full, False, tags, fetch_object=remote.tag_objects.get(full, ""))
    if pull:
        return Chosen(sha, "pull_request", pull["number"], full, False, tags)
    return Chosen(sha, "commit", full, full, False, tags)


def _choose_full_sha(remote: RemoteRefs, sha: str) -> Chosen:
    for name, tag_object in remote.tag_objects.items():
        if tag_object == sha:
            return Chosen(remote.refs[name], "commit", "", name, False, remote.tags(), fetch_object=sha)
    advertised = next((name for name, value in remote.refs.items() if value == sha), "")
    return Chosen(sha, "commit", "", advertised, False, remote.tags())


def _choose_short_sha(remote: RemoteRefs, short: str) -> Chosen:
    found = {sha: name for name, sha in remote.refs.items() if sha.startswith(short)}
    if len(found) > 1:
        raise RefNotFound(
            f"The short SHA {short!r} is ambiguous: {len(found)} commits begin with it.",
            hint="Give more characters of the SHA.",
            details={"near": sorted(found)[:10]},
        )
    sha, name = next(iter(found.items()), ("", ""))
    return Chosen(sha, "commit", "", name, False, remote.tags())


def _near(ref: str, names: list[str]) -> list[str]:
    wanted = ref.casefold()
    for alike in ([name for name in names if name.casefold() == wanted], [name for name in names if wanted in name]):
        if alike:
            return alike[:3]
    return difflib.get_close_matches(ref, names[:_MAX_COMPARED], n=3)
