"""The ledger: what Caisson remembers of one host's engine, in SQLite. One file of this package for each of its jobs.

``builds``: what was built, tagged and pushed here. ``images``: when each image was first seen and last used.
``samples``: how full the disk was. ``prunes``: what was pruned. ``observations``: looks at the engine, and how far its
events were replayed. ``volumes``: when a container last had each anonymous volume. ``services``: which images
services were seen to run. ``leases``: what running builds hold, for people to read; the locks are ``caisson.leases``'s.
``counters``: how often what has happened, for metrics. ``clock``: what time it was by the clock and by the kernel.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from caisson.ledger.builds import Builds
from caisson.ledger.clock import ClockMemory
from caisson.ledger.counters import Counters
from caisson.ledger.file import LedgerFile
from caisson.ledger.images import Images, KnownImage
from caisson.ledger.leases import LeaseRecords
from caisson.ledger.observation import Observations
from caisson.ledger.prunes import Prune, Prunes
from caisson.ledger.samples import DiskSamples
from caisson.ledger.services import Services
from caisson.ledger.stamps import from_stamp
from caisson.ledger.volumes import KnownVolume, Volumes

__all__ = ["DiskSamples", "KnownImage", "KnownVolume", "Ledger", "Prune"]


class Ledger:
    """One file per host, made when it is missing and rebuilt when it is damaged; raises ``LedgerUnusable``.

    For any number of threads and processes at once. It keeps nothing open.
    """

    def __init__(self, path: Path) -> None:
        self._file = LedgerFile(path)
        self.builds = Builds(self._file)
        self.counters = Counters(self._file)
        self.images = Images(self._file)
        self.samples = DiskSamples(self._file)
        self.prunes = Prunes(self._file)
        self.observations = Observations(self._file)
        self.volumes = Volumes(self._file)
        self.services = Services(self._file)
        self.leases = LeaseRecords(self._file)
        self.clock = ClockMemory(self._file)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open; here so that a ledger is held like anything that is acquired."""

    def rebuilt_at(self) -> datetime | None:
        """When a damaged file was last set aside: nothing that was known before then is known now. None: never."""
        with self._file.reading() as database:
            row = database.execute("SELECT value FROM facts WHERE name = 'rebuilt_at'").fetchone()
        return from_stamp(int(row[0])) if row else None
