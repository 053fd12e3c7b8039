"""The log: redacted, whole, in order, in few messages."""

from __future__ import annotations

import json
import time
from pathlib import Path

from caisson.buildlog import BuildLog

SECRET = "hunter2-hunter2"


def test_no_secret_reaches_file_sink_or_tail(tmp_path: Path) -> None:
    messages: list[str] = []
    with BuildLog(tmp_path / "log", [SECRET]) as log:
        log.attach(messages.append)
        log.line(f"the password is {SECRET}!")
        assert SECRET not in log.redact(f"x{SECRET}x")
    for text in ((tmp_path / "log").read_text(), "".join(messages), "".join(log.tail())):
        assert SECRET not in text
        assert "the password is" in text


def test_50_000_lines_arrive_complete_in_order_and_in_few_messages(tmp_path: Path) -> None:
    messages: list[str] = []
    lines = [f"line {number}" for number in range(50_000)]
    with BuildLog(tmp_path / "log", [SECRET]) as log:
        log.attach(messages.append)
        for line in lines:
            log.line(line)
    assert "\n".join(messages).split("\n") == lines
    assert (tmp_path / "log").read_text().splitlines() == lines
    assert len(messages) < 1000


def test_a_long_line_is_cut_in_the_tail_and_whole_in_the_file(tmp_path: Path) -> None:
    line = "x" * 1_000_000
    with BuildLog(tmp_path / "log", []) as log:
        log.line(line)
        log.line("x" * 2_000)
        assert log.tail() == ["x" * 1_999 + "…", "x" * 2_000]
    assert (tmp_path / "log").read_text().splitlines()[0] == line


def test_a_quiet_build_is_still_seen_within_a_second(tmp_path: Path) -> None:
    messages: list[str] = []
    with BuildLog(tmp_path / "log", []) as log:
        log.attach(messages.append)
        log.line("hello")
        deadline = time.monotonic() + 2
        while not messages and time.monotonic() < deadline:
            time.sleep(0.02)
        assert messages == ["hello"]


def test_each_step_gets_its_own_lines(tmp_path: Path) -> None:
    one: list[str] = []
    two: list[str] = []
    with BuildLog(tmp_path / "log", []) as log:
        log.attach(one.append)
        log.line("1")
        log.attach(two.append)
        log.line("2")
    assert (one, two) == (["1"], ["2"])


def test_what_a_program_says_without_end_is_left_out_but_for_the_end_of_each_step(tmp_path: Path) -> None:
    messages: list[str] = []
    with BuildLog(tmp_path / "log", [SECRET], most_bytes=64_000) as log:
        log.attach(messages.append)
        log.lines(f"{number}" for number in range(100_000))
        log.said(f"the password is {SECRET}")
        assert log.tail(2) == ["99999", "the password is ***"]
        log.attach(None)
        log.attach(messages.append)
        log.said("the next step's only line")
        log.line("one of Caisson's own")
        assert log.tail(3) == ["the password is ***", "the next step's only line", "one of Caisson's own"]
        assert log.left_out == 100_000 - 1_000 + 2
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == "\n".join(messages).split("\n")
    assert lines[:1000] == [f"{number}" for number in range(1_000)]
    assert "CAISSON_LOG_BYTES" in lines[1000]
    assert lines[1001] == "98,951 lines are left out here."
    assert lines[1002:] == [
        *(f"{number}" for number in range(99_951, 100_000)),
        "the password is ***",
        "the next step's only line",
        "one of Caisson's own",
    ]


def test_a_message_is_never_longer_than_prefect_takes(tmp_path: Path) -> None:
    messages: list[str] = []
    with BuildLog(tmp_path / "log", []) as log:
        log.attach(messages.append)
        for text in ("\x00", "é", "x") * 100:
            log.said(text * (64 << 10))
    assert max(len(json.dumps(message)) for message in messages) < 1_000_000
    assert len("\n".join(messages).split("\n")) == 300
