"""The strict HTTP reader: what two readers could read differently is refused; what clients send passes."""

from __future__ import annotations

import pytest

from caisson.guard.http1 import (
    CHUNKED,
    BodyReader,
    Framing,
    HeadReader,
    Malformed,
    chunk,
    parse_answer,
    parse_request,
    write_answer,
    write_request,
)

HOST = b"\r\nHost: docker"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET /_ping" + HOST,
        b"GET  /_ping HTTP/1.1" + HOST,
        b"GET /_ping HTTP/1.0" + HOST,
        b"GET /_ping HTTP/2.0" + HOST,
        b"GET /_ping http/1.1" + HOST,
        b"get /_ping HTTP/1.1" + HOST,
        b"GET /a b HTTP/1.1" + HOST,
        b"GET /\xe4 HTTP/1.1" + HOST,
        b"GET /\x00 HTTP/1.1" + HOST,
        b" GET /_ping HTTP/1.1" + HOST,
        b"\r\nGET /_ping HTTP/1.1" + HOST,
        b"GET /_ping HTTP/1.1",
        b"GET /_ping HTTP/1.1\nHost: docker",
        b"GET /_ping HTTP/1.1\rHost: docker",
        b"GET /_ping HTTP/1.1\r\nHost: docker\nX: y",
        b"GET /_ping HTTP/1.1\r\nHost: docker\rX: y",
        b"GET /_ping HTTP/1.1\r\nHost : docker",
        b"GET /_ping HTTP/1.1\r\nHost: a\r\n b",
        b"GET /_ping HTTP/1.1\r\n Host: a",
        b"GET /_ping HTTP/1.1\r\nHost: a\r\nhost: b",
        b"GET /_ping HTTP/1.1\r\nHost: \xe4",
        b"GET /_ping HTTP/1.1\r\nHost: a\x00",
        b"GET /_ping HTTP/1.1\r\nHost: a\r\nno colon",
        b"GET /_ping HTTP/1.1\r\nHost: a\r\n: empty",
        b"POST /build HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"POST /build HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1",
        b"POST /build HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1",
        b"POST /build HTTP/1.1\r\nHost: a\r\nContent-Length: -1",
        b"POST /build HTTP/1.1\r\nHost: a\r\nContent-Length: +1",
        b"POST /build HTTP/1.1\r\nHost: a\r\nContent-Length: 0x10",
        b"POST /build HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0",
        b"POST /build HTTP/1.1\r\nHost: a\r\nContent-Length:",
        b"POST /build HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999",
        b"POST /build HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity",
        b"POST /build HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
        b"POST /build HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"GET /_ping HTTP/1.1" + HOST + b"\r\nX-%d: y" * 70,
    ],
)
def test_what_has_two_readings_is_refused(head: bytes) -> None:
    with pytest.raises(Malformed):
        parse_request(head)


def test_what_clients_send_passes() -> None:
    head = parse_request(b"POST /build?t=a HTTP/1.1\r\nHost: docker\r\nTransfer-Encoding: chunked\r\nX:  y \t\r\nE:")
    assert (head.method, head.target, head.framing) == ("POST", "/build?t=a", CHUNKED)
    assert (head.get("x"), head.get("e"), head.get("none")) == ("y", "", None)
    assert head.keeps_alive
    assert not parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close").keeps_alive
    methods = b"\r\nX-Docker-Expose-Session-Grpc-Method: /a/b\r\nX-Docker-Expose-Session-Grpc-Method: /a/c"
    assert parse_request(b"GET / HTTP/1.1" + HOST + methods).all("x-docker-expose-session-grpc-method") == (
        "/a/b",
        "/a/c",
    )


@pytest.mark.parametrize("size", [1, 100, 1_000])
def test_the_longest_head_is_read_in_any_pieces(size: int) -> None:
    data, reader = b"a" * 100 + b"\r\n\r\n", HeadReader(100)
    assert [reader.feed(data[at : at + size]) for at in range(0, len(data), size)][-1] == (b"a" * 100, b"")


def test_a_head_ends_where_it_ends_and_is_bounded() -> None:
    for size in (1, 3, 100):
        reader = HeadReader(100)
        data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"
        found = None
        for start in range(0, len(data), size):
            found = reader.feed(data[start : start + size])
            if found:
                break
        assert found is not None
        assert found[0] == b"GET / HTTP/1.1\r\nHost: a"
    assert HeadReader(100).feed(b"a\r\n\r\nb") == (b"a", b"b")
    with pytest.raises(Malformed):
        HeadReader(100).feed(b"a" * 104)
    with pytest.raises(Malformed):
        HeadReader(100).feed(b"a" * 101 + b"\r\n\r\n")


@pytest.mark.parametrize(
    "body",
    [
        b"5;x=y\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"\r\n",
        b"-1\r\n",
        b"000000005\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_chunk_is_its_size_its_bytes_and_its_line_end(body: bytes, size: int) -> None:
    reader = BodyReader(CHUNKED)
    with pytest.raises(Malformed):
        _ = [reader.feed(body[start : start + size]) for start in range(0, len(body), size)]


def test_what_follows_a_body_is_given_back_and_an_end_within_one_is_seen() -> None:
    for framing, body in ((CHUNKED, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), (Framing("length", 5), b"abcde")):
        reader = BodyReader(framing)
        assert b"".join(reader.feed(body + b"GET /")) == b"abcde"
        assert (reader.done, reader.rest) == (True, b"GET /")
        short = BodyReader(framing)
        short.feed(body[:-1])
        with pytest.raises(Malformed):
            short.end()
    until_close = BodyReader(Framing("close"))
    assert b"".join(until_close.feed(b"abc")) == b"abc"
    until_close.end()
    assert until_close.done


def test_answers_know_their_framing() -> None:
    head = parse_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked")
    assert head.framing("GET") == CHUNKED
    assert head.framing("HEAD").length == 0
    assert parse_answer(b"HTTP/1.1 200 OK").framing("GET").kind == "close"
    for wrong in (b"HTTP/1.1 999 X", b"HTTP/1.0 200 OK", b"200 OK"):
        with pytest.raises(Malformed):
            parse_answer(wrong)


def test_what_is_written_can_break_no_line() -> None:
    assert write_request("GET", "/", [("Host", "a")]) == b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert write_answer(403, []) == b"HTTP/1.1 403 Forbidden\r\n\r\n"
    for value in ("a\r\nb", "a\nb", "ä", "a\x00"):
        with pytest.raises(ValueError):
            write_request("GET", "/", [("Host", value)])
    assert chunk([memoryview(b"abc"), memoryview(b"de")]) == b"5\r\nabcde\r\n"
    assert chunk([]) == b""


def test_a_value_with_a_tab_is_written_as_it_was_read() -> None:
    head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a\tb")
    assert b"user-agent: a\tb\r\n" in write_request("GET", "/", head.headers)
