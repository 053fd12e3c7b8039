"""Only what can succeed the second time is tried again."""

from __future__ import annotations

import pytest

from caisson import errors
from caisson.errors import CaissonError
from caisson.retrying import LEAST_SECONDS, may_try_again

PASSES_BY = {
    "engine-lost",
    "engine-unreachable",
    "engine-fault",
    "repository-unreachable",
    "registry-unreachable",
    "base-image-unreachable",
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CaissonError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_each_kind_is_one_that_passes_by_or_is_not(kind: type[CaissonError]) -> None:
    again = may_try_again(kind("It failed."), tried=1, attempts=2, seconds_left=600)
    assert again is (kind.kind in PASSES_BY)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(1), RuntimeError("a defect")])
def test_a_cancel_and_a_defect_are_final(end: BaseException) -> None:
    assert not may_try_again(end, tried=1, attempts=9, seconds_left=600)


@pytest.mark.parametrize(
    ("tried", "attempts", "seconds_left", "again"),
    [(1, 1, 600, False), (1, 2, 600, True), (2, 2, 600, False), (2, 3, 600, True), (1, 2, LEAST_SECONDS - 1, False)],
)
def test_tries_are_bounded(tried: int, attempts: int, seconds_left: float, again: bool) -> None:
    failure = errors.EngineLost("It is gone.")
    assert may_try_again(failure, tried=tried, attempts=attempts, seconds_left=seconds_left) is again
