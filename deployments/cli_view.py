"""A build as it is watched: its steps and its log, live on a terminal, as plain lines everywhere else.

Log lines are a stranger's text: they reach a terminal without escape sequences. A reader that goes away
(``caisson build … | head``) ends the view and not the build.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Protocol, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from caisson.report_picture import format_seconds
from caisson.untrusted import clean_line

_FRAME_SECONDS = 0.1

StepState = Literal["completed", "failed", "skipped"]

_MARKS: dict[StepState, tuple[str, str]] = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("–", "dim"),
}


class BuildView(Protocol):
    """Where a build shows itself; a context manager. Calls may come from several threads, and never raise."""

    def __enter__(self) -> BuildView: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def step_started(self, name: str) -> None: ...

    def step_ended(self, name: str, state: StepState, seconds: float) -> None: ...

    def log(self, text: str) -> None:
        """One or more lines of the build's log."""
        ...

    def say(self, text: str) -> None:
        """A word of the command's own."""
        ...


def is_live(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can redraw, and whose user wants it to."""
    return has_colour(stream) and os.environ.get("TERM", "") not in ("", "dumb")


def has_colour(stream: TextIO) -> bool:
    """Whether the stream is a terminal whose user has not asked for plain text (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def make_view(stream: TextIO) -> BuildView:
    """The view for this stream."""
    return LiveView(stream) if is_live(stream) else PlainView(stream)


def printable(text: str) -> str:
    """Lines without anything that a terminal would obey.

    >>> printable("a\\x1b[2Jb\\nc\\rd")
    'ab\\nc d'
    """
    # Most lines hold nothing special, and this test takes a hundredth of the cleaning's time.
    return "\n".join(line if line.isprintable() else clean_line(line) for line in text.split("\n"))


class PlainView:
    """Lines, in order, without colour: for pipes, files and CI."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._broken = False

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def step_started(self, name: str) -> None:
        self._write(f"• {name}\n")

    def step_ended(self, name: str, state: StepState, seconds: float) -> None:
        self._write(f"{_MARKS[state][0]} {name} ({format_seconds(seconds)})\n")

    def log(self, text: str) -> None:
        self._write("  " + printable(text).replace("\n", "\n  ") + "\n")

    def say(self, text: str) -> None:
        self._write(f"{printable(text)}\n")

    def _write(self, text: str) -> None:
        if self._broken:
            return
        try:
            with self._lock:
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):
            self._broken = True


@dataclass
class _Step:
    name: str
    began: float
    state: StepState | None = None
    seconds: float = 0.0


class _Raw:
    """Text that is written as it is: rich would take 50 µs a line to lay it out."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(self._text)


class LiveView:
    """The steps at the foot of the terminal, redrawn; the log runs above them and stays.

    Whatever comes in is drawn by a thread of the view's own, ten times a second: the build never waits for a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._steps: list[_Step] = []
        self._pending: list[str] = []
        self._lock = threading.Lock()
        self._spinner = Spinner("dots")
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._stop = threading.Event()
        self._painter = threading.Thread(target=self._paint_regularly, name="build-view", daemon=True)

    def __enter__(self) -> LiveView:
        self._live.start()
        self._painter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._painter.join(timeout=5)
        # The terminal may be gone; the build's end is not to be hidden by that.
        with contextlib.suppress(OSError):
            self._paint()
            self._live.stop()

    def step_started(self, name: str) -> None:
        with self._lock:
            self._steps.append(_Step(name, time.monotonic()))

    def step_ended(self, name: str, state: StepState, seconds: float) -> None:
        with self._lock:
            step = next((item for item in self._steps if item.name == name and item.state is None), None)
            if step is None:
                step = _Step(name, time.monotonic())
                self._steps.append(step)
            step.state, step.seconds = state, seconds

    def log(self, text: str) -> None:
        with self._lock:
            self._pending.append(text)

    def say(self, text: str) -> None:
        self.log(text)

    def _paint_regularly(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stop.wait(_FRAME_SECONDS):
                self._paint()

    def _paint(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, []
        if pending:
            self._console.print(_Raw(printable("\n".join(pending)) + "\n"), end="", crop=False)
        self._live.refresh()

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True, style="dim")
        now = time.monotonic()
        with self._lock:
            steps = [replace(step) for step in self._steps]
        for step in steps:
            if step.state is None:
                table.add_row(self._spinner, Text(step.name, style="bold"), format_seconds(now - step.began))
            else:
                mark, style = _MARKS[step.state]
                table.add_row(Text(mark, style=style), Text(step.name), format_seconds(step.seconds))
        return table
