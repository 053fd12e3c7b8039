"""The ledger's file: migrated from every version, set aside where it is damaged, refused where it can't be written."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from caisson.engine import ImageID
from caisson.errors import LedgerUnusable
from caisson.ledger import KnownImage, KnownVolume, Ledger
from caisson.ledger.counters import Count
from caisson.ledger.schema import MIGRATIONS, VERSION, migrate, missing_parts, read_schema
from caisson.snapshot import ChainID, StoredLayer

DATA = Path(__file__).parent / "data"
VERSION_1, VERSION_2, VERSION_3 = (DATA / f"ledger-{version}.sqlite" for version in (1, 2, 3))
NOW = datetime(2030, 1, 1, tzinfo=UTC)
PROCESSES = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def _fill(path: Path) -> None:
    images = [KnownImage(ImageID(f"sha256:{number}"), NOW, NOW, "run", NOW) for number in range(200)]
    Ledger(path).images.record(images, {}, NOW)


def _set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob("ledger.sqlite.damaged-*Z"))


def test_a_file_of_version_1_is_migrated_and_keeps_what_is_in_it(path: Path) -> None:
    """The file was written by the release that had version 1."""
    shutil.copy(VERSION_1, path)
    ledger = Ledger(path)
    image = ImageID("sha256:" + "1" * 64)
    assert ledger.builds.images_of_spec("spec") == [image]
    assert ledger.builds.own_images() == {image: None}
    assert ledger.builds.tag_history("team/app:main") == [(image, datetime(2026, 1, 2, 3, 4, 6, 7, tzinfo=UTC))]
    assert ledger.images.known() == {}
    assert ledger.rebuilt_at() is None
    ledger.images.touch(image, NOW, "run")
    assert Ledger(path).images.known()[image].last_used == NOW
    assert _set_aside(path) == []


def test_a_file_of_version_2_is_migrated_and_keeps_what_is_in_it(path: Path) -> None:
    """The file was written by the last Caisson that had version 2."""
    shutil.copy(VERSION_2, path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
    ledger = Ledger(path)
    image = ImageID("sha256:" + "1" * 64)
    assert ledger.builds.own_images() == {image: 12.5}
    known = ledger.images.known()[image]
    assert (known.last_use, known.names) == ("container start", ("team/app:main",))
    assert known.layers == (StoredLayer(ChainID("sha256:" + "2" * 64), 10),)
    position = ledger.observations.position()
    assert position is not None
    assert position.anchor == ("5", "image", "tag", "x")
    assert (ledger.volumes.known(), ledger.services.list(), ledger.rebuilt_at()) == ({}, [], None)
    ledger.observations.record([], {}, position, NOW, known_volumes=[KnownVolume("v", NOW, NOW, NOW)])
    assert list(Ledger(path).volumes.known()) == ["v"]
    assert _set_aside(path) == []


def test_a_file_of_version_3_is_migrated_and_keeps_what_is_in_it(path: Path) -> None:
    """The file was written by the last Caisson that had version 3."""
    shutil.copy(VERSION_3, path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (3,)
    ledger = Ledger(path)
    assert [prune.outcome for prune in ledger.prunes.list()] == ["done"]
    assert list(ledger.volumes.known()) == ["v"]
    assert [service.service for service in ledger.services.list()] == ["web"]
    assert ledger.counters.list() == []
    ledger.counters.add([Count("builds", {"outcome": "built"}, 2)])
    assert Ledger(path).counters.list() == [Count("builds", {"outcome": "built"}, 2)]
    assert _set_aside(path) == []


def test_a_migration_that_fails_leaves_the_version_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(VERSION_1, path)
    broken = (MIGRATIONS[0], (*MIGRATIONS[1][:3], "CREATE TABLE wrong ("))
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        before = read_schema(database)
        monkeypatch.setattr("caisson.ledger.schema.MIGRATIONS", broken)
        with pytest.raises(sqlite3.OperationalError):
            migrate(database)
        assert read_schema(database) == before
        monkeypatch.undo()
        migrate(database)
        assert missing_parts(database) == []


def test_a_newer_schema_is_refused_and_not_touched(path: Path) -> None:
    Ledger(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version=99")
    before = path.read_bytes()
    with pytest.raises(LedgerUnusable, match=f"schema version 99, and this Caisson knows {VERSION}.*upgrade"):
        Ledger(path)
    assert path.read_bytes() == before
    assert _set_aside(path) == []


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _garbage(path: Path) -> None:
    path.write_bytes(b"This is no database. " * 1000)


def _garbage_inside(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def _drop_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE images")


def _other_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (x)")


@pytest.mark.parametrize("damage", [_truncate, _empty, _garbage, _garbage_inside, _drop_table, _other_program])
def test_a_damaged_file_is_set_aside_and_rebuilt(path: Path, damage: Callable[[Path], None]) -> None:
    _fill(path)
    damage(path)
    damaged = path.read_bytes()
    began = datetime.now(UTC)
    ledger = Ledger(path)
    rebuilt_at = ledger.rebuilt_at()
    assert rebuilt_at is not None
    assert began <= rebuilt_at <= datetime.now(UTC)
    assert ledger.images.known() == {}
    (aside,) = _set_aside(path)
    assert aside.read_bytes() == damaged
    ledger.images.touch(ImageID("new"), NOW, "run")
    again = Ledger(path)
    assert list(again.images.known()) == ["new"]
    assert again.rebuilt_at() == rebuilt_at
    assert len(_set_aside(path)) == 1


def test_a_ledger_that_is_open_meanwhile_goes_on_with_the_rebuilt_file(path: Path) -> None:
    _fill(path)
    older = Ledger(path)
    _garbage(path)
    with pytest.raises(LedgerUnusable, match="can't be used: file is not a database"):
        older.images.touch(ImageID("a"), NOW, "run")
    Ledger(path).images.touch(ImageID("b"), NOW, "run")
    older.images.touch(ImageID("c"), NOW, "run")
    assert set(Ledger(path).images.known()) == {"b", "c"}


def _in_process(function: Callable[..., None], *args: object) -> int:
    process = PROCESSES.Process(target=function, args=args)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory that every user can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def _use_as_another_user(path: Path) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        Ledger(path).images.touch(ImageID("a"), NOW, "run")
    except LedgerUnusable as error:
        os._exit(0 if "can't be used" in str(error) and "CAISSON_STATE_DIR" in str(error) else 3)
    os._exit(4)


def test_a_read_only_file_is_refused_and_left_as_it_is(shared_directory: Path) -> None:
    """By a user whom the permissions hold: root they don't."""
    path = shared_directory / "ledger.sqlite"
    _fill(path)
    before = path.read_bytes()
    path.chmod(0o444)
    Path(f"{path}.lock").chmod(0o666)
    shared_directory.chmod(0o555)
    assert _in_process(_use_as_another_user, path) == 0
    assert path.read_bytes() == before
    assert _set_aside(path) == []
    shared_directory.chmod(0o755)


def test_a_lock_file_that_cant_be_written_is_refused(shared_directory: Path) -> None:
    path = shared_directory / "ledger.sqlite"
    _fill(path)
    Path(f"{path}.lock").chmod(0o400)
    shared_directory.chmod(0o555)
    assert _in_process(_use_as_another_user, path) == 0
    shared_directory.chmod(0o755)


def _write_many(path: Path, name: str, barrier: Barrier) -> None:
    barrier.wait()
    for number in range(8):
        Ledger(path).images.touch(ImageID(f"{name}-{number}"), NOW, "run")


def _run_at_once(path: Path, count: int) -> set[str]:
    barrier = PROCESSES.Barrier(count)
    processes = [PROCESSES.Process(target=_write_many, args=(path, f"p{n}", barrier)) for n in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count
    return {f"p{n}-{number}" for n in range(count) for number in range(8)}


def test_processes_that_make_the_file_at_once_lose_nothing(path: Path) -> None:
    expected = _run_at_once(path, 3)
    assert set(Ledger(path).images.known()) == expected
    assert Ledger(path).rebuilt_at() is None
    assert _set_aside(path) == []


def test_processes_that_find_it_damaged_at_once_set_it_aside_once_and_lose_nothing(path: Path) -> None:
    _fill(path)
    _garbage(path)
    expected = _run_at_once(path, 3)
    assert set(Ledger(path).images.known()) == expected
    assert len(_set_aside(path)) == 1


def test_processes_that_find_version_1_at_once_migrate_it_once(path: Path) -> None:
    shutil.copy(VERSION_1, path)
    expected = _run_at_once(path, 3)
    assert set(Ledger(path).images.known()) == expected
    assert len(Ledger(path).builds.own_images()) == 1


_ON_A_FULL_DISK = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from caisson.engine import ImageID
from caisson.ledger import KnownImage, Ledger

path, now = Path(sys.argv[1]) / "ledger.sqlite", datetime.now(UTC)
ledger = Ledger(path)
ledger.images.touch(ImageID("before"), now, "run")
file = os.open(path.parent / "full", os.O_WRONLY | os.O_CREAT)
try:
    while os.write(file, b"x" * 4096):
        pass
except OSError:
    os.close(file)
ledger = Ledger(path)
images = [KnownImage(ImageID(f"sha256:{n}"), now, now, "run", now) for n in range(2000)]
ledger.images.record(images, {}, now)
ledger.prunes.begin("1", started=now, trigger="pressure", plan={})
os.unlink(path.parent / "full")
ledger.prunes.end("1", ended=now, outcome="done", freed_bytes=1, freed_inodes=1)
print(len(Ledger(path).images.known()), Ledger(path).prunes.list()[0].outcome, Ledger(path).rebuilt_at())
"""


def test_a_full_disk_keeps_nobody_from_recording_what_makes_room_on_it(tmp_path: Path) -> None:
    """On a file system of its own."""
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    mounted = 'mount -t tmpfs -o size=96m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        [*own, "sh", "-c", mounted, "sh", str(tmp_path), sys.executable, _ON_A_FULL_DISK],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "2001 done None\n", done.stderr
