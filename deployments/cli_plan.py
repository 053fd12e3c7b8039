"""What commands that plan a prune share: the policy they go by, and words for what can't be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caisson.errors import CaissonError, SettingsInvalid
from caisson.retention.policy import RetentionPolicy
from caisson.retention.policy_text import policy_from_text
from caisson.settings import Settings


def policy_of(settings: Settings, file: Path | None) -> RetentionPolicy:
    """The policy in the file, where one is given, else the settings'; raises ``SettingsInvalid``."""
    if file is None:
        return settings.retention
    try:
        return policy_from_text(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"--policy: {file} can't be used: {words_of(error)}.") from None


def words_of(error: OSError | ValueError) -> str:
    """What is wrong, to go on with in a sentence."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.rstrip(".")


@contextmanager
def disk_read() -> Iterator[None]:
    """Within it a disk that can't be read is a ``CaissonError``."""
    try:
        yield
    except OSError as error:
        raise CaissonError(f"Docker's disk can't be read ({words_of(error)}).") from error
