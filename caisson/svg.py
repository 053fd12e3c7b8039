"""Pictures as Prefect's pages take them. Pure."""

from __future__ import annotations

import base64


def data_uri(svg: str) -> str:
    """An SVG as a ``data:`` URI (RFC 2397)."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
