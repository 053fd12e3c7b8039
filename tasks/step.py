"""How a step of a build becomes a Prefect task: its own log, state and timing, failures without secrets."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError

from caisson.build import Build

P = ParamSpec("P")
R = TypeVar("R")

LOGGER = "caisson.build"


def run_logger(**known: str) -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The logger of the Prefect run, or the plain one when the step is called without Prefect.

    What is ``known`` beside the run is put on each record, as the run's ID is.
    """
    try:
        return get_run_logger(None, **known)
    except MissingContextError:
        return logging.getLogger(LOGGER)


def step(
    name: str,
) -> Callable[[Callable[Concatenate[Build, P], R]], Task[Concatenate[Build, P], R]]:
    """A decorator: the function is one step of a build, ``name`` is what people see."""

    def decorate(function: Callable[Concatenate[Build, P], R]) -> Task[Concatenate[Build, P], R]:
        @functools.wraps(function)
        def body(build: Build, *args: P.args, **kwargs: P.kwargs) -> R:
            before = build.log.attach(run_logger(build_id=build.identity.build_id).info)
            try:
                with build.step(name):
                    return function(build, *args, **kwargs)
            finally:
                build.log.attach(before)

        return task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(body)

    return decorate
