"""Files of ours, replaced in one go."""

from __future__ import annotations

import os
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replace the file, mode 0600, and make its directory if need be; raises ``OSError`` with nothing half-done."""
    _replace(path, text, 0o600)


def write_public(path: Path, text: str) -> None:
    """The same for a file that everybody may read, mode 0644."""
    _replace(path, text, 0o644)


def _replace(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            # Whatever the umask is.
            os.fchmod(file.fileno(), mode)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
