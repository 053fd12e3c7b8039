"""Builds and removals exclude each other, between real processes, and a dead holder holds nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from caisson.engine import ImageID
from caisson.errors import SettingsInvalid
from caisson.file_lock import locked
from caisson.leases import EVERYTHING, Held, Leases, lease_name
from caisson.ledger import Ledger
from caisson.ledger.leases import LeaseRecord

NOW = datetime(2030, 1, 1, tzinfo=UTC)
IMAGE = ImageID("sha256:" + "a" * 64)
OTHER = ImageID("sha256:" + "b" * 64)
PROCESSES = multiprocessing.get_context("fork")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


def _leases(state: Path) -> Leases:
    return Leases(state / "leases", Ledger(state / "ledger.sqlite").leases)


class Holder:
    """A process that holds a lease until it is told to stop, or killed."""

    def __init__(self, state: Path, *names: str) -> None:
        self._pipe, theirs = PROCESSES.Pipe()
        self.process: ForkProcess = PROCESSES.Process(target=self._run, args=(state, names, theirs))
        self.process.start()
        assert self._pipe.recv() == "held"

    @staticmethod
    def _run(state: Path, names: tuple[str, ...], pipe: Connection) -> None:
        with _leases(state).hold("build 1", names, taken=NOW) as lease:
            pipe.send("held")
            while name := pipe.recv():
                lease.add(name)
                pipe.send("added")

    def add(self, name: str) -> None:
        self._pipe.send(name)
        assert self._pipe.recv() == "added"

    def stop(self) -> None:
        if self.process.is_alive():
            self._pipe.send("")
        self.process.join(30)
        assert self.process.exitcode == 0

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(30)


@pytest.fixture
def holder(state: Path) -> Iterator[Callable[..., Holder]]:
    made: list[Holder] = []

    def make(*names: str) -> Holder:
        made.append(Holder(state, *names))
        return made[-1]

    yield make
    for one in made:
        if one.process.is_alive():
            one.kill()


def test_what_another_process_holds_is_held_by_reference_and_by_id(state: Path, holder: Callable[..., Holder]) -> None:
    build = holder("debian:trixie-slim", IMAGE, "team/base")
    with _leases(state).exclude() as held:
        assert held.why_held(IMAGE, ()) == f"build 1 needs {IMAGE}"
        assert held.why_held(OTHER, ["debian:trixie-slim"])
        assert held.why_held(OTHER, ["other:1", "docker.io/team/base:latest"])
        assert held.why_held(OTHER, ["debian:bookworm", "team/base:2"]) is None
    build.stop()
    assert _leases(state).held() == Held()


def test_what_is_added_later_is_held_too(state: Path, holder: Callable[..., Holder]) -> None:
    build = holder("a:1")
    assert _leases(state).held().why_held(IMAGE, ["b:1"]) is None
    build.add("b:1")
    assert _leases(state).held().why_held(IMAGE, ["b:1"])
    assert _leases(state).held().why_held(IMAGE, ["a:1"])


def test_a_killed_holder_holds_nothing_and_leaves_nothing(state: Path, holder: Callable[..., Holder]) -> None:
    build, living = holder(IMAGE), holder(OTHER)
    assert len(Ledger(state / "ledger.sqlite").leases.list()) == 2
    build.kill()
    with _leases(state).exclude() as held:
        assert held.why_held(IMAGE, ()) is None
        assert held.why_held(OTHER, ())
    assert len(list((state / "leases").glob("*.lease"))) == 1
    living.stop()
    assert list((state / "leases").glob("*.lease")) == []
    assert Ledger(state / "ledger.sqlite").leases.list() == []


def test_a_lease_whose_names_cant_be_read_holds_every_image(state: Path, holder: Callable[..., Holder]) -> None:
    holder("a:1")
    (file,) = (state / "leases").glob("*.lease")
    file.write_bytes(b'["build 1", 1, ["a')
    assert _leases(state).held().why_held(IMAGE, ["other:1"]) == (
        "a build whose lease can't be read needs images that are not known"
    )


def test_who_needs_what_cant_be_told_holds_every_image() -> None:
    held = Held((LeaseRecord("1", "build 1", 1, (EVERYTHING,), NOW),))
    assert held.why_held(IMAGE, ()) == "build 1 needs images that are not known"


def test_a_failed_build_gives_its_lease_back(state: Path) -> None:
    with pytest.raises(RuntimeError), _leases(state).hold("build 1", ["a:1"], taken=NOW):
        raise RuntimeError
    assert _leases(state).held() == Held()


def test_a_name_that_is_none_is_refused_and_nothing_is_left(state: Path) -> None:
    with pytest.raises(ValueError, match="upper-case"), _leases(state).hold("build 1", ["A:B:C"], taken=NOW):
        raise AssertionError
    assert list((state / "leases").glob("*.lease")) == []


def test_a_reference_without_tag_is_latest_and_with_a_digest_it_is_that() -> None:
    digest = "sha256:" + "1" * 64
    assert lease_name("team/app") == lease_name("docker.io/team/app:latest")
    assert lease_name(f"team/app@{digest}") == f"docker.io/team/app@{digest}"
    assert lease_name(IMAGE) == IMAGE


def test_a_build_takes_its_lease_between_two_removals_not_after_the_last(state: Path) -> None:
    """The removals follow each other without a pause; the build is let in after the one that is under way."""
    leases, removals, stop = _leases(state), [], threading.Event()

    def prune() -> None:
        while not stop.is_set():
            with _leases(state).exclude():
                removals.append(time.monotonic())
                time.sleep(0.05)

    thread = threading.Thread(target=prune)
    thread.start()
    try:
        for _ in range(10):
            time.sleep(0.02)
            with leases.shared():
                pass
            # What the gate alone decides: how many removals began between asking and getting.
            asked = time.monotonic()
            with leases.shared():
                got = time.monotonic()
            assert len([begun for begun in removals if asked < begun < got]) <= 1
    finally:
        stop.set()
        thread.join()
    assert len(removals) > 5


def _take(state: Path, pipe: Connection) -> None:
    pipe.send("asking")
    with _leases(state).hold("build 1", [IMAGE], taken=NOW):
        pipe.send(time.monotonic())
        pipe.recv()


def test_a_build_waits_for_the_removal_and_a_removal_sees_the_lease_that_came_before(state: Path) -> None:
    ours, theirs = PROCESSES.Pipe()
    with _leases(state).exclude() as held:
        build = PROCESSES.Process(target=_take, args=(state, theirs))
        build.start()
        assert ours.recv() == "asking"
        assert not ours.poll(0.5)
        assert held.why_held(IMAGE, ()) is None
        removed = time.monotonic()
    assert ours.recv() > removed
    with _leases(state).exclude() as held:
        assert held.why_held(IMAGE, ())
    ours.send("")
    build.join(30)
    assert build.exitcode == 0


def _prune(state: Path, pipe: Connection) -> None:
    with _leases(state).only_prune() as is_only:
        pipe.send(is_only)
        pipe.recv()


def test_a_second_prune_is_told_so_until_the_first_one_is_dead(state: Path) -> None:
    ours, theirs = PROCESSES.Pipe()
    first = PROCESSES.Process(target=_prune, args=(state, theirs))
    first.start()
    assert ours.recv() is True
    with _leases(state).only_prune() as is_only:
        assert not is_only
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join(30)
    with _leases(state).only_prune() as is_only:
        assert is_only


def test_many_builds_hold_at_once(state: Path, holder: Callable[..., Holder]) -> None:
    builds = [holder(f"app:{n}") for n in range(5)]
    assert len(_leases(state).held().leases) == 5
    for build in builds:
        build.stop()
    assert _leases(state).held() == Held()


def test_a_state_directory_that_cant_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsInvalid, match="state_dir"):
        Leases(tmp_path / "file" / "leases", Ledger(tmp_path / "ledger.sqlite").leases)


def test_within_a_removal_the_host_can_be_looked_at(state: Path, holder: Callable[..., Holder]) -> None:
    """The leases are there already: asking for them again would wait for itself."""
    holder(IMAGE)
    with _leases(state).exclude() as held:
        assert held.images_of(held.leases[0], [(IMAGE, ()), (OTHER, ("a:1",))]) == {IMAGE}


class Impatient(Exception):
    """Who waits gives up."""


def _give_up_after(seconds: float) -> Callable[[], None]:
    end = time.monotonic() + seconds

    def waiting() -> None:
        if time.monotonic() > end:
            raise Impatient

    return waiting


@pytest.mark.parametrize("held", ["gate", "turnstile"])
def test_who_gives_up_waiting_for_a_removal_leaves_nothing_locked(state: Path, held: str) -> None:
    records = Ledger(state / "ledger.sqlite").leases
    impatient = Leases(state / "leases", records, waiting=_give_up_after(0.3))
    with locked(state / "leases" / held):
        began = time.monotonic()
        with pytest.raises(Impatient), impatient.hold("build 1", [], taken=NOW):
            pass
        assert 0.2 < time.monotonic() - began < 5
    with _leases(state).exclude() as nobody:
        assert nobody.leases == ()
    patient = Leases(state / "leases", records, waiting=_give_up_after(5))
    with patient.hold("build 2", ["debian"], taken=NOW) as lease:
        lease.add("debian:trixie")
        assert [found.holder for found in _leases(state).held().leases] == ["build 2"]


def test_who_can_give_up_still_has_the_place_in_the_queue(state: Path) -> None:
    """Builds that wait are let in before a removal that came later."""
    order: list[str] = []
    leases = Leases(state / "leases", Ledger(state / "ledger.sqlite").leases, waiting=_give_up_after(30))

    def build(name: str) -> None:
        with leases.shared():
            order.append(name)

    def remove() -> None:
        with _leases(state).exclude():
            order.append("removal")

    with _leases(state).exclude():
        threads = [threading.Thread(target=build, args=(name,)) for name in ("build 1", "build 2")]
        threads.append(threading.Thread(target=remove))
        for thread in threads:
            thread.start()
            time.sleep(0.3)
    for thread in threads:
        thread.join(30)
    assert (set(order[:2]), order[2:]) == ({"build 1", "build 2"}, ["removal"])


def test_a_record_whose_file_is_gone_already_goes_at_the_next_look(state: Path) -> None:
    records = Ledger(state / "ledger.sqlite").leases
    with _leases(state).hold("build 1", ["debian"], taken=NOW):
        (live,) = records.list()
        records.put(replace(live, id="0" * 32, holder="killed as it ended"))
        assert len(_leases(state).held().leases) == 1
        assert records.list() == [live]
