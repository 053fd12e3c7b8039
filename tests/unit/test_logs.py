"""Each process logs in the form that ``CAISSON_LOG_FORMAT`` names, and lines of JSON have what one searches by."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from caisson.errors import SettingsInvalid
from caisson.settings import Settings, load_settings
from deployments.gateway import gateway_environment
from deployments.logs import configure_logging, launchers_voice
from deployments.server import client_environment, server_environment
from deployments.state import StateDir

PREFECTS = """
import logging
from prefect.main import flow
logging.getLogger("prefect.server").warning("a warning :x: [red] %s", "x" * 300)
logging.getLogger("prefect.flow_runs").warning("a step", extra={"flow_run_id": "9f", "build_id": "ab"})
"""


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("caisson")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


def settings(state_dir: Path, **values: Any) -> Settings:
    return load_settings(_env_file=None, state_dir=state_dir, host_name="b1", **values)


def lines(text: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_record_is_one_line_with_its_run_and_its_exception(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(settings(tmp_path, log_format="json"))
    log, run = logging.getLogger("caisson.worker"), uuid4()
    log.info("Run %s had\nleft “%s”", run, "caisson-build-1")
    log.info("nothing", extra={"flow_run_id": run, "build_id": "0123456789ab"})
    try:
        int("broken")
    except ValueError:
        log.exception("A round failed")
    logging.getLogger("httpx").info("not told")
    first, second, third = lines(capsys.readouterr().err)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "INFO",
        "logger": "caisson.worker",
        "message": f"Run {run} had\nleft “caisson-build-1”",
        "host": "b1",
        "flow_run_id": str(run),
    }
    assert (second["flow_run_id"], second["build_id"]) == (str(run), "0123456789ab")
    assert "flow_run_id" not in third
    assert third["exception"].endswith("'broken'")


def test_text_stays_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings(tmp_path))
    logging.getLogger("caisson.worker").info("Run %s", "x")
    assert capsys.readouterr().err.endswith("Z INFO caisson.worker: Run x\n")
    launchers_voice(settings(tmp_path))("Caisson is up")
    assert capsys.readouterr().out == "Caisson is up\n"


def test_the_launcher_tells_what_it_does_as_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launchers_voice(settings(tmp_path, log_format="json"))("The worker ended (100 % sure)")
    (line,) = lines(capsys.readouterr().err)
    assert (line["logger"], line["message"]) == ("caisson.launcher", "The worker ended (100 % sure)")


def test_prefects_own_processes_log_in_the_same_form(tmp_path: Path) -> None:
    chosen, state = settings(tmp_path, log_format="json"), StateDir(tmp_path).create()
    inherited = {"PATH": os.environ["PATH"], "FORCE_COLOR": "1"}
    env = client_environment(chosen, state, inherited)
    told = {name: value for name, value in env.items() if name.startswith("PREFECT_LOGGING_") and "API" not in name}
    assert told.items() <= server_environment(chosen, state, inherited).items()
    assert not told.items() & client_environment(settings(tmp_path), state, inherited).items()
    env |= {"PREFECT_LOGGING_TO_API_ENABLED": "false"}
    done = subprocess.run([sys.executable, "-c", PREFECTS], env=env, capture_output=True, text=True, check=True)
    first, second = lines(done.stderr)
    assert (first["logger"], first["message"][-300:]) == ("prefect.server", "x" * 300)
    assert (second["flow_run_id"], second["build_id"]) == ("9f", "ab")


def test_the_gateway_logs_in_that_form_from_its_first_line(tmp_path: Path) -> None:
    chosen = settings(tmp_path, log_format="json", gateway_port=1, gateway_host="203.0.113.1")
    env = gateway_environment(chosen, {"PATH": os.environ["PATH"]})
    command = [sys.executable, "-m", "deployments.api.main"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert [(line["level"], line["host"]) for line in lines(done.stderr)] == [("ERROR", "b1")]


def test_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="CAISSON_LOG_FORMAT"):
        settings(tmp_path, log_format="xml")
