"""Requests that two readers take for different ones: a second request in the first, or a body that is none."""

from __future__ import annotations

from tests.engine.attacks.build_query import PLAIN, built
from tests.engine.attacks.case import Attack, Effect, Raw, Refuses, done, says
from tests.engine.attacks.lab import Case, tar

# What the smuggled request would answer with: the names of others' containers.
_LIST = "GET /containers/json?all=1 HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
_listed = says("<victim>")
_BAD = Refuses("400 Bad Request", "Go's HTTP refuses it too")
_PING = Refuses("200 OK", "the engine knows no such header, and answers a ping")


def smuggle(
    name: str, head: str, works: Effect | Refuses = _listed, body: str = "", rule: str = "http", **more: object
) -> Attack:
    """A ping, with a list of containers behind it; ``head`` is all after the request line, without the empty line."""
    more.setdefault("status", 400 if rule == "http" else 403)
    return Attack(name, Raw(f"GET /_ping HTTP/1.1\r\nHost: docker\r\n{head}\r\n{body}{_LIST}"), rule, works, **more)  # type: ignore[arg-type]


def line(
    name: str,
    first: str,
    works: Effect | Refuses = _listed,
    headers: str = "Host: docker\r\nConnection: close\r\n",
    **more: object,
) -> Attack:
    more.setdefault("status", 400)
    return Attack(name, Raw(f"{first}\r\n{headers}\r\n"), str(more.pop("rule", "http")), works, **more)  # type: ignore[arg-type]


class ChunkedBuild:
    """A build whose context is chunked: ``around`` makes the body of the tar, written as one chunk would be."""

    def __init__(self, before: str, after: str = "\r\n0\r\n\r\n") -> None:
        self._before, self._after = before, after

    def encode(self, case: Case) -> bytes:
        body = tar({"Dockerfile": case.fill_text(PLAIN)})
        head = (
            "POST /build?t=<own> HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n"
            "Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        before = self._before.replace("SIZE", f"{len(body):x}")
        return case.fill(head.encode()) + before.encode("latin-1") + body + case.fill(self._after.encode("latin-1"))


def chunks(
    name: str, before: str, works: Effect | Refuses = built, after: str = "\r\n0\r\n\r\n", **more: object
) -> Attack:
    more.setdefault("status", 400)
    return Attack(name, ChunkedBuild(before, after), "http", works, reaches=True, **more)  # type: ignore[arg-type]


SMUGGLING = [
    smuggle("a second request at once", ""),
    smuggle("a length and a coding", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", body="0\r\n\r\n"),
    smuggle("a coding and a length of all", "Transfer-Encoding: chunked\r\nContent-Length: 90\r\n", body="0\r\n\r\n"),
    smuggle("two lengths", "Content-Length: 0\r\nContent-Length: 5\r\n", _BAD),
    smuggle("one length twice", "Content-Length: 0\r\nContent-Length: 0\r\n"),
    smuggle("a list of lengths", "Content-Length: 0, 0\r\n", _BAD),
    smuggle("a length with a sign", "Content-Length: +0\r\n", _BAD),
    smuggle("a negative length", "Content-Length: -1\r\n", _BAD),
    smuggle("a hexadecimal length", "Content-Length: 0x0\r\n", _BAD),
    smuggle("a length that is too large", "Content-Length: 99999999999999999999\r\n", _BAD),
    smuggle("an empty length", "Content-Length: \r\n", _listed),
    smuggle("a length, and a ping has no body", "Content-Length: 1\r\n", body="x", rule="body"),
    smuggle("a coding, and a ping has no body", "Transfer-Encoding: chunked\r\n", body="0\r\n\r\n", rule="body"),
    smuggle("a coding in capitals", "Transfer-Encoding: CHUNKED\r\n", body="0\r\n\r\n", rule="body"),
    smuggle(
        "two codings",
        "Transfer-Encoding: gzip, chunked\r\n",
        Refuses("Unsupported transfer encoding", "Go looks too"),
        body="0\r\n\r\n",
    ),
    smuggle(
        "a coding twice",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        Refuses("Unsupported transfer encoding", "Go looks too"),
        body="0\r\n\r\n",
    ),
    smuggle(
        "identity as a coding",
        "Transfer-Encoding: identity\r\n",
        Refuses("Unsupported transfer encoding", "Go looks too"),
    ),
    smuggle(
        "a coding that is none",
        "Transfer-Encoding: xchunked\r\n",
        Refuses("Unsupported transfer encoding", "Go looks too"),
        body="0\r\n\r\n",
    ),
    smuggle("a coding with a tab", "Transfer-Encoding:\tchunked\r\n", body="0\r\n\r\n", rule="body"),
    smuggle(
        "a coding with a vertical tab",
        "Transfer-Encoding: \x0bchunked\r\n",
        Refuses("400", "Go looks too, and says 400 or 501"),
        body="0\r\n\r\n",
        works_on={"20.10": Refuses("501", "Go looks too")},
    ),
    smuggle("a coding after a space in the name", "Transfer-Encoding : chunked\r\n", _BAD, body="0\r\n\r\n"),
    smuggle("a folded line", "X-A: b\r\n c: d\r\n"),
    smuggle("a folded coding", "Transfer-Encoding:\r\n chunked\r\n", body="0\r\n\r\n"),
    smuggle("a line end of LF alone", "X-A: b\nX-C: d\r\n"),
    smuggle("a coding behind LF alone", "X-A: b\nTransfer-Encoding: chunked\r\n", body="0\r\n\r\n"),
    smuggle("a CR alone", "X-A: b\rX-C: d\r\n", _BAD),
    smuggle("a NUL", "X-A: b\0c\r\n", _BAD),
    smuggle("a header without a colon", "X-A\r\n", _BAD),
    smuggle("a header without a name", ": x\r\n", _BAD, works_on={"20.10": _listed}),
    smuggle("letters beyond ASCII in a header", "X-A: \xe9\r\n"),
    smuggle("two hosts", "Host: other\r\n", _BAD),
    smuggle(
        "a second request behind an expectation",
        "Expect: 100-continue\r\nContent-Length: 1\r\n",
        Refuses("200 OK", "Go closes a connection whose body was not read"),
        body="x",
        rule="body",
    ),
    smuggle(
        "a trailer, announced",
        "Trailer: X-A\r\nTransfer-Encoding: chunked\r\n",
        body="0\r\nX-A: b\r\n\r\n",
        rule="header",
    ),
]

LINES = [
    line("HTTP/1.0", "GET /containers/json?all=1 HTTP/1.0"),
    line("HTTP/1.0 without a host", "GET /containers/json?all=1 HTTP/1.0", headers=""),
    line("HTTP/0.9", "GET /containers/json?all=1", _BAD, headers=""),
    line("HTTP/2.0", "GET /containers/json?all=1 HTTP/2.0", Refuses("505 HTTP Version", "Go speaks HTTP/1 there")),
    line("HTTP/1.9", "GET /containers/json?all=1 HTTP/1.9", _listed),
    line("http/1.1 in small letters", "GET /containers/json?all=1 http/1.1", _BAD),
    line("the preface of HTTP/2", "PRI * HTTP/2.0", Refuses("301", "it is taken for HTTP/1.1"), headers="\r\nSM\r\n"),
    line(
        "a method in small letters",
        "get /containers/json?all=1 HTTP/1.1",
        Refuses("404", "methods are compared as they are"),
    ),
    line("a method with a character of its own", "G=T /containers/json?all=1 HTTP/1.1", _BAD),
    line("two spaces", "GET  /containers/json?all=1 HTTP/1.1", _BAD),
    line("a tab for a space", "GET\t/containers/json?all=1 HTTP/1.1", _BAD),
    line("a space in the target", "GET /_ping /containers/json HTTP/1.1", _BAD),
    line("a space at the beginning", " GET /containers/json HTTP/1.1", _BAD),
    line("a NUL in the target", "GET /_ping\0/containers/json HTTP/1.1", _BAD),
    line("an empty line at first", "\r\nGET /containers/json?all=1 HTTP/1.1", _BAD),
    line("no host", "GET /containers/json?all=1 HTTP/1.1", _BAD, headers="Connection: close\r\n"),
    line(
        "line ends of LF alone", "GET /containers/json?all=1 HTTP/1.1\nHost: docker\nConnection: close\n\n", headers=""
    ),
    line(
        "more headers than any client",
        "GET /_ping HTTP/1.1",
        done(200),
        "Host: docker\r\nConnection: close\r\n" + "".join(f"X-{number}: x\r\n" for number in range(100)),
    ),
    line(
        "a head of 300 KiB",
        "GET /_ping HTTP/1.1",
        done(200),
        f"Host: docker\r\nConnection: close\r\nX-A: {'a' * (300 << 10)}\r\n",
    ),
    line("a target of 300 KiB", f"GET /_ping?{'a' * (300 << 10)} HTTP/1.1", done(200)),
]

CHUNKS = [
    chunks("a chunk's extension", "SIZE;x=y\r\n"),
    chunks("a chunk's extension, with a line in it", 'SIZE;x="\n"\r\n', Refuses("500", "the line ends there")),
    chunks("a chunk's size with a space", "SIZE \r\n", built),
    chunks("a chunk's size in another way", "0xSIZE\r\n", Refuses("invalid byte in chunk length", "Go looks too")),
    chunks("a chunk's size with a sign", "+SIZE\r\n", Refuses("invalid byte in chunk length", "Go looks too")),
    chunks(
        "a chunk's size that overflows", "1000000000000SIZE\r\n", Refuses("http chunk length too large", "Go looks too")
    ),
    chunks(
        "a chunk's size with zeros", "0000000000000SIZE\r\n", Refuses("http chunk length too large", "Go looks too")
    ),
    chunks(
        "a chunk's line that ends with LF alone",
        "SIZE\n",
        Refuses("bare LF", "later versions of Go look"),
        works_on={"20.10": built},
    ),
    chunks("a chunk that is longer than its size", "600\r\n", Refuses("500", "the archive is not whole then")),
    chunks("a chunk without its line end", "SIZE\r\n", built, after="0\r\n\r\n"),
    chunks("a trailer", "SIZE\r\n", after="\r\n0\r\nX-A: b\r\n\r\n"),
    chunks("a trailer with a header that matters", "SIZE\r\n", after="\r\n0\r\nContent-Type: x\r\n\r\n"),
    chunks(
        "a second request behind the body",
        "SIZE\r\n",
        after="\r\n0\r\n\r\nGET /containers/json HTTP/1.1\r\nHost: docker\r\n\r\n",
    ),
]


def upgrade(
    name: str, first: str, headers: str, rule: str, works: Effect | Refuses, after: str = "", **more: object
) -> Attack:
    more.setdefault("waits", 0.5)
    text = f"{first} HTTP/1.1\r\nHost: docker\r\n{headers}\r\n{after}"
    return Attack(name, Raw(text), rule, works, **more)  # type: ignore[arg-type]


_H2C = "Connection: Upgrade\r\nUpgrade: h2c\r\n"
_ID = "X-Docker-Expose-Session-Uuid: "
_switched = says("101 Switching Protocols")
UPGRADES = [
    upgrade(
        "an upgrade of a list",
        "GET /containers/json?all=1",
        f"{_H2C}HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "endpoint",
        _listed,
    ),
    upgrade("an upgrade of a ping", "GET /_ping", f"{_H2C}", "header", done(200)),
    upgrade(
        "an upgrade to another protocol",
        "POST /grpc",
        "Connection: Upgrade\r\nUpgrade: tcp\r\n",
        "upgrade",
        Refuses("not supported", "the engine speaks h2c there"),
    ),
    upgrade(
        "an upgrade to two",
        "POST /grpc",
        "Connection: Upgrade\r\nUpgrade: h2c, tcp\r\n",
        "upgrade",
        Refuses("not supported", "the engine speaks h2c there"),
    ),
    upgrade("an upgrade that is not said", "POST /grpc", "Connection: close\r\nUpgrade: h2c\r\n", "header", _switched),
    upgrade("an upgrade with more", "POST /grpc", "Connection: Upgrade, X-A\r\nUpgrade: h2c\r\n", "header", _switched),
    upgrade("an upgrade that is asked for", "GET /grpc", _H2C, "endpoint", Refuses("404", "only POST is routed")),
    upgrade("an upgrade with a body", "POST /grpc", f"{_H2C}Content-Length: 1\r\n", "body", _switched, "x"),
    upgrade("an upgrade with an expectation", "POST /grpc", f"{_H2C}Expect: 100-continue\r\n", "upgrade", _switched),
    upgrade("a second request behind an upgrade", "POST /grpc", _H2C, "http", _switched, _LIST, status=400),
    upgrade("a session without an ID", "POST /session", _H2C, "session-header", _switched),
    upgrade("a session with a short ID", "POST /session", f"{_H2C}{_ID}x\r\n", "session-header", _switched),
    upgrade(
        "a session with an ID of another kind",
        "POST /session",
        f"{_H2C}{_ID}../../../../../x\r\n",
        "session-header",
        _switched,
    ),
    upgrade(
        "a session with a long key",
        "POST /session",
        f"{_H2C}{_ID}<session>\r\nX-Docker-Expose-Session-Sharedkey: {300 * 'x'}\r\n",
        "session-header",
        _switched,
    ),
    upgrade(
        "a session with another header",
        "POST /session",
        f"{_H2C}{_ID}<session>\r\nX-Docker-Expose-Session-X: x\r\n",
        "header",
        _switched,
    ),
]

HEADERS = [
    smuggle(
        "another method by a header", "X-HTTP-Method-Override: DELETE\r\nConnection: close\r\n", _PING, rule="header"
    ),
    smuggle(
        "another method by another header", "X-Method-Override: POST\r\nConnection: close\r\n", _PING, rule="header"
    ),
    smuggle(
        "another path by a header", "X-Original-URL: /containers/json\r\nConnection: close\r\n", _PING, rule="header"
    ),
    smuggle(
        "another path by another header",
        "X-Rewrite-URL: /containers/json\r\nConnection: close\r\n",
        _PING,
        rule="header",
    ),
    smuggle("another sender", "X-Forwarded-For: 127.0.0.1\r\nConnection: close\r\n", _PING, rule="header"),
    smuggle("an authorization", "Authorization: Basic YTpi\r\nConnection: close\r\n", _PING, rule="header"),
    smuggle("an origin", "Origin: http://evil.invalid\r\nConnection: close\r\n", _PING, rule="header"),
    smuggle("headers that are for the connection only", "Connection: close, Host\r\n", _PING, rule="header"),
    smuggle("a connection to a proxy", "Proxy-Connection: keep-alive\r\nConnection: close\r\n", _PING, rule="header"),
]

KEPT = [
    Attack(
        "a second request on a connection that was kept",
        Raw("GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n", then=_LIST),
        "endpoint",
        _listed,
        status=200,
        denies=True,
        reaches=True,
    ),
    Attack(
        "a second request with an upgrade's name",
        Raw(
            "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n",
            then=f"POST /containers/<victim>/attach?stdout=1&stream=1 HTTP/1.1\r\nHost: docker\r\n{_H2C}\r\n",
        ),
        "endpoint",
        says("101 UPGRADED"),
        status=200,
        denies=True,
        reaches=True,
        waits=0.7,
    ),
]
ATTACKS = [*SMUGGLING, *LINES, *CHUNKS, *UPGRADES, *HEADERS, *KEPT]
