"""The tries of one build: each with a builder of its own, and told in the report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from caisson.build import Build
from caisson.builder import find_builders, remove_builders
from caisson.docker_engine import DockerEngine
from caisson.errors import CaissonError
from caisson.retrying import may_try_again
from caisson.settings import Settings
from caisson.spec import BuildSpec
from tasks.step import run_logger

PAUSE_SECONDS = 2.0
ENGINE_SECONDS = 90.0
_POLL_SECONDS = 0.5


class Attempts:
    """What was tried until now, and whether to try once more."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._began = time.monotonic()
        self._failures: list[CaissonError] = []
        self._left: list[str] = []
        self._is_built = False

    def may_try_again(self, build: Build, failure: BaseException) -> bool:
        """Whether to try once more, which is told in the run's log; then wait for it with ``clean_slate``."""
        if self._is_built or not self._may(build, failure, tried=len(self._failures) + 1):
            return False
        assert isinstance(failure, CaissonError)
        self._failures.append(build.scrub(failure))
        self._left.append(build.identity.build_id)
        self._warn(len(self._failures), f"the build begins anew: {self._failures[-1]}")
        return True

    def push(self, build: Build, push: Callable[[], None]) -> None:
        """Push what is built, tried again likewise: from here on there is no build to be tried again."""
        self._is_built = True
        tried = 1
        while not self._is_pushed(build, push, tried):
            tried += 1
            self._await_engine()

    def _is_pushed(self, build: Build, push: Callable[[], None], tried: int) -> bool:
        try:
            push()
        except CaissonError as failure:
            if not self._may(build, failure, tried=tried):
                raise
            build.record.notes.append(f"Try {tried} of the push failed, and it was pushed again: {failure.message}")
            self._warn(tried, f"the image is pushed again: {failure}")
            return False
        return True

    def _may(self, build: Build, failure: BaseException, *, tried: int) -> bool:
        attempts, left = self._settings.build_attempts, build.seconds_left()
        return may_try_again(failure, tried=tried, attempts=attempts, seconds_left=left)

    def _warn(self, tried: int, what: str) -> None:
        run_logger().warning(f"Try {tried} of {self._settings.build_attempts} failed, and {what}")

    def clean_slate(self) -> None:
        """Before another try: wait until the engine answers, and remove what is left of the tries before."""
        if self._failures:
            self._await_engine()

    def _await_engine(self) -> None:
        time.sleep(PAUSE_SECONDS)
        deadline = time.monotonic() + ENGINE_SECONDS
        while time.monotonic() < deadline:
            # What the engine does not answer now, the build itself will report.
            with contextlib.suppress(CaissonError), DockerEngine(self._settings.docker_host) as engine:
                for build_id in self._left:
                    remove_builders(engine, find_builders(engine, build_id=build_id))
                return
            time.sleep(_POLL_SECONDS)

    def fit(self, spec: BuildSpec) -> BuildSpec:
        """The spec with the time that the tries before have left of its timeout."""
        if not self._failures:
            return spec
        left = max(1.0, spec.limits.timeout_seconds - (time.monotonic() - self._began))
        return replace(spec, limits=replace(spec.limits, timeout_seconds=round(left, 1)))

    def tell(self, build: Build) -> None:
        """Put the failures of the tries before into the build's report."""
        build.record.notes += [
            f"Try {number} failed, and the build began anew with another builder: {failure.message}"
            for number, failure in enumerate(self._failures, 1)
        ]
