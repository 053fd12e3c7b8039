"""The Dockerfile's directory on its way: nothing that could be the Dockerfile passes its end unjudged."""

from __future__ import annotations

import pytest

from caisson.guard.dockerfile_stream import Asked, DockerfileStream, read_asked
from caisson.guard.grpc import with_prefix
from caisson.guard.verdict import Denied
from tests.buildkit_client import pb

ASKED = Asked("dockerfile", ("Dockerfile", "Dockerfile.dockerignore", "dockerfile"))
GOOD, BAD = b"FROM good\n", b"FROM bad\n"
LISTED, FIN = pb(), pb((1, 3))
DIRECTORY, SYMLINK, DEVICE, FIFO, SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24


def stat(path: str, mode: int = 0o644, *more: tuple[int, str | bytes | int | dict[str, str]]) -> bytes:
    return pb((2, pb((1, path), (2, mode), *more)))


def data(number: int, content: bytes = b"") -> bytes:
    return pb((1, 2), *([(3, number)] if number else []), *([(4, content)] if content else []))


def file(number: int, content: bytes) -> tuple[bytes, bytes]:
    return data(number, content), data(number)


def deny_bad(content: bytes) -> None:
    if content == BAD:
        raise Denied("test", "It is bad.")


def judged(*packets: bytes, asked: Asked = ASKED) -> list[bytes]:
    """What was judged of these; ``BAD`` is denied."""
    seen: list[bytes] = []

    def check(content: bytes) -> None:
        seen.append(content)
        deny_bad(content)

    stream = DockerfileStream(asked, check)
    for packet in packets:
        stream.feed(memoryview(with_prefix(packet)))
    assert stream.judged == len(seen)
    return seen


def rule_of(*packets: bytes, asked: Asked = ASKED) -> str:
    with pytest.raises(Denied) as caught:
        judged(*packets, asked=asked)
    return caught.value.rule


def test_a_good_dockerfile_passes_and_its_ignore_file_is_not_one() -> None:
    packets = (
        stat("Dockerfile", 0o644, (3, 1000), (5, len(GOOD)), (6, 1 << 60), (10, {"security.capability": "x"})),
        stat("Dockerfile.dockerignore"),
        LISTED,
        *file(1, b"*.md"),
        data(0, GOOD[:4]),
        data(0, GOOD[4:]),
        data(0),
        FIN,
    )
    assert judged(*packets) == [GOOD]


def test_a_dockerfile_in_a_directory_or_behind_a_link_is_judged() -> None:
    asked = Asked("dockerfile", ("./a/Dockerfile", "./a/Dockerfile.dockerignore", "a/dockerfile"))
    inside = (stat("a", DIRECTORY | 0o755), stat("a/Dockerfile"), stat("a/Dockerfile.dockerignore"), LISTED)
    assert judged(*inside, *file(1, GOOD), *file(2, b"*.md"), FIN, asked=asked) == [GOOD]
    linked = (stat("Dockerfile", SYMLINK | 0o777, (7, "other")), stat("other"), LISTED)
    assert judged(*linked, *file(1, GOOD), FIN) == [GOOD]
    assert rule_of(*linked, *file(1, BAD), FIN) == "test"


def test_the_packet_that_ends_a_denied_file_is_the_one_that_is_denied() -> None:
    judged(stat("Dockerfile"), LISTED, data(0, BAD))
    assert rule_of(stat("Dockerfile"), LISTED, data(0, BAD), data(0)) == "test"
    stream = DockerfileStream(ASKED, deny_bad)
    sent = b"".join(with_prefix(packet) for packet in (stat("Dockerfile"), LISTED, *file(0, BAD)))
    for at in range(len(sent) - 1):
        stream.feed(memoryview(sent[at : at + 1]))
    with pytest.raises(Denied):
        stream.feed(memoryview(sent[-1:]))


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        # The frontend's attribute "filename" is the client's.
        (("a.dockerignore", "a.dockerignore.dockerignore"), "a.dockerignore"),
        (("x", "Dockerfile.dockerignore", "dockerfile"), "Dockerfile.dockerignore"),
        ((), "Dockerfile.dockerignore"),
        (("a", "a.dockerignore", "./a.dockerignore"), "a.dockerignore"),
        (ASKED.paths, "dockerfile"),
        (ASKED.paths, "any/other"),
        (ASKED.paths, "sub/Dockerfile.dockerignore"),
        (ASKED.paths, "Dockerfile.dockerignore/"),
    ],
)
def test_no_other_file_passes_for_the_ignore_file(asked: tuple[str, ...], path: str) -> None:
    assert rule_of(stat(path), LISTED, *file(0, BAD), asked=Asked("dockerfile", asked)) == "test"


def test_with_a_link_the_ignore_file_could_be_the_dockerfile() -> None:
    link, ignore = stat("Dockerfile", SYMLINK, (7, "Dockerfile.dockerignore")), stat("Dockerfile.dockerignore")
    assert rule_of(link, ignore, LISTED, *file(1, BAD)) == "test"
    # Its data may come before all files are announced.
    assert rule_of(ignore, *file(0, BAD), stat("a", SYMLINK, (7, "b"))) == "test"


@pytest.mark.parametrize(
    ("packets", "rule"),
    [
        # An engine that has the file already, by its size and time, does not ask for it (20.10).
        ((stat("Dockerfile"), LISTED, FIN), "dockerfile-unseen"),
        ((stat("Dockerfile"), LISTED, data(0, GOOD), FIN), "dockerfile-unseen"),
        ((stat("Dockerfile"), *file(0, GOOD), FIN), "dockerfile-unseen"),
        ((stat("Dockerfile"), stat("dockerfile"), LISTED, *file(0, GOOD), FIN), "dockerfile-unseen"),
        ((stat("Dockerfile"), stat("Dockerfile.dockerignore"), LISTED, *file(0, GOOD), FIN), "dockerfile-unseen"),
        # What fsutil's receiver would write into a file that was closed, or none.
        ((stat("Dockerfile"), LISTED, *file(0, GOOD), data(0, BAD)), "dockerfile-packet"),
        ((stat("Dockerfile"), LISTED, *file(0, GOOD), data(0)), "dockerfile-packet"),
        ((stat("Dockerfile"), LISTED, data(1, BAD)), "dockerfile-packet"),
        ((stat("a", DIRECTORY), LISTED, data(0, BAD)), "dockerfile-packet"),
        ((stat("a", SYMLINK, (7, "b")), LISTED, data(0, BAD)), "dockerfile-packet"),
        ((stat("Dockerfile"), LISTED, data(1 << 32, BAD)), "dockerfile-packet"),
        ((stat("Dockerfile"), LISTED, *file(0, GOOD), FIN, data(0, BAD)), "dockerfile-packet"),
        # fsutil's receiver writes these to a channel that it has closed, and its process ends.
        ((LISTED, stat("Dockerfile")), "dockerfile-packet"),
        ((LISTED, LISTED), "dockerfile-packet"),
        ((stat("Dockerfile"), stat("b", 0o644, (7, "Dockerfile"))), "dockerfile-kind"),
        ((stat("Dockerfile", DEVICE),), "dockerfile-kind"),
        ((stat("Dockerfile", FIFO),), "dockerfile-kind"),
        ((stat("Dockerfile", SOCKET),), "dockerfile-kind"),
        ((stat("Dockerfile", DIRECTORY | SYMLINK),), "dockerfile-kind"),
        ((stat("Dockerfile", 1 << 19),), "dockerfile-kind"),
        ((stat("Dockerfile", 1 << 32),), "dockerfile-kind"),
        # Types of packets that are none, or a request, which only the engine makes.
        ((pb((1, 1)),), "dockerfile-packet"),
        ((pb((1, 5)),), "dockerfile-packet"),
        ((pb((1, (1 << 32) + 2), (4, "x")),), "dockerfile-packet"),
        ((pb((1, 2), (2, pb((1, "Dockerfile")))),), "dockerfile-packet"),
        ((pb((1, 3), (4, "x")),), "dockerfile-packet"),
        # Readers differ in fields that come twice, in another order, or that they don't know.
        ((pb((1, 2), (1, 0)),), "dockerfile-packet"),
        ((pb((2, pb((1, "a"))), (2, pb((1, "b")))),), "dockerfile-packet"),
        ((pb((2, pb((1, "a"), (1, "b")))),), "dockerfile-packet"),
        ((pb((5, 1)),), "dockerfile-packet"),
        ((b"\xff",), "dockerfile-packet"),
        (tuple(stat(f"d{number:03}", DIRECTORY) for number in range(65)), "dockerfile-files"),
        ((stat("Dockerfile"), *[data(0, b"#" * 60_000)] * 18), "dockerfile-size"),
    ],
)
def test_what_could_bring_another_content_is_denied(packets: tuple[bytes, ...], rule: str) -> None:
    assert rule_of(*packets) == rule


def test_a_builders_error_and_a_missing_dockerfile_pass() -> None:
    assert judged(LISTED, FIN) == []
    assert judged(pb((1, 4), (4, "walk failed"))) == []


def test_a_message_is_neither_compressed_nor_larger_than_a_packet() -> None:
    for sent in (b"\x01\x00\x00\x00\x00", b"\x00\x00\x01\x00\x01"):
        with pytest.raises(Denied) as caught:
            DockerfileStream(ASKED, lambda _: None).feed(memoryview(sent))
        assert caught.value.rule == "grpc-message"


def test_the_engine_asks_for_two_directories() -> None:
    assert read_asked(((b"dir-name", b"context"), (b"exclude-patterns", b"x"))) == Asked("context")
    encoded = ((b"dir-name", b"dockerfile"), (b"followpaths", b"%C3%BC+x"), (b"followpaths-encoded", b"1"))
    assert read_asked(encoded).paths == ("ü x",)
    for fields in ((), ((b"dir-name", b"other"),), ((b"dir-name", b"context"), (b"dir-name", b"context"))):
        with pytest.raises(Denied, match="no build needs"):
            read_asked(fields)
