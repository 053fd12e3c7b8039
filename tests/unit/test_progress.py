"""The build's own words, parsed."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from caisson.progress import BuildKitProgress, BuildProgress, ClassicProgress, DockerfileStep, ProgressParser
from caisson.redact import Redactor


def _status(**status: object) -> bytes:
    return (json.dumps(status, indent=2) + "\n").encode()


def _log(vertex: str, text: bytes) -> bytes:
    return _status(logs=[{"vertex": vertex, "stream": 1, "data": base64.b64encode(text).decode()}])


START, END = "2026-01-02T03:04:05.000000001Z", "2026-01-02T03:04:07.500000001Z"
FAILED = "executor failed running [/bin/sh -c make]: exit code: 3"
BUILDKIT = b"".join(
    [
        _status(vertexes=[{"digest": "i", "name": "[internal] load build definition", "started": START}]),
        _status(vertexes=[{"digest": "f", "name": "[1/3] FROM debian", "started": START, "completed": START}]),
        _status(vertexes=[{"digest": "a", "name": "[2/3] RUN apt", "cached": True, "started": START}]),
        _status(vertexes=[{"digest": "b", "name": "[3/3] RUN make", "started": START}]),
        _log("b", "grüße\npart".encode()),
        _log("b", b"ial\nlast"),
        _status(
            vertexes=[{"digest": "b", "name": "[3/3] RUN make", "started": START, "completed": END, "error": FAILED}]
        ),
        f"ERROR: failed to solve: {FAILED}\n".encode(),
    ]
)
BUILDKIT_LINES = [
    "[1/3] FROM debian",
    "[2/3] RUN apt (cached)",
    "[3/3] RUN make",
    "[3/3] grüße",
    "[3/3] partial",
    "[3/3] last",
    f"ERROR: failed to solve: {FAILED}",
]
CLASSIC = (
    b"Sending build context to Docker daemon  2.048kB\nStep 1/3 : FROM debian\n ---> 79a49cbffbc8\n"
    b"Step 2/3 : RUN apt\n ---> Using cache\n ---> d6e7464c6ad7\nStep 3/3 : RUN make\n ---> Running in 8981ce55dad0\n"
    b"\x1b[91moops\n\x1b[0mRemoving intermediate container 8981ce55dad0\n\n"
    b"The command '/bin/sh -c make' returned a non-zero code: 3\n"
)


def _feed(parser: ProgressParser, data: bytes, size: int) -> list[str]:
    lines: list[str] = []
    for start in range(0, len(data), size):
        lines += parser.feed(data[start : start + size])
    return lines + list(parser.close())


@pytest.mark.parametrize("size", [1, 2, 7, 4096, 1 << 20])
def test_buildkit_lines_are_the_same_however_the_stream_is_cut(size: int) -> None:
    parser = BuildKitProgress()
    assert _feed(parser, BUILDKIT, size) == BUILDKIT_LINES
    failed = parser.progress.failed_step
    assert failed is not None
    assert (failed.name, failed.exit_code, failed.seconds) == ("[3/3] RUN make", 3, 2.5)
    assert [step.cached for step in parser.progress.steps] == [False, True, False]
    assert [step.began for step in parser.progress.steps] == [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()] * 3
    assert [step.name for step in parser.progress.ran_steps] == ["[3/3] RUN make"]
    assert parser.progress.error == FAILED


@pytest.mark.parametrize("size", [1, 3, 4096])
def test_classic_steps_cache_and_failure(size: int) -> None:
    parser = ClassicProgress()
    lines = _feed(parser, CLASSIC, size)
    assert "oops" in lines
    assert [step.cached for step in parser.progress.steps] == [False, True, False]
    failed = parser.progress.failed_step
    assert failed is not None
    assert (failed.name, failed.exit_code) == ("[3/3] RUN make", 3)


def test_a_classic_step_lasts_until_the_next_begins() -> None:
    times = iter([0.0, 1.0, 3.0, 7.0, 7.5])
    wall = iter([101.0, 103.0, 107.0])
    parser = ClassicProgress(clock=lambda: next(times), wall=lambda: next(wall))
    _feed(parser, CLASSIC, 4096)
    assert [step.seconds for step in parser.progress.steps] == [2.0, 4.0, 0.5]
    assert [step.began for step in parser.progress.steps] == [101.0, 103.0, 107.0]


LABELS = ("team", "caisson.spec", "org.opencontainers.image.title")


def _with_labels(*last: str) -> tuple[ClassicProgress, list[str]]:
    """A build of three steps, the last as given, to which three labels were passed."""
    instructions = ["FROM debian", "RUN apt", *last, *(f"LABEL {name}=x" for name in sorted(LABELS))]
    text = "".join(
        f"Step {number}/{len(instructions)} : {instruction}\n ---> Using cache\n ---> d6e7464c6ad7\n"
        for number, instruction in enumerate(instructions, 1)
    )
    parser = ClassicProgress(LABELS)
    return parser, _feed(parser, text.encode(), 7)


@pytest.mark.parametrize(
    "last",
    [
        ["RUN make"],
        ["LABEL team=x"],
        ["LABEL caisson.spec=x"],
        ["LABEL a=b", "LABEL caisson.spec=x", "LABEL org.opencontainers.image.title=x"],
    ],
)
def test_labels_that_were_passed_to_the_classic_builder_are_no_steps_of_the_dockerfile(last: list[str]) -> None:
    parser, lines = _with_labels(*last)
    names = [step.name.split("] ")[1] for step in parser.progress.steps]
    assert names == ["FROM debian", "RUN apt", *last]
    assert all(step.cached for step in parser.progress.steps)
    assert sum("LABEL" in line for line in lines) == len(LABELS) + sum("LABEL" in item for item in last)


def test_what_is_said_of_a_label_that_was_passed_is_not_said_of_the_step_before_it() -> None:
    parser = ClassicProgress(["a"])
    _feed(parser, b"Step 1/2 : FROM debian\n ---> 79a49cbffbc8\nStep 2/2 : LABEL a=1\n ---> Using cache\n", 4096)
    assert [(step.name, step.cached) for step in parser.progress.steps] == [("[1/2] FROM debian", False)]


def test_a_label_that_was_passed_is_one_line_of_the_log_and_a_failure_is_told() -> None:
    parser = ClassicProgress(["a", "b"])
    said = b" ---> Running in 79a49cbffbc8\nRemoving intermediate container 79a49cbffbc8\n ---> 79a49cbffbc9\n"
    text = b"Step 1/3 : RUN x\n" + said + b"Step 2/3 : LABEL a=1\n" + said + b"Step 3/3 : LABEL b=1\n" + said
    lines = _feed(parser, text + b"no space left on device\nSuccessfully built 79a49cbffbc9\n", 9)
    assert [line for line in lines if "LABEL" in line] == ["[2/3] LABEL a=1", "[3/3] LABEL b=1"]
    assert len(lines) == 1 + 3 + 2 + 2
    assert lines[-2:] == ["no space left on device", "Successfully built 79a49cbffbc9"]


def test_a_step_at_the_end_that_is_not_the_label_that_was_passed_stays_a_step() -> None:
    parser = ClassicProgress(["a"])
    _feed(parser, b"Step 1/3 : FROM debian\nStep 2/3 : LABEL a=1\nStep 3/3 : LABEL ab=1\n", 4096)
    assert len(parser.progress.steps) == 3


def test_a_step_that_prints_what_the_classic_builder_says_makes_no_steps() -> None:
    parser = ClassicProgress()
    printed = b"Step 1/2 : RUN x\nStep 2/3 : RUN x\nStep 3/2 : RUN x\nStep 9/9 : RUN x\n"
    lines = _feed(parser, b"Step 1/2 : FROM debian\n" + printed + b"Step 2/2 : RUN make\n" + printed * 99, 4096)
    assert [step.name for step in parser.progress.steps] == ["[1/2] FROM debian", "[2/2] RUN make"]
    assert lines.count("Step 9/9 : RUN x") == 100


@pytest.mark.parametrize(
    ("steps", "since"),
    [
        ([], None),
        ([("", None)], None),
        ([("", 5.0), ("", 9.0), ("", None)], 9.0),
        ([("", 5.0), ("exit code: 1", 7.0), ("", 9.0)], 7.0),
        ([("context canceled", 8.0), ("exit code: 1", 7.0)], 7.0),
    ],
)
def test_what_failed_began_with_the_first_step_that_says_so_or_with_the_last(
    steps: list[tuple[str, float | None]], since: float | None
) -> None:
    made = [DockerfileStep("RUN make", error=error, began=began) for error, began in steps]
    assert BuildProgress(steps=made).failing_since == since


def test_one_line_objects_of_newer_clients_are_read_too() -> None:
    parser = BuildKitProgress()
    line = json.dumps({"vertexes": [{"digest": "b", "name": "[1/1] RUN x", "started": START}]}).encode() + b"\n"
    assert _feed(parser, line, 5) == ["[1/1] RUN x"]


@pytest.mark.parametrize(
    "junk",
    [
        b'{"vertexes": 3}\n',
        b"{\n  nonsense\n}\n",
        b'{"logs": [{"vertex": "a", "data": "abc"}]}\n',
        b"{\nhalf",
        b"\xff\xfe\n",
    ],
)
def test_what_cannot_be_read_passes_as_plain_lines_and_never_raises(junk: bytes) -> None:
    assert _feed(BuildKitProgress(), junk, 3)


def test_clipped_output_is_noticed() -> None:
    parser = BuildKitProgress()
    _feed(parser, _log("b", b"[output clipped, log limit 200KiB/s reached]\n"), 100)
    assert parser.progress.clipped


SECRET = "hunter2-hunter2-é"
MOST = 64 << 10
PARSERS: list[tuple[Callable[[Redactor], ProgressParser], bytes]] = [
    (lambda redactor: ClassicProgress((), redactor), b"Step 1/1 : RUN make\n"),
    (BuildKitProgress, _status(vertexes=[{"digest": "b", "name": "[1/1] RUN make", "started": START}])),
]


@pytest.mark.parametrize(("make", "begin"), PARSERS, ids=["classic", "buildkit"])
def test_a_line_without_end_comes_in_pieces_and_is_not_kept(
    make: Callable[[Redactor], ProgressParser], begin: bytes
) -> None:
    parser = make(Redactor([SECRET]))
    _feed(parser, begin, 4096)
    zeros = bytes(100_000)
    data = zeros if isinstance(parser, ClassicProgress) else _log("b", zeros)
    tracemalloc.start()
    try:
        seen = [len(line) for _ in range(400) for line in parser.feed(data)]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(seen) > 39_000_000
    assert max(seen) <= MOST + len("[1/1] ")
    assert kept < 1_000_000


@pytest.mark.parametrize(("make", "begin"), PARSERS, ids=["classic", "buildkit"])
@pytest.mark.parametrize("size", [MOST - 5, 50_001])
def test_a_secret_across_a_cut_of_a_line_is_masked(
    make: Callable[[Redactor], ProgressParser], begin: bytes, size: int
) -> None:
    text = b"".join(b"x" * n + SECRET.encode() for n in (MOST - 9, MOST - 1, MOST + 3, 7, 2 * MOST)) + b"\r\nnext\n"
    parser = make(Redactor([SECRET]))
    lines = _feed(parser, begin, 4096)
    for at in range(0, len(text), size):
        chunk = text[at : at + size]
        lines += parser.feed(chunk if isinstance(parser, ClassicProgress) else _log("b", chunk))
    pieces = [line.removeprefix("[1/1] ") for line in (*lines, *parser.close())][1:]
    assert "".join(pieces[:-1]) == text.decode().replace(SECRET, "***").partition("\r")[0]
    assert pieces[-1] == "next"


def test_an_object_of_buildkit_that_never_ends_is_not_kept() -> None:
    parser = BuildKitProgress()
    _feed(parser, b"{\n", 10)
    line = b" " * 1_000_000 + b"x\n"
    assert sum(len(list(parser.feed(line))) for _ in range(40)) >= 34
