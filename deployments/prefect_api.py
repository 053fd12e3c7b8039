"""A client of Prefect's REST API on the standard library: it starts in milliseconds, Prefect's own takes 1.3 s."""

from __future__ import annotations

import base64
import http.client
import json
import random
import re
import time
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from caisson.errors import ServiceUnreachable
from caisson.settings import Settings
from deployments.state import find_running

TIMEOUT_SECONDS = 30.0
BUSY_SECONDS = 30.0
RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 1.0
_USERINFO = re.compile(r"://[^/\s'\"]*@")


class PrefectApi:
    """One connection to a Prefect API; a context manager, for one thread.

    Every call raises ``ServiceUnreachable`` when no answer can be had, or when the answer is an error.
    """

    def __init__(self, api_url: str, *, auth: str = "", timeout: float = TIMEOUT_SECONDS) -> None:
        """``api_url`` ends in ``/api``; ``auth`` is the server's ``user:password``, if it asks for one.

        ``timeout`` is how many seconds it may take to answer, and, up to ``BUSY_SECONDS``, be busy.
        """
        parts = urlsplit(api_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServiceUnreachable(
                f"CAISSON_API_URL: {parts.scheme}://{parts.hostname or ''}… is no URL of a Prefect API.",
                hint="It looks like http://127.0.0.1:4200/api.",
            )
        self.api_url = api_url.rstrip("/")
        self._path = parts.path.rstrip("/")
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = connect(parts.hostname, parts.port, timeout=timeout)
        self._busy_seconds = min(timeout, BUSY_SECONDS)
        self._headers = {"Content-Type": "application/json"}
        if auth:
            self._headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"

    @classmethod
    def of(cls, settings: Settings, *, timeout: float = TIMEOUT_SECONDS) -> PrefectApi:
        """The API that the settings name, else the one of the Caisson that runs on this host."""
        if settings.api_url:
            return cls(settings.api_url, auth=settings.api_auth, timeout=timeout)
        running = find_running(settings)
        if running is None:
            raise ServiceUnreachable(
                "No Caisson runs on this host.", hint="Start it with `caisson up`, or set CAISSON_API_URL."
            )
        return cls(running.api_url, auth=settings.api_auth, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """POST; only for what may be repeated: queries, and creation with an idempotency key."""
        return self._call("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH: the fields that ``body`` names become what it says, however often that is sent."""
        return self._call("PATCH", path, body)

    def delete(self, path: str) -> None:
        """DELETE; what is not there is deleted, too."""
        try:
            self._call("DELETE", path, None)
        except ServiceUnreachable as error:
            if error.details.get("status") != http.HTTPStatus.NOT_FOUND:
                raise

    def _call(self, method: str, path: str, body: Any) -> Any:
        payload = None if body is None else json.dumps(body)
        deadline = time.monotonic() + self._busy_seconds
        pause = RETRY_SECONDS
        while True:
            status, answer = self._send(method, path, payload)
            # SQLite says busy even to one client, and is free again at once; many must not keep each other from it.
            if status == http.HTTPStatus.SERVICE_UNAVAILABLE and time.monotonic() < deadline:
                time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
                pause = min(2 * pause, LONGEST_RETRY_SECONDS)
                continue
            if status >= http.HTTPStatus.BAD_REQUEST:
                raise _refused(self.api_url, method, path, status, answer)
            return json.loads(answer) if answer else None

    def _send(self, method: str, path: str, payload: str | None) -> tuple[int, bytes]:
        # A kept connection may have been closed by the server since: once more on a new one.
        for fresh in (False, True):
            try:
                self._connection.request(method, self._path + path, payload, self._headers)
                response = self._connection.getresponse()
                return response.status, response.read()
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                if fresh:
                    raise ServiceUnreachable(
                        f"No Prefect API answers at {self.api_url}: {error or type(error).__name__}.",
                        hint="Start `caisson up`, or set CAISSON_API_URL.",
                    ) from None
        raise AssertionError("unreachable")


def _refused(api_url: str, method: str, path: str, status: int, answer: bytes) -> ServiceUnreachable:
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return ServiceUnreachable(f"{api_url} asks for a password.", hint="Set CAISSON_API_AUTH to user:password.")
    # A refusal repeats what it refuses, such as a URL for the password in it.
    detail = _USERINFO.sub("://***@", answer.decode(errors="replace"))[:500]
    return ServiceUnreachable(
        f"{api_url} answered {status} to {method} {path}: {detail}", details={"status": status, "answer": detail}
    )
