"""A build's log as the events of Caisson's own API, read as a browser's EventSource does."""

from __future__ import annotations

from collections.abc import Callable

import httpx

SECONDS = 120.0
Events = list[dict[str, str]]


def events(client: httpx.Client, build: str, last: str = "", *, until: Callable[[Events], bool]) -> Events:
    """The events of a log, as a browser's EventSource reads them, until the stream ends or the reader has enough."""
    seen: Events = []
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    with client.stream("GET", f"/api/builds/{build}/log", headers=headers, timeout=SECONDS) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        event = {"data": "", "event": "", "id": ""}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = f"{event['data']}\n{value}" if name == "data" and event["data"] else value
                continue
            if event["event"]:
                seen.append(event)
            event = {"data": "", "event": "", "id": ""}
            if until(seen):
                break
    return seen


def never(_: Events) -> bool:
    return False


def lines(seen: Events) -> str:
    return "".join(f"{event['data']}\n" for event in seen if event["event"] == "log")
