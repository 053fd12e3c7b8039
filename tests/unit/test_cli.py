"""The program as a whole: help that helps, failures in one sentence, one exit code each, one document with --json."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from caisson import errors
from caisson.errors import CaissonError, RequestInvalid, ServiceUnreachable
from caisson.settings import Settings
from deployments import cli_runs, launcher
from deployments.cli import app

COMMANDS = (
    "build",
    "builds",
    "logs",
    "up",
    "down",
    "doctor",
    "audit",
    "prune",
    "images",
    "why",
    "server",
    "join",
    "leave",
    "drain",
    "undrain",
    "hosts",
    "guard",
    "builder-image",
    "version",
)
URL = "https://example.com/app.git"

runner = CliRunner()


@pytest.fixture(autouse=True)
def _a_host_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAISSON_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("CAISSON_DOCKER_HOST", f"unix://{tmp_path}/none.sock")


def test_help_lists_every_command_and_shows_examples() -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(f"\n  {command} " in result.stdout for command in COMMANDS)
    assert "Examples:\n  caisson doctor" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Usage: root {command}" in result.stdout or f"Usage: caisson {command}" in result.stdout


def commands_below(names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group of the program, as its words."""
    yield names
    group = get_command(app)
    for name in names:
        group = group.commands[name]  # type: ignore[attr-defined]
    for name in getattr(group, "commands", ()):
        yield from commands_below((*names, name))


@pytest.mark.parametrize("command", list(commands_below()), ids=" ".join)
def test_help_is_whole_on_a_narrow_terminal_and_names_values_as_people_do(command: tuple[str, ...]) -> None:
    text = runner.invoke(app, [*command, "--help"], terminal_width=80).stdout
    usage, _, rest = text.partition("\n\n")
    assert not re.search(r"[{}]|\[\[", usage)
    assert not re.search(r"^  --?\S+.* <(?:str|int|path|float|list)", rest, re.MULTILINE), rest
    # A summary that is cut says less than a shorter one.
    assert not re.search(r"\.\.\.$", rest, re.MULTILINE), rest


def test_options_of_build_are_grouped() -> None:
    text = runner.invoke(app, ["build", "-h"]).stdout
    groups = ["What is built:", "Where it comes from:", "How it is named:", "Limits:", "How it runs:"]
    assert all(f"\n{group}\n" in text for group in groups)
    assert text.index("Limits:") < text.index("--memory") < text.index("How it runs:")


def test_a_wrong_option_or_command_is_told_with_exit_code_2() -> None:
    for arguments in (["build"], ["build", URL], ["bild"], ["build", URL, "-i", "a", "--bogus"]):
        result = runner.invoke(app, arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Traceback" not in result.stderr
    assert "Did you mean 'build'" in runner.invoke(app, ["bild"]).stderr


def test_a_wrong_request_is_told_field_by_field_before_anything_is_done() -> None:
    result = runner.invoke(app, ["build", "x://y", "--image", "Team/App", "--ref=--upload-pack=z", "--memory", "1"])
    assert (result.exit_code, result.stdout) == (RequestInvalid.exit_code, "")
    assert result.stderr.startswith("caisson: The build request is invalid:\n")
    fields = [line.strip().partition(":")[0] for line in result.stderr.splitlines()[1:]]
    assert fields[:3] == ["repository_url", "ref", "image"]
    assert "limits.memory" in fields


def test_json_is_one_document_with_the_failure_in_it() -> None:
    result = runner.invoke(app, ["build", URL, "--image", "Team/App", "--json"])
    failure = json.loads(result.stdout)["failure"]
    assert result.exit_code == failure["exit_code"] == RequestInvalid.exit_code
    assert (failure["kind"], failure["details"]["fields"][0]["field"]) == ("request-invalid", "image")
    assert "Team/App" in result.stderr


@pytest.mark.parametrize("option", [["--detach"], ["--host", "other"]])
def test_what_needs_the_api_does_not_build_in_process(option: list[str]) -> None:
    result = runner.invoke(app, ["build", URL, "--image", "a", "--local", *option])
    assert result.exit_code == 2
    assert f"{option[0]} needs the API" in result.stderr


@pytest.mark.parametrize("option", [["--detach"], ["--remote"], ["--host", "other"]])
def test_the_api_where_there_is_none_is_a_failure_with_a_way_out(option: list[str]) -> None:
    result = runner.invoke(app, ["build", URL, "--image", "a", *option])
    assert result.exit_code == ServiceUnreachable.exit_code
    assert "caisson up" in result.stderr


def test_wrong_settings_are_named_by_their_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAISSON_MEMORY", "lots")
    result = runner.invoke(app, ["builds"])
    assert result.exit_code == errors.SettingsInvalid.exit_code
    assert "CAISSON_MEMORY" in result.stderr
    doctor = runner.invoke(app, ["doctor", "--json"])
    assert doctor.exit_code == 1
    document = json.loads(doctor.stdout)
    assert (document["ok"], document["items"][0]["name"]) == (False, "settings")
    assert "CAISSON_MEMORY" in document["items"][0]["message"]


def every_failure() -> list[type[CaissonError]]:
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, CaissonError) and kind is not CaissonError
    ]


@pytest.mark.parametrize("kind", every_failure(), ids=lambda kind: kind.kind)
def test_each_failure_has_its_exit_code_and_one_sentence(
    kind: type[CaissonError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("It went wrong \x1b[31mhere.", hint="Mend it.")

    monkeypatch.setattr(cli_runs, "list_builds", fail)
    result = runner.invoke(app, ["builds"])
    assert (result.exit_code, result.stdout) == (kind.exit_code, "")
    assert result.stderr == "caisson: It went wrong here.\n  Mend it.\n"


def test_a_defect_is_one_sentence_and_names_the_log_that_has_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(cli_runs, "list_builds", fail)
    log = tmp_path / "state" / "logs" / "cli.log"
    result = runner.invoke(app, ["builds", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["failure"]["kind"] == "error"
    assert "ZeroDivisionError: a defect" in result.stderr
    assert str(log) in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    assert "Traceback" in runner.invoke(app, ["--debug", "builds"]).stderr


def test_up_and_down_end_with_the_launchers_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def up(settings: Settings, *, say: Callable[[str], None]) -> int:
        say(f"up on {settings.host_name}")
        return 7

    monkeypatch.setattr(launcher, "up", up)
    monkeypatch.setenv("CAISSON_HOST_NAME", "b1")
    result = runner.invoke(app, ["up"])
    assert (result.exit_code, result.stdout) == (7, "up on b1\n")
    result = runner.invoke(app, ["down"])
    assert (result.exit_code, result.stdout) == (0, "No Caisson runs on this host.\n")


def test_help_and_version_load_nothing_that_takes_time() -> None:
    heavy = ("prefect", "pydantic", "rich", "docker", "httpx", "caisson.settings")
    for arguments in (["--help"], ["version"]):
        code = (
            "import sys\n"
            "from deployments.cli import main\n"
            f"sys.argv = ['caisson', *{arguments!r}]\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            f"print('LOADED', [name for name in {heavy!r} if name in sys.modules])\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "LOADED []", arguments


def test_version_tells_each_part_and_a_missing_engine_is_no_failure() -> None:
    result = runner.invoke(app, ["version", "--json"])
    versions = json.loads(result.stdout)
    assert result.exit_code == 0
    assert versions["prefect"].startswith("3.")
    assert versions["caisson"]
    assert versions["engine"] == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--label", "novalue"], "'novalue' is not KEY=VALUE"),
        (["--label", "=x"], "a label is empty"),
        (["--for", "soon"], "'soon' is not a duration"),
        (["--container", "abc"], "'abc' is not the whole ID"),
        (["--image", "no/tag"], "has to have a tag"),
    ],
)
def test_a_guard_says_what_is_wrong_before_it_asks_the_engine(options: list[str], reason: str) -> None:
    result = runner.invoke(app, ["guard", "--socket", "g.sock", "--image", "a/b:1", *options])
    assert result.exit_code == RequestInvalid.exit_code
    assert reason in result.stderr
