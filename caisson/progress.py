"""What a build says of itself, parsed: BuildKit's ``--progress=rawjson`` and the classic builder's text.

Sans-I/O: feed chunks of bytes, get events; chunks may end anywhere. The parsers never raise on a build's output: what
they can't read passes as a plain line.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from caisson.redact import Redactor

_EXIT_CODE = re.compile(r"(?:exit code: |returned a non-zero code: )(\d+)")
_CLASSIC_STEP = re.compile(r"Step (\d{1,9})/(\d{1,9}) : (.*)", re.DOTALL | re.ASCII)
_CLASSIC_ASIDE = re.compile(r" ---> (?:Running in |Using cache$|[0-9a-f]{12}$)|Removing intermediate container ")
_INTERNAL = "[internal]"
_CLIPPED = "[output clipped, log limit"
_MOST_OF_A_LINE = 64 << 10
# The engine sends at most 16 MiB in a message (BuildKit's limit of gRPC), of which base64 makes a third more.
_MOST_OF_A_STATUS = 32 << 20
_NO_SECRETS = Redactor(())


@dataclass
class DockerfileStep:
    """One step of the build as the builder names it, such as ``[2/3] RUN make``; ``seconds`` of wall time.

    ``began`` is in seconds since 1970, None for a step that has not begun or whose builder does not say when.
    """

    name: str
    started: bool = False
    began: float | None = None
    cached: bool = False
    seconds: float = 0.0
    error: str = ""

    @property
    def is_run(self) -> bool:
        """Whether the step runs a program, and so needs to be held to the limits."""
        return re.sub(r"^\[[^\]]*\]\s*", "", self.name).upper().startswith("RUN")

    @property
    def exit_code(self) -> int | None:
        match = _EXIT_CODE.search(self.error)
        return int(match[1]) if match else None


@dataclass
class BuildProgress:
    """All that is known of a build until now."""

    steps: list[DockerfileStep] = field(default_factory=list)
    error: str = ""
    clipped: bool = False

    @property
    def failed_step(self) -> DockerfileStep | None:
        return next((step for step in self.steps if step.error), None)

    @property
    def failing_since(self) -> float | None:
        """When what failed began, in seconds since 1970; None where that is not known.

        Where no step says that it failed, it is the one that began last.
        """
        failed = [step.began for step in self.steps if step.error and step.began is not None]
        return (
            min(failed) if failed else max((step.began for step in self.steps if step.began is not None), default=None)
        )

    @property
    def ran_steps(self) -> list[DockerfileStep]:
        """RUN steps that really ran: not cached, not skipped."""
        return [step for step in self.steps if step.is_run and step.started and not step.cached]


class ProgressParser(Protocol):
    """Turns a build's output into log lines, and keeps ``progress`` up to date."""

    progress: BuildProgress

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The log lines that the chunk completes."""
        ...

    def close(self) -> Iterator[str]:
        """The lines left when the output has ended."""
        ...


class _Lines:
    """Splits a stream of bytes into lines; a line may come in any number of chunks, UTF-8 cut anywhere.

    One that is longer than ``most`` characters comes in pieces of that length, as it may never end. They are masked
    already: nobody could find a secret that lies across a cut in one of them.
    """

    def __init__(self, redactor: Redactor, most: int = _MOST_OF_A_LINE) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._most = most
        self._parts: list[str] = []
        self._size = 0
        self._masked = redactor.of_another_stream()
        self._in_pieces = False

    def feed(self, chunk: bytes) -> list[str]:
        *whole, rest = self._decode(chunk).split("\n")
        lines: list[str] = []
        for text in whole:
            if self._parts or self._in_pieces or len(text) > self._most:
                lines += [*self._add(text), *self._end()]
            else:
                lines.append(text.rstrip("\r"))
        return lines + self._add(rest)

    def close(self) -> list[str]:
        rest = self._decode(b"", final=True)
        return [line for line in (*self._add(rest), *self._end()) if line]

    def _add(self, text: str) -> list[str]:
        if text:
            self._parts.append(text)
            self._size += len(text)
        if self._size <= self._most:
            return []
        self._in_pieces = True
        return self._pieces(self._masked.feed(self._rest().encode()))

    def _end(self) -> list[str]:
        rest = self._rest()
        if not self._in_pieces:
            return [rest.rstrip("\r")]
        self._in_pieces = False
        return self._pieces(self._masked.feed(rest.encode()) + self._masked.flush())

    def _rest(self) -> str:
        rest = "".join(self._parts)
        self._parts, self._size = [], 0
        return rest

    def _pieces(self, masked: bytes) -> list[str]:
        # All forms of a secret are text, so neither a mask nor what is held back cuts a character.
        text = masked.decode().rstrip("\r")
        return [text[at : at + self._most] for at in range(0, len(text), self._most)]


class BuildKitProgress:
    """``docker buildx build --progress=rawjson``: BuildKit's ``SolveStatus`` objects, pretty-printed or one a line."""

    def __init__(self, redactor: Redactor = _NO_SECRETS) -> None:
        self.progress = BuildProgress()
        self._redactor = redactor
        self._lines = _Lines(redactor, _MOST_OF_A_STATUS)
        self._object: list[str] | None = None
        self._object_size = 0
        self._steps: dict[str, DockerfileStep] = {}
        self._logs: dict[str, _Lines] = {}

    def feed(self, chunk: bytes) -> Iterator[str]:
        for line in self._lines.feed(chunk):
            yield from self._line(line)

    def close(self) -> Iterator[str]:
        for line in self._lines.close():
            yield from self._line(line)
        if self._object:
            yield from self._object
            self._object = None
        for vertex, log in self._logs.items():
            for line in log.close():
                yield self._log_line(vertex, line)

    def _line(self, line: str) -> Iterator[str]:
        if self._object is not None:
            self._object.append(line)
            self._object_size += len(line)
            if line == "}" or self._object_size > _MOST_OF_A_STATUS:
                text, self._object = "\n".join(self._object), None
                yield from self._status(text)
        elif line == "{":
            self._object, self._object_size = [line], 0
        elif line.startswith('{"'):
            yield from self._status(line)
        elif line.strip():
            if line.startswith("ERROR: "):
                self.progress.error = line.removeprefix("ERROR: ").removeprefix("failed to solve: ")
            yield line

    def _status(self, text: str) -> Iterator[str]:
        try:
            status = json.loads(text)
            for vertex in status.get("vertexes") or ():
                yield from self._vertex(vertex)
            for log in status.get("logs") or ():
                yield from self._log(str(log["vertex"]), base64.b64decode(log.get("data") or ""))
            for warning in status.get("warnings") or ():
                short = base64.b64decode(warning.get("short") or "").decode(errors="replace")
                if short:
                    yield f"WARNING: {short}"
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            yield from text.split("\n")

    def _vertex(self, vertex: dict[str, Any]) -> Iterator[str]:
        digest, name = str(vertex["digest"]), str(vertex["name"])
        step = self._steps.get(digest)
        if step is None:
            step = self._steps[digest] = DockerfileStep(name)
            if not name.startswith(_INTERNAL):
                self.progress.steps.append(step)
        if vertex.get("started") and not step.started:
            step.started = True
            step.began = _timestamp(vertex["started"])
            if not vertex.get("cached") and not name.startswith(_INTERNAL):
                yield name
        if vertex.get("cached") and not step.cached:
            step.cached = True
            yield f"{name} (cached)"
        if vertex.get("completed"):
            for line in self._logs[digest].close() if digest in self._logs else ():
                yield self._log_line(digest, line)
            completed = _timestamp(vertex["completed"])
            if step.began is not None and completed is not None:
                step.seconds = max(0.0, completed - step.began)
            step.error = str(vertex.get("error") or "")

    def _log(self, vertex: str, data: bytes) -> Iterator[str]:
        log = self._logs.get(vertex)
        if log is None:
            log = self._logs[vertex] = _Lines(self._redactor)
        for line in log.feed(data):
            yield self._log_line(vertex, line)

    def _log_line(self, vertex: str, line: str) -> str:
        if _CLIPPED in line:
            self.progress.clipped = True
        step = self._steps.get(vertex)
        prefix = re.match(r"\[[^\]]*\]", step.name) if step else None
        return f"{prefix[0]} {line}" if prefix else line


class ClassicProgress:
    """``docker build`` of the classic builder: ``Step 2/3 : RUN make`` and what its steps print.

    The builder makes a step of each ``--label`` too, sorted by name, after all of the Dockerfile's (moby,
    ``buildLabelOptions``). Those of ``labels`` are a line each in the log, and are no steps of ``progress``.
    """

    def __init__(
        self,
        labels: Iterable[str] = (),
        redactor: Redactor = _NO_SECRETS,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.progress = BuildProgress()
        self._lines = _Lines(redactor)
        self._labels = sorted(labels)
        self._clock, self._wall = clock, wall
        self._step_began = clock()
        self._number, self._total = 0, 0
        # What is said before the first step is nobody's.
        self._step = DockerfileStep("")
        self._is_ours = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        for line in self._lines.feed(chunk):
            yield from self._line(line)

    def close(self) -> Iterator[str]:
        for line in self._lines.close():
            yield from self._line(line)
        self._end_step()

    def _end_step(self) -> None:
        """The classic builder tells no times: a step lasts until the next begins."""
        now = self._clock()
        self._step.seconds = now - self._step_began
        self._step_began = now

    def _is_next_step(self, number: int, total: int) -> bool:
        """Whether it is the builder that announces a step: a RUN step can print the same words, and without end."""
        return number == self._number + 1 and total == (self._total or total) and number <= total

    def _is_label_of_ours(self, number: int, total: int, instruction: str) -> bool:
        place = number - 1 - (total - len(self._labels))
        return 0 <= place < len(self._labels) and instruction.startswith(f"LABEL {self._labels[place]}=")

    def _line(self, line: str) -> Iterator[str]:
        # The classic builder colours what a step prints to stderr.
        line = line.replace("\x1b[91m", "").replace("\x1b[0m", "")
        match = _CLASSIC_STEP.match(line)
        if match and self._is_next_step(int(match[1]), int(match[2])):
            self._end_step()
            self._number, self._total = int(match[1]), int(match[2])
            self._step = DockerfileStep(f"[{match[1]}/{match[2]}] {match[3]}", started=True, began=self._wall())
            self._is_ours = self._is_label_of_ours(self._number, self._total, match[3])
            if not self._is_ours:
                self.progress.steps.append(self._step)
            yield self._step.name
            return
        if line == " ---> Using cache":
            self._step.cached = True
        if "returned a non-zero code: " in line and line.startswith("The command '"):
            self.progress.error = self._step.error = line
        # What it says of a dozen labels would leave no room for the Dockerfile's last steps at the log's end.
        if line.strip() and not (self._is_ours and _CLASSIC_ASIDE.match(line)):
            yield line


def _timestamp(text: str) -> float | None:
    """Seconds since 1970; None for what is no time of RFC 3339 with a zone."""
    try:
        # It has nanoseconds, of which Python reads six digits.
        time_of_day = datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", text))
    except ValueError:
        return None
    return time_of_day.timestamp() if time_of_day.tzinfo else None
