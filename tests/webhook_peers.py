"""HTTP servers for tests of webhooks: a git host's API for statuses, and a stand-in for Prefect's API in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

SECRET_BLOCKS = "/block_types/slug/secret/block_documents/name/"


@dataclass
class Peer:
    """Both in one server, which remembers what it got.

    ``statuses`` are the HTTP statuses of the next answers to commit statuses, 201 after them; ``runs`` are flow runs by
    their state's type, which tests change; ``blocks`` are Secret blocks; ``is_up`` and how many ``seconds`` an answer
    takes are Prefect's alone.
    """

    port: int = 0
    got: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    is_up: bool = True
    seconds: float = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def told(self) -> list[str]:
        return [body["state"] for path, _, body in self.got if "/statuses/" in path]

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if "/statuses/" in path:
            return (self.statuses.pop(0) if self.statuses else 201), {}
        time.sleep(self.seconds)
        if not self.is_up:
            return 500, {}
        if path.endswith("/create_flow_run"):
            run = self.keys.setdefault(body["idempotency_key"], f"run-{len(self.keys) + 1}")
            self.runs.setdefault(run, "SCHEDULED")
            created = "2026-05-01T12:00:00+00:00"
            return 201, {"id": run, "labels": body["labels"], "tags": body["tags"], "created": created}
        if path.endswith("/flow_runs/filter"):
            # What it is asked for by tags or by key is what was asked for before: nothing.
            wanted = body["flow_runs"].get("id", {"any_": []})["any_"]
            return 200, [
                {"id": run, "state": {"type": state, "name": state.title()}}
                for run, state in self.runs.items()
                if run in wanted
            ]
        if path.startswith(f"/api{SECRET_BLOCKS}"):
            name = path.removeprefix(f"/api{SECRET_BLOCKS}").removesuffix("?include_secrets=true")
            return (200, {"data": {"value": self.blocks[name]}}) if name in self.blocks else (404, {})
        return 200, {"id": "deployment"}


@contextmanager
def peer() -> Iterator[Peer]:
    """Serve on a free port of the loopback while the block runs."""
    served = Peer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            # A client that has closed its connection is no failure of a test.
            with suppress(ConnectionError):
                super().handle()

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Any) -> None:
            served.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            status, answer = served.answer(self.path, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
