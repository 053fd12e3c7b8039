"""What the guard tells of the build's own image: the engine's answer, reduced to what is the image's own. Pure."""

from __future__ import annotations

import json
from typing import Any

from caisson.guard.policy import GuardPolicy
from caisson.guard.query import load_strict

_IMAGE_KEYS = ("Id", "Created", "Author", "Architecture", "Os", "Size", "Config", "RootFS")
_HISTORY_KEYS = ("Id", "Created", "CreatedBy", "Size", "Comment")


def image_document(body: bytes, policy: GuardPolicy) -> bytes:
    """The image without the other names of its layers and without paths of the host; raises ``ValueError``."""
    document = _load(body)
    if not isinstance(document, dict):
        raise ValueError("the engine's answer is not an image")  # noqa: TRY004 - a wrong value, not a wrong call
    kept: dict[str, Any] = {key: document[key] for key in _IMAGE_KEYS if key in document}
    return json.dumps({**kept, "RepoTags": [str(policy.image)], "RepoDigests": []}).encode()


def image_history(body: bytes, policy: GuardPolicy) -> bytes:
    """Its layers likewise: their IDs are the engine's names of other images; raises ``ValueError``."""
    rows = _load(body)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("the engine's answer is not a history")
    own = str(policy.image)
    return json.dumps(
        [
            {
                **{key: row[key] for key in _HISTORY_KEYS if key in row},
                "Id": row.get("Id", "<missing>") if index == 0 else "<missing>",
                "Tags": [own] if index == 0 else None,
            }
            for index, row in enumerate(rows)
        ]
    ).encode()


def _load(body: bytes) -> Any:
    try:
        return load_strict(body)
    except RecursionError:
        raise ValueError("the engine's answer is nested too deep") from None
