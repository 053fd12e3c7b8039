"""What an exec says, and whether that was said by its process or by an engine that could start none."""

from __future__ import annotations

from caisson.engine import OnOutput, Stream

# moby, daemon/exec.go: the runtime's failure is written to the stream in the place of the process's output, and 126 is
# the exit code. Of a busy host runc says it now and then: "read init-p: connection reset by peer".
_NO_PROCESS = b"OCI runtime exec failed"
_NO_PROCESS_CODE = 126


class ExecOutput:
    """Passes output on as it comes; what looks like the runtime's words is held back until the exit code is known."""

    def __init__(self, on_output: OnOutput) -> None:
        self._on_output = on_output
        self._held = bytearray()
        self._begun = False

    def feed(self, stream: Stream, chunk: bytes) -> None:
        """One piece of output."""
        if stream == "stdout" and (self._held or (not self._begun and chunk.startswith(_NO_PROCESS))):
            self._held += chunk
            return
        self._begun = True
        self._on_output(stream, chunk)

    def is_of_no_process(self, exit_code: int | None) -> bool:
        """Whether the engine could start no process: nothing was done, and it may be asked again."""
        return bool(self._held) and not self._begun and exit_code == _NO_PROCESS_CODE

    @property
    def first_line(self) -> str:
        """The first line of what is held back."""
        return self._held.decode(errors="replace").partition("\n")[0].strip()[:500]

    def flush(self) -> None:
        """Pass on what was held back: the process itself has said it."""
        if self._held:
            held, self._held = bytes(self._held), bytearray()
            self._on_output("stdout", held)
