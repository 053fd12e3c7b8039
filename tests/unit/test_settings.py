"""Settings that contradict themselves or the builder's isolation are refused when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from caisson.errors import SettingsInvalid
from caisson.settings import load_settings


@pytest.mark.parametrize("network", ["host", "HOST", "container:abc", "container:"])
def test_the_builders_network_is_never_the_hosts_or_another_containers(network: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"CAISSON_BUILDER_NETWORK.*name a Docker network"):
        load_settings(_env_file=None, builder_network=network)
    assert load_settings(_env_file=None, builder_network="builds").builder_network == "builds"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpus": 8, "max_cpus": 4}, "CAISSON_CPUS: the default of 8 is above its own ceiling of 4"),
        ({"memory": "4g", "max_memory": "2g"}, "CAISSON_MEMORY: the default of 4 GiB is above"),
        ({"pids": 64, "max_pids": 32}, "CAISSON_PIDS"),
        ({"workspace_size": "2g", "max_workspace_size": "1g"}, "CAISSON_WORKSPACE_SIZE"),
        ({"timeout_minutes": 60, "max_timeout_minutes": 30}, "CAISSON_TIMEOUT_MINUTES"),
    ],
)
def test_a_default_above_its_own_ceiling_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message) as caught:
        load_settings(_env_file=None, **changes)
    assert "CAISSON_MAX_" in caught.value.hint


@pytest.mark.parametrize("registry", ["https://registry.example.com", "registry", "me@registry.example.com", "a.b/c"])
def test_what_is_no_registry_is_refused(registry: str) -> None:
    with pytest.raises(SettingsInvalid, match="CAISSON_REGISTRY"):
        load_settings(_env_file=None, registry=registry)


def test_bindings_come_from_the_environment_and_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAISSON_CREDENTIAL_HOSTS", '{"token": ["https://git.example.com"]}')
    (tmp_path / "caisson.toml").write_text('[credential_hosts]\ndeploy-key = ["ssh://git.example.com:2222"]\n')
    assert load_settings().credential_hosts == {
        "token": ("https://git.example.com",),
        "deploy-key": ("ssh://git.example.com:2222",),
    }


@pytest.mark.parametrize("text", ["git.example.com", '{"key": ["*.example.com"]}', '{"key": "git.example.com"}'])
def test_bindings_that_can_not_be_read_name_their_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("CAISSON_CREDENTIAL_HOSTS", text)
    with pytest.raises(SettingsInvalid, match=r"(?i)credential_hosts"):
        load_settings(_env_file=None)


def test_a_file_that_is_no_toml_is_named_as_the_settings_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "caisson.toml").write_text("[[")
    with pytest.raises(SettingsInvalid, match="can't be read"):
        load_settings()
