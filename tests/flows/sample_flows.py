"""Trivial flows to try the worker with: what they do to processes and states is the point, not what they compute."""

from __future__ import annotations

import os
import time
from pathlib import Path

from prefect import flow, get_run_logger, task


@flow(name="sample-hello")
def hello(words: str = "hello") -> str:
    """Say something."""
    get_run_logger().info("first line: %s at %.6f", words, time.time())
    return words


@task
def _wait(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.1)


@flow(name="sample-sleep")
def sleep(seconds: float = 60, marks: str = "") -> int:
    """Sleep, and leave marks: a file ``started`` that names the process, a file ``finally`` at the end."""
    get_run_logger().info("sleeping in %d", os.getpid())
    if marks:
        (Path(marks) / "started").write_text(str(os.getpid()))
    try:
        _wait(seconds)
    finally:
        if marks:
            (Path(marks) / "finally").touch()
    return os.getpid()


@flow(name="sample-exit")
def exit_with(code: int = 3) -> None:
    """Leave the process with an exit code, or by a signal when it is negative, and report nothing."""
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


@flow(name="sample-raise")
def raise_error() -> None:
    """Fail as a flow does."""
    raise RuntimeError("as asked")


@flow(name="sample-many-lines")
def many_lines(count: int = 1000) -> None:
    """Log many lines, numbered."""
    logger = get_run_logger()
    for number in range(count):
        logger.info("line %d", number)


FLOWS = (hello, sleep, exit_with, raise_error, many_lines)
