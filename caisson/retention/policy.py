"""``RetentionPolicy``: what is kept and for how long, as data. It is also the form in the Prefect UI.

Fields that are optional are ``""`` there, since Prefect's form shows ``Optional`` as a toggle; durations are written as
``30d``, sizes as ``20g``. Everything is validated where it is built.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from caisson.durations import format_duration, parse_duration
from caisson.retention.patterns import check_reference_pattern, check_repository_pattern, check_tag_pattern
from caisson.sizes import parse_size


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _maybe_duration(value: Any) -> Any:
    return None if value == "" else _duration(value)


def _not_negative(value: timedelta | None) -> timedelta | None:
    if value is not None and value < timedelta():
        raise ValueError(f"{value} is negative; give 0s or more")
    return value


def _maybe_size(value: Any) -> Any:
    if isinstance(value, str):
        return parse_size(value) if value else None
    return value


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _written(value: timedelta | None) -> str:
    return "" if value is None else format_duration(value)


def _written_size(value: int | None) -> str:
    """In the largest unit that holds it whole, as forms show it."""
    for unit, factor in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return "" if value is None else str(value)


_TEXT = WithJsonSchema({"type": "string", "maxLength": 32})
Duration = Annotated[
    timedelta, BeforeValidator(_duration), AfterValidator(_not_negative), PlainSerializer(_written), _TEXT
]
MaybeDuration = Annotated[
    timedelta | None, BeforeValidator(_maybe_duration), AfterValidator(_not_negative), PlainSerializer(_written), _TEXT
]
Size = Annotated[int, Field(ge=0), BeforeValidator(_size), PlainSerializer(_written_size), _TEXT]
MaybeSize = Annotated[int | None, Field(ge=0), BeforeValidator(_maybe_size), PlainSerializer(_written_size), _TEXT]
RepositoryPattern = Annotated[str, AfterValidator(check_repository_pattern)]
TagPattern = Annotated[str, AfterValidator(check_tag_pattern)]
ReferencePattern = Annotated[str, AfterValidator(check_reference_pattern)]


class Scope(StrEnum):
    """Whose images may go."""

    OWN = "own"
    HOST = "host"


class Retention(BaseModel):
    """What is kept of one repository."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Retention")

    keep_last: int = Field(
        3, title="Keep last", description="So many newest images of the repository are never removed", ge=0, le=100_000
    )
    max_age: MaybeDuration = Field(
        timedelta(days=30),
        title="Goes after",
        description="What is not among them goes when it was not used for so long; empty: only when the disk fills up",
        json_schema_extra={"default": "30d"},
        validate_default=True,
    )
    min_age: Duration = Field(
        timedelta(days=1),
        title="Stays at least",
        description="What was used within this time is never removed, however full the disk is",
        json_schema_extra={"default": "1d"},
    )
    keep_tags: tuple[TagPattern, ...] = Field(
        (), title="Keep tags", description="Images with such a tag are never removed, such as latest or v*"
    )


class RepositoryRule(Retention):
    """The same for the repositories that a pattern matches."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Repository rule")

    repositories: RepositoryPattern = Field(
        title="Repositories", description="Pattern such as team/app, team/* or registry.example.com:5000/**"
    )


class CachePolicy(BaseModel):
    """BuildKit's cache; the names and their meaning are those of BuildKit's own GC policy."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Build cache")

    reserved_space: Size = Field(
        2 << 30, title="Reserved", description="So much cache is never removed", json_schema_extra={"default": "2g"}
    )
    max_used_space: MaybeSize = Field(
        20 << 30,
        title="At most",
        description="Cache beyond this is removed; empty: no ceiling",
        json_schema_extra={"default": "20g"},
    )
    min_free_space: MaybeSize = Field(
        None,
        title="Free on the disk",
        description="Cache is removed until so much is free; empty: not for that",
        json_schema_extra={"default": ""},
    )

    @model_validator(mode="after")
    def _ceiling_over_floor(self) -> CachePolicy:
        if self.max_used_space is not None and self.max_used_space < self.reserved_space:
            raise ValueError(
                f"max_used_space: {self.max_used_space} bytes is less than reserved_space, {self.reserved_space}; "
                "raise it, or lower reserved_space"
            )
        return self


class RetentionPolicy(BaseModel):
    """What a prune may remove of one host, and what it keeps.

    The first of ``rules`` whose pattern matches a repository holds for it, ``otherwise`` for all other repositories.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, title="Retention policy")

    scope: Scope = Field(
        Scope.OWN, title="Scope", description="own: images that Caisson built; host: every image on the host"
    )
    rules: tuple[RepositoryRule, ...] = Field((), title="Rules", description="By repository; the first that matches")
    otherwise: Retention = Field(Retention(), title="Otherwise", description="For all other repositories")
    keep: tuple[ReferencePattern, ...] = Field(
        (), title="Keep", description="Images that are never removed, such as debian or team/app:1.*"
    )
    keep_deployed: int = Field(
        2, title="Keep deployed", description="So many deployments before the current one stay", ge=0, le=1000
    )
    allow_unrecoverable: bool = Field(
        False,
        title="Also what no registry has",
        description="Remove images with a tag that were neither pushed nor pulled, too",
    )
    dangling_age: Duration = Field(
        timedelta(days=2),
        title="Untagged images",
        description="Go when they were not used for so long",
        json_schema_extra={"default": "2d"},
    )
    leftovers_age: Duration = Field(
        timedelta(days=1),
        title="Leftovers",
        description="Half-made images of failed builds go after so long",
        json_schema_extra={"default": "1d"},
    )
    exited_containers_age: MaybeDuration = Field(
        None,
        title="Exited containers",
        description="Go so long after their end, where Caisson's own or the scope is host; empty: never",
        json_schema_extra={"default": ""},
    )
    anonymous_volumes_age: MaybeDuration = Field(
        None,
        title="Anonymous volumes",
        description="Go when no container has had them for so long, where the scope is host; empty: never",
        json_schema_extra={"default": ""},
    )
    build_cache: CachePolicy = Field(CachePolicy(), title="Build cache")
