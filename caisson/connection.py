"""How a host that joined others reaches their Prefect API: one file in its state directory, for its owner alone.

It holds the API's password. That goes to the API it was given for and to no other: settings that name another API have
nothing of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from caisson.errors import SettingsInvalid
from caisson.private_file import write_private

FILE = "connection.json"


@dataclass(frozen=True)
class Connection:
    """The URL of a Prefect API, which ends in ``/api``, and the ``user:password`` that it asks for."""

    api_url: str
    token: str = field(default="", repr=False)


def read_connection(state_dir: Path) -> Connection | None:
    """The host's connection; None where it has none, or none that this user may read.

    Raises ``SettingsInvalid`` for a damaged file: another server than the right one must not be taken instead.
    """
    path = state_dir / FILE
    try:
        value = json.loads(path.read_text())
        return Connection(str(value["api_url"]), str(value["token"]))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, ValueError, TypeError, KeyError):
        raise SettingsInvalid(
            f"{path} can't be read: it is no connection to other hosts.",
            hint="Join them once more with `caisson join`, or remove the file.",
        ) from None


def write_connection(state_dir: Path, connection: Connection) -> None:
    """Keep the host's connection, mode 0600; raises ``OSError``."""
    write_private(state_dir / FILE, json.dumps(asdict(connection)))


def forget_connection(state_dir: Path) -> bool:
    """Forget it; False where there was none."""
    try:
        (state_dir / FILE).unlink()
    except FileNotFoundError:
        return False
    return True
