"""The tries of one build: each with a builder of its own, and told in the report."""

from __future__ import annotations

import contextlib
import time
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

    def may_try_again(self, build: Build, failure: BaseException) -> bool:
        """Whether to try once more, which is told in the run's log; then wait for it with ``clean_slate``."""
        tried, attempts = len(self._failures) + 1, self._settings.build_attempts
        if not may_try_again(failure, tried=tried, attempts=attempts, seconds_left=build.seconds_left()):
            return False
        assert isinstance(failure, CaissonError)
        self._failures.append(build.scrub(failure))
        self._left.append(build.identity.build_id)
        run_logger().warning(f"Try {tried} of {attempts} failed, and the build begins anew: {self._failures[-1]}")
        return True

    def clean_slate(self) -> None:
        """Before another try: wait until the engine answers, and remove what is left of the tries before."""
        if not self._failures:
            return
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
