"""Where the key of Prefect's blocks is kept, and which it is where a database has one already."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from caisson.errors import SettingsInvalid
from deployments.encryption_key import keep_key


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "encryption.key"
    key = keep_key(path)
    assert Fernet(key).decrypt(Fernet(key).encrypt(b"x")) == b"x"
    assert keep_key(path) == key
    assert keep_key(tmp_path / "other.key") != key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_key_that_a_database_has_is_taken_over_and_stays_when_it_is_gone_there(tmp_path: Path) -> None:
    path, old = tmp_path / "encryption.key", Fernet.generate_key().decode()
    assert keep_key(path, in_database=old) == old
    assert keep_key(path, in_database=old) == old
    assert keep_key(path) == old


def test_a_file_with_another_key_than_the_databases_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "encryption.key"
    key, other = keep_key(path), Fernet.generate_key().decode()
    with pytest.raises(SettingsInvalid, match=f"is not the one in {path}") as caught:
        keep_key(path, in_database=other)
    assert key not in str(caught.value)
    assert other not in str(caught.value)
    assert keep_key(path) == key


@pytest.mark.parametrize("text", ["", "short", "{}"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "encryption.key"
    path.write_text(text)
    with pytest.raises(SettingsInvalid, match="holds no encryption key"):
        keep_key(path)
