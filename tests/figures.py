"""Figures that are measured, and what each of them is to reach: told where they are measured, and all at the end."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure; ``met`` says whether it is within its reach. What could not be measured is not."""

    what: str
    measured: str
    reach: str
    met: bool


class Figures:
    """What one run of the benchmarks has measured."""

    def __init__(self) -> None:
        self._all: list[Figure] = []

    def judge(self, what: str, measured: str, reach: str, *, met: bool) -> str:
        """Note a figure; returns the verdict, for the row that tells of it."""
        self._all.append(Figure(what, measured, reach, met))
        return f"{'within' if met else 'MISSED'} (reach: {reach})"

    def measure(self, part: str, call: Callable[[], None]) -> None:
        """Call what measures a part of them; one that can't be measured does not keep the others from it."""
        try:
            call()
        except Exception as error:
            verdict = self.judge(part, "not measured", "to be measured", met=False)
            print(f"  {part}: {verdict}\n{''.join(traceback.format_exception(error))}", flush=True)

    def table(self) -> str:
        """All of them in order, one a line."""
        widths = [max((len(text) for text in column), default=0) for column in zip(*self._texts(), strict=True)]
        lines = [
            f"  {'met   ' if figure.met else 'MISSED'}  {what:<{widths[0]}}  {measured:>{widths[1]}}  reach: {reach}"
            for figure, (what, measured, reach) in zip(self._all, self._texts(), strict=True)
        ]
        missed = sum(not figure.met for figure in self._all)
        return "\n".join([*lines, f"  {len(self._all) - missed} met, {missed} missed"])

    def conclude(self) -> int:
        """Print them all; returns the exit code: 1 where one is missed."""
        print(f"\nAll figures and their reach\n{self.table()}", flush=True)
        return int(not all(figure.met for figure in self._all))

    def _texts(self) -> list[tuple[str, str, str]]:
        return [(figure.what, figure.measured, figure.reach) for figure in self._all]
