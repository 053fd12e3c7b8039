"""Only what can succeed the second time is tried again."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from caisson import errors
from caisson.build import Build, BuildRecord
from caisson.errors import CaissonError
from caisson.push import classify_push_error
from caisson.retrying import LEAST_SECONDS, may_try_again
from caisson.settings import load_settings
from tasks import attempts
from tasks.attempts import Attempts

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


def test_a_registry_that_is_not_trusted_will_not_be_later() -> None:
    distrusted = classify_push_error('Get "https://r/v2/": x509: certificate signed by unknown authority')
    assert isinstance(distrusted, errors.RegistryUnreachable)
    assert not may_try_again(distrusted, tried=1, attempts=9, seconds_left=600)


class Built:
    """A build that is past all its steps but the push."""

    def __init__(self) -> None:
        self.record = BuildRecord()

    def seconds_left(self) -> float:
        return 600


def _attempts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Attempts:
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(attempts, "ENGINE_SECONDS", 0.0)
    return Attempts(load_settings(state_dir=tmp_path, build_attempts=2))


def test_once_an_image_is_built_only_its_push_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tries, build = _attempts(monkeypatch, tmp_path), cast("Build", Built())
    ends = iter([errors.EngineLost("It went away."), None])

    def push() -> None:
        if (end := next(ends)) is not None:
            raise end

    tries.push(build, push)
    assert build.record.notes == ["Try 1 of the push failed, and it was pushed again: It went away."]


@pytest.mark.parametrize(
    ("failure", "pushes"),
    [(errors.EngineLost("It went away."), 2), (errors.PushDenied("No."), 1)],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_push_that_fails_for_good_builds_nothing_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failure: CaissonError, pushes: int
) -> None:
    tries, build, pushed = _attempts(monkeypatch, tmp_path), cast("Build", Built()), []

    def push() -> None:
        pushed.append(1)
        raise failure

    with pytest.raises(type(failure)) as caught:
        tries.push(build, push)
    assert len(pushed) == pushes
    assert not tries.may_try_again(build, caught.value)
