"""References: ``[registry/]repository[:tag][@digest]``, by the grammar of github.com/distribution/reference.

Stricter than the grammar where an engine would take the same text for something else, so that for every value
``parse(str(value)) == value`` and no two values are written alike. Never split on ``:`` alone: a registry has a port.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

DEFAULT_REGISTRY = "docker.io"
_OFFICIAL = "library"

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<ipv6>[0-9a-fA-F:]+)\])(?::(?P<port>[0-9]{{1,5}}))?",
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
# The algorithms that go-digest knows, and with it every engine and registry; hexadecimal in lower case only.
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_LOOKS_LIKE_DIGEST = re.compile(r"[0-9a-f]{64}|sha256")

MAX_TAG = 128
_MAX_NAME = 255
# Longer text is no reference, and is not looked at: name, tag and the longest digest with their separators.
_MAX_REFERENCE = _MAX_NAME + 1 + MAX_TAG + 1 + len("sha512:") + 128


@dataclass(frozen=True, order=True)
class Tag:
    """A tag, such as ``1.2``; raises ``ValueError`` for what the grammar does not allow."""

    value: str

    def __post_init__(self) -> None:
        if not _TAG.fullmatch(self.value):
            raise ValueError(
                f"{_shown(self.value)} is not a tag; use letters, digits, '_', '.' and '-', "
                f"{MAX_TAG} at most, and not '.' or '-' first"
            )

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, order=True)
class Digest:
    """A digest, such as ``sha256:…``; raises ``ValueError`` for what no engine would take."""

    value: str

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.value):
            raise ValueError(
                f"{_shown(self.value)} is not a digest; give sha256: and 64 hexadecimal digits in lower case "
                "(or sha384: and 96, sha512: and 128)"
            )

    @property
    def algorithm(self) -> str:
        return self.value.partition(":")[0]

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, order=True)
class Repository:
    """A repository in its registry; raises ``ValueError`` for what is none.

    >>> repository = parse_repository("registry.example.com:5000/team/app")
    >>> repository.registry, repository.path
    ('registry.example.com:5000', 'team/app')
    >>> parse_repository("debian")
    Repository(registry='docker.io', path='library/debian')
    """

    registry: str
    path: str

    def __post_init__(self) -> None:
        _check_registry(self.registry)
        if not _PATH.fullmatch(self.path):
            raise ValueError(_why_no_path(self.registry, self.path))
        if len(self.canonical()) > _MAX_NAME:
            raise ValueError(
                f"{_shown(self.canonical())} has {len(self.canonical())} characters; "
                f"{_MAX_NAME} at most, the registry included"
            )
        if self.registry == DEFAULT_REGISTRY:
            _check_docker_hub(self.path)

    def canonical(self) -> str:
        """The full form, the registry always named.

        >>> parse_repository("debian").canonical()
        'docker.io/library/debian'
        """
        return f"{self.registry}/{self.path}"

    def familiar(self) -> str:
        """The short form, as the engine lists it: without ``docker.io/`` and ``docker.io/library/``.

        >>> parse_repository("docker.io/library/debian").familiar(), parse_repository("docker.io/team/app").familiar()
        ('debian', 'team/app')
        """
        if self.registry != DEFAULT_REGISTRY:
            return self.canonical()
        short = self.path.removeprefix(f"{_OFFICIAL}/")
        # Only names right below library/ are official; library/a/b keeps its first part.
        return self.path if "/" in short else short

    def __str__(self) -> str:
        return self.familiar()


@dataclass(frozen=True)
class Reference:
    """A repository with a tag, a digest, both or neither."""

    repository: Repository
    tag: Tag | None = None
    digest: Digest | None = None

    def canonical(self) -> str:
        """The full form, the registry always named.

        >>> parse_reference("debian:trixie").canonical()
        'docker.io/library/debian:trixie'
        """
        return f"{self.repository.canonical()}{self._suffix()}"

    def familiar(self) -> str:
        """The short form, as the engine lists it."""
        return f"{self.repository.familiar()}{self._suffix()}"

    def or_latest(self) -> Reference:
        """What an engine takes it for: with neither tag nor digest, the tag ``latest``.

        >>> str(parse_reference("debian").or_latest()), str(parse_reference("debian:12").or_latest())
        ('debian:latest', 'debian:12')
        """
        return self if self.tag or self.digest else Reference(self.repository, Tag("latest"))

    def _suffix(self) -> str:
        return f"{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"

    def __str__(self) -> str:
        return self.familiar()


def parse_repository(text: str) -> Repository:
    """A repository without tag or digest; raises ``ValueError`` with one sentence that says what is wrong.

    >>> str(parse_repository("localhost:5000/team/app"))
    'localhost:5000/team/app'
    >>> parse_repository("team/app:1.2")
    Traceback (most recent call last):
    ValueError: 'team/app:1.2' has the tag '1.2' in it; give 'team/app' alone, and '1.2' among the raw tags
    """
    reference = parse_reference(text)
    name = _shown(str(reference.repository))
    if reference.digest is not None:
        raise ValueError(f"{_shown(text)} has a digest in it; give {name} alone")
    if reference.tag is not None:
        if "/" not in text and reference.tag.value.isdigit():
            raise ValueError(
                f"{_shown(text)} is a registry without a repository, or has a tag in it; "
                f"give {_shown(f'{text}/team/app')}, or {name} with {str(reference.tag)!r} among the raw tags"
            )
        raise ValueError(
            f"{_shown(text)} has the tag {str(reference.tag)!r} in it; give {name} alone, "
            f"and {str(reference.tag)!r} among the raw tags"
        )
    return reference.repository


def parse_reference(text: str) -> Reference:
    """Any reference; raises ``ValueError`` with one sentence that says what is wrong.

    >>> reference = parse_reference("localhost:5000/team/app:1.2")
    >>> str(reference.repository), str(reference.tag)
    ('localhost:5000/team/app', '1.2')
    """
    if not text:
        raise ValueError("is empty; give a repository such as team/app")
    if len(text) > _MAX_REFERENCE:
        raise ValueError(f"{_shown(text)} has {len(text)} characters; a reference has {_MAX_REFERENCE} at most")
    # Not repeated: a URL may have a password in it.
    if "://" in text:
        raise ValueError("is a URL; give the repository without its scheme, such as registry.example.com:5000/team/app")
    rest, at, after = text.partition("@")
    # Before the rest, so that of user:password@host only the host is ever repeated.
    digest = Digest(after) if at else None
    # A colon before the last slash belongs to the registry's port; after it, to the tag. Without any slash,
    # host:port and repository:tag look the same, and Docker takes it for the latter.
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    repository = _parse_name(f"{head}{slash}{last}")
    return Reference(repository, Tag(tag) if colon else None, digest)


def _parse_name(name: str) -> Repository:
    first, slash, path = name.partition("/")
    if not slash or not _is_registry(first):
        return Repository(DEFAULT_REGISTRY, name if slash else f"{_OFFICIAL}/{name}")
    if first in (DEFAULT_REGISTRY, "index.docker.io"):
        return Repository(DEFAULT_REGISTRY, path if "/" in path else f"{_OFFICIAL}/{path}")
    return Repository(first, path)


def _is_registry(first: str) -> bool:
    """Docker's rule (splitDockerDomain). Newer engines take an upper-case word for a registry too; 20.10 refuses it."""
    return "." in first or ":" in first or first == "localhost"


def _check_registry(registry: str) -> None:
    match = _REGISTRY.fullmatch(registry)
    if match is None or not _is_registry(registry):
        raise ValueError(f"{_shown(registry)} is not a registry; give a host such as registry.example.com:5000")
    if match["port"] and not 0 < int(match["port"]) < 65536:
        raise ValueError(f"{_shown(registry)} has the port {match['port']}; give one from 1 to 65535")
    if match["ipv6"]:
        try:
            ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            raise ValueError(f"{_shown(registry)} is not an IPv6 address; give one such as [::1]:5000") from None


def _why_no_path(registry: str, path: str) -> str:
    if registry == DEFAULT_REGISTRY:
        prefix, path = "", path.removeprefix(f"{_OFFICIAL}/")
    else:
        prefix = f"{registry}/"
    name = _shown(f"{prefix}{path}")
    if _PATH.fullmatch(path.lower()):
        return f"{name} has upper-case letters, which a repository can't have; give {_shown(f'{prefix}{path.lower()}')}"
    return (
        f"{name} is not a repository; give one such as team/app or registry.example.com:5000/team/app "
        "(lower-case letters and digits, with single '.', '_' or '-' between them)"
    )


def _check_docker_hub(path: str) -> None:
    namespace, _, rest = path.partition("/")
    if not rest:
        raise ValueError(f"{_shown(path)} has no namespace; on {DEFAULT_REGISTRY} give {_shown(f'{_OFFICIAL}/{path}')}")
    # The engine lists docker.io/localhost/app as localhost/app, which is a repository of another registry.
    if _is_registry(namespace):
        raise ValueError(f"{_shown(path)} is no repository of {DEFAULT_REGISTRY}: its first part reads as a registry")
    if namespace == _OFFICIAL and _LOOKS_LIKE_DIGEST.fullmatch(rest):
        raise ValueError(f"{_shown(rest)} can't be a repository, since it reads as a digest; choose another name")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")
