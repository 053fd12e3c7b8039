"""An OpenTelemetry collector for tests: on a free port of the loopback, in memory."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """What a collector does with OTLP over HTTP: it decodes, and answers."""

    def __init__(self, status: int = 200, seconds: float = 0) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") is None:
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))
                time.sleep(seconds)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def traces(self) -> list[list[Span]]:
        """What each request brought."""
        return [
            [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
            for request in self.requests
        ]

    @property
    def spans(self) -> dict[str, Span]:
        return {span.name: span for trace in self.traces() for span in trace}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
