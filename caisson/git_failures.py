"""What a failed git step means, from its own words. Pure.

The patterns are git's messages (LC_ALL=C) from connect.c, http.c, remote-curl.c, credential.c, transport.c and
upload-pack.c, and those of ssh and git-lfs; the name of the step decides where words could mean either. Names and
addresses in them are anybody's, and decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from caisson.errors import (
    BuildFailed,
    CaissonError,
    ContextInvalid,
    DockerfileInvalid,
    EngineRefused,
    LfsFailed,
    RefNotFound,
    RepositoryDenied,
    RepositoryUnreachable,
    RequestInvalid,
    SubmoduleDenied,
    WorkspaceFull,
)
from caisson.untrusted import clean

_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)
_TRANSPORT = re.compile(r"transport '(?P<name>[^']{1,40})' not allowed")
_HOST_KEY = re.compile(r"Host key verification failed|No \w+ host key is known", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"Could not resolve host|unable to look up|Name or service not known|Temporary failure in name resolution"
    r"|Connection refused|Connection timed out|Operation timed out|Operation too slow|Network is unreachable"
    r"|No route to host|unable to connect|Failed to connect|Could ?n[o']t connect to server|Connection reset"
    r"|Connection closed|Empty reply|returned error: (?:429|5\d\d)|HTTP (?:429|5\d\d)|early EOF|hung up unexpectedly"
    r"|unexpected disconnect|RPC failed"
    # curl's vtls, for OpenSSL and GnuTLS.
    r"|(?-i:\bSSL\b|SSL_|OpenSSL |GnuTLS|\bTLS (?:connect|packet|handshake))|gnutls_handshake"
    r"|certificate (?:problem|verif|subject|is not|has expired)|(?:issuer|client) certificate|trust anchors",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"Authentication failed|could not read (?:Username|Password)|terminal prompts disabled|Permission denied"
    r"|repository .*not found|project .*not found|does not appear to be a git repository|access denied|not authorized"
    r"|repository not exported|returned error: (?:401|403|404|410)|HTTP 40[134]|Authorization error|Too many auth"
    r"|not valid: is this a git repository|unable to update url base from redirection"
    r"|The requested URL returned error: 3\d\d|Could not read from remote repository|access rights",
    re.IGNORECASE,
)
_NO_SUCH_COMMIT = re.compile(
    r"not our ref|unadvertised object|couldn't find remote ref|no such remote ref|unable to read tree"
    r"|reference is not a tree|Needed a single revision|bad object|ambiguous argument|unknown revision"
    r"|invalid reference|did not contain",
    re.IGNORECASE,
)
# A server that gives nothing but what it advertises, or knows no shallow clones: all of the history will do.
_ONLY_WHOLE = re.compile(
    r"not our ref|unadvertised object|dumb http transport does not support|does not support shallow"
    r"|Server does not allow request|Direct fetching of that commit failed|Unable to find current revision"
    r"|did not contain",
    re.IGNORECASE,
)
# fsck.c: the object's type or name, and the id of the check.
_FSCK = re.compile(r"object [0-9a-f]{40,64}: (?P<check>[A-Za-z]+): |fsck error in pack")
_LFS = re.compile(r"smudge filter lfs failed|filter-process|git-lfs|\bLFS\b|external filter")
_SUBMODULE = re.compile(r"submodule path '(?:/app/)?(?P<path>[^']*)'")
_OUT_OF_MEMORY = re.compile(r"^(?:fatal|error): out of memory", re.IGNORECASE | re.MULTILINE)
_KILLED = 128 + 9
_REMOTE = re.compile(r"^remote: .*$", re.MULTILINE)
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"]+[^\s'\":,.]", re.IGNORECASE)


def is_refusal_of_one_commit(step: str, stderr: str) -> bool:
    """Whether the server may have the commit, but does not give it by itself."""
    return step in ("fetch", "submodules") and _ONLY_WHOLE.search(stderr) is not None


def is_certainly_absent(stderr: str) -> bool:
    """Whether the server looked for a commit that it did not advertise, and has none: upload-pack.c, "not our ref"."""
    return "not our ref" in stderr


def classify_git_failure(
    step: str, exit_code: int, stderr: str, *, url: str, has_credentials: bool = False
) -> CaissonError:
    """What it means that ``step`` ended with ``exit_code``; ``stderr`` is the end of what it said.

    Steps: ``credentials`` (key into the agent), ``resolve``, ``init``, ``fetch``, ``commit`` (a short SHA looked up),
    ``checkout``, ``submodules``; any other is a defect of Caisson or of the builder's image.

    Whether it ran out of memory is not for git to say, but for the kernel: ``outcome.classify_clone_failure``.
    """
    lines = [line for line in (clean(line) for line in re.split(r"[\r\n]", stderr)) if line]
    said = _telling_line(lines)
    details = {"step": step, "exit_code": exit_code, "last_lines": lines[-15:]}
    # A full disk or memory of the server is not the builder's.
    own = _REMOTE.sub("", stderr)
    if _NO_SPACE.search(own):
        return WorkspaceFull(
            "The workspace is full: the repository does not fit into it.",
            hint="Raise limits.workspace (and limits.memory, which it counts to), or set CAISSON_WORKSPACE=layer.",
            details=details,
        )
    if exit_code == _KILLED or _OUT_OF_MEMORY.search(own):
        return BuildFailed(
            f"git ended early in the builder: {said or 'it was killed'}.",
            hint="If it comes again, raise limits.memory for this repository.",
            details=details,
        )
    if step == "credentials":
        return RequestInvalid.from_fields([("git_credentials", "ssh-add can't read the SSH private key")])
    if (step == "checkout" and _LFS.search(stderr)) or step == "lfs":
        return LfsFailed(
            f"Git LFS files could not be had from {url}: {said}.",
            hint="Check that the server has these objects, and that the credentials may read them.",
            details=details,
        )
    if step == "submodules":
        return _submodule_failure(stderr, said, details)
    fsck = _FSCK.search(stderr)
    if fsck:
        kind = SubmoduleDenied if (fsck["check"] or "").startswith("gitmodules") else RepositoryDenied
        return kind(
            f"{url} holds an object that git does not trust: {said}.",
            hint="Mend the repository; `git fsck` tells more.",
            details=details,
        )
    if step in ("commit", "checkout") or _NO_SUCH_COMMIT.search(stderr):
        return RefNotFound(
            f"The commit is not in {url}: {said or 'no such commit'}.",
            hint="Its branch may have been moved or removed; start the build again.",
            details=details,
        )
    if step in ("resolve", "fetch"):
        return _remote_failure(stderr, said, url, has_credentials, details)
    return EngineRefused(
        f"The builder could not prepare the workspace ({step}): {said or f'exit code {exit_code}'}.",
        hint="Make the builder image anew; `caisson doctor` tells whether it is up to date.",
        details=details,
    )


def _remote_failure(
    stderr: str, said: str, url: str, has_credentials: bool, details: dict[str, object]
) -> CaissonError:
    if _TRANSPORT.search(stderr):
        return RepositoryDenied(f"{url} leads to a protocol that is not allowed: {said}.", details=details)
    words = _URL.sub("URL", _QUOTED.sub("TEXT", stderr))
    if _HOST_KEY.search(words):
        return RepositoryDenied(
            f"The host key of {url} is not the known one.",
            hint="Correct the known_hosts file of CAISSON_SSH_KNOWN_HOSTS, if the server's key was changed rightly.",
            details=details,
        )
    if _UNREACHABLE.search(words) and not re.search(r"Authentication failed|Permission denied", words):
        return RepositoryUnreachable(
            f"{url} can't be reached: {said}.", hint="Check the host's name, its port and the network.", details=details
        )
    if _DENIED.search(words):
        hint = (
            "Check the credentials in git_credentials, and what they may read."
            if has_credentials
            else "Check the URL; if the repository is private, name a secret in git_credentials."
        )
        return RepositoryDenied(f"{url} is not found, or not allowed: {said}.", hint=hint, details=details)
    return RepositoryUnreachable(f"git failed with {url}: {said or 'it said nothing'}.", details=details)


def _submodule_failure(stderr: str, said: str, details: dict[str, object]) -> CaissonError:
    match = _SUBMODULE.search(stderr)
    path = clean(match["path"])[:200] if match else ""
    which = f"The submodule {path!r}" if path else "A submodule"
    transport = _TRANSPORT.search(stderr)
    if transport:
        return SubmoduleDenied(
            f"{which} uses the protocol {transport['name']!r}, which is not allowed.",
            hint="Give the submodule an https or ssh URL in .gitmodules.",
            details=details,
        )
    return SubmoduleDenied(
        f"{which} could not be had: {said}.",
        hint="Credentials are given only to the repository's own host and protocol; a relative URL in .gitmodules "
        "stays there.",
        details=details,
    )


def classify_context_failure(exit_code: int, listed: str, *, context: str, dockerfile: str) -> CaissonError:
    """What ``check-context`` found wrong (it explains its exit codes); it ``listed`` the Dockerfiles that there are."""
    found = [line for line in (clean(line)[:200] for line in listed.splitlines()) if line]
    shown = f"the repository's {context!r}" if context else "the repository"
    dockerfile = dockerfile or "Dockerfile"
    if exit_code == 61:
        return ContextInvalid(
            f"The context {context!r} is not a directory of the repository.",
            hint=_dockerfiles(found, "") or "Correct context.",
            details={"found": found},
        )
    if exit_code == 62:
        return ContextInvalid(
            f"The context {context!r} leads out of the repository by a symlink.", hint="Correct context."
        )
    if exit_code == 63:
        return DockerfileInvalid(
            f"There is no Dockerfile {dockerfile!r} in {shown}.",
            hint=_dockerfiles(found, context) or "Add one, or set dockerfile to its path below the context.",
            details={"found": found},
        )
    if exit_code == 64:
        return DockerfileInvalid(
            f"The Dockerfile {dockerfile!r} leads out of the repository by a symlink.",
            hint="Make it a file of its own.",
        )
    if exit_code == 65:
        return ContextInvalid("The .dockerignore leads out of the repository by a symlink.", hint="Make it a file.")
    return EngineRefused(f"The context could not be checked: exit code {exit_code}.")


def _dockerfiles(found: Sequence[str], context: str) -> str:
    prefix = f"{context}/" if context else ""
    below = [path.removeprefix(prefix) for path in found if path.startswith(prefix)]
    if below:
        return f"Set dockerfile to {' or '.join(below[:3])}." if context else f"There is {', '.join(below[:5])}."
    return f"There is {', '.join(found[:5])}; set context and dockerfile to it." if found else ""


def _telling_line(lines: Sequence[str]) -> str:
    """The line that tells most: of git's ``fatal:`` and ``error:`` lines the first that is no mere consequence."""
    marked = [line for line in lines if re.match(r"(?:remote: )?(?:fatal|error|ERROR)\b", line)]
    telling = [line for line in marked if not _CONSEQUENCE.search(line)]
    causes = [line for line in lines if _CAUSE.search(line)]
    line = (causes or telling or marked or list(lines[-1:]) or [""])[0]
    if line.endswith(":") and line in lines[:-1]:
        # git connects to each address of a host, and says below what became of it.
        line = f"{line} {lines[lines.index(line) + 1]}"
    return re.sub(r"^(?:(?:remote|fatal|error|ERROR): )+", "", line).rstrip(".:")[:300]


# ssh and git-lfs speak before git does, and in another way.
_CAUSE = re.compile(r"^ssh: |Permission denied \(|^batch response|^Error downloading object|^Smudge error")
_CONSEQUENCE = re.compile(
    r"unable to read askpass|could not fetch|clone of '.*' into|Failed to clone|expected flush|early EOF"
    r"|Could not read from remote|index-pack failed|the remote end hung up|external filter|smudge filter",
    re.IGNORECASE,
)
