"""``BuildRequest`` → ``BuildSpec``: every field checked, defaults and ceilings applied. Pure.

A spec is what the rest may trust: no option-like ref, no path that climbs, no limit above the ceiling.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

from pydantic import ValidationError

from caisson import request as request_schema
from caisson.bindings import git_credential_problem, is_git_credential
from caisson.errors import CaissonError, RequestInvalid
from caisson.git import RepositoryURL, check_commit, check_ref, parse_repository_url
from caisson.git_hosts import host_problem
from caisson.reference import Repository, parse_reference, parse_repository
from caisson.request import Builder, BuildRequest, TagRules
from caisson.settings import Settings
from caisson.sizes import format_size, parse_size
from caisson.tagging import label_problem, rule_problems
from caisson.untrusted import clean, shorten

RESERVED_REGISTRY = "caisson.local"
_T = TypeVar("_T")

SECRET_NAME = re.compile(request_schema.SECRET_NAME.removesuffix("$"))
_NO_CREDENTIALS = re.compile(request_schema.NO_CREDENTIALS)
_ARG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LABEL_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._/-]{0,126}[a-z0-9])?")
_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_VALUE = 32_768
_MAX_ENTRIES = 128
# Bytes of all build arguments and labels. They are one command line (execve(2): 128 KiB an argument, 2 MiB in all), the
# environment of each RUN step, and to the classic builder one URL of 1 MiB, where a byte takes up to eight (\\u003c).
_MAX_TOTAL = 100_000

# A Dockerfile needs about this much memory to do anything at all; Docker's own least is 6 MiB.
_LEAST_MEMORY = 32 << 20
_LEAST_WORKSPACE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a build may use: cores, bytes, processes, bytes of workspace, seconds."""

    cpus: float
    memory: int
    pids: int
    workspace: int
    timeout_seconds: float


@dataclass(frozen=True)
class BuildSpec:
    """A validated request."""

    repository_url: RepositoryURL
    ref: str
    commit: str
    image: Repository
    tags: TagRules
    push: bool
    context: str
    dockerfile: str
    target: str
    build_args: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...]
    git_credentials: str
    submodules: bool
    lfs: bool
    no_cache: bool
    labels: tuple[tuple[str, str], ...]
    limits: Limits
    builder: Builder

    def hash(self, sha: str, builder: Builder, image_labels: Mapping[str, str]) -> str:
        """Digest over everything that decides the image of one commit: 64 hex characters.

        Not in it: where it is tagged and pushed, the limits, and the credentials that the clone used. The time
        of a build is left out by the caller, who leaves it out of ``image_labels``. Of secrets it has the names:
        BuildKit's cache knows no more of them, so that another value alone would give the old layers all the same.
        """
        decides = {
            "repository": self.repository_url.canonical(),
            "sha": sha,
            "context": self.context,
            "dockerfile": self.dockerfile,
            "target": self.target,
            "build_args": self.build_args,
            "secrets": self.secrets,
            "submodules": self.submodules,
            "lfs": self.lfs,
            "builder": builder.value,
            "labels": sorted(image_labels.items()),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def parse_request(data: Mapping[str, Any]) -> BuildRequest:
    """A request from plain data, such as JSON; raises ``RequestInvalid`` field by field, values left out.

    Nothing that looks like a secret is in it: it may be sent and kept, before a host judges the rest.
    """
    try:
        request = BuildRequest.model_validate(dict(data))
    except ValidationError as error:
        problems = [
            (_field(item["loc"]), item["msg"][:1].lower() + item["msg"][1:])
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise RequestInvalid.from_fields(problems[:20]) from None
    refuse_secrets(request)
    return request


def refuse_secrets(request: BuildRequest) -> None:
    """Raise ``RequestInvalid``, which repeats nothing, where a field has what may be a secret."""
    fields = _Fields()
    fields.take("repository_url", lambda: _refuse_credentials(request.repository_url))
    for field, names in (("secrets", request.secrets), ("git_credentials", [request.git_credentials])):
        for name in filter(None, names):
            fields.take(field, partial(_secret_name, name))
    fields.raise_problems()


def _field(where: Sequence[str | int]) -> str:
    # The name of an unknown field is the caller's own.
    return ".".join(shorten(clean(str(part)), 80) for part in where) or "request"


def make_spec(request: BuildRequest, settings: Settings) -> BuildSpec:
    """Validate all fields; raises ``RequestInvalid`` that lists every one that is wrong, not only the first."""
    fields = _Fields()
    url = fields.take("repository_url", lambda: _url(request.repository_url, settings))
    ref = fields.take("ref", lambda: check_ref(request.ref) if request.ref else "")
    commit = fields.take("commit", lambda: check_commit(request.commit, ref or "") if request.commit else "")
    image = fields.take("image", lambda: parse_repository(request.image))
    context = fields.take("context", lambda: _relative_path(request.context))
    dockerfile = fields.take("dockerfile", lambda: _relative_path(request.dockerfile))
    target = fields.take("target", lambda: _stage(request.target))
    build_args = fields.take("build_args", lambda: _entries(request.build_args, _ARG_NAME, "an argument's name"))
    labels = fields.take("labels", lambda: _labels(request.labels))
    secrets = fields.take("secrets", lambda: tuple(_secret_name(name) for name in request.secrets))
    credentials = fields.take(
        "git_credentials", lambda: _secret_name(request.git_credentials) if request.git_credentials else ""
    )
    if url is not None and credentials:
        problem = git_credential_problem(credentials, url, settings.credential_hosts)
        if problem:
            fields.problem("git_credentials", problem)
    for name in secrets or ():
        if is_git_credential(name, settings.credential_hosts):
            # A Dockerfile can send what it can read to anywhere.
            fields.problem(
                "secrets",
                f"{name!r} is a git credential by CAISSON_CREDENTIAL_HOSTS, which no Dockerfile may read; "
                "make another secret for the Dockerfile",
            )
    _check_total(request, fields)
    limits = _limits(request, settings, fields)
    if request.builder is Builder.CLASSIC and request.secrets:
        fields.problem("builder", "the classic builder has no secrets; choose auto or buildkit")
    for field, message in rule_problems(request.tags):
        fields.problem(field, message)
    if image is not None and image.registry == RESERVED_REGISTRY:
        fields.problem("image", f"{RESERVED_REGISTRY} is reserved for the names of images while they are built")
    if image is not None and settings.images and not any(fnmatchcase(str(image), each) for each in settings.images):
        fields.problem("image", f"{str(image)[:120]!r} is not among those that this host builds (CAISSON_IMAGES)")
    if image is not None and image == parse_reference(settings.builder_image).repository:
        # Whoever could tag it would be the next builder, and be given other requests' secrets.
        fields.problem("image", f"{image} is the builder's own image")
    fields.raise_problems()
    assert url is not None
    assert image is not None
    assert limits is not None
    return BuildSpec(
        repository_url=url,
        ref=ref or "",
        commit=commit or "",
        image=image,
        tags=request.tags,
        push=request.push,
        context=context or "",
        dockerfile=dockerfile or "",
        target=target or "",
        build_args=build_args or (),
        secrets=tuple(dict.fromkeys(secrets or ())),
        git_credentials=credentials or "",
        submodules=request.submodules,
        lfs=request.lfs,
        no_cache=request.no_cache,
        labels=labels or (),
        limits=limits,
        builder=request.builder,
    )


class _Fields:
    """Collects problems field by field, so that a caller learns of all of them at once."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []

    def problem(self, field: str, message: str) -> None:
        self.problems.append((field, message.rstrip(".")))

    def take(self, field: str, parse: Callable[[], _T]) -> _T | None:
        try:
            return parse()
        except CaissonError as error:
            self.problem(field, error.message)
        except ValueError as error:
            self.problem(field, str(error))
        return None

    def raise_problems(self) -> None:
        if self.problems:
            raise RequestInvalid.from_fields(self.problems)


def _url(text: str, settings: Settings) -> RepositoryURL:
    _refuse_credentials(text)
    url = parse_repository_url(text, settings.allow_protocols)
    problem = host_problem(url.host, allow_loopback=settings.allow_loopback)
    if problem:
        raise ValueError(problem)
    return url


def _refuse_credentials(url: str) -> None:
    """Raise ``ValueError`` for what may have a secret in it, which the parser could repeat."""
    if "?" in url or "#" in url:
        raise ValueError("has a query or a fragment in it; give the ref in its own field")
    if not _NO_CREDENTIALS.match(url):
        raise ValueError("has credentials in it; name a secret in git_credentials instead")


def _relative_path(text: str) -> str:
    if not text:
        return ""
    if _CONTROL.search(text) or "\\" in text:
        raise ValueError("has a control character or a backslash in it")
    if text.startswith("/"):
        raise ValueError(f"{text[:80]!r} is absolute; give a path below the repository")
    path = PurePosixPath(text)
    if ".." in path.parts:
        raise ValueError(f"{text[:80]!r} climbs with '..'; give a path below the repository")
    if any(part.startswith("-") for part in path.parts[:1]):
        raise ValueError(f"{text[:80]!r} begins with '-', like an option; rename it in the repository")
    if any(part.lower() == ".git" for part in path.parts):
        # Other files than the commit's: they depend on how it was fetched.
        raise ValueError(f"{text[:80]!r} is in git's own directory; give a path of the repository's files")
    return "" if path == PurePosixPath() else str(path)


def _stage(text: str) -> str:
    if text and not _STAGE_NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not a stage name (letters, digits, '_', '-', '.')")
    return text


def _secret_name(text: str) -> str:
    if not SECRET_NAME.fullmatch(text):
        raise ValueError("is not the name of a secret (letters, digits, '-', '_', '.', 64 at most); never its value")
    return text


def _entries(values: Mapping[str, str], name: re.Pattern[str], what: str) -> tuple[tuple[str, str], ...]:
    if len(values) > _MAX_ENTRIES:
        raise ValueError(f"has {len(values)} entries; {_MAX_ENTRIES} at most")
    for key, value in values.items():
        if key.startswith("BUILDKIT_"):
            # BUILDKIT_SYNTAX runs any image as the frontend; BUILDKIT_CACHE_MOUNT_NS opens another repository's cache.
            raise ValueError(f"{key[:80]!r} is BuildKit's own")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{key[:80]!r} has half a surrogate pair in it")
        if not name.fullmatch(key):
            raise ValueError(f"{key[:80]!r} is not {what}")
        if len(value) > _MAX_VALUE:
            raise ValueError(f"{key} has {len(value)} characters; {_MAX_VALUE} at most")
        if "\x00" in value:
            raise ValueError(f"{key} has a NUL character in it")
    return tuple(sorted(values.items()))


def _check_total(request: BuildRequest, fields: _Fields) -> None:
    entries = (request.build_args, request.labels)
    total = sum(len(text.encode(errors="replace")) for pairs in entries for pair in pairs.items() for text in pair)
    if total > _MAX_TOTAL:
        fields.problem(
            "build_args",
            f"with the labels they have {total} bytes; {_MAX_TOTAL} at most, so put files into the repository",
        )


def fit_cpus(spec: BuildSpec, *, asked: float, engine_cpus: int) -> tuple[BuildSpec, str]:
    """The spec with no more cores than the engine has, and what to tell of that; an engine refuses to create the rest.

    ``asked`` is what the request named, 0 for the host's default; ``engine_cpus`` is 0 where it is not known. Raises
    ``RequestInvalid`` when the request itself named too many: it is not to get less than it asked for.
    """
    cpus = spec.limits.cpus
    if not engine_cpus or cpus <= engine_cpus:
        return spec, ""
    has = f"{engine_cpus} CPU{'s' if engine_cpus > 1 else ''}"
    if asked:
        raise RequestInvalid.from_fields(
            [("limits.cpus", f"{cpus:g} is more than the engine has; it has {has}, so ask for {engine_cpus} at most")]
        )
    note = f"The default of {cpus:g} CPUs was lowered to {engine_cpus}: the engine has {has}."
    return replace(spec, limits=replace(spec.limits, cpus=float(engine_cpus))), note


def _labels(values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    problem = next(filter(None, map(label_problem, values.items())), "")
    if problem:
        raise ValueError(problem)
    return _entries(values, _LABEL_NAME, "a label's name (lower case, digits, '.', '-', '_', '/')")


def _limits(request: BuildRequest, settings: Settings, fields: _Fields) -> Limits | None:
    asked = request.limits
    memory = fields.take("limits.memory", lambda: parse_size(asked.memory) if asked.memory else settings.memory)
    workspace = fields.take(
        "limits.workspace", lambda: parse_size(asked.workspace) if asked.workspace else settings.workspace_size
    )
    if memory is None or workspace is None:
        return None
    if not asked.workspace and settings.workspace == "tmpfs":
        # A request for less memory must not fail on a default that it never named.
        workspace = min(workspace, memory // 2)
    limits = Limits(
        cpus=asked.cpus or settings.cpus,
        memory=memory,
        pids=asked.pids or settings.pids,
        workspace=workspace,
        timeout_seconds=60 * (asked.timeout_minutes or settings.timeout_minutes),
    )
    sizes = (
        ("limits.memory", limits.memory, settings.max_memory),
        ("limits.workspace", limits.workspace, settings.max_workspace_size),
    )
    for field, size, largest in sizes:
        if size > largest:
            fields.problem(field, f"{format_size(size)} is above this host's ceiling of {format_size(largest)}")
    numbers = (
        ("limits.cpus", limits.cpus, settings.max_cpus),
        ("limits.pids", limits.pids, settings.max_pids),
        ("limits.timeout_minutes", limits.timeout_seconds / 60, settings.max_timeout_minutes),
    )
    for field, number, most in numbers:
        if number > most:
            fields.problem(field, f"{number:g} is above this host's ceiling of {most:g}")
    if limits.memory < _LEAST_MEMORY:
        fields.problem(
            "limits.memory", f"{format_size(limits.memory)} is too little; {format_size(_LEAST_MEMORY)} at least"
        )
    if limits.pids < 16:
        fields.problem("limits.pids", f"{limits.pids} is too few for git and the docker client; 16 at least")
    if limits.cpus < 0.01:
        fields.problem("limits.cpus", f"{limits.cpus:g} is too little; 0.01 at least")
    if limits.workspace < _LEAST_WORKSPACE:
        fields.problem(
            "limits.workspace",
            f"{format_size(limits.workspace)} is too little; {format_size(_LEAST_WORKSPACE)} at least",
        )
    if settings.workspace == "tmpfs" and limits.workspace >= limits.memory:
        fields.problem(
            "limits.workspace",
            f"{format_size(limits.workspace)} does not fit below the memory limit of {format_size(limits.memory)}, "
            "which a tmpfs workspace counts to",
        )
    return limits
