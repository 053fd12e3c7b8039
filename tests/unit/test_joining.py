"""A host's connection to others: what it is given, where that is kept, and where the token goes."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest

from caisson.connection import FILE, Connection, forget_connection, read_connection, write_connection
from caisson.errors import RequestInvalid, SettingsInvalid
from caisson.settings import load_settings
from deployments.joining import api_url_of, join, leave, read_token

TOKEN = "builder:h0rse-battery"
API = "https://caisson.example.com/api"


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CAISSON_API_URL", "CAISSON_API_AUTH", "CAISSON_JOIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CAISSON_STATE_DIR", str(tmp_path / "state"))


@pytest.mark.parametrize(
    "text",
    ["https://h/api", "https://h/api/", " https://h ", "https://h/", "https://h:4200", "http://[::1]:4200/x/api"],
)
def test_the_api_is_taken_as_people_write_it(text: str) -> None:
    assert api_url_of(text).endswith("/api")
    assert "//api" not in api_url_of(text)
    assert api_url_of(api_url_of(text)) == api_url_of(text)


@pytest.mark.parametrize("text", ["", "caisson.example.com", "ftp://h", "https://", "https://h/?x=1", "https://h/#x"])
def test_what_is_no_api_is_refused_by_name(text: str) -> None:
    with pytest.raises(RequestInvalid, match=r"^--api: "):
        api_url_of(text)


def test_a_password_in_the_url_is_refused_and_not_told() -> None:
    with pytest.raises(RequestInvalid, match="it holds a password") as refusal:
        api_url_of("https://builder:s3cret@h/api")
    assert "s3cret" not in str(refusal.value)


def test_a_token_comes_from_a_file_standard_input_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(str(file)) == TOKEN
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TOKEN}\n"))
    assert read_token("-") == TOKEN
    assert read_token("") == ""
    monkeypatch.setenv("CAISSON_JOIN_TOKEN", TOKEN)
    assert read_token("") == TOKEN


@pytest.mark.parametrize("token", ["h0rse-battery", "builder:h0rse battery"])
def test_a_wrong_token_is_refused_and_not_told(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAISSON_JOIN_TOKEN", token)
    with pytest.raises(RequestInvalid, match="user:password") as refusal:
        read_token("")
    assert token not in str(refusal.value)


def test_a_token_that_is_given_as_an_argument_is_refused_and_not_repeated() -> None:
    with pytest.raises(RequestInvalid, match="name of a file") as refused:
        read_token("builder:s3cr3t-canary")
    assert "s3cr3t-canary" not in f"{refused.value} {refused.value.hint}"


def test_a_token_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid, match=r"--token: .*No such file"):
        read_token(str(tmp_path / "none"))


def test_a_connection_is_the_owners_alone_and_the_settings_use_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert read_connection(state) is None
    write_connection(state, Connection(API, TOKEN))
    assert stat.S_IMODE((state / FILE).stat().st_mode) == 0o600
    assert TOKEN not in repr(read_connection(state))
    settings = load_settings()
    assert (settings.api_url, settings.api_auth) == (API, TOKEN)
    # Children get what was set, by the environment.
    assert {"api_url", "api_auth"} <= settings.model_fields_set
    assert forget_connection(state)
    assert not forget_connection(state)
    assert load_settings().api_url == ""


def test_the_token_goes_to_no_other_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_connection(tmp_path / "state", Connection(API, TOKEN))
    monkeypatch.setenv("CAISSON_API_URL", "https://other.example.com/api")
    assert (load_settings().api_url, load_settings().api_auth) == ("https://other.example.com/api", "")
    monkeypatch.setenv("CAISSON_API_URL", f"{API}/")
    assert load_settings().api_auth == TOKEN


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"api_url": "x"}', "\x00"])
def test_a_damaged_connection_is_no_reason_to_take_another_server(tmp_path: Path, text: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / FILE).write_text(text)
    with pytest.raises(SettingsInvalid, match="caisson join"):
        load_settings()


def test_nothing_is_kept_of_a_join_that_failed(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"No Prefect API answers at http://127\.0\.0\.1:1/api"):
        join(load_settings(), "http://127.0.0.1:1", TOKEN, say=lambda _: None)
    assert read_connection(tmp_path / "state") is None


def test_a_host_that_joined_none_leaves_none() -> None:
    with pytest.raises(SettingsInvalid, match="has joined no others"):
        leave(load_settings(), say=lambda _: None)
