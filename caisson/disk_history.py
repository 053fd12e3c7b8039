"""The last days of Docker's disks, out of the ledger. Without a ledger there is no past, and the looking goes on."""

from __future__ import annotations

from datetime import datetime, timedelta

from caisson.disk_picture import Series, disk_picture
from caisson.disk_report import DiskReport, FileSystemReport
from caisson.disk_samples import History
from caisson.disk_watch import HISTORY, Look
from caisson.errors import LedgerUnusable
from caisson.ledger import Ledger, Prune
from caisson.settings import Settings

SHOWN = timedelta(days=3)


class DiskHistory:
    """What the ledger has; ``problems`` says in sentences why it has not. ``ledger`` is None where it can't be used."""

    def __init__(self, settings: Settings, now: datetime) -> None:
        self._begin = now - HISTORY
        # A prune is overdue after two of its intervals.
        self._prunes_begin = min(self._begin, now - 2 * timedelta(seconds=settings.prune_seconds) - timedelta(days=1))
        self._prunes: tuple[Prune, ...] | None = None
        self._known: dict[str, History] = {}
        self.problems: list[str] = []
        try:
            self.ledger: Ledger | None = Ledger(settings.state_dir / "ledger.sqlite")
        except LedgerUnusable as error:
            self.ledger = None
            self.problems.append(str(error))

    def record(self, found: Look) -> None:
        """Keep what a look read."""
        if self.ledger is not None:
            try:
                self.ledger.samples.record(found.at, *(reading.usage for reading in found.readings))
            except LedgerUnusable as error:
                self.problems.append(str(error))

    def of(self, path: str) -> History:
        """The samples of one file system, the oldest first; none where there is no ledger."""
        if path not in self._known:
            try:
                self._known[path] = self.ledger.samples.of(path, since=self._begin) if self.ledger else []
            except LedgerUnusable as error:
                self.problems.append(str(error))
                self._known[path] = []
        return self._known[path]

    def recent_prunes(self) -> tuple[Prune, ...] | None:
        """The prunes of the last days, the newest first; None where the ledger does not tell."""
        if self._prunes is None and self.ledger is not None:
            try:
                self._prunes = tuple(self.ledger.prunes.list(since=self._prunes_begin))
            except LedgerUnusable as error:
                self.problems.append(str(error))
        return self._prunes

    def prunes(self) -> tuple[datetime, ...]:
        """When prunes ended, those that run still began, the oldest first."""
        found = (item for item in self.recent_prunes() or () if item.started >= self._begin)
        return tuple(sorted(item.ended or item.started for item in found))

    def picture(self, report: DiskReport) -> str:
        """The last days as a ``data:`` URI; empty while there is nothing to show."""
        prunes = self.prunes()
        series = [self._series(item, prunes) for item in report.file_systems]
        return disk_picture(series, now=report.at, span=SHOWN)

    def _series(self, item: FileSystemReport, prunes: tuple[datetime, ...]) -> Series:
        total = item.bytes.total or 1
        low, high, critical = (
            1 - left / total for left in (item.bytes.low_free, item.bytes.high_free, item.bytes.critical_free)
        )
        return Series(
            title=f"{item.path} ({', '.join(item.holds)})",
            points=[(at, 1 - usage.free_bytes / total) for at, usage in self.of(item.path)],
            bounds=(low, high, critical),
            prunes=prunes,
        )
