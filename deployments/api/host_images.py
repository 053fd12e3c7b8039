"""The images of the host that the API runs on, as a prune would judge them now, for all who ask."""

from __future__ import annotations

import threading
from contextlib import suppress

from caisson.errors import CaissonError
from caisson.image_rows import ImageRow
from caisson.settings import Settings
from deployments.api.read_cache import ReadCache

_FRESH_SECONDS = 10.0
# Whoever starts Caisson wants a build first.
_FIRST_LOOK_SECONDS = 10.0


class HostImages:
    """Looks at the engine while somebody asks, and once by itself: the first look takes seconds, since it brings the
    engine's client with it and the ledger gets to know each image."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rows: ReadCache[list[ImageRow]] = ReadCache(lambda _: _FRESH_SECONDS, most=1)
        self._first_look = threading.Timer(_FIRST_LOOK_SECONDS, self._look_first)
        self._first_look.daemon = True

    def start(self) -> None:
        """Look once, a while from now, beside all else."""
        self._first_look.start()

    def rows(self) -> list[ImageRow]:
        """All images, up to 20 seconds old; raises ``CaissonError``."""
        return self._rows.get("all", self._look)

    def close(self) -> None:
        self._first_look.cancel()
        self._rows.close()

    def _look_first(self) -> None:
        # Who asks is told why.
        with suppress(CaissonError):
            self.rows()

    def _look(self) -> list[ImageRow]:
        from deployments.cli_images import look

        return look(self._settings, self._settings.retention).rows
