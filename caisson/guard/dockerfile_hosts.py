"""Where an ADD source leads: which host the engine would ask, and whether that one is inside. Pure.

An ADD is fetched by the engine, from its own network: 127.0.0.1 is the host, 169.254.169.254 is the cloud's metadata.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from caisson.addresses import METADATA_NETWORKS, NUMBER, Address, ipv4_within
from caisson.guard.dockerfile_words import Word

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str], Iterable[str]]
"""The addresses of a name, as text; none if it has none. Whoever passes it in decides on time limits."""

_HTTP_URL = re.compile(r"https?://(?P<rest>.*)", re.DOTALL)
# What becomes a git source may be written in capitals.
_URL = re.compile(r"(?:https?|ssh|git)://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
# More generous than BuildKit's git@host:path, so that no version of it is missed.
_SCP = re.compile(r"[^/@:]+@(?P<host>[^/:]*):")
_BARE = re.compile(r"(?!\.{1,2}/)(?P<host>[^/?#]+)/[^?#]*\.git(?:[?#].*)?", re.DOTALL)
_AUTHORITY = re.compile(r"[A-Za-z0-9._~:@\[\]!$&'()*+,;=-]*")
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")

# Names that only ever lead inside (RFC 6761, 6762, 8375, 9476; ICANN's .internal; Docker's, Kubernetes' and clouds').
_PRIVATE_NAMES = ("metadata.google.internal", "host.docker.internal", "gateway.docker.internal")
_PRIVATE_DOMAINS = (
    ".localhost",
    ".localdomain",
    ".local",
    ".internal",
    ".intranet",
    ".private",
    ".corp",
    ".home",
    ".home.arpa",
    ".lan",
    ".alt",
    ".onion",
    ".svc",
    ".arpa",
    ".test",
    ".invalid",
)


class Fetches(Enum):
    """What an ADD fetches beside files of the context."""

    HTTP = "http:// and https:// alone: the classic builder, and BuildKit before 0.10"
    BARE_GIT = "repositories too, and takes path.git for https://path.git: BuildKit 0.10 to 0.13, at least"
    GIT = "repositories too, as git@host:path or a URL: BuildKit 0.14 and later"


# Inside, whatever this version of Python's ipaddress says: IETF's protocol addresses, and clouds' own.
_INSIDE = (ipaddress.ip_network("192.0.0.0/24"), *METADATA_NETWORKS)


@dataclass(frozen=True)
class Target:
    """What a source leads to: ``local`` (the context), a ``host``, or ``unreadable`` for what is not understood."""

    kind: Literal["local", "host", "unreadable"]
    host: str = ""


LOCAL, UNREADABLE = Target("local"), Target("unreadable")


def target_of(source: Word, fetches: Fetches) -> Target | None:
    """Where a source leads; ``None`` if that depends on what is not known before the build.

    >>> target_of(Word.of("http://user@10.1:80/x"), Fetches.HTTP), target_of(Word.of("src/app.py"), Fetches.GIT).kind
    (Target(kind='host', host='10.1'), 'local')
    """
    text = source.text
    if text is None:
        return _target_of_start(source.start, fetches)
    if (match := _scheme(text, fetches)) is not None:
        return _host_of_authority(re.split("[/?#]", match["rest"], maxsplit=1)[0])
    if fetches is not Fetches.HTTP and (match := _SCP.match(text)) is not None:
        return Target("host", match["host"].lower())
    if fetches is Fetches.BARE_GIT and (match := _BARE.fullmatch(text)) is not None:
        return _host_of_authority(match["host"])
    return LOCAL


def _target_of_start(start: str, fetches: Fetches) -> Target | None:
    """A known beginning is enough where it has the whole host in it, or rules out that anything is fetched."""
    if (match := _scheme(start, fetches)) is not None:
        authority, *more = re.split("[/?#]", match["rest"], maxsplit=1)
        return _host_of_authority(authority) if more else None
    if start.startswith(("/", "./", "../")):
        return LOCAL
    if fetches is Fetches.HTTP:
        return None if any(scheme.startswith(start) for scheme in ("http://", "https://")) else LOCAL
    first, slash, _ = start.partition("/")
    return LOCAL if fetches is Fetches.GIT and slash and not set(first) & set(":@") else None


def _scheme(text: str, fetches: Fetches) -> re.Match[str] | None:
    return (_HTTP_URL if fetches is Fetches.HTTP else _URL).fullmatch(text)


def _host_of_authority(authority: str) -> Target:
    # Percent signs, letters outside ASCII and the like mean different hosts to different readers.
    if not _AUTHORITY.fullmatch(authority):
        return UNREADABLE
    host = authority.rpartition("@")[2]
    if host.startswith("["):
        address, bracket, port = host[1:].partition("]")
        if not bracket or (port and not re.fullmatch(r":[0-9]*", port)) or ":" not in address:
            return UNREADABLE
        return Target("host", address.lower())
    name, colon, port = host.partition(":")
    if colon and not re.fullmatch("[0-9]*", port):
        return UNREADABLE
    return Target("host", name.lower())


def judge(
    host: str, resolve: Resolver | None = None, own: frozenset[Address] = frozenset()
) -> Literal["public", "private", "unjudged", "unreadable"]:
    """Whether a host of ``target_of`` is inside; ``unjudged`` is a name that only DNS could tell, and was not asked.
    ``own`` are the host's addresses, which are inside though they are public.

    >>> [judge(host) for host in ("0x7f.1", "::ffff:169.254.1.1", "1.1.1.1", "build.localhost", "example.com")]
    ['private', 'private', 'public', 'private', 'unjudged']
    """
    name = host.removesuffix(".")
    if ":" in name:
        try:
            return _judge_address(ipaddress.IPv6Address(name), own)
        except ValueError:
            return "unreadable"
    if not _NAME.fullmatch(name) or len(name) > 253:
        return "unreadable"
    labels = name.split(".")
    if NUMBER.fullmatch(labels[-1]):
        number = _inet_aton(labels)
        return "unreadable" if number is None else _judge_address(ipaddress.IPv4Address(number), own)
    if len(labels) == 1 or name in _PRIVATE_NAMES or name.endswith(_PRIVATE_DOMAINS):
        return "private"
    if resolve is None:
        return "unjudged"
    return _judge_answers(resolve(name), own)


def _judge_answers(
    answers: Iterable[str], own: frozenset[Address]
) -> Literal["public", "private", "unjudged", "unreadable"]:
    verdict: Literal["public", "unjudged"] = "unjudged"
    for answer in answers:
        try:
            address = ipaddress.ip_address(answer.partition("%")[0])
        except ValueError:
            return "unreadable"
        if _judge_address(address, own) == "private":
            return "private"
        verdict = "public"
    return verdict


def inside_address(host: str, resolve: Resolver | None, own: frozenset[Address] = frozenset()) -> str:
    """The first address by which ``judge`` takes a name to be inside; empty where the name itself says it, or is none.

    >>> inside_address("a.example", lambda _: ["1.1.1.1", "10.0.0.1"]), inside_address("10.0.0.1", lambda _: [])
    ('10.0.0.1', '')
    """
    if resolve is None or judge(host, own=own) != "unjudged":
        return ""
    answers = resolve(host.removesuffix("."))
    return next((answer for answer in answers if _judge_answers([answer], own) == "private"), "")


def _inet_aton(labels: list[str]) -> int | None:
    """The C library's reading of a number: one to four parts, each decimal, octal (0…) or hexadecimal (0x…)."""
    if len(labels) > 4:
        return None
    try:
        parts = [_number(label) for label in labels]
    except ValueError:
        return None
    *first, last = parts
    if any(part > 255 for part in first) or last >= 256 ** (4 - len(first)):
        return None
    return sum(part << (24 - 8 * index) for index, part in enumerate(first)) + last


def _number(label: str) -> int:
    if len(label) > 20 or not NUMBER.fullmatch(label):
        raise ValueError
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if label.startswith("0") else 10)


def _judge_address(address: Address, own: frozenset[Address]) -> Literal["public", "private"]:
    if address in own:
        return "private"
    if isinstance(address, ipaddress.IPv6Address):
        if any(_judge_address(inner, own) == "private" for inner in ipv4_within(address)):
            return "private"
        if address.ipv4_mapped is not None:
            return "public"
    if any(address.version == network.version and address in network for network in _INSIDE):
        return "private"
    return "public" if address.is_global and not address.is_multicast else "private"


def listed(host: str, allowed: Iterable[str]) -> bool:
    """Whether an allowlist has a host: as a name, as ``.domain`` with all below it, or as an address or network.

    >>> listed("10.1.2.3", ["10.0.0.0/8"]), listed("a.corp.example", [".corp.example"]), listed("b", ["a"])
    (True, True, False)
    """
    name = host.removesuffix(".")
    address = _address(name)
    for entry in allowed:
        if address is not None:
            network = _network(entry)
            if network is not None and address.version == network.version and address in network:
                return True
        elif name == entry.lower() or (entry.startswith(".") and name.endswith(entry.lower())):
            return True
    return False


def split_registry(registry: str) -> tuple[str, str]:
    """Host, as ``judge`` takes it, and port of a registry; the port is empty if it has none.

    >>> [split_registry(text) for text in ("REGISTRY.example:5000", "[::1]")]
    [('registry.example', '5000'), ('::1', '')]
    """
    host, colon, port = registry.lower().rpartition(":")
    if not colon or not port.isdigit():
        host, port = registry.lower(), ""
    return host.removeprefix("[").removesuffix("]"), port


def registry_spelling(registry: str, default_ports: Iterable[str] = ("443",)) -> str:
    """One form for all spellings of a registry: small letters, an address as usual, no default port.

    >>> registry_spelling("REGISTRY.example:443"), registry_spelling("0x7f.1:5000"), registry_spelling("[0::1]:80")
    ('registry.example', '127.0.0.1:5000', '[::1]:80')
    """
    host, port = split_registry(registry)
    shown = str(_address(host) or host)
    shown = f"[{shown}]" if ":" in shown else shown
    return f"{shown}:{port}" if port and port not in default_ports else shown


def _address(name: str) -> Address | None:
    if ":" in name:
        try:
            return ipaddress.IPv6Address(name)
        except ValueError:
            return None
    labels = name.split(".")
    number = _inet_aton(labels) if NUMBER.fullmatch(labels[-1]) else None
    return None if number is None else ipaddress.IPv4Address(number)


def _network(entry: str) -> Network | None:
    try:
        return ipaddress.ip_network(entry)
    except ValueError:
        return None
