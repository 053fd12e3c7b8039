"""What of the Docker API may be called on a build's socket, and what is called in its place. Pure.

``judge`` finds the endpoint in ``ENDPOINTS`` by method and path; the endpoint reads the request strictly and says what
the guard does: answer by itself, or write a request of its own. Nothing that was received is passed on. What is in no
table (endpoint, header, query key) is denied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from caisson.guard.answers import image_document, image_history
from caisson.guard.build_query import BUILD_KEYS, BuildQuery, read_build_query
from caisson.guard.http1 import Headers, RequestHead
from caisson.guard.policy import OLDEST_API, GuardPolicy
from caisson.guard.query import parse_query, write_query
from caisson.guard.registry_header import check_registry_config
from caisson.guard.session_mediator import ANNOUNCED_ONLY, SESSION_METHODS
from caisson.guard.verdict import Denied, Verdict


@dataclass(frozen=True)
class EngineFacts:
    """What a client is told of the engine, and no more."""

    version: str
    os: str = "linux"
    arch: str = "amd64"
    builder_version: str = "1"

    @property
    def platform(self) -> str:
        """What it builds for, such as ``linux/amd64``."""
        return f"{self.os}/{self.arch}"


@dataclass(frozen=True)
class Answer:
    """The guard answers by itself: a document as JSON, or ``text`` with headers of its own where there is none."""

    document: dict[str, Any] | None = None
    text: str = ""
    headers: Headers = ()


@dataclass(frozen=True)
class Forward:
    """The guard sends a request of its own. ``build`` is there when its body is the context of that build.

    ``rewrite`` makes the guard's answer of the engine's; without it the engine's body is passed on as it comes.
    """

    method: str
    target: str
    headers: Headers = ()
    build: BuildQuery | None = None
    rewrite: Callable[[bytes, GuardPolicy], bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Upgrade:
    """The guard asks for an h2c stream, and mediates it; ``session`` is the ID of one that is opened so."""

    kind: Literal["grpc", "session"]
    target: str
    headers: Headers = ()
    session: str = ""


Decision = Answer | Forward | Upgrade


@dataclass(frozen=True)
class Call:
    """A request as the endpoints read it: its path without the API version, its query decoded."""

    head: RequestHead
    path: str
    match: re.Match[str]
    query: tuple[tuple[str, str], ...]
    policy: GuardPolicy
    engine: EngineFacts

    def url(self, path: str, query: tuple[tuple[str, str], ...] = ()) -> str:
        """The target on the engine, in the one API version."""
        return f"/v{self.policy.api}{path}{'?' if query else ''}{write_query(query)}"


@dataclass(frozen=True)
class Endpoint:
    """One thing that may be called. ``name`` is its rule and ``why`` its reason, a sentence; ``headers`` are those
    besides the common ones."""

    name: str
    why: str
    methods: tuple[str, ...]
    path: re.Pattern[str]
    decide: Callable[[Call], Decision] = field(repr=False)
    keys: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()
    has_body: bool = False
    upgrades: bool = False


# None of these is passed on; they are listed because clients send them and they mean nothing here.
_COMMON_HEADERS = frozenset(
    {
        "host", "user-agent", "accept", "accept-encoding", "connection", "content-length", "transfer-encoding",
        "content-type", "expect", "traceparent", "tracestate", "baggage",
    }
)  # fmt: skip
_TAR_TYPES = frozenset({"application/x-tar", "application/tar"})
_SESSION_ID = re.compile(r"[a-z0-9]{16,64}")
_TARGET = re.compile(r"(?P<path>/[A-Za-z0-9._~:/@-]*)(?:\?(?P<query>.*))?", re.DOTALL)
_VERSION = re.compile(r"/v(?P<major>[0-9])\.(?P<minor>[0-9]{1,2})(?P<path>/.*)")


def judge(
    head: RequestHead, policy: GuardPolicy, engine: EngineFacts, endpoints: tuple[Endpoint, ...] | None = None
) -> tuple[str, Decision]:
    """The rule that allows a request, and what the guard does for it; raises ``Denied``."""
    path, text = _read_target(head.target, policy)
    for endpoint in ENDPOINTS if endpoints is None else endpoints:
        match = endpoint.path.fullmatch(path)
        if match is not None and head.method in endpoint.methods:
            _check_headers(head, endpoint)
            query = parse_query(text)
            for key, _ in query:
                if key not in endpoint.keys:
                    raise Denied("query-key", f"{key[:80]!r} is not a value that {endpoint.name} may have here.")
            return endpoint.name, endpoint.decide(Call(head, path, match, query, policy, engine))
    raise Denied(
        "endpoint",
        f"{head.method} {path[:200]} is no part of building an image; "
        f"this socket builds {policy.image} and nothing else.",
    )


def _read_target(target: str, policy: GuardPolicy) -> tuple[str, str]:
    match = _TARGET.fullmatch(target)
    if match is None:
        raise Denied(
            "path", "The path is not written plainly: it has to begin with '/' and have nothing encoded in it."
        )
    path = match["path"]
    segments = path[1:].split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise Denied("path", "The path is not written plainly: it has '//', '/./' or '/../' in it, or ends with '/'.")
    if versioned := _VERSION.fullmatch(path):
        version = (int(versioned["major"]), int(versioned["minor"]))
        if not OLDEST_API <= version <= policy.api_version:
            oldest = f"{OLDEST_API[0]}.{OLDEST_API[1]}"
            raise Denied("api-version", f"API {version[0]}.{version[1]} is not from {oldest} to {policy.api}.")
        path = versioned["path"]
    return path, match["query"] or ""


def _check_headers(head: RequestHead, endpoint: Endpoint) -> None:
    for name, _ in head.headers:
        if name not in _COMMON_HEADERS and name not in endpoint.headers:
            raise Denied("header", f"The header {name[:80]} is not one that {endpoint.name} may have.")
    connection = (head.get("connection") or "keep-alive").lower()
    allowed = ("upgrade",) if endpoint.upgrades else ("keep-alive", "close")
    if connection not in allowed:
        raise Denied("header", f"Connection has to be {' or '.join(allowed)} for {endpoint.name}.")
    has_body = head.framing.kind == "chunked" or head.framing.length > 0
    if has_body and not endpoint.has_body:
        raise Denied("body", f"{endpoint.name} has no body.")
    if (head.get("expect") or "100-continue").lower() != "100-continue":
        raise Denied("header", "Expect can only be 100-continue.")
    kind = (head.get("content-type") or "").lower()
    if has_body and kind not in _TAR_TYPES:
        raise Denied("content-type", f"The body of {endpoint.name} has to be application/x-tar.")
    if kind and kind not in _TAR_TYPES and kind != "text/plain":
        raise Denied("content-type", f"{endpoint.name} can't have that content type.")


def _ping(call: Call) -> Decision:
    """What clients choose their version and builder by. All of it was asked when the guard began, and stays."""
    engine = call.engine
    return Answer(
        text="OK",
        headers=(
            ("Api-Version", call.policy.api),
            ("Builder-Version", "2" if engine.builder_version == "2" else "1"),
            ("Docker-Experimental", "false"),
            ("Ostype", engine.os),
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
        ),
    )


def _version(call: Call) -> Decision:
    engine, policy = call.engine, call.policy
    return Answer(
        {
            "Platform": {"Name": "caisson guard"},
            "Version": engine.version,
            "ApiVersion": policy.api,
            "MinAPIVersion": f"{OLDEST_API[0]}.{OLDEST_API[1]}",
            "GitCommit": "",
            "GoVersion": "",
            "Os": engine.os,
            "Arch": engine.arch,
            "KernelVersion": "",
            "BuildTime": "",
        }
    )


def _info(call: Call) -> Decision:
    # The engine's own answer names the host, its proxies (with passwords), labels, directories and registries.
    engine = call.engine
    return Answer(
        {
            "Name": "caisson-guard",
            "ServerVersion": engine.version,
            "OSType": engine.os,
            "Architecture": engine.arch,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "SecurityOptions": [],
            "Warnings": None,
        }
    )


def _check_ready(policy: GuardPolicy) -> None:
    if not policy.may_build:
        raise Denied("build-early", "Nothing can be built before the build's own step has begun.")


def _build(call: Call) -> Decision:
    _check_ready(call.policy)
    check_registry_config(call.head.get("x-registry-config"))
    asked = read_build_query(call.query, call.policy)
    return Forward(
        "POST",
        call.url("/build", asked.to_query(call.policy)),
        (("Content-Type", "application/x-tar"),),
        build=asked,
    )


def _own_image(call: Call) -> str:
    own = call.policy.image
    if not call.policy.is_own_image(call.match["name"]):
        raise Denied("other-image", f"Only {own}, the build's own image, can be asked about.")
    return str(own)


def _inspect_image(call: Call) -> Decision:
    return Forward("GET", call.url(f"/images/{_own_image(call)}/json"), rewrite=image_document)


def _image_history(call: Call) -> Decision:
    return Forward("GET", call.url(f"/images/{_own_image(call)}/history"), rewrite=image_history)


def _grpc(call: Call) -> Decision:
    _check_ready(call.policy)
    _check_upgrade(call.head)
    return Upgrade("grpc", call.url("/grpc"))


_SESSION = "x-docker-expose-session-"
_OFFERED = SESSION_METHODS.keys() | ANNOUNCED_ONLY


def _session(call: Call) -> Decision:
    head = call.head
    _check_ready(call.policy)
    _check_upgrade(head)
    session_id, name, key = (head.get(f"{_SESSION}{field}") or "" for field in ("uuid", "name", "sharedkey"))
    methods = head.all(f"{_SESSION}grpc-method")
    if not _SESSION_ID.fullmatch(session_id):
        raise Denied("session-header", "The session's ID is not 16 to 64 letters and digits.")
    if len(name) > 256 or len(key) > 256:
        raise Denied("session-header", "The session's name or its shared key is too long.")
    headers = (
        ("X-Docker-Expose-Session-Name", "caisson"),
        # What else it offers (to receive files, say) the daemon never learns. Who wants that is denied it in Solve,
        # where clients print the reason.
        *(("X-Docker-Expose-Session-Grpc-Method", method) for method in methods if method in _OFFERED),
    )
    return Upgrade("session", call.url("/session"), headers, session=session_id)


def _check_upgrade(head: RequestHead) -> None:
    if (head.get("upgrade") or "").lower() != "h2c":
        raise Denied("upgrade", "Upgrade has to be h2c.")
    if head.get("expect") is not None:
        raise Denied("upgrade", "A request to upgrade can't expect anything.")


ENDPOINTS = (
    # Liveness, and the version that the client then speaks.
    Endpoint("ping", "Clients ask whether the engine is there.", ("GET", "HEAD"), re.compile("/_ping"), _ping),
    # Answered by the guard: kernel, commit and experimental features are nobody's business in a build.
    Endpoint("version", "Clients ask for the engine's version.", ("GET",), re.compile("/version"), _version),
    Endpoint("info", "Clients ask for the engine's platform.", ("GET",), re.compile("/info"), _info),
    # The classic builder. The query is rebuilt, the tar is read as it streams by.
    Endpoint(
        "build",
        "It is a build of the socket's own image.",
        ("POST",),
        re.compile("/build"),
        _build,
        keys=BUILD_KEYS,
        headers=frozenset({"x-registry-config"}),
        has_body=True,
    ),
    # BuildKit: two streams of HTTP/2, each message of which is judged by its own rules.
    Endpoint(
        "grpc",
        "BuildKit's calls, each of which is judged.",
        ("POST",),
        re.compile("/grpc"),
        _grpc,
        headers=frozenset({"upgrade"}),
        upgrades=True,
    ),
    Endpoint(
        "session",
        "BuildKit's session, each call of which is judged.",
        ("POST",),
        re.compile("/session"),
        _session,
        headers=frozenset({"upgrade", *(f"{_SESSION}{name}" for name in ("uuid", "name", "sharedkey", "grpc-method"))}),
        upgrades=True,
    ),
    # By the build's own name only; what else the engine says of it (other names, paths) is left out.
    Endpoint(
        "image", "It is about the build's own image.", ("GET",), re.compile("/images/(?P<name>.+)/json"), _inspect_image
    ),
    Endpoint(
        "history",
        "It is about the build's own image.",
        ("GET",),
        re.compile("/images/(?P<name>.+)/history"),
        _image_history,
    ),
)

ALLOWED = {endpoint.name: Verdict("allow", endpoint.name, endpoint.why) for endpoint in ENDPOINTS}
"""The verdict by the rule that allows a request."""


def answer_body(answer: Answer) -> bytes:
    """What the guard answers by itself."""
    return answer.text.encode() if answer.document is None else json.dumps(answer.document).encode()


def error_body(reason: str) -> bytes:
    """A denial as the Docker clients print it."""
    return json.dumps({"message": reason}).encode()
