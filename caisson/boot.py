"""Which boot of this host it is, and how long it has lasted, as the kernel tells (proc(5), clock_gettime(2))."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Boot(NamedTuple):
    """Which boot of the host this is (``/proc/sys/kernel/random/boot_id``), and its seconds so far."""

    id: str
    seconds: float


def read_boot_id() -> str:
    """Another one for each boot; raises ``OSError``."""
    return _BOOT_ID.read_text().strip()


def read_boot() -> Boot:
    """The boot and its seconds so far, those asleep too; raises ``OSError``."""
    return Boot(read_boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME))
