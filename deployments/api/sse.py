"""Server-sent events as the HTML standard has them (9.2.6, "Interpreting an event stream"). Pure."""

from __future__ import annotations

import re

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE = b": still here\n\n"
_LINE_END = re.compile(r"\r\n|\r|\n")


def frame(event: str, data: str, *, id: str = "") -> bytes:
    """One event. Any line end within ``data`` reaches the reader as a newline: the format knows no other.

    >>> frame("log", "one\\r\\ntwo", id="f:8")
    b'id: f:8\\nevent: log\\ndata: one\\ndata: two\\n\\n'
    """
    lines = [f"data: {line}" for line in _LINE_END.split(data)]
    head = [f"id: {id}"] if id else []
    return "\n".join([*head, f"event: {event}", *lines, "", ""]).encode(errors="replace")


def reconnect_after(milliseconds: int) -> bytes:
    """Tells the client how long to wait before it connects again."""
    return f"retry: {milliseconds}\n\n".encode()


def prefers_events(accept: str) -> bool:
    """Whether an Accept header asks for events rather than for text; an EventSource always does.

    >>> prefers_events("text/event-stream"), prefers_events("*/*"), prefers_events("text/plain, text/event-stream;q=.5")
    (True, False, False)
    """
    return _quality(accept, MEDIA_TYPE) > _quality(accept, "text/plain")


def is_acceptable(accept: str) -> bool:
    """Whether either form will do.

    >>> is_acceptable(""), is_acceptable("text/*"), is_acceptable("image/png"), is_acceptable("text/plain;q=0")
    (True, True, False, False)
    """
    return not accept or _quality(accept, MEDIA_TYPE) > 0 or _quality(accept, "text/plain") > 0


def _quality(accept: str, media_type: str) -> float:
    """The weight that an Accept header gives to a type (RFC 9110, 12.5.1): that of its most specific range."""
    found: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        found[name] = next((_number(each[2:]) for each in parameters if each.startswith("q=")), 1.0)
    family = media_type.partition("/")[0]
    return next((found[name] for name in (media_type, f"{family}/*", "*/*") if name in found), 0.0)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
