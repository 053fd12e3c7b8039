"""One build of a commit and spec at a time on a host; a dead one keeps nobody waiting."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from caisson.spec_turn import SpecTurn

HOLD = """
import sys, time
from pathlib import Path
from caisson.spec_turn import SpecTurn
with SpecTurn(Path(sys.argv[1]), "run of the other") as turn:
    assert turn.take("a" * 64, patient=lambda waited: False, say=print)
    print("held", flush=True)
    time.sleep(60)
"""


def take(turn: SpecTurn, said: list[str], *, seconds: float, spec: str = "a" * 64) -> bool:
    return turn.take(spec, patient=lambda waited: waited < seconds, say=said.append)


def test_a_second_build_waits_for_the_first_and_says_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    with SpecTurn(tmp_path, "second") as second:
        with SpecTurn(tmp_path, "run 1") as first:
            assert take(first, [], seconds=0)
            threading.Timer(0.5, first.__exit__, (None, None, None)).start()
            began = time.monotonic()
            assert take(second, said, seconds=30)
        assert 0.4 < time.monotonic() - began < 10
        assert said[0] == "waits: run 1 builds this commit and spec already; its image will do"
        assert said[1].startswith("waited ")
    assert not list(tmp_path.iterdir())


def test_patience_ends(tmp_path: Path) -> None:
    said: list[str] = []
    with SpecTurn(tmp_path, "first") as first, SpecTurn(tmp_path, "second") as second:
        assert take(first, [], seconds=0)
        assert not take(second, said, seconds=0.3)
        # And whoever gave up takes nothing away from the one that builds.
        second.__exit__(None, None, None)
        with SpecTurn(tmp_path, "third") as third:
            assert not take(third, [], seconds=0)
    assert len(said) == 1


def test_another_spec_waits_for_nobody(tmp_path: Path) -> None:
    with SpecTurn(tmp_path, "first") as first, SpecTurn(tmp_path, "second") as second:
        assert take(first, [], seconds=0)
        assert take(second, [], seconds=0, spec="b" * 64)


def test_a_dead_holder_keeps_nobody_waiting(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder, SpecTurn(tmp_path, "second") as second:
        assert holder.stdout.readline() == "held\n"
        assert not take(second, [], seconds=0)
        holder.kill()
        holder.wait()
        assert take(second, [], seconds=5)


def test_of_many_one_at_a_time_holds_it(tmp_path: Path) -> None:
    inside, most, done = [], [0], []

    def build(number: int) -> None:
        with SpecTurn(tmp_path, f"run {number}") as turn:
            assert take(turn, [], seconds=60)
            inside.append(number)
            most[0] = max(most[0], len(inside))
            time.sleep(0.02)
            inside.remove(number)
            done.append(number)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(8))
    assert most == [1]


def test_without_a_directory_the_build_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "file").touch()
    with SpecTurn(tmp_path / "file", "first") as turn:
        assert not take(turn, said, seconds=60)
    assert "can't be told apart" in said[0]
