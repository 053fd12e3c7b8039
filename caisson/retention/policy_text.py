"""A retention policy as people write it in a file: TOML or JSON, with or without the table ``retention``. Pure."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from pydantic import ValidationError

from caisson.retention.policy import RetentionPolicy

_TABLE = "retention"


def policy_from_text(text: str) -> RetentionPolicy:
    """The policy that was written; raises ``ValueError`` with one sentence for anything else.

    >>> policy_from_text('[otherwise]\\nkeep_last = 5').otherwise.keep_last
    5
    >>> policy_from_text('{"retention": {"keep": ["debian"]}}').keep
    ('debian',)
    """
    value = _read(text)
    if isinstance(value, dict) and _TABLE in value:
        value = value[_TABLE]
    if not value:
        raise ValueError("there is no policy in it; write at least one of its fields")
    try:
        return RetentionPolicy.model_validate(value)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc'])) or 'the policy'}: {item['msg']}" for item in error.errors())
        raise ValueError("; ".join(problems)) from error


def _read(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"it is not JSON: {error}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is neither JSON, which begins with a brace, nor TOML: {error}") from error
