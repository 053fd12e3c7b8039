"""A build that meets a fault of the network is tried again with a new builder; two of one commit make one image."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from caisson.builder import find_builders
from caisson.errors import BuildStepFailed, RepositoryUnreachable
from caisson.report import BuildReport
from tests.engine.conftest import Builds

BASE = "FROM debian:trixie-slim\n"


@contextmanager
def fails_first(target: tuple[str, int], *, times: int) -> Iterator[int]:
    """A port before a server that closes the first connections at once; how it is reached."""
    with socket.create_server((target[0], 0)) as listener:

        def serve() -> None:
            left = times
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                if left:
                    left -= 1
                    client.close()
                    continue
                server = socket.create_connection(target)
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=_copy, args=(one, other), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def tries(builds: Builds) -> list[str]:
    """The builds that were begun, by their logs; none has left a builder."""
    made = [file.stem for file in (builds.settings.state_dir / "builds").glob("*.log")]
    assert not [found for build in made for found in find_builders(builds.engine, build_id=build)]
    return made


def test_a_fault_of_the_network_is_tried_again_and_told(builds: Builds) -> None:
    repository = builds.repository(BASE + "LABEL again=yes\n", name="again")
    with fails_first((builds.git.address, builds.git.port), times=1) as port:
        report = builds(repository.url.replace(f":{builds.git.port}/", f":{port}/"))
    assert report.outcome == "built"
    (told,) = [note for note in report.notes if note.startswith("Try ")]
    assert told.startswith("Try 1 failed, and the build began anew with another builder: ")
    assert len(tries(builds)) == 2


def test_tries_end(builds: Builds) -> None:
    repository = builds.repository(BASE, name="again")
    with (
        fails_first((builds.git.address, builds.git.port), times=2) as port,
        pytest.raises(RepositoryUnreachable),
    ):
        builds(repository.url.replace(f":{builds.git.port}/", f":{port}/"))
    assert len(tries(builds)) == 2


def test_a_dockerfiles_own_failure_is_final(builds: Builds) -> None:
    with pytest.raises(BuildStepFailed):
        builds(builds.repository(BASE + "RUN exit 3\n", name="final"))
    assert len(tries(builds)) == 1


def test_two_builds_of_one_commit_at_once_make_one_image(builds: Builds) -> None:
    repository = builds.repository(f"{BASE}RUN sleep 3\nLABEL at={time.time_ns()}\n", name="twice")
    reports: list[BuildReport] = []
    threads = [threading.Thread(target=lambda: reports.append(builds(repository))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.outcome for report in reports) == ["built", "reused"]
    assert len({report.image_id for report in reports}) == 1
    (second,) = [report for report in reports if report.outcome == "reused"]
    assert "builds this commit and spec already" in Path(second.log_file).read_text()
