"""Where Caisson's own API may listen, what its process is given, and ``caisson tokens`` as people use it."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from caisson.errors import SettingsInvalid
from caisson.settings import Settings, load_settings
from caisson.tokens import make_grant
from deployments.api.logs import Streams
from deployments.api.problems import Problem
from deployments.cli import app
from deployments.gateway import check_gateway, gateway_environment, gateway_url
from deployments.token_store import TokenStore


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(state_dir: Path, **values: Any) -> Settings:
    return load_settings(_env_file=None, state_dir=state_dir, **{"gateway_port": free_port(), **values})


def test_it_listens_on_the_loopback_without_a_token_and_elsewhere_only_with_one(tmp_path: Path) -> None:
    check_gateway(settings(tmp_path))
    public = settings(tmp_path, gateway_host="0.0.0.0")
    with pytest.raises(SettingsInvalid, match=r"0\.0\.0\.0 is reached from other hosts, and there is no token"):
        check_gateway(public)
    tokens = TokenStore.of(public)
    tokens.create("old", make_grant(["read"]), lifetime=timedelta(hours=1), now=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(SettingsInvalid, match="there is no token"):
        check_gateway(public)
    tokens.create("new", make_grant(["read"]), lifetime=None)
    check_gateway(public)


def test_a_port_that_is_taken_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=f"CAISSON_GATEWAY_PORT: 127.0.0.1:{port} is taken"):
            check_gateway(settings(tmp_path, gateway_port=port))


@pytest.mark.parametrize("off", ["", 0, "0"])
def test_it_can_be_off(tmp_path: Path, off: Any) -> None:
    without = settings(tmp_path, gateway_port=off, gateway_host="0.0.0.0")
    check_gateway(without)
    assert gateway_url(without) == ""


def test_its_process_gets_the_settings_and_no_secret_that_it_needs_not(tmp_path: Path) -> None:
    inherited = {
        "PATH": "/bin",
        "CAISSON_SECRET_NPM_TOKEN": "s3cret",
        "CAISSON_REGISTRY_PASSWORD": "s3cret",
        "CAISSON_DATABASE_URL": "s3cret",
        "PREFECT_API_KEY": "s3cret",
    }
    made = gateway_environment(settings(tmp_path, registry_password="s3cret", api_auth="user:needed"), inherited)
    assert "s3cret" not in made.values()
    assert (made["PATH"], made["CAISSON_STATE_DIR"], made["CAISSON_API_AUTH"]) == ("/bin", str(tmp_path), "user:needed")


def test_a_token_may_follow_so_many_logs_and_all_together_so_many(tmp_path: Path) -> None:
    store = TokenStore.of(settings(tmp_path))
    one, other = (store.create(name, make_grant(["read"]), lifetime=None)[1] for name in ("one", "other"))
    streams = Streams(most=3, most_of_a_token=2)
    with streams.counted(one), streams.counted(one):
        with pytest.raises(Problem, match="Too many logs"):
            streams.check(one)
        streams.check(other)
        with streams.counted(other), pytest.raises(Problem, match="Too many logs"):
            streams.check(other)
    streams.check(one)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CAISSON_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["tokens", *arguments])


def test_a_token_is_made_listed_and_revoked(run: Any, tmp_path: Path) -> None:
    made = run("create", "ci", "--scope", "build", "--image", "team/*", "--expires", "2d", "--json")
    assert made.exit_code == 0, made.output
    document = json.loads(made.stdout)
    token = document["token"]
    assert (document["scopes"], document["images"]) == (["build"], ["team/*"])
    assert TokenStore.of(settings(tmp_path)).find(token, datetime.now(UTC)) is not None
    listed = run("list")
    assert "build; images team/*" in listed.output
    assert token not in listed.output + run("list", "--json").output
    assert "is revoked" in run("revoke", "ci").output
    assert run("revoke", "ci").exit_code != 0
    assert "nobody can use" in run("list").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ci"], "Missing option '--scope'"),
        (["ci", "--scope", "root"], "root"),
        (["ci;x", "--scope", "read"], "letters, digits"),
        (["ci", "--scope", "read", "--expires", "soon"], "not a duration"),
        (["ci", "--scope", "admin", "--image", "team/*"], "can't be limited"),
    ],
)
def test_a_token_that_can_not_be_meant_is_not_made(run: Any, tmp_path: Path, arguments: list[str], words: str) -> None:
    refused = run("create", *arguments)
    assert refused.exit_code != 0
    assert words in refused.output + str(refused.exception)
    assert TokenStore.of(settings(tmp_path)).all() == []
