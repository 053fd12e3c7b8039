"""The file of webhooks: whose deliveries are taken, and which of their events build which image. Pure.

A repository is built by the URL that the file has; what a payload says of itself only has to match. The file holds
names of secrets and never a value.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from caisson.errors import SettingsInvalid
from caisson.git import RepositoryURL, parse_repository_url
from caisson.queueing import Priority
from caisson.request import BuildRequest
from caisson.spec import SECRET_NAME
from caisson.webhooks.event import EventKind, Provider
from caisson.webhooks.patterns import check_pattern

_PROTOCOLS = ("https", "http", "ssh", "git")
_HOOK_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_FULL_NAME = re.compile(r"[^/\s]+(?:/[^/\s]+)+")
_FROM_THE_EVENT = ("repository_url", "ref", "commit")
_SECRET_KEYS = frozenset({"secret", "token"})
_RUN = "{run}"


def _secret_name(value: str) -> str:
    if not SECRET_NAME.fullmatch(value):
        raise ValueError("is not the name of a secret (letters, digits, '-', '_', '.', 64 at most); never its value")
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s@?#/]+(?:/[^\s@?#]*)?", value.replace(_RUN, "RUN")):
        raise ValueError("is not an http:// or https:// address without a password, a query and a fragment")
    return value


def _link(value: str) -> str:
    if _RUN not in value:
        raise ValueError(f"has no {_RUN}, where the run's ID belongs")
    return _http_url(value)


SecretName = Annotated[str, AfterValidator(_secret_name)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Pattern = Annotated[str, AfterValidator(check_pattern)]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=64)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StatusTarget(_Table):
    """Where the state of a build is told: the provider's API for commit statuses."""

    token: SecretName
    api: HttpUrl | None = None
    context: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,59}$")] = "caisson"


class Rule(_Table):
    """Which events build an image, and how; ``build`` are fields of a ``BuildRequest``."""

    on: EventKind
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,59}$")] | None = None
    branches: Patterns = ()
    tags: Patterns = ()
    paths: Patterns = ()
    paths_ignore: Patterns = ()
    forks: bool = False
    skip_ci: bool = True
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})$")] | None = None
    priority: Priority = Priority.NORMAL
    supersede: bool | None = None
    build: dict[str, Any]

    @field_validator("build")
    @classmethod
    def _not_from_the_event(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in _FROM_THE_EVENT:
            if key in value:
                raise ValueError(f"has {key}, which comes from the hook and the event; leave it out")
        return value

    @model_validator(mode="after")
    def _filters_fit(self) -> Self:
        fits = {
            "branches": self.on is not EventKind.TAG,
            "tags": self.on is EventKind.TAG,
            "paths": self.on is EventKind.PUSH,
            "paths_ignore": self.on is EventKind.PUSH,
            "forks": self.on is EventKind.PULL_REQUEST,
        }
        for key, fit in fits.items():
            if getattr(self, key) and not fit:
                raise ValueError(f'{key} says nothing about on = "{self.on}"; leave it out')
        return self

    @property
    def supersedes(self) -> bool:
        """Whether a newer event ends an older build that still waits; a tag's build is never that of another tag."""
        return self.supersede if self.supersede is not None else self.on is not EventKind.TAG


class Hook(_Table):
    """One webhook: its address is ``/webhooks/NAME``."""

    name: Annotated[str, Field(pattern=f"^{_HOOK_NAME.pattern}$")]
    provider: Provider
    secret: SecretName
    repository: str
    full_name: str = ""
    status: StatusTarget | None = None
    rule: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=64)]

    @field_validator("repository")
    @classmethod
    def _is_a_clone_url(cls, value: str) -> str:
        parse_repository_url(value, _PROTOCOLS)
        return value

    @field_validator("full_name")
    @classmethod
    def _is_a_full_name(cls, value: str) -> str:
        if value and not _FULL_NAME.fullmatch(value):
            raise ValueError(f"{value[:80]!r} is not the name of a repository with its owner, such as team/app")
        return value

    @model_validator(mode="after")
    def _has_a_full_name(self) -> Self:
        if not _FULL_NAME.fullmatch(self.expected_name):
            raise ValueError(f"repository {self.repository[:120]!r} does not end in owner and name; set full_name")
        return self

    @property
    def url(self) -> RepositoryURL:
        """The URL that builds clone."""
        return parse_repository_url(self.repository, _PROTOCOLS)

    @property
    def expected_name(self) -> str:
        """The full name that payloads must have."""
        return self.full_name or self.url.path.strip("/").removesuffix(".git")

    def request(self, rule: Rule) -> BuildRequest:
        """What the rule asks for, without an event; raises ``ValidationError``."""
        return BuildRequest.model_validate({**rule.build, "repository_url": self.repository})


class Rules(_Table):
    """All webhooks. ``link`` is the address of a run's page, with ``{run}`` for its ID."""

    link: Annotated[str, AfterValidator(_link)] | None = None
    hook: Annotated[tuple[Hook, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [hook.name for hook in self.hook]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two hooks have the name {twice!r}; each needs a name of its own")
        return self

    def find(self, name: str) -> Hook | None:
        """The hook of that name."""
        return next((hook for hook in self.hook if hook.name == name), None)


def read_rules(text: str, file: str) -> Rules:
    """The rules of a file's text; raises ``SettingsInvalid`` that names file, key, value and what to do."""
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"{file}: it is not TOML: {error}.", hint="Lists of tables are [[hook]].") from None
    try:
        rules = Rules.model_validate(value)
    except ValidationError as error:
        raise _invalid(file, error, value, ()) from None
    for index, hook in enumerate(rules.hook):
        for position, rule in enumerate(hook.rule):
            try:
                hook.request(rule)
            except ValidationError as error:
                raise _invalid(file, error, value, ("hook", index, "rule", position, "build")) from None
    return rules


def _invalid(file: str, error: ValidationError, value: Any, above: tuple[str | int, ...]) -> SettingsInvalid:
    sentences = []
    for item in error.errors(include_url=False)[:10]:
        where = (*above, *item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        sentences.append(f"{_place(value, where)}: {_shown(where, item['input'], message)}{message}")
    return SettingsInvalid(f"{file}: {'; '.join(sentences)}.", hint="docs/webhooks.md has the table of fields.")


def _shown(where: Sequence[str | int], value: Any, message: str) -> str:
    """The value as far as people need to see it; what stands where a secret's name belongs may be the secret."""
    if not isinstance(value, str | int | float | bool) or (where and where[-1] in _SECRET_KEYS):
        return ""
    if "@" in str(value):
        # It may be a URL with a password.
        return ""
    shown = repr(value)[:80]
    return "" if shown in message else f"{shown}: "


def _place(value: Any, where: Sequence[str | int]) -> str:
    """
    >>> _place({"hook": [{"name": "app"}]}, ("hook", 0, "rule", 1, "branches", 0))
    "hook 'app', rule 2, branches 1"
    """
    parts: list[str] = []
    for key in where:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            value = None
        if isinstance(key, int):
            name = value.get("name") if isinstance(value, dict) else None
            known = parts[-1] == "hook" and isinstance(name, str)
            parts[-1] += f" {name[:60]!r}" if known and name else f" {key + 1}"
        else:
            parts.append(str(key)[:60])
    return ", ".join(parts) or "the file"
