"""Every setting: its variable, its value, its default and where the value came from. Secrets are never shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource, TomlConfigSettingsSource

from caisson.settings import Bytes, Settings
from caisson.sizes import format_size

_BYTES_PARSER = get_args(Bytes)[1]
_HIDDEN = "(hidden)"


@dataclass(frozen=True)
class SettingRow:
    """One line of the table; values as they would be written to set them."""

    variable: str
    value: str
    default: str
    source: str
    description: str


def settings_rows(settings: Settings, sources: Mapping[str, Mapping[str, Any]]) -> list[SettingRow]:
    """A row for each setting; ``sources`` are names and the values that each has, the strongest first."""
    return [
        SettingRow(
            variable=f"CAISSON_{name.upper()}",
            value=_shown(field, getattr(settings, name)),
            default=_shown(field, field.get_default(call_default_factory=True)),
            source=next((source for source, values in sources.items() if name in values), "default"),
            description=field.description or "",
        )
        for name, field in type(settings).model_fields.items()
    ]


def read_sources() -> dict[str, dict[str, Any]]:
    """What each source of the settings has to say, the strongest first."""
    return {
        "environment": EnvSettingsSource(Settings)(),
        ".env": DotEnvSettingsSource(Settings)(),
        "caisson.toml": TomlConfigSettingsSource(Settings)(),
    }


def _shown(field: FieldInfo, value: Any) -> str:
    if not field.repr:
        return _HIDDEN if value else ""
    if _BYTES_PARSER in field.metadata:
        return format_size(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        return value.model_dump_json(exclude_defaults=True)
    if isinstance(value, tuple):
        return "[" + ",".join(f'"{item}"' for item in value) + "]"
    if isinstance(value, dict):
        return json.dumps(value) if value else ""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
