"""The output of ``run-steps`` and of git's progress, taken apart as it comes in chunks. No effects but the sink's."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from caisson.errors import RepositoryUnreachable
from caisson.untrusted import clean_line

_MAX_ANSWERS = 64 << 20
_MAX_WORDS = 32_768
_MAX_LINE = 65_536
_ANSWER = re.compile(rb"^caisson-answer: ([a-z-]+)\n", re.MULTILINE)
_FAILED = re.compile(r"\n?^caisson-failed: ([a-z-]+)\n?", re.MULTILINE)
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n)")
# git's own steps that take no time worth telling; a long one shows by its lines in between.
_CHATTER = re.compile(
    r"^(?:remote: )?(?:Enumerating objects|Counting objects|Compressing objects|Total \d|Finding sources"
    r"|Getting sizes|caisson-failed: )"
)


class StepsOutput:
    """Collects what ``run-steps`` writes: answers by step on stdout, words for people on stderr (the last of them)."""

    def __init__(self) -> None:
        self._answers, self._words = bytearray(), bytearray()

    def add_answer(self, chunk: bytes) -> None:
        """Raises ``RepositoryUnreachable`` when a server answers without end."""
        self._answers += chunk
        if len(self._answers) > _MAX_ANSWERS:
            raise RepositoryUnreachable(f"The git server answers with more than {_MAX_ANSWERS >> 20} MiB of refs.")

    def add_words(self, chunk: bytes) -> None:
        self._words += chunk
        del self._words[:-_MAX_WORDS]

    def answers(self) -> dict[str, bytes]:
        """Output by step; of two of the same name the first, since later ones may be a repository's own text."""
        parts = _ANSWER.split(bytes(self._answers))
        found: dict[str, bytes] = {}
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            found.setdefault(name.decode(), text)
        return found

    def failed_step(self) -> str:
        """The step that ended the run; empty when none did, or when the program itself could not be run."""
        failed = _FAILED.findall(self._text())
        return failed[-1] if failed else ""

    def words(self) -> str:
        """The last of what the steps said: whole lines, without what was overwritten, without ``run-steps``'s own."""
        return _OVERWRITTEN.sub("", _FAILED.sub("\n", self._text()))

    def _text(self) -> str:
        return self._words.decode("utf-8", "replace")


class ProgressLines:
    """Makes log lines of git's stderr: whole lines as they come, of a meter that overwrites itself one in 5 seconds."""

    def __init__(
        self, sink: Callable[[str], None], *, every: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sink, self._every, self._clock = sink, every, clock
        self._rest = b""
        self._shown_at = clock()

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = re.split(rb"(?<=[\r\n])", self._rest + chunk)
        for line in lines:
            self._line(line)
        if len(self._rest) > _MAX_LINE:
            self.close()

    def close(self) -> None:
        """Show what has no line's end, or none until now."""
        rest, self._rest = self._rest, b""
        self._line(rest + b"\n")

    def _line(self, line: bytes) -> None:
        overwritten = line.endswith(b"\r")
        if overwritten and self._clock() - self._shown_at < self._every:
            return
        text = clean_line(line.decode("utf-8", "replace").strip()).strip()
        if not text or (_CHATTER.match(text) and not overwritten):
            return
        self._shown_at = self._clock()
        self._sink(text)
