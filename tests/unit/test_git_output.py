"""The output of the steps is taken apart wherever it is cut; progress becomes few lines."""

from __future__ import annotations

import pytest

from caisson.errors import RepositoryUnreachable
from caisson.git_output import ProgressLines, StepsOutput


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_answers_are_told_apart_wherever_they_are_cut(size: int) -> None:
    output = StepsOutput()
    data = b"caisson-answer: head\nabc 12\ncaisson-answer: size\n4096\t/app\ncaisson-answer: submodules\n"
    for place in range(0, len(data), size):
        output.add_answer(data[place : place + size])
    assert output.answers() == {"head": b"abc 12\n", "size": b"4096\t/app\n", "submodules": b""}
    assert output.failed_step() == ""


def test_a_repository_that_writes_an_answer_of_its_own_is_not_believed() -> None:
    output = StepsOutput()
    output.add_answer(b"caisson-answer: head\nabc 12\ncaisson-answer: submodules\n 0 x\ncaisson-answer: head\nevil 1\n")
    assert output.answers()["head"] == b"abc 12\n"


def test_the_failed_step_is_the_one_that_the_end_names() -> None:
    output = StepsOutput()
    output.add_words(b"remote: hello\ncaisson-failed: checkout\nfatal: no\n")
    output.add_words(b"\ncaisson-failed: fetch\n")
    assert output.failed_step() == "fetch"
    assert "caisson-failed" not in output.words()
    assert output.words().split() == ["remote:", "hello", "fatal:", "no"]


def test_words_are_the_last_and_without_what_was_overwritten() -> None:
    output = StepsOutput()
    output.add_words(b"x" * 100_000 + b"\n")
    output.add_words(b"Receiving: 10%\rReceiving: 100%, done.\nerror: end\r\n")
    assert output.words().endswith("\nReceiving: 100%, done.\nerror: end\r\n")
    assert len(output.words()) <= 32_768


def test_a_server_that_answers_without_end_is_given_up() -> None:
    output = StepsOutput()
    output.add_answer(b"x" * (64 << 20))
    with pytest.raises(RepositoryUnreachable, match="more than 64 MiB"):
        output.add_answer(b"x")


def test_lines_come_at_once_and_a_meter_at_most_every_few_seconds() -> None:
    now = 0.0
    shown: list[str] = []
    lines = ProgressLines(shown.append, every=5, clock=lambda: now)
    lines.feed(b"remote: Counting objects: 1% (1/100)\rremote: Counting objects: 100%, done.\nremote: \x1b[1mhello")
    assert shown == []
    lines.feed(b"\x1b[0m\n")
    assert shown == ["remote: hello"]
    lines.feed(b"Receiving objects: 10%\r")
    now = 6.0
    lines.feed(b"Receiving objects: 20%\rReceiving objects: 21%\r")
    now = 7.0
    lines.feed(b"Receiving objects: 100%, done.\n\n   \ncaisson-failed: fetch\n")
    lines.feed(b"no end of line")
    lines.close()
    assert shown == [
        "remote: hello",
        "Receiving objects: 20%",
        "Receiving objects: 100%, done.",
        "no end of line",
    ]


def test_a_line_of_a_server_that_never_ends_is_not_kept() -> None:
    shown: list[str] = []
    progress = ProgressLines(shown.append)
    for _ in range(100):
        progress.feed(b"remote: " + b"x" * 10_000)
    assert sum(map(len, shown)) > 900_000
    assert max(map(len, shown)) < 100_000
