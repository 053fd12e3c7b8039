"""A build in this process, without a Prefect server: for hosts on which no Caisson runs."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import ParamSpec, TypeVar

from prefect import Task

from caisson.build import Build
from caisson.builder import find_builders, remove_builders
from caisson.docker_engine import DockerEngine
from caisson.errors import BuildCancelled, CaissonError
from caisson.request import BuildRequest
from caisson.settings import Settings
from deployments.cli_report import Ended
from deployments.cli_signals import signals_cancel
from deployments.cli_view import BuildView
from flows.build_image import as_function, run_build
from tasks.step import LOGGER

P = ParamSpec("P")
R = TypeVar("R")


def build_here(request: BuildRequest, settings: Settings, view: BuildView) -> Ended:
    """Build, showing steps and log; a signal cancels the build, and it returns when the builder is gone."""
    steps = _Steps(view)
    with _log_to(steps), signals_cancel():
        try:
            return Ended(run_build(request, settings, call=steps, on_start=steps.begin))
        except KeyboardInterrupt:
            failure: CaissonError = BuildCancelled("The build was cancelled.")
            if steps.build is not None:
                _make_sure_that_it_is_gone(steps.build, settings)
        except CaissonError as error:
            failure = error
    return Ended(steps.build.report(failure) if steps.build else None, failure.to_dict())


class _Steps:
    """Runs the steps of a build as plain functions, and shows each."""

    def __init__(self, view: BuildView) -> None:
        self.view = view
        self.build: Build | None = None
        self.running = ""

    def begin(self, build: Build) -> None:
        self.build = build

    def __call__(self, step: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.view.step_started(step.name)
        self.running = step.name
        began = time.monotonic()
        try:
            result = as_function(step, *args, **kwargs)
        except BaseException as error:
            self.view.step_ended(step.name, "failed", time.monotonic() - began)
            if isinstance(error, KeyboardInterrupt):
                self.view.say("Cancelling: the builder is being removed.")
            raise
        finally:
            self.running = ""
        self.view.step_ended(step.name, "completed", time.monotonic() - began)
        return result


class _ToView(logging.Handler):
    def __init__(self, steps: _Steps) -> None:
        super().__init__()
        self._steps = steps

    def emit(self, record: logging.LogRecord) -> None:
        # Outside any step the chain says what the summary says too; a warning is worth its line.
        if self._steps.running or record.levelno >= logging.WARNING:
            self._steps.view.log(record.getMessage())


@contextlib.contextmanager
def _log_to(steps: _Steps) -> Iterator[None]:
    logger, handler = logging.getLogger(LOGGER), _ToView(steps)
    before = (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def _make_sure_that_it_is_gone(build: Build, settings: Settings) -> None:
    """Remove the builder if it is still there: the signal can have come while it was made, or while it was removed."""
    with DockerEngine(settings.docker_host) as engine:
        found = remove_builders(engine, find_builders(engine, build_id=build.identity.build_id))
    if found or build.container is not None:
        build.record.builder_removed = True
