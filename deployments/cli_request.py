"""The command line's options as a build request. Pure but for ``--build-arg K``, which takes a variable's value."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from caisson.errors import RequestInvalid

_TIME = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,4})?) *(s|m|min|h)?")
_IN_MINUTES = {"s": 1 / 60, "m": 1.0, "min": 1.0, "h": 60.0}
_DERIVED_TAGS = ("sha", "sha_short", "branch", "pull_request", "semver")

Options = Mapping[str, Any]


def request_data(options: Options) -> dict[str, Any]:
    """The request as plain data, from the options as they were typed; raises ``RequestInvalid`` field by field."""
    # 0 means "the host's default" in a request, so that a 0 that somebody typed has to be caught here.
    problems = [
        (f"limits.{name}", f"{options[name]:g} is not above 0")
        for name in ("cpus", "pids")
        if options[name] is not None and options[name] <= 0
    ]
    limits: dict[str, Any] = {
        "cpus": options["cpus"] or 0,
        "memory": options["memory"],
        "pids": options["pids"] or 0,
        "workspace": options["workspace"],
        "timeout_minutes": _minutes(options["timeout"], problems),
    }
    build_args = _pairs("build_args", options["build_arg"] or [], problems, environment=os.environ)
    labels = _pairs("labels", options["label"] or [], problems, environment=None)
    if problems:
        raise RequestInvalid.from_fields(problems)
    return {
        "repository_url": options["url"],
        "ref": options["ref"],
        "commit": options["commit"],
        "image": options["image"],
        "tags": _tags(options),
        "push": options["push"],
        "context": options["context"],
        "dockerfile": options["dockerfile"],
        "target": options["target"],
        "build_args": build_args,
        "secrets": list(options["secret"] or []),
        "git_credentials": options["git_credentials"],
        "submodules": options["submodules"],
        "lfs": options["lfs"],
        "no_cache": options["no_cache"],
        "labels": labels,
        "limits": limits,
        "builder": options["builder"],
    }


def _tags(options: Options) -> dict[str, Any]:
    rules: dict[str, Any] = {"raw": list(options["tag"] or [])}
    if options["only_tags"]:
        rules |= {**dict.fromkeys(_DERIVED_TAGS, False), "default_branch": "none"}
    return rules


def _minutes(text: str, problems: list[tuple[str, str]]) -> float:
    if not text:
        return 0
    match = _TIME.fullmatch(text.strip().lower())
    minutes = float(match[1]) * _IN_MINUTES[match[2] or "m"] if match else 0
    if minutes <= 0:
        problems.append(("limits.timeout_minutes", f"{text[:40]!r} is not a time such as 90s or 30m"))
    return minutes


def _pairs(
    field: str, items: list[str], problems: list[tuple[str, str]], *, environment: Mapping[str, str] | None
) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if separator:
            pairs[key] = value
        elif environment is None:
            problems.append((field, f"{key[:80]!r} has no value; write {key[:80]}=VALUE"))
        elif key in environment:
            pairs[key] = environment[key]
        else:
            problems.append((field, f"{key[:80]} has no value, and there is no such variable in the environment"))
    return pairs
