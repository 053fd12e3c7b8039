"""The list of engines that the tests run on is read as written, and a missing engine fails tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import EngineHost, parse_engines

REPOSITORY = Path(__file__).parent.parent.parent


def test_engines_are_read_in_order_with_name_address_and_gateway() -> None:
    assert parse_engines("20.10=unix:///var/run/docker.sock@172.17.0.1;26.1=unix:///a/run/docker.sock@10.0.0.1\n") == (
        EngineHost("20.10", "unix:///var/run/docker.sock", "172.17.0.1"),
        EngineHost("26.1", "unix:///a/run/docker.sock", "10.0.0.1"),
    )


@pytest.mark.parametrize("text", ["20.10", "=unix:///s@1", "a=tcp://h:1@1", "a=unix:///s", "a=unix:///s@"])
def test_what_is_no_engine_is_refused_rather_than_left_out(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=unix:///PATH@GATEWAY"):
        parse_engines(text)


@pytest.mark.parametrize("socket", ["/var/run/docker.sock", "/run/docker.sock"])
def test_the_hosts_own_engine_sees_the_files_that_the_host_sees(socket: str) -> None:
    host = EngineHost("x", f"unix://{socket}", "172.17.0.1")
    assert (str(host.root), host.socket_in_engine, host.data_root) == ("/", "", "")


def test_an_engine_in_a_root_of_its_own_sees_other_paths() -> None:
    host = EngineHost("x", "unix:///srv/root/run/docker.sock", "10.0.0.1")
    assert (host.socket_in_engine, host.data_root) == ("/run/docker.sock", "/srv/root/var/lib/docker")


def test_a_missing_engine_fails_and_never_skips(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("pytest_plugins = ['tests.conftest']\n")
    (tmp_path / "test_it.py").write_text("def test_it(engine_host): pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "CAISSON_TEST_ENGINES": f"gone=unix://{tmp_path}/none.sock@127.0.0.1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Engine gone doesn't answer" in done.stdout
    assert "skipped" not in done.stdout
