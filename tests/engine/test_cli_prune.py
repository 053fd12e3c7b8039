"""``caisson prune``, ``images`` and ``why`` in their own process, on real engines that others use at the same time.

The policy lets nothing go but the images of the test; whatever else is on the engine is used by other tests.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from caisson.engine import Engine
from caisson.errors import BuildCancelled, ImageUnknown, PruneBusy, PruneStopped
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.ledger.prunes import Prune
from caisson.settings import Settings
from tests.conftest import EngineHost
from tests.engine.conftest import CAISSON, Run, Start
from tests.flows.caisson_host import wait_for
from tests.image_archive import ArchiveImage, Layer, load_images

KIB = 1 << 10
Prunes = Callable[[], list[Prune]]
NEVER = {"keep_last": 100_000, "max_age": "", "min_age": "99999d"}


@dataclass
class Own:
    """Images of one test on an engine: ``team`` is the first part of all their names."""

    host: EngineHost
    engine: Engine
    team: str
    policy: Path

    def set_policy(self, **rule: Any) -> None:
        """By default each image of the test goes at once, and nothing else of the engine ever does."""
        own = {"repositories": f"{self.team}/**", "keep_last": 0, "max_age": "0s", "min_age": "0s", **rule}
        policy = {
            "scope": "host",
            "allow_unrecoverable": True,
            "rules": [own],
            "otherwise": NEVER,
            "dangling_age": "99999d",
            "leftovers_age": "99999d",
            "build_cache": {"reserved_space": "900t", "max_used_space": ""},
        }
        self.policy.write_text(json.dumps(policy))

    def load(self, count: int, **more: Any) -> list[str]:
        """Images of a layer that all have and one of their own; gives their tags."""
        tags = [f"{self.team}/app:{number:02}" for number in range(count)]
        base = Layer(f"{self.team}-base", 512 * KIB)
        load_images(
            self.host,
            [ArchiveImage((tag,), [base, Layer(tag.replace("/", "-"), 64 * KIB)], **more) for tag in tags],
        )
        return tags

    @property
    def tags(self) -> list[str]:
        found = (tag for image in self.engine.list_images() for tag in image.tags)
        return sorted(tag for tag in found if tag.startswith(f"{self.team}/"))

    def id(self, tag: str) -> str:
        found = self.engine.inspect_image(tag)
        assert found is not None
        return found.id


@pytest.fixture
def own(engine_host: EngineHost, engine: Engine, tmp_path: Path) -> Iterator[Own]:
    own = Own(engine_host, engine, f"caisson-prune-{uuid.uuid4().hex[:8]}", tmp_path / "policy.json")
    own.set_policy()
    yield own
    for tag in own.tags:
        engine.untag_image(tag)


@pytest.fixture
def prunes(settings: Settings) -> Prunes:
    """The prunes that the ledger knows of, the newest first."""
    return Ledger(settings.state_dir / "ledger.sqlite").prunes.list


@pytest.fixture
def prune(run: Run, own: Own) -> Run:
    return lambda *arguments: run("prune", "--policy", str(own.policy), *arguments)


def of(document: str, own: Own) -> list[str]:
    """The tags of the images in a plan, in its order; and that nobody else's are there."""
    items = json.loads(document)["items"]
    assert all(item["kind"] == "image" for item in items)
    tags = [tag for item in items for tag in item["image"]["tags"]]
    assert all(tag.startswith(f"{own.team}/") for tag in tags)
    return tags


def test_by_itself_it_shows_the_plan_and_removes_nothing(prune: Run, own: Own, prunes: Prunes) -> None:
    tags = own.load(3)
    done = prune()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Would remove 3 images: about 704 KiB.\n")
    assert [line.split()[0] for line in done.stdout.splitlines() if f"({own.team}/app:" in line] == ["1", "2", "3"]
    assert done.stdout.endswith("Nothing was removed: `caisson prune --apply` does it.\n")
    as_json = prune("--json")
    assert (as_json.returncode, sorted(of(as_json.stdout, own))) == (0, tags)
    assert own.tags == tags
    assert prunes() == []


def test_a_plan_that_was_written_is_applied_but_for_what_has_changed_since(
    prune: Run, own: Own, prunes: Prunes, tmp_path: Path
) -> None:
    first, second, third, fourth = own.load(4)
    plan = str(tmp_path / "plan.json")
    assert prune("--plan", plan).returncode == 0
    assert sorted(of(Path(plan).read_text(), own)) == [first, second, third, fourth]
    # What others do before it is applied.
    container = own.engine.create_container(own.team, {"Image": first})
    try:
        own.engine.tag_image(own.id(second), f"{own.team}/app:important")
        own.engine.untag_image(third)
        shown = prune(plan)
        assert shown.stdout.startswith("Of 4 planned ")
        rows = {row[-1]: row[1] for row in re.findall(r"^  ((\w+) .*?/app:(\d+))", shown.stdout, re.MULTILINE)}
        assert rows == {"00": "stays", "01": "stays", "02": "gone", "03": "goes"}
        done = prune("--apply", plan, "--yes")
        assert (done.returncode, done.stderr) == (0, "")
        assert "(in-use: the container" in done.stdout
        assert "(changed: it got the tag" in done.stdout
        assert re.search(rf"^\[\d/4\] removed  image \w+ \({fourth}\), ", done.stdout, re.MULTILINE)
        assert "Removed 1 of 4 planned" in done.stdout
        assert own.tags == [first, second, f"{own.team}/app:important"]
        assert [entry.outcome for entry in prunes()] == ["done"]
    finally:
        own.engine.remove_container(container)


def test_applying_reports_what_was_freed_as_one_document(prune: Run, own: Own, prunes: Prunes) -> None:
    own.load(3)
    done = prune("--apply", "--yes", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ending"], report["trigger"]) == (0, "done", "the command line")
    assert [result["outcome"] for result in report["results"]] == ["removed"] * 3
    assert done.stderr.count("removed") == 3
    assert own.tags == []
    (entry,) = prunes()
    assert (entry.id, entry.freed_bytes) == (report["id"], report["freed_bytes"])
    # With nothing to do it is a prune all the same, so that it is known to have been made.
    assert prune("--apply", "--yes").stdout.startswith("Removed 0 of 0 planned")
    assert [entry.outcome for entry in prunes()] == ["done", "done"]


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 1, 2), ("", 1, 2)])
def test_on_a_terminal_it_asks(
    answer: str, code: int, left: int, environment: Mapping[str, str], own: Own, tmp_path: Path
) -> None:
    own.load(2)
    controller, terminal = pty.openpty()
    try:
        command = [CAISSON, "prune", "--policy", str(own.policy), "--apply"]
        with subprocess.Popen(
            command, env=dict(environment), cwd=tmp_path, stdin=terminal, stdout=-1, stderr=-1, text=True
        ) as process:
            os.write(controller, f"{answer}\n".encode())
            out, err = process.communicate(timeout=60)
    finally:
        os.close(controller)
        os.close(terminal)
    assert (process.returncode, len(own.tags)) == (code, left)
    assert out.startswith("Would remove 2 images")
    assert "Remove them? [y/N]" in err
    assert ("Nothing was removed." in err) == bool(left)


def test_ctrl_c_ends_it_after_the_removal_under_way(start: Start, prune: Run, own: Own, prunes: Prunes) -> None:
    own.load(30)
    process = start("prune", "--policy", str(own.policy), "--apply", "--yes")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[3/30] removed"):
            break
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == BuildCancelled.exit_code
    assert err == "Stopping: the removal under way ends first.\n"
    left = len(own.tags)
    assert 0 < left <= 27
    assert f"Removed {30 - left} of 30 planned" in out
    assert f"{left} not-reached" in out
    assert [entry.outcome for entry in prunes()] == ["stopped: it was asked to stop"]
    assert f"Removed {left} of {left} planned" in prune("--apply", "--yes").stdout
    assert own.tags == []


@contextmanager
def relay(
    directory: Path, engine: Path, *, removing: Callable[[], object] | None = None
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A socket that leads to the engine, and what cuts it off for good, as an engine's end does.

    ``removing`` is called before a removal is passed on, which waits for it.
    """
    path, streams = directory / "relay.sock", list[socket.socket]()

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if removing is not None and data.startswith(b"DELETE "):
                    removing()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, server = listener.accept()[0], socket.socket(socket.AF_UNIX)
                server.connect(str(engine))
                streams.extend((client, server))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    def cut() -> None:
        path.unlink(missing_ok=True)
        for stream in (listener, *streams):
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        try:
            yield path, cut
        finally:
            cut()
            for stream in streams:
                stream.close()


def test_an_engine_that_goes_away_stops_it_and_the_exit_code_tells(
    environment: dict[str, str], settings: Settings, start: Start, prune: Run, own: Own, prunes: Prunes, tmp_path: Path
) -> None:
    own.load(20)
    with relay(tmp_path, own.host.socket) as (path, cut):
        environment["CAISSON_DOCKER_HOST"] = f"unix://{path}"
        process = start("prune", "--policy", str(own.policy), "--apply", "--yes")
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("[3/20] removed"):
                break
        cut()
        out, err = process.communicate(timeout=60)
    assert process.returncode == PruneStopped.exit_code == 25
    assert err.startswith("caisson: The prune ended early: ")
    assert "What is left goes with the next." in err
    assert "not-reached" in out
    assert [entry.outcome.partition(":")[0] for entry in prunes()] == ["stopped"]
    assert own.tags
    environment["CAISSON_DOCKER_HOST"] = settings.docker_host
    assert prune("--apply", "--yes").returncode == 0
    assert own.tags == []


def test_a_reader_that_goes_away_does_not_end_the_prune(start: Start, own: Own) -> None:
    own.load(20)
    process = start("prune", "--policy", str(own.policy), "--apply", "--yes")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("[1/20] removed")
    process.stdout.close()
    process.wait(timeout=60)
    assert own.tags == []
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_while_another_prune_runs_it_says_so_and_the_others_still_tell(
    prune: Run, run: Run, own: Own, settings: Settings
) -> None:
    (tag,) = own.load(1)
    leases = Leases(settings.state_dir / "leases", Ledger(settings.state_dir / "ledger.sqlite").leases)
    with leases.only_prune() as mine:
        assert mine
        done = prune("--apply", "--yes")
        assert (done.returncode, own.tags) == (PruneBusy.exit_code, [tag])
        assert "caisson: Another prune of this host is under way." in done.stderr
        assert prune().returncode == 0
        assert run("images", "--policy", str(own.policy)).returncode == 0
        assert run("why", tag, "--policy", str(own.policy)).returncode == 0
    assert prune("--apply", "--yes").returncode == 0
    assert own.tags == []


def test_of_two_prunes_at_once_one_does_it_and_the_other_says_so(
    environment: dict[str, str], start: Start, own: Own, prunes: Prunes, tmp_path: Path
) -> None:
    """Two processes on one engine. The first removal waits at the engine until one of them has ended."""
    tags = own.load(12)
    own.set_policy(keep_tags=["11"])
    container = own.engine.create_container(own.team, {"Image": tags[0]})
    has_ended, in_vain = threading.Event(), list[int]()

    def removing() -> None:
        if not has_ended.wait(60):
            in_vain.append(1)

    try:
        with relay(tmp_path, own.host.socket, removing=removing) as (path, _):
            environment["CAISSON_DOCKER_HOST"] = f"unix://{path}"
            both = [start("prune", "--policy", str(own.policy), "--apply", "--yes") for _ in range(2)]
            (other,) = wait_for("one of them has ended", lambda: [p for p in both if p.poll() is not None])
            (does_it,) = [process for process in both if process is not other]
            assert own.tags == tags
            has_ended.set()
            out, err = other.communicate(timeout=60)
            assert (other.returncode, out) == (PruneBusy.exit_code, "")
            assert err.startswith("caisson: Another prune of this host is under way.")
            out, err = does_it.communicate(timeout=60)
        assert (does_it.returncode, err, in_vain) == (0, "", [])
        assert "Removed 10 of 10 planned" in out
        assert own.tags == [tags[0], tags[11]], "what is used and what is kept"
        assert [entry.outcome for entry in prunes()] == ["done"]
    finally:
        own.engine.remove_container(container)


def test_under_pressure_it_takes_what_may_go_and_tells_what_is_missing(
    environment: dict[str, str], prune: Run, own: Own
) -> None:
    own.load(2)
    own.set_policy(max_age="")
    assert of(prune("--json").stdout, own) == []
    # No disk is as empty as that.
    environment |= {"CAISSON_DISK_LOW": "0.001%", "CAISSON_DISK_HIGH": "98%", "CAISSON_DISK_CRITICAL": "99%"}
    done = prune("--pressure", "--apply", "--yes")
    assert done.returncode == 0
    assert "Removed 2 of 2 planned" in done.stdout
    assert "to the low threshold still missing" in done.stdout
    assert re.search(r"iB +min-age$", done.stdout, re.MULTILINE)
    assert own.tags == []


def test_images_agree_with_the_plan_and_tell_how_use_is_known(run: Run, own: Own) -> None:
    first, second = own.load(2)
    container = own.engine.create_container(own.team, {"Image": first})
    try:
        options = ("--policy", str(own.policy), "--repository", f"{own.team}/*")
        lines = run("images", *options).stdout.splitlines()
        # Not the first look, in which each is seen for the first time at the same moment.
        rows = {row["tags"][0]: row for row in json.loads(run("images", *options, "--json").stdout)}
        assert rows.keys() == {first, second}
        assert (rows[first]["decision"], rows[first]["rule"]) == ("keep", "in-use")
        assert rows[first]["last_use"] == f"in use by the container {own.team}"
        assert (rows[second]["decision"], rows[second]["rule"]) == ("remove", "expired")
        # The base is the first one's too.
        assert rows[second]["marginal_bytes"] == 64 * KIB
        assert [line for line in lines if second in line and " goes " in line]
        assert [line for line in lines if first in line and " stays " in line]
        assert len(run("images", "--policy", str(own.policy)).stdout.splitlines()) > len(lines)
    finally:
        own.engine.remove_container(container)


def test_why_tells_all_about_one_image(run: Run, own: Own) -> None:
    first, second = own.load(2, labels={"caisson.keep-until": "2999-01-01\x1b[31m"})
    by_tag = run("why", first, "--policy", str(own.policy))
    assert (by_tag.returncode, by_tag.stderr) == (0, "")
    assert "keep-until: its label caisson.keep-until says" in by_tag.stdout
    assert "\x1b" not in by_tag.stdout
    account = json.loads(run("why", own.id(first)[7:19], "--policy", str(own.policy), "--json").stdout)
    assert [reason["rule"] for reason in account["protections"]] == ["keep-until"]
    assert account["goes"] is None
    assert account["shared_with"][0]["names"] == [second]
    several = run("why", f"{own.team}/app")
    assert (several.returncode, several.stdout) == (ImageUnknown.exit_code, "")
    assert first in several.stderr
    unknown = run("why", f"{own.team}/nothing")
    assert unknown.returncode == ImageUnknown.exit_code
    assert unknown.stderr.startswith(f"caisson: There is no image '{own.team}/nothing' on this host.\n")
