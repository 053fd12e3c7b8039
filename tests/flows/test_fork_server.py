"""The fork server by itself: no Prefect server answers here, so that a run's process is what is looked at."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

import pytest

from deployments.fork_client import ENGINE, ForkServerClient, ForkServerDown, RunProcess, start_process
from tests.flows.caisson_host import is_alive, wait_for

TIMEOUT = 60.0


@dataclass(frozen=True)
class Bench:
    """A fork server, an event loop that keeps it, and an API that takes connections and never answers."""

    server: ForkServerClient
    loop: asyncio.Runner
    env: dict[str, str]
    home: Path

    def environment(self, flow_run_id: str = "") -> dict[str, str]:
        return self.env | {"PREFECT__FLOW_RUN_ID": flow_run_id or str(uuid4())}

    def output(self, tmp_path: Path) -> IO[bytes]:
        return (tmp_path / "out").open("wb")

    async def start(self, kind: str, env: dict[str, str], cwd: Path, output: IO[bytes]) -> RunProcess:
        if kind == "forked":
            await ready(self.server)
            return await self.server.spawn(env, cwd, output.fileno())
        return await start_process(list(ENGINE), env, cwd, output.fileno())


async def ready(server: ForkServerClient) -> int:
    async with asyncio.timeout(TIMEOUT):
        while (pid := server.pid) is None:
            await asyncio.sleep(0.05)
    return pid


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as silent, asyncio.Runner() as loop:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        env |= {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/api",
        }
        server = ForkServerClient(env)
        running = server.running()
        loop.run(running.__aenter__())
        try:
            loop.run(ready(server))
            yield Bench(server, loop, env, home)
        finally:
            loop.run(running.__aexit__(None, None, None))


@pytest.mark.parametrize("kind", ["forked", "started"])
def test_exit_codes_pass_through(kind: str, bench: Bench, tmp_path: Path) -> None:
    async def exit_code() -> int:
        with bench.output(tmp_path) as output:
            process = await bench.start(kind, bench.environment("no-uuid"), tmp_path, output)
            return await asyncio.wait_for(process.wait(), TIMEOUT)

    assert bench.loop.run(exit_code()) == 1
    assert "Invalid flow run id" in (tmp_path / "out").read_text()


@pytest.mark.parametrize("kind", ["forked", "started"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_pass_through_and_so_does_the_death_by_one(
    kind: str, number: signal.Signals, bench: Bench, tmp_path: Path
) -> None:
    async def exit_code() -> int:
        with bench.output(tmp_path) as output:
            process = await bench.start(kind, bench.environment(), tmp_path, output)
            assert is_alive(process.pid)
            await asyncio.sleep(0.5)
            process.send_signal(number)
            code = await asyncio.wait_for(process.wait(), TIMEOUT)
            process.send_signal(number)  # to a process that is gone: no error, and nobody else is hit
            return code

    assert bench.loop.run(exit_code()) == -number


def test_a_run_has_its_own_directory_output_and_session_and_nothing_of_the_server(bench: Bench, tmp_path: Path) -> None:
    async def observe() -> tuple[str, list[str], bool]:
        with bench.output(tmp_path) as output:
            run = await bench.start("forked", bench.environment(), tmp_path, output)
            await asyncio.sleep(1)
            cwd = str(Path(f"/proc/{run.pid}/cwd").readlink())
            descriptors = [str(path.readlink()) for path in Path(f"/proc/{run.pid}/fd").iterdir()]
            leads_session = os.getsid(run.pid) == run.pid
            run.send_signal(signal.SIGKILL)
            await run.wait()
            return cwd, descriptors, leads_session

    cwd, descriptors, leads_session = bench.loop.run(observe())
    assert cwd == str(tmp_path)
    assert descriptors.count(str(tmp_path / "out")) == 2
    assert not [link for link in descriptors if "pidfd" in link]
    assert leads_session


def test_a_run_with_prefect_settings_of_its_own_has_them(bench: Bench, tmp_path: Path) -> None:
    async def exit_code() -> int:
        env = bench.environment() | {"PREFECT_API_URL": "no-url"}
        with bench.output(tmp_path) as output:
            process = await bench.start("forked", env, tmp_path, output)
            return await asyncio.wait_for(process.wait(), TIMEOUT)

    assert bench.loop.run(exit_code()) != 0
    assert "Request URL is missing" in (tmp_path / "out").read_text()


def test_when_the_server_dies_its_runs_get_sigterm_and_another_is_started(bench: Bench, tmp_path: Path) -> None:
    async def scenario() -> tuple[int, bool]:
        with bench.output(tmp_path) as output:
            run = await bench.start("forked", bench.environment(), tmp_path, output)
            first = await ready(bench.server)
            os.kill(first, signal.SIGKILL)
            code = await asyncio.wait_for(run.wait(), TIMEOUT)
            with pytest.raises(ForkServerDown):
                await bench.server.spawn(bench.environment(), tmp_path, output.fileno())
            second = await ready(bench.server)
            again = await bench.start("forked", bench.environment(), tmp_path, output)
            again.send_signal(signal.SIGKILL)
            await asyncio.wait_for(again.wait(), TIMEOUT)
        return code, second != first

    assert bench.loop.run(scenario()) == (-signal.SIGTERM, True)


def test_when_the_worker_is_gone_so_are_the_server_and_its_runs(bench: Bench, tmp_path: Path) -> None:
    async def scenario() -> tuple[int, int]:
        async with ForkServerClient(bench.env).running() as server:
            pid = await ready(server)
            with bench.output(tmp_path) as output:
                run = await server.spawn(bench.environment(), tmp_path, output.fileno())
            return pid, run.pid

    server, run = bench.loop.run(scenario())
    wait_for("the run is gone", lambda: not is_alive(run), seconds=5)
    wait_for("the server is gone", lambda: not is_alive(server), seconds=5)
