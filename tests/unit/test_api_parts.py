"""The parts of the API that decide: pages, events, views, caches, log positions."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.api import sse
from deployments.api.build_view import BuildState, QueuePlace, detail_of, running_step, summary_of
from deployments.api.log_source import MOST_BYTES, FileLog, file_offset, in_order, prefect_position
from deployments.api.paging import BuildCursor, next_cursor, page_after
from deployments.api.problems import of_validation
from deployments.api.read_cache import ReadCache

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
RUN = {
    "id": "0b9f2a3e-6a0e-4c44-9a0c-2d7f6f1c9a51",
    "created": NOON.isoformat(),
    "state_type": "SCHEDULED",
    "state": {"type": "SCHEDULED", "message": ""},
    "parameters": {"request": {"repository_url": "https://github.com/team/app.git", "image": "team/app"}},
}


# --- pages


@given(st.text(max_size=60))
def test_no_text_but_a_cursor_is_one(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cursor"):
        BuildCursor.parse(text)


@given(st.datetimes(timezones=st.just(UTC)), st.lists(st.uuids().map(str), max_size=3))
def test_a_cursor_comes_back(at: datetime, seen: list[str]) -> None:
    cursor = BuildCursor(at, tuple(seen))
    assert BuildCursor.parse(cursor.dump()) == cursor


@given(
    st.lists(st.tuples(st.integers(0, 3), st.uuids().map(str)), unique_by=lambda row: row[1], max_size=20),
    st.integers(1, 5),
)
def test_pages_show_every_build_once_also_those_of_one_moment(rows: list[tuple[int, str]], limit: int) -> None:
    """The database orders by time alone: those of one moment come in any order, another on each page."""
    builds = [(NOON + timedelta(seconds=second), key) for second, key in rows]
    shown: list[str] = []
    cursor: BuildCursor | None = None
    for turn in range(len(builds) + 2):
        left = [(at, key) for at, key in builds if cursor is None or (at <= cursor.at and key not in cursor.seen)]
        page = sorted(left, key=lambda row: (-row[0].timestamp(), hash((row[1], turn))))[:limit]
        shown += [key for _, key in page]
        cursor = next_cursor(page, cursor) or cursor
        cursor = BuildCursor.parse(cursor.dump()) if cursor else None
        if len(page) < limit:
            break
    assert sorted(shown) == sorted(key for _, key in builds)


def test_pages_of_rows_end_with_an_empty_cursor() -> None:
    rows = [(number, f"{number}") for number in range(5)]
    seen, cursor = [], ""
    for _ in range(3):
        page, cursor = page_after(rows, lambda row: row, cursor, 2)
        seen += page
    assert seen == rows
    assert cursor == ""
    for wrong in ("x", "W10", "WzEsMl0"):
        with pytest.raises(ValueError, match="is not a cursor"):
            page_after(rows, lambda row: row, wrong, 2)


# --- events


def read_events(stream: str) -> list[dict[str, str]]:
    """A reader by the standard's own words (HTML, 9.2.6)."""
    events, event = [], {"data": "", "event": "", "id": ""}
    for line in stream.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line == "":
            if event["data"]:
                events.append({**event, "data": event["data"].removesuffix("\n")})
            event = {"data": "", "event": "", "id": ""}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            event["data"] += f"{value}\n"
        elif name in ("event", "id"):
            event[name] = value
    return events


@given(st.text())
def test_whatever_a_log_says_is_one_event_and_comes_back(text: str) -> None:
    sent = sse.frame("log", text, id="f:1").decode()
    expected = text.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    assert read_events(sent) == [{"event": "log", "id": "f:1", "data": expected}]


# --- views


@pytest.mark.parametrize(
    ("state_type", "state"), [("SCHEDULED", "queued"), ("PENDING", "starting"), ("COMPLETED", "succeeded")]
)
def test_states_have_words_of_their_own(state_type: str, state: str) -> None:
    place = QueuePlace(ahead=2, reason="waits: 2 builds ahead")
    build = summary_of({**RUN, "state_type": state_type}, place)
    assert (build.state, build.image, build.ref) == (state, "team/app", "")
    assert build.queue == (place if state == "queued" else None)


def test_a_failure_has_its_kind_from_the_state_where_there_is_no_report() -> None:
    message = "Flow run encountered an exception: RefNotFound: There is no ref main."
    build = detail_of({**RUN, "state_type": "FAILED", "state": {"type": "FAILED", "message": message}})
    assert build.failure is not None
    assert (build.failure.kind, build.failure.message) == ("ref-not-found", "There is no ref main.")
    cancelled = detail_of({**RUN, "state_type": "CANCELLED", "state": {"type": "CANCELLED", "message": ""}})
    assert cancelled.failure is not None
    assert cancelled.failure.kind == "cancelled"


@pytest.mark.parametrize("parameters", [None, {}, {"request": 1}, {"request": {"image": None}}])
def test_a_run_without_a_request_is_shown_without(parameters: Any) -> None:
    assert summary_of({**RUN, "parameters": parameters}).image == ""


def test_the_step_is_the_one_that_began_last() -> None:
    runs = [
        {"name": "hold_guard", "state_type": "RUNNING", "start_time": "2026-05-01T12:00:00Z"},
        {"name": "build_image", "state_type": "RUNNING", "start_time": "2026-05-01T12:00:03Z"},
        {"name": "clone", "state_type": "COMPLETED", "start_time": "2026-05-01T12:00:04Z"},
    ]
    assert running_step(runs) == "build_image"
    assert running_step([]) == ""
    assert BuildState("queued") is BuildState.QUEUED


def test_a_problem_names_fields_and_never_repeats_what_was_sent() -> None:
    error = {
        "type": "string_type",
        "loc": ("body", "image"),
        "msg": "Input should be a valid string",
        "input": "s3cret",
    }
    problem = of_validation([error])
    assert problem.status_code == 422
    assert problem.document.errors[0].field == "image"
    assert b"s3cret" not in bytes(problem.response().body)
    assert of_validation([{"type": "json_invalid", "loc": ("body", 0), "msg": "x"}]).status_code == 400


# --- caches


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_was_read_a_moment_ago_is_not_asked_for_again() -> None:
    clock, asked = Clock(), []
    cache: ReadCache[int] = ReadCache(lambda _: 1.0, clock=clock)

    def fetch() -> int:
        asked.append(clock.now)
        return len(asked)

    assert [cache.get("a", fetch) for _ in range(3)] == [1, 1, 1]
    clock.now = 1.5  # a little old: given at once, and fetched beside it
    assert cache.get("a", fetch) == 1
    deadline = time.monotonic() + 5
    while cache.get("a", fetch) == 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(asked) == 2
    clock.now = 10.0  # too old: waited for
    assert cache.get("a", fetch) == 3
    cache.drop("a")
    assert cache.get("a", fetch) == 4
    cache.close()


def test_many_who_ask_at_once_share_one_answer() -> None:
    cache: ReadCache[int] = ReadCache(lambda _: 60.0)
    gate, asked, answers = threading.Event(), [], []

    def fetch() -> int:
        asked.append(1)
        gate.wait(5)
        return 7

    threads = [threading.Thread(target=lambda: answers.append(cache.get("a", fetch))) for _ in range(20)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(5)
    assert answers == [7] * 20
    assert asked == [1]


def test_a_failure_is_told_to_all_and_not_kept() -> None:
    cache: ReadCache[int] = ReadCache(lambda _: 60.0)

    def fail() -> int:
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        cache.get("a", fail)
    assert cache.get("a", lambda: 1) == 1


def test_what_was_dropped_while_it_was_fetched_is_not_kept() -> None:
    cache: ReadCache[int] = ReadCache(lambda _: 60.0)

    def fetch() -> int:
        cache.drop("a")  # the build was cancelled meanwhile
        return 1

    assert cache.get("a", fetch) == 1
    assert cache.get("a", lambda: 2) == 2


def test_a_slow_fetch_is_not_repeated_all_the_time() -> None:
    clock = Clock()
    cache: ReadCache[int] = ReadCache(lambda _: 0.5, clock=clock)

    def slow() -> int:
        clock.now += 2
        return 1

    cache.get("a", slow)
    clock.now += 9
    assert cache.get("a", lambda: 2) == 1


# --- logs


def test_a_file_is_read_by_whole_lines_and_gone_on_with_from_any_position(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes("one\nzwei ü\nthr".encode())
    log = FileLog(path)
    (piece,) = log.read(over=False)
    assert piece.text == "one\nzwei ü"
    assert log.read(over=False) == []
    with path.open("ab") as file:
        file.write(b"ee\nlast")
    (second,) = log.read(over=False)
    assert second.text == "three"
    (third,) = log.read(over=True)
    assert (third.text, log.complete) == ("last", True)
    again = [piece.text for piece in FileLog(path, second.position).read(over=True)]
    assert again == ["last"]
    assert FileLog(path, third.position).read(over=True) == []


@given(st.binary(max_size=300), st.integers(0, 300))
def test_a_file_in_two_parts_is_the_same_as_whole(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(text[:cut])
    log = FileLog(path)
    first = log.read(over=False)
    path.write_bytes(text)
    pieces = [*first, *log.read(over=True)]
    resumed = FileLog(path, first[-1].position if first else "").read(over=True)
    assert resumed == pieces[len(first) :]
    joined = "\n".join(piece.text for piece in pieces)
    assert joined == text.decode(errors="replace").removesuffix("\n")


def test_a_line_that_is_longer_than_a_piece_is_cut_and_a_long_log_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * (MOST_BYTES + 10) + b"\n" + b"y" * 10 + b"\n")
    pieces = FileLog(path).read(over=True)
    assert "".join(piece.text for piece in pieces).count("x") == MOST_BYTES + 10
    assert pieces[-1].text.endswith("y" * 10)


@pytest.mark.parametrize("word", ["", "end", "f:", "f:-1", "f:1x", "p:1", "f:99999999999999999", "\x00"])
def test_what_is_no_position_is_the_beginning(word: str) -> None:
    assert file_offset(word) == 0
    assert prefect_position(word) is None


def test_lines_of_two_processes_have_one_order_and_resume_leaves_none_out() -> None:
    logs = [
        {"id": "b", "timestamp": "2026-05-01T12:00:01Z", "message": "2"},
        {"id": "a", "timestamp": "2026-05-01T12:00:01Z", "message": "1"},
        {"id": "c", "timestamp": "2026-05-01T12:00:00Z", "message": "0"},
        {"id": "d", "timestamp": "2026-05-01T12:00:09Z", "message": "too new"},
    ]
    until = NOON + timedelta(seconds=5)
    everything = in_order(logs, None, until)
    assert [log["message"] for _, _, log in everything] == ["0", "1", "2"]
    for number, (moment, log_id, _) in enumerate(everything):
        assert in_order(logs, (moment, log_id), until) == everything[number + 1 :]
