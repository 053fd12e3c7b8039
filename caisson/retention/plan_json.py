"""A plan as JSON and back: versioned, and the same text for the same plan. Pure."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from caisson.retention.prune_plan import PrunePlan

VERSION = 2
"""Of the form. A plan of another version is not applied: plans are made in seconds, so make a new one."""

_ADAPTER = TypeAdapter(PrunePlan)


def plan_to_json(plan: PrunePlan) -> str:
    """The plan as text with keys in order, so that two plans can be compared by ``diff``."""
    return json.dumps({"version": VERSION, **_ADAPTER.dump_python(plan, mode="json")}, indent=1, sort_keys=True) + "\n"


def plan_from_json(text: str | bytes) -> PrunePlan:
    """The plan that was written; raises ``ValueError`` with one sentence for anything else."""
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the plan is not JSON: {error}") from error
    if not isinstance(value, dict) or value.get("version") != VERSION:
        found = value.get("version") if isinstance(value, dict) else None
        raise ValueError(f"version: {str(found)[:20]!r} is not {VERSION}; make a new plan with this Caisson")
    try:
        return _ADAPTER.validate_python({key: part for key, part in value.items() if key != "version"})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}; make a new plan") from error
