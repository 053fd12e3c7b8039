"""What a watched build looks like, on a terminal and elsewhere, and that no line of it can command a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from deployments.cli_view import BuildView, LiveView, PlainView, has_colour, is_live, make_view, printable

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@contextmanager
def terminal() -> Iterator[tuple[TextIO, list[str]]]:
    """A real pseudo-terminal to write to, and what was written when the block has ended."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    chunks: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                return
            if not chunk:
                return
            chunks.append(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    written: list[str] = []
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        yield stream, written
    reader.join(5)
    os.close(master)
    written.append(b"".join(chunks).decode())


def play(view: BuildView) -> None:
    with view:
        view.step_started("clone")
        view.log("first\nsecond")
        view.step_ended("clone", "completed", 1.25)
        view.say("a word")
        view.step_started("build")
        view.log("three")
        view.step_ended("build", "failed", 2)


def test_plain_lines_are_the_events_in_order() -> None:
    stream = io.StringIO()
    play(PlainView(stream))
    assert stream.getvalue().splitlines() == [
        "• clone",
        "  first",
        "  second",
        "✓ clone (1.25 s)",
        "a word",
        "• build",
        "  three",
        "✗ build (2.00 s)",
    ]


def test_a_terminal_shows_every_line_once_and_the_steps_as_they_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with terminal() as (stream, written):
        view = make_view(stream)
        assert isinstance(view, LiveView)
        play(view)
    shown = ESCAPES.sub("", written[0])
    assert [shown.count(line) for line in ("first", "second", "three", "a word")] == [1, 1, 1, 1]
    last = shown.rstrip().splitlines()[-2:]
    assert [line.split() for line in last] == [["✓", "clone", "1.25", "s"], ["✗", "build", "2.00", "s"]]


def test_fifty_thousand_lines_keep_no_build_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    lines = [f"line {number:06} of a build that has a lot to say" for number in range(50_000)]
    with terminal() as (stream, written), LiveView(stream) as view:
        began = time.monotonic()
        for start in range(0, len(lines), 100):
            view.log("\n".join(lines[start : start + 100]))
        took = time.monotonic() - began
    assert re.findall(r"line (\d{6})", written[0]) == [f"{number:06}" for number in range(50_000)]
    assert took < 1


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2Jcleared",
        "\x1b]0;title\x07",
        "\x1b]52;c;cm0gLXJmIC8=\x07",
        "over\rwritten",
        "\x9b31mred",
        "bell\x07\x08\x08",
        "\x1bc",
        "\u202egnp.exe",
        "a\x1b",
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_no_line_of_a_build_can_command_the_terminal(hostile: str, live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with terminal() as (stream, written):
        view: BuildView = LiveView(stream) if live else PlainView(stream)
        with view:
            view.log(f"<{hostile}>")
    own = ESCAPES.sub("", written[0])
    line = own[own.index("<") : own.index(">") + 1]
    assert line.isprintable()
    assert printable(hostile).isprintable()


def test_a_reader_that_goes_away_ends_the_view_and_not_the_build(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    play(PlainView(stream))
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_terminal_that_goes_away_does_not_end_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w")
    with LiveView(stream) as view:
        os.close(master)
        for number in range(5):
            view.log(f"line {number}")
            time.sleep(0.1)
        view.step_ended("build", "completed", 1)
    with pytest.raises(OSError):
        print("x" * 100_000, file=stream, flush=True)


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "live", "colour"),
    [
        (Tty(), {"TERM": "xterm"}, True, True),
        (Tty(), {"TERM": "xterm", "NO_COLOR": "1"}, False, False),
        (Tty(), {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (Tty(), {"TERM": "dumb"}, False, True),
        (Tty(), {"TERM": ""}, False, True),
        (io.StringIO(), {"TERM": "xterm"}, False, False),
    ],
)
def test_lines_are_plain_where_stdout_is_no_terminal_or_no_color_is_set(
    stream: TextIO, environment: dict[str, str], live: bool, colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_live(stream) is live
    assert has_colour(stream) is colour
    assert isinstance(make_view(stream), LiveView if live else PlainView)
