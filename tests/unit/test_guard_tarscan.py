"""The context's reader: which Dockerfile the engine will use is known, or the context is denied."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from caisson.guard.tarscan import END_OF_ARCHIVE, MOST_DOCKERFILE, TarScan
from caisson.guard.verdict import Denied

Item = tuple[str, str, bytes]
"""Kind, name, and data or link."""
_TYPES = {
    "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "dir": tarfile.DIRTYPE,
    "fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE, "old": tarfile.AREGTYPE, "cont": tarfile.CONTTYPE,
}  # fmt: skip


def tar(*items: Item, form: int = tarfile.PAX_FORMAT, pax: dict[str, str] | None = None) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form, pax_headers=pax) as archive:
        for kind, name, data in items:
            info = tarfile.TarInfo(name)
            info.type = _TYPES[kind]
            if kind in ("link", "hard"):
                info.linkname = data.decode()
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def scan(data: bytes, dockerfile: str = "Dockerfile", size: int = 1 << 20) -> bytes:
    reader = TarScan(dockerfile)
    passed = b"".join(
        bytes(part) for start in range(0, len(data), size) for part in reader.feed(data[start : start + size])
    )
    end = reader.finish()
    # What is passed on, with the guard's own end, is what was judged, and the end was held back.
    assert data.startswith(passed)
    assert not data[len(passed) :].strip(b"\0")
    again = TarScan(dockerfile)
    again.feed(passed + end)
    assert again.finish() == END_OF_ARCHIVE
    with tarfile.open(fileobj=io.BytesIO(passed + end)) as archive:
        assert archive.getnames()
    return reader.dockerfile_text()


DOCKERFILE: Item = ("file", "Dockerfile", b"FROM a\n")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("size", [1, 7, 512, 1 << 20])
def test_the_dockerfile_is_found_in_any_pieces(form: int, size: int) -> None:
    data = tar(("dir", "./", b""), ("file", "a" * 90 + "/" + "b" * 60, b"x" * 1500), DOCKERFILE, form=form)
    assert scan(data, size=size) == b"FROM a\n"


def test_long_names_prefixes_and_the_other_spelling() -> None:
    long = "/".join(["d" * 120, "e" * 120, "Dockerfile.prod"])
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        assert scan(tar(("file", f"./{long}", b"FROM b\n"), form=form), long) == b"FROM b\n"
    assert scan(tar(("file", "./Dockerfile", b"FROM c\n"))) == b"FROM c\n"
    assert scan(tar(("file", "dockerfile", b"FROM d\n"))) == b"FROM d\n"
    assert scan(tar(("file", "dockerfile", b"FROM d\n"), DOCKERFILE)) == b"FROM a\n"
    assert scan(tar(("dir", "dockerfile", b""), DOCKERFILE)) == b"FROM a\n"
    assert scan(tar(("link", "bin/x", b"../y"), DOCKERFILE, pax={"comment": "0" * 40})) == b"FROM a\n"


@pytest.mark.parametrize("length", [519, 520, 1023, 1024])
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_the_end_and_the_last_padding_may_be_missing_as_the_docker_client_leaves_them_out(
    length: int, size: int
) -> None:
    assert scan(PLAIN[:length], size=size) == b"FROM a\n"


def damaged(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def resummed(data: bytes, at: int, value: bytes) -> bytes:
    """A change of the first header whose checksum is right again."""
    block = damaged(damaged(data[:512], at, value), 148, b" " * 8)
    return damaged(block, 148, b"%06o\0 " % sum(block)) + data[512:]


PLAIN = tar(DOCKERFILE, form=tarfile.USTAR_FORMAT)
GNU = tar(DOCKERFILE, form=tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (tar(DOCKERFILE, DOCKERFILE), "context-dockerfile"),
        (tar(DOCKERFILE, ("file", "./Dockerfile", b"x")), "context-dockerfile"),
        (tar(DOCKERFILE, ("file", "x/..//Dockerfile", b"x")), "context"),
        (tar(("link", "Dockerfile", b"other"), ("file", "other", b"x")), "context-dockerfile"),
        (tar(("file", "other", b"x"), ("hard", "Dockerfile", b"other")), "context-dockerfile"),
        (tar(("dir", "Dockerfile", b"")), "context-dockerfile"),
        (tar(DOCKERFILE, ("link", "x", b"."), ("file", "x/Dockerfile", b"evil")), "context"),
        (tar(DOCKERFILE, ("link", "x", b"."), ("hard", "y", b"x"), ("file", "y/Dockerfile", b"evil")), "context"),
        (tar(DOCKERFILE, ("hard", "x", b"/etc/passwd")), "context"),
        (tar(DOCKERFILE, ("hard", "x", b"a/../../y")), "context"),
        (tar(("link", "x", b"."), ("dir", "x", b""), DOCKERFILE, ("file", "x/y", b"")), "context"),
        (tar(("link", "dockerfile", b"other"), ("file", "other", b"x")), "context-dockerfile"),
        (tar(("file", "/Dockerfile", b"x")), "context"),
        (tar(("file", "../Dockerfile", b"x")), "context"),
        (tar(("file", "other", b"x")), "context-dockerfile"),
        (tar(("file", "Dockerfile", b"x" * (MOST_DOCKERFILE + 1))), "context-dockerfile"),
        (tar(DOCKERFILE, ("fifo", "x", b"")), "context"),
        (tar(DOCKERFILE, ("char", "x", b"")), "context"),
        (tar(DOCKERFILE, ("old", "x", b"")), "context"),
        (tar(DOCKERFILE, ("cont", "x", b"")), "context"),
        (tar(DOCKERFILE, ("link", ".", b"x")), "context"),
        (tar(DOCKERFILE)[:-9000], "context"),
        (PLAIN[:518], "context"),
        (tar(DOCKERFILE, form=tarfile.PAX_FORMAT, pax={"comment": "x"})[:1024], "context-dockerfile"),
        (tar(("file", "é", b"x"), DOCKERFILE)[:1024], "context"),
        (PLAIN[:1024] + bytes(512), "context"),
        (PLAIN + b"x", "context"),
        (PLAIN + PLAIN, "context"),
        (PLAIN + bytes(2 << 20), "context"),
        (b"", "context-dockerfile"),
        (b"FROM a\n" * 100, "context"),
        (gzip.compress(PLAIN), "context"),
        (tar(("file", "BZh9", b"x"), DOCKERFILE, form=tarfile.USTAR_FORMAT), "context"),
        (damaged(PLAIN, 0, b"d"), "context"),
        (resummed(PLAIN, 508, b"tar\0"), "context"),
        (resummed(PLAIN, 257, bytes(8)), "context"),
        (resummed(GNU, 345, b"prefix"), "context"),
        (resummed(PLAIN, 156, b"S"), "context"),
        (resummed(PLAIN, 156, b"1"), "context"),
        (resummed(PLAIN, 124, b"\xff" * 12), "context"),
        (resummed(PLAIN, 124, b"-0000000007\0"), "context"),
        (resummed(PLAIN, 124, b"0x000000007\0"), "context"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_what_could_hide_another_dockerfile_is_denied(data: bytes, rule: str, size: int) -> None:
    with pytest.raises(Denied) as caught:
        scan(data, size=size if len(data) < 100_000 else 1 << 20)
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    "records",
    [
        b"path=evil\n", b"3 path=x\n", b"99 path=x\n", b"9 path=x\n9 path=y\n", b"08 path=x\n", b"8 path=\n",
        b"10 path=\0x\n", b"21 GNU.sparse.major=1\n", b"10 size=-1\n", b"11 size=1e3\n", b"12 unknown=1\n",
    ],
)  # fmt: skip
def test_an_extended_header_is_read_strictly(records: bytes) -> None:
    extended = tar(("file", "x", records), form=tarfile.USTAR_FORMAT)[:1024]
    with pytest.raises(Denied) as caught:
        scan(resummed(extended, 156, b"x") + PLAIN)
    assert caught.value.rule == "context"


def test_go_forgets_an_extended_header_before_a_global_one() -> None:
    extended = resummed(tar(("file", "x", b"9 path=x\n"), form=tarfile.USTAR_FORMAT)[:1024], 156, b"x")
    world = resummed(tar(("file", "x", b"9 path=x\n"), form=tarfile.USTAR_FORMAT)[:1024], 156, b"g")
    assert scan(world + PLAIN) == b"FROM a\n"
    for hidden in (extended + world + PLAIN, extended + extended + PLAIN):
        with pytest.raises(Denied):
            scan(hidden)


def test_memory_is_bounded_by_the_names_of_links() -> None:
    reader = TarScan("Dockerfile")
    block = tar(("link", "n" * 99, b"x"), form=tarfile.USTAR_FORMAT)[:512]
    with pytest.raises(Denied, match="too many links"):
        reader.feed(block * 120_000)
    with pytest.raises(Denied, match="larger than"):
        TarScan("Dockerfile", most_bytes=1000).feed(PLAIN)
