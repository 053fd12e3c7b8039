"""The file of webhooks as it is now, and the secrets that it names."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from caisson.bindings import secret_variable
from caisson.errors import SettingsInvalid
from caisson.settings import Settings
from caisson.webhooks.rules import Rules, read_rules

# A file of rules is some kilobytes.
_MOST_BYTES = 1 << 20


class RulesFile:
    """``CAISSON_WEBHOOKS_FILE``, read again when it was changed. For any number of threads."""

    def __init__(self, settings: Settings) -> None:
        self._path = Path(settings.webhooks_file) if settings.webhooks_file else None
        self._lock = threading.Lock()
        self._read: tuple[tuple[int, int, int], Rules] | None = None

    def current(self) -> Rules:
        """The rules; none where no file is set. Raises ``SettingsInvalid``: a file that is wrong lets nobody in."""
        if self._path is None:
            return Rules()
        try:
            found = self._path.stat()
            mark = (found.st_mtime_ns, found.st_size, found.st_ino)
            with self._lock:
                if self._read is None or self._read[0] != mark:
                    self._read = None
                    self._read = (mark, read_rules_file(self._path))
                return self._read[1]
        except OSError as error:
            raise _unreadable(self._path, error) from None


def read_rules_file(path: Path) -> Rules:
    """The rules of a file; raises ``SettingsInvalid``."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > _MOST_BYTES:
        raise SettingsInvalid(f"{path}: it is larger than {_MOST_BYTES >> 20} MiB.")
    try:
        return read_rules(content.decode(), str(path))
    except UnicodeDecodeError:
        raise SettingsInvalid(f"{path}: it is not UTF-8, as TOML is.") from None


def secret_names(rules: Rules) -> Iterator[str]:
    """Every secret that the hooks themselves need; those of builds are not among them."""
    for hook in rules.hook:
        yield hook.secret
        if hook.status is not None:
            yield hook.status.token


def webhook_environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables of the hooks' secrets, for the process that answers them; empty where the file can't be read now.

    No secret that is only a build's is among them.
    """
    try:
        rules = RulesFile(settings).current()
    except SettingsInvalid:
        return {}
    variables = map(secret_variable, secret_names(rules))
    return {name: inherited[name] for name in variables if name in inherited}


def _unreadable(path: Path, error: OSError) -> SettingsInvalid:
    return SettingsInvalid(
        f"CAISSON_WEBHOOKS_FILE: {path} can't be read: {error.strerror or error}.",
        hint="`caisson webhooks check FILE` says more.",
    )
