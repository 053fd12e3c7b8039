"""How Caisson's processes log: as text, or as one JSON object a line (``CAISSON_LOG_FORMAT``).

Prefect is told by its own variables to use this formatter in the server and in the processes of runs.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO
from uuid import UUID

from caisson.settings import Settings

LOG_BYTES = 16 << 20
TEXT = "%(asctime)sZ %(levelname)s %(name)s: %(message)s"
_PREFECTS_FORMATTER = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json",
    "PREFECT_LOGGING_HANDLERS_DEBUG_FORMATTER": "json",
    "PREFECT_LOGGING_FORMATTERS_JSON_CLASS": f"{__name__}.JsonFormatter",
    # A line is no line any more where a program colours it.
    "PREFECT_LOGGING_COLORS": "false",
}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (RFC 3339, UTC), level, logger, message and host; and where they are known
    flow_run_id, build_id and exception (the traceback).
    """

    def __init__(self, *_: object, host: str = "") -> None:
        """``host`` is taken from the environment where Prefect makes this, which has arguments of its own."""
        super().__init__()
        self._host = host or os.environ.get("CAISSON_HOST_NAME") or os.uname().nodename

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "host": self._host,
        }
        if flow_run_id := _flow_run_id(record):
            line["flow_run_id"] = flow_run_id
        if build_id := getattr(record, "build_id", ""):
            line["build_id"] = str(build_id)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _flow_run_id(record: logging.LogRecord) -> str:
    """What Prefect puts on the records of a run; in messages of Caisson's own it is the argument that is a UUID."""
    if found := getattr(record, "flow_run_id", None):
        return str(found)
    arguments = record.args if isinstance(record.args, tuple) and record.name.startswith("caisson") else ()
    return next((str(value) for value in arguments if isinstance(value, UUID)), "")


def open_log(path: Path) -> IO[bytes]:
    """A log to append to, for this user alone; the old one is put aside when it has grown large."""
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def configure_logging(settings: Settings) -> None:
    """Log to stderr in the form that the settings name: warnings, and from Caisson itself also what goes on."""
    handler = logging.StreamHandler()
    text = logging.Formatter(TEXT)
    text.converter = time.gmtime
    handler.setFormatter(JsonFormatter(host=settings.host_name) if settings.log_format == "json" else text)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("caisson").setLevel(logging.INFO)


def launchers_voice(settings: Settings) -> Callable[[str], None]:
    """How the launcher tells what it does: to whoever sits before it, or as records of a log."""
    if settings.log_format == "text":
        # A pipe, a log or the journal gets each line when it is said, not when there are many.
        return partial(print, flush=True)
    configure_logging(settings)
    return logging.getLogger("caisson.launcher").info


def prefects_logging(settings: Settings) -> dict[str, str]:
    """The variables by which Prefect's own processes log in that form too; none for text."""
    return dict(_PREFECTS_FORMATTER) if settings.log_format == "json" else {}
