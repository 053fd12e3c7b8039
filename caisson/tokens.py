"""Tokens of Caisson's own API: how they are made, what is kept of them, and what each allows. Pure.

A token is ``caisson_ID_SECRET``: the ID finds its record, the secret is 256 random bits. What is kept is the SHA-256 of
the whole: a slow hash protects what people think up, and nobody can try 2^256 secrets (NIST SP 800-63B, 5.1.2.2,
look-up secrets of 112 bits or more).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from caisson.durations import parse_duration
from caisson.git import DEFAULT_PORTS, parse_repository_url
from caisson.reference import parse_repository
from caisson.retention.patterns import check_repository_pattern, matches, matches_repository

_SECRET_BYTES = 32
_TOKEN = re.compile(r"caisson_(?P<id>[0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ @/-]{0,62}")
_GIT = re.compile(r"[A-Za-z0-9._:/*?~\[\]-]{1,255}")
_SECRET = re.compile(r"[A-Za-z0-9._*?-]{1,128}")
_MOST_PATTERNS = 64
# Servers and clients disagree on what is meant by these, so that no pattern can tell where they lead.
_AMBIGUOUS = re.compile(r"(?:^|/)\.{1,2}(?:/|$)|//|%")


class Scope(StrEnum):
    """What a token is for."""

    READ = "read"
    """Read builds; without limits also the images and disks of the host, and its metrics."""
    BUILD = "build"
    """Start, read and cancel builds."""
    ADMIN = "admin"
    """Everything; it can't be limited."""


@dataclass(frozen=True)
class Grant:
    """What a token allows. ``images`` and ``repositories`` are patterns; an empty list is no limit.

    ``secrets`` are patterns of the names that its builds may use: a Dockerfile can tell a secret to whom it likes. Here
    an empty list is no limit only where nothing else is limited.

    Images are matched as retention policies match them (``caisson.retention.patterns``); git repositories as
    ``host[:port]/path``, whatever the scheme and without ``.git``: ``github.com/team/*``.
    """

    scopes: frozenset[Scope]
    images: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()

    @property
    def limited(self) -> bool:
        return bool(self.images or self.repositories)

    def may(self, *scopes: Scope) -> bool:
        """Whether it has one of the scopes."""
        return Scope.ADMIN in self.scopes or not self.scopes.isdisjoint(scopes)

    def covers(self, image: str, repository_url: str) -> bool:
        """Whether a build of that repository to that image is within the limits; what can't be read is not.

        >>> grant = Grant(frozenset({Scope.BUILD}), images=("team/*",), repositories=("github.com/team/*",))
        >>> grant.covers("team/app", "git@github.com:team/app.git"), grant.covers("team/app", "https://evil.com/x")
        (True, False)
        >>> grant.covers("team/app", "https://github.com/team/../other/app")
        False
        """
        return self._covers_image(image) and self._covers_repository(repository_url)

    def uncovered_secrets(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the secrets, each once, that its builds may not use.

        >>> limited = Grant(frozenset({Scope.BUILD}), images=("team/*",), secrets=("team-*",))
        >>> limited.uncovered_secrets(["team-npm", "prod-key", ""])
        ('prod-key',)
        """
        if not self.secrets and not self.limited:
            return ()
        named = dict.fromkeys(name for name in names if name)
        return tuple(name for name in named if not any(matches(pattern, name) for pattern in self.secrets))

    def _covers_image(self, image: str) -> bool:
        if not self.images:
            return True
        try:
            repository = parse_repository(image)
        except ValueError:
            return False
        return any(matches_repository(pattern, repository) for pattern in self.images)

    def _covers_repository(self, url: str) -> bool:
        if not self.repositories:
            return True
        place = git_place(url)
        return place is not None and any(matches(pattern, place) for pattern in self.repositories)


@dataclass(frozen=True)
class TokenRecord:
    """What is kept of a token: never the token itself."""

    id: str
    name: str
    grant: Grant
    digest: str
    created: datetime
    expires: datetime | None = None
    last_used: datetime | None = None

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires


def git_place(url: str) -> str | None:
    """Where a repository is, as tokens' patterns name it; None for a URL that is none or leads who knows where.

    >>> git_place("ssh://git@Git.Example.com:2222/team/app.git/"), git_place("https://a.com/%2e%2e/x")
    ('git.example.com:2222/team/app', None)
    """
    try:
        parsed = parse_repository_url(url, tuple(DEFAULT_PORTS))
    except ValueError:
        return None
    if _AMBIGUOUS.search(parsed.path.rstrip("/")):
        return None
    _, _, host = parsed.origin().partition("://")
    path = parsed.path.strip("/").removesuffix(".git").rstrip("/")
    return f"{host}/{path}"


def new_token() -> str:
    """A token that nobody has seen; the only time that it is there in full."""
    return f"caisson_{secrets.token_hex(6)}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def token_id(token: str) -> str | None:
    """The ID within a token; None where it has not the form of one."""
    match = _TOKEN.fullmatch(token)
    return match["id"] if match else None


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def is_genuine(token: str, record: TokenRecord) -> bool:
    """Whether the token is the record's, compared in constant time."""
    return hmac.compare_digest(digest_of(token), record.digest)


def record_of(token: str, name: str, grant: Grant, *, now: datetime, lifetime: timedelta | None) -> TokenRecord:
    """What to keep of a new token."""
    found = token_id(token)
    if found is None:
        raise ValueError("is not a token")
    return TokenRecord(
        id=found,
        name=name,
        grant=grant,
        digest=digest_of(token),
        created=now,
        expires=None if lifetime is None else now + lifetime,
    )


def check_name(text: str) -> str:
    """The name itself; raises ``ValueError``."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not 1 to 63 letters, digits, spaces and any of . _ @ / -")
    return text


def make_grant(
    scopes: Iterable[str],
    images: Iterable[str] = (),
    repositories: Iterable[str] = (),
    secret_names: Iterable[str] = (),
) -> Grant:
    """A grant from what people write; raises ``ValueError`` that names what is wrong."""
    grant = Grant(
        frozenset(_scope(scope) for scope in scopes),
        tuple(check_repository_pattern(pattern) for pattern in images),
        tuple(_check_git_pattern(pattern) for pattern in repositories),
        tuple(_check_secret_pattern(pattern) for pattern in secret_names),
    )
    if not grant.scopes:
        raise ValueError("a token needs a scope: read, build or admin")
    if Scope.ADMIN in grant.scopes and (grant.limited or grant.secrets):
        raise ValueError("a token with the scope admin can't be limited to images, repositories or secrets")
    if max(len(grant.images), len(grant.repositories), len(grant.secrets)) > _MOST_PATTERNS:
        raise ValueError(f"a token has at most {_MOST_PATTERNS} patterns of each kind")
    return grant


def _scope(text: str) -> Scope:
    try:
        return Scope(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no scope; write read, build or admin") from None


def parse_lifetime(text: str) -> timedelta | None:
    """How long a token is valid: ``90d``, ``12h``; ``never`` is None. Raises ``ValueError``.

    >>> parse_lifetime("90d"), parse_lifetime("never")
    (datetime.timedelta(days=90), None)
    """
    if text == "never":
        return None
    lifetime = parse_duration(text)
    if not timedelta(0) < lifetime <= timedelta(days=3650):
        raise ValueError(f"{text[:40]!r} is not between a second and ten years; write such as 90d, or never")
    return lifetime


def _check_secret_pattern(text: str) -> str:
    if not _SECRET.fullmatch(text) or text.count("*") > 8:
        raise ValueError(f"{text[:80]!r} is not a pattern of names of secrets; write such as npm-token or team-*")
    return text


def _check_git_pattern(text: str) -> str:
    if not _GIT.fullmatch(text) or "://" in text or "/" not in text:
        raise ValueError(
            f"{text[:80]!r} is not a pattern of git repositories; write host/path without a scheme, such as "
            "github.com/team/*"
        )
    if len(re.findall(r"\*+", text)) > 8:
        raise ValueError(f"{text[:80]!r} has more than 8 stars")
    return text.removesuffix(".git")
