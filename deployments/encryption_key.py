"""The key of Prefect's blocks: in a file, never in the database that it encrypts, so that a copy of one is no leak."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from caisson.errors import SettingsInvalid

KEY_BYTES = 32


def keep_key(path: Path, *, in_database: str = "") -> str:
    """The key in the file, which is made where it is missing: the database's own key, else a new one.

    ``in_database`` is what Prefect has put into the database by itself; blocks there can be read with it alone, so
    ``SettingsInvalid`` is raised where the file has another, and where the file has none at all.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _checked(path, in_database)
    key = in_database or base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
        file.flush()
        # Blocks that are saved with it would be lost with it.
        os.fsync(file.fileno())
    return key


def _checked(path: Path, in_database: str) -> str:
    key = path.read_text().strip()
    if not _is_key(key):
        raise SettingsInvalid(
            f"{path} holds no encryption key.", hint="Put the file of your backup there, or remove it for a new key."
        )
    if in_database not in ("", key):
        raise SettingsInvalid(
            f"The database has an encryption key of its own, which is not the one in {path}.",
            hint="Move that file away: the database's key is then kept in its place.",
        )
    return key


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, altchars=b"-_", validate=True)) == KEY_BYTES
    except ValueError:
        return False
