"""Leases: what running builds need of an engine's images, and how a removal excludes them, between processes.

- A build holds a shared lease for as long as it runs: on names (references and image IDs) that no removal may touch.
  It may add names later. Whether it lives, the kernel tells: each lease is a file that its holder has locked
  (``flock``), and a lock ends with its process, however that ends. No time-out is guessed.
- A removal holds the host alone: while it looks at the leases and removes, no build takes or widens one. It is meant to
  be held for one removal (or a few side by side), never for a whole prune: a build waits for it.
- Nobody overtakes: who waits for a removal to end is let in before the next one, for all come through one turnstile.
- The names are in the file itself, which a removal reads in microseconds, and in the ledger for people to look at. A
  file of a living holder that can't be read holds every image.

All Caissons of one engine need one state directory for this; it has to be on a file system of this host.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from caisson.engine import ImageID
from caisson.errors import LedgerUnusable, SettingsInvalid
from caisson.file_lock import locked, locked_if_free, unlock
from caisson.ledger.leases import LeaseRecord, LeaseRecords
from caisson.reference import parse_reference

EVERYTHING = "*"
"""Name that stands for every image: what a build needs can't be told."""

_SUFFIX = ".lease"
_IMAGE_ID = "sha256:"


def lease_name(name: str) -> str:
    """A name as leases compare it: an image ID or ``*`` as it is, a reference in full. Raises ``ValueError``.

    >>> lease_name("debian"), lease_name("debian:trixie")
    ('docker.io/library/debian:latest', 'docker.io/library/debian:trixie')
    """
    if name == EVERYTHING or name.startswith(_IMAGE_ID):
        return name
    return parse_reference(name).or_latest().canonical()


@dataclass(frozen=True)
class Held:
    """The leases of living holders at one moment."""

    leases: tuple[LeaseRecord, ...] = ()

    def why_held(self, image: ImageID, references: Iterable[str]) -> str | None:
        """Who needs the image or one of its references, as words for people; None: nobody."""
        names = _names_of(image, references)
        for lease in self.leases:
            for name in lease.names:
                if name in names:
                    return f"{lease.holder} needs {'images that are not known' if name == EVERYTHING else name}"
        return None

    def images_of(self, lease: LeaseRecord, images: Iterable[tuple[ImageID, Iterable[str]]]) -> set[ImageID]:
        """Those of the images, each with its references, that a lease holds."""
        names = frozenset(lease.names)
        return {image for image, references in images if names & _names_of(image, references)}


def _names_of(image: ImageID, references: Iterable[str]) -> set[str]:
    names = {EVERYTHING, str(image)}
    for reference in references:
        # One that can't be read here can't be the name of a lease either: those are read alike.
        with suppress(ValueError):
            names.add(lease_name(reference))
    return names


class Leases:
    """The leases on one engine, in a directory of their own. Raises ``SettingsInvalid`` and ``LedgerUnusable``.

    ``waiting`` is called again and again while a build waits for a removal, and gives up by raising.
    """

    def __init__(self, directory: Path, records: LeaseRecords, *, waiting: Callable[[], None] | None = None) -> None:
        self._directory, self._records, self._waiting = directory, records, waiting
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsInvalid(
                f"state_dir: the directory {directory} can't be made ({error.strerror}).",
                hint="Make CAISSON_STATE_DIR a directory that Caisson can write to.",
            ) from None

    @contextmanager
    def hold(self, holder: str, names: Iterable[str], *, taken: datetime) -> Iterator[Lease]:
        """A shared lease until this is left; waits for one removal at most. ``holder`` is for people to read."""
        path = self._directory / f"{uuid.uuid4().hex}{_SUFFIX}"
        record = LeaseRecord(path.stem, holder, os.getpid(), (), taken)
        with self.shared():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            lease = Lease(self, self._records, descriptor, record)
            lease.add(*names)
            yield lease
        finally:
            path.unlink(missing_ok=True)
            unlock(descriptor)
            with suppress(LedgerUnusable):
                self._records.remove(path.stem)

    @contextmanager
    def exclude(self) -> Iterator[Held]:
        """The host alone, for one removal; meanwhile no build takes or widens a lease. Gives what is held."""
        with locked(self._directory / "turnstile") as turnstile, locked(self._directory / "gate"):
            fcntl.flock(turnstile, fcntl.LOCK_UN)
            yield self._read()

    def held(self) -> Held:
        """What is held now, for a plan or for people; only within ``exclude`` does it stay so."""
        with self.exclude() as held:
            self._sweep(held)
            return held

    @contextmanager
    def only_prune(self) -> Iterator[bool]:
        """Whether this is the only prune of the host now; where it is, until this is left. Never waits."""
        with locked_if_free(self._directory / "prune") as mine:
            yield mine

    @contextmanager
    def shared(self) -> Iterator[None]:
        """The gate open: no removal is under way. Held for a moment only."""
        with (
            locked(self._directory / "turnstile", waiting=self._waiting) as turnstile,
            locked(self._directory / "gate", shared=True, waiting=self._waiting),
        ):
            fcntl.flock(turnstile, fcntl.LOCK_UN)
            yield

    def _read(self) -> Held:
        """With the gate closed: no lease comes, none is widened; one may end."""
        found = [_read_lease(path) for path in sorted(self._directory.glob(f"*{_SUFFIX}"))]
        held = Held(tuple(lease for lease in found if lease is not None))
        if len(held.leases) < len(found):
            self._sweep(held)
        return held

    def _sweep(self, held: Held) -> None:
        """Remove records of dead holders: those were killed, or the ledger was busy as they ended."""
        with suppress(LedgerUnusable):
            if dead := {record.id for record in self._records.list()} - {lease.id for lease in held.leases}:
                self._records.remove(*dead)


class Lease:
    """One build's lease. More can be added while it is held."""

    def __init__(self, leases: Leases, records: LeaseRecords, descriptor: int, record: LeaseRecord) -> None:
        self._leases, self._records, self._descriptor, self._record = leases, records, descriptor, record

    @property
    def names(self) -> tuple[str, ...]:
        return self._record.names

    def add(self, *names: str) -> None:
        """Hold these too; waits for one removal at most, which may have removed just them. Raises ``ValueError``."""
        held = self._record
        every = tuple(dict.fromkeys((*held.names, *map(lease_name, names))))
        record = LeaseRecord(held.id, held.holder, held.pid, every, held.taken)
        # Only with the gate open, so that no removal reads it half-written.
        with self._leases.shared():
            content = json.dumps([record.holder, record.pid, record.names, record.taken.isoformat()]).encode()
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, content, 0)
        self._record = record
        self._records.put(record)


def _read_lease(path: Path) -> LeaseRecord | None:
    """The lease of a living holder; None for a dead one's, which is removed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _parse(path.stem, os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)
    return None


def _parse(lease_id: str, content: bytes) -> LeaseRecord:
    try:
        holder, pid, names, taken = json.loads(content)
        return LeaseRecord(lease_id, str(holder), int(pid), tuple(map(str, names)), datetime.fromisoformat(taken))
    except (ValueError, TypeError):
        return LeaseRecord(lease_id, "a build whose lease can't be read", 0, (EVERYTHING,), datetime.now(UTC))
