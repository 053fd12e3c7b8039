"""What `make bench` tells at its end: every figure, and whether it is within its reach."""

from __future__ import annotations

import pytest

from tests.figures import Figures


def test_the_end_tells_every_figure_and_the_exit_code_that_one_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    figures = Figures()
    assert figures.judge("a", "1.0 s", "1.5 s", met=True) == "within (reach: 1.5 s)"
    assert figures.conclude() == 0
    assert figures.judge("longer", "12 MB", "4 MB", met=False) == "MISSED (reach: 4 MB)"
    assert figures.conclude() == 1
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "  met     a       1.0 s  reach: 1.5 s",
        "  MISSED  longer  12 MB  reach: 4 MB",
        "  1 met, 1 missed",
    ]


def test_a_part_that_can_not_be_measured_is_missed_and_the_next_is_measured_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = Figures()

    def fails() -> None:
        raise RuntimeError("no engine")

    figures.measure("the guard", fails)
    figures.measure("the plan", lambda: print(figures.judge("plan", "2 s", "3 s", met=True)))
    assert figures.conclude() == 1
    out = capsys.readouterr().out
    assert "RuntimeError: no engine" in out
    assert "  MISSED  the guard  not measured  reach: to be measured" in out
    assert "met     plan" in out
