"""A child that dies with its parent: ``tether.py SIGNAL PARENT_PID COMMAND…`` ties itself, then becomes COMMAND.

The kernel sends the signal (``PR_SET_PDEATHSIG``, kept across exec) even when the parent was killed with SIGKILL.
It is run by path with ``python -I -S``, so that it costs milliseconds; hence it imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(death_signal: int, parent: int) -> None:
    """Have the kernel send ``death_signal`` to this process when ``parent`` is gone; raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the line above
        os.kill(os.getpid(), death_signal)


def tethered(command: list[str], death_signal: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command line that runs ``command`` as a child which ends with this process."""
    return [sys.executable, "-I", "-S", __file__, str(int(death_signal)), str(os.getpid()), *command]


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]), int(sys.argv[2]))
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606
