"""The environment of git in the builder: what it may do, and credentials that no file and no argument holds. Pure.

The helper programs of the builder's image read these variables, and give an answer only to the server that the
credentials are for:

``CAISSON_GIT_CREDENTIAL_URL``
    ``scheme://host[:port]`` of that server, in lower case, without the default port.
``CAISSON_GIT_USERNAME``, ``CAISSON_GIT_PASSWORD``
    What ``git-askpass`` answers.
``CAISSON_GIT_SSH_KEY``
    The key that ``run-steps`` gives to an agent, on a pipe, before any step runs; no step sees the variable.
``CAISSON_GIT_KNOWN_HOSTS``
    Lines of a known_hosts file for ``git-ssh``; without them a host's key is taken at first sight.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from caisson.errors import RequestInvalid, SettingsInvalid
from caisson.git import RepositoryURL

LIBEXEC = "/usr/local/libexec/caisson"

# With a token, GitHub and Gitea look at no user name; GitLab wants this one for OAuth tokens and takes any for others.
_TOKEN_USER = "oauth2"  # noqa: S105
_KEY = re.compile(
    r"-----BEGIN (?P<kind>[A-Z ]*)PRIVATE KEY-----(?P<body>.*?)-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL
)
_OPENSSH_MAGIC = b"openssh-key-v1\x00"
# execve(2): MAX_ARG_STRLEN is 32 pages, for one variable as for one argument.
_MAX_VARIABLE = 131_072

_CONFIG: Mapping[str, str] = {
    "protocol.allow": "never",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    # No samples of hooks, which would only grow the build's context.
    "init.templateDir": "",
    "init.defaultBranch": "main",
    "credential.helper": "",
    "submodule.recurse": "false",
    "advice.detachedHead": "false",
    "core.logAllRefUpdates": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    # A redirect is followed when the first request meets it, never later, where it could turn objects to elsewhere.
    "http.followRedirects": "initial",
    # Bytes and seconds: a server that sends nothing is given up.
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "fetch.fsckObjects": "true",
    # Harmless oddities that many old repositories have.
    "fetch.fsck.zeroPaddedFilemode": "ignore",
    "fetch.fsck.missingSpaceBeforeDate": "ignore",
    "fetch.fsck.badTimezone": "ignore",
    "lfs.locksverify": "false",
    # It would add options to ssh, of which git-ssh knows only git's own.
    "lfs.ssh.autoMultiplex": "false",
    "safe.directory": "*",
}
# The long-running form only: the other has each file's name on a shell's command line.
_LFS_CONFIG: Mapping[str, str] = {"filter.lfs.process": "git-lfs filter-process", "filter.lfs.required": "true"}


@dataclass(frozen=True)
class GitCredentials:
    """A user and password (a token), or an SSH private key; never shown."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ssh_key: str = field(default="", repr=False)

    @classmethod
    def parse(cls, secret: str) -> GitCredentials:
        """From a secret's text: a private key, ``user:token``, or a token alone.

        Raises ``RequestInvalid`` for a key with a passphrase, and for what is none of them.
        """
        text = secret.replace("\r\n", "\n").strip()
        if "PRIVATE KEY-----" in text:
            return cls(ssh_key=_usable_key(text))
        if not text or not text.isprintable() or " " in text:
            raise _invalid("the secret is neither an SSH private key nor `user:token` nor a token")
        user, colon, token = text.partition(":")
        if colon and not (user and token):
            raise _invalid("the secret has a ':' but no user before it or no token after it")
        return cls(username=user, password=token) if colon else cls(username=_TOKEN_USER, password=text)

    def secrets(self) -> tuple[str, ...]:
        """What must appear nowhere; ``user:token`` as a whole is not all of it."""
        return tuple(filter(None, (self.password, self.ssh_key)))

    def check_for(self, url: RepositoryURL) -> None:
        """Raise ``RequestInvalid`` when the URL's protocol has no use for these credentials."""
        if url.scheme == "git":
            raise _invalid("the git protocol knows no credentials; use an https or ssh URL")
        if self.ssh_key and url.scheme != "ssh":
            raise _invalid(f"the secret is an SSH key, and the URL is {url.scheme}; use an ssh URL, or a token")
        if not self.ssh_key and url.scheme == "ssh":
            raise _invalid("the secret is a token, and the URL is ssh; use an https URL, or an SSH private key")


def git_environment(
    url: RepositoryURL,
    credentials: GitCredentials | None,
    *,
    protocols: Collection[str],
    known_hosts: str = "",
    lfs: bool = False,
) -> dict[str, str]:
    """The environment of every git call: no host configuration, no prompts, no hooks, the allowed protocols only.

    Raises ``RequestInvalid`` when the credentials don't fit the URL, ``SettingsInvalid`` for a too long known_hosts.
    """
    config = {**_CONFIG, **{f"protocol.{name}.allow": "always" for name in sorted(protocols)}}
    if lfs:
        config |= _LFS_CONFIG
    env = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(sorted(protocols)),
        "GIT_ASKPASS": f"{LIBEXEC}/git-askpass",
        "GIT_SSH": f"{LIBEXEC}/git-ssh",
        "GIT_SSH_VARIANT": "ssh",
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    if not lfs:
        env["GIT_LFS_SKIP_SMUDGE"] = "1"
    for number, (key, value) in enumerate(config.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    if known_hosts:
        if len(known_hosts.encode()) > _MAX_VARIABLE - 100:
            raise SettingsInvalid(
                "ssh_known_hosts: the file is larger than 128 KiB.",
                hint="Keep only the lines of the git servers in it.",
            )
        env["CAISSON_GIT_KNOWN_HOSTS"] = known_hosts
    if credentials is not None:
        credentials.check_for(url)
        env["CAISSON_GIT_CREDENTIAL_URL"] = url.origin()
        if credentials.ssh_key:
            env["CAISSON_GIT_SSH_KEY"] = credentials.ssh_key
        else:
            env |= {"CAISSON_GIT_USERNAME": credentials.username, "CAISSON_GIT_PASSWORD": credentials.password}
    return env


def _invalid(message: str) -> RequestInvalid:
    return RequestInvalid.from_fields([("git_credentials", message)])


def _usable_key(text: str) -> str:
    match = _KEY.search(text)
    if match is None:
        raise _invalid("the SSH private key is not whole; its last line is `-----END … PRIVATE KEY-----`")
    if "ENCRYPTED" in match["kind"] or "Proc-Type: 4,ENCRYPTED" in match["body"] or _has_passphrase(match["body"]):
        raise _invalid("the SSH private key has a passphrase; use a deploy key without one")
    return f"{match[0]}\n"


def _has_passphrase(body: str) -> bool:
    """Whether an OpenSSH key names a cipher (PROTOCOL.key: magic, then the cipher's name with its length before it)."""
    try:
        content = base64.b64decode("".join(body.split()))
    except (binascii.Error, ValueError):
        return False
    rest = content.removeprefix(_OPENSSH_MAGIC)
    return rest != content and rest[4 : 4 + int.from_bytes(rest[:4])] != b"none"
