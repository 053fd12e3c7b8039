"""What a Dockerfile may ask of the engine that builds it: ``check_dockerfile``, before the build. Pure.

It closes what no filter on the Docker socket sees, since the engine does it by itself: it runs the image that
``# syntax=`` names, fetches what ADD names, asks the registries that images name, and reads any image that it has. It
can't see: where a public URL or registry sends the engine on to, what a name means when the engine asks for it (DNS
can answer twice), and the submodules of a repository; those need rules on the host's own network. What base images have
after ONBUILD is for ``check_trigger`` and ``check_steps``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from caisson.addresses import Address
from caisson.guard.dockerfile import Instruction, parse_dockerfile
from caisson.guard.dockerfile_hosts import (
    Fetches,
    Resolver,
    inside_address,
    judge,
    listed,
    registry_spelling,
    split_registry,
    target_of,
)
from caisson.guard.dockerfile_lines import Dialect, decode, find_syntax
from caisson.guard.dockerfile_stages import SCRATCH, AddSource, BuildInputs, ImageUse, ResolvedStage, resolve_stages
from caisson.guard.llb import Steps
from caisson.guard.verdict import Verdict
from caisson.reference import DEFAULT_REGISTRY, Reference, Repository, parse_reference

# The engine looks for local images whose ID begins so, when there is no such repository.
_IMAGE_ID = re.compile(r"(?:sha(?:256|384|512):)?[0-9a-f]+", re.IGNORECASE)
_MOST_SHOWN = 120


@dataclass(frozen=True)
class DockerfilePolicy:
    """What Dockerfiles may ask for. Raises ``ValueError`` for an entry that is no reference.

    - ``dialect``: how the engine reads heredocs: ``Dialect.of_engine(version)``.
    - ``reserved_registry``: where Caisson's own images are; no build reads them.
    - ``foreign_repositories``: hold images that were built for others on this engine. ``own_images`` are tags in them
      that are this build's own; ``shared_repositories`` may be read all the same.
    - ``base_images``: the only images that builds may begin with or copy from, as repositories or with a tag or digest
      (then only with that one); ``None``: any that is not denied by another rule.
    - ``frontends``: images that ``# syntax=`` may name on BuildKit, each with its tag or digest; without any, only the
      engine's own reader. Each has to read files as docker/dockerfile 1.16 and later do.
    - ``follows_syntax``: whether ``# syntax=`` is followed, as on the engine's own socket. On a guarded one the
      engine's own reader is used all the same, unless the build argument ``BUILDKIT_SYNTAX`` names another.
    - ``allowed_hosts``: names, ``.domains``, addresses and networks that ADD may fetch from, even inside.
    - ``registries``: ``host[:port]`` of those that images may be read from, even inside. An engine may ask a registry
      also for an image that it has.
    - ``own_addresses``: those of this host, which are inside though they are public.
    - ``unjudged_hosts``: whether to fetch from names that DNS was not asked for, or has no address for.
    - ``unresolved``: whether something may depend on what only the base image's environment can tell.
    """

    dialect: Dialect
    reserved_registry: str
    foreign_repositories: frozenset[Repository] = frozenset()
    own_images: frozenset[Reference] = frozenset()
    shared_repositories: frozenset[Repository] = frozenset()
    base_images: tuple[str, ...] | None = None
    frontends: tuple[str, ...] = ()
    follows_syntax: bool = False
    allowed_hosts: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    own_addresses: frozenset[Address] = frozenset()
    unjudged_hosts: bool = False
    unresolved: bool = False
    host_network: bool = False
    insecure: bool = False
    devices: bool = False

    def __post_init__(self) -> None:
        for name in ("base_images", "frontends"):
            for entry in getattr(self, name) or ():
                try:
                    parse_reference(entry)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
        for entry in self.registries:
            try:
                Repository(entry, "team/app")
            except ValueError as error:
                raise ValueError(f"registries: {error}") from None
        for entry in self.frontends:
            reference = parse_reference(entry)
            if reference.tag is None and reference.digest is None:
                raise ValueError(f"frontends: {entry} has neither tag nor digest; old versions read files differently")

    def is_foreign(self, reference: Reference) -> bool:
        """Whether it may be an image of others. A digest may be any image's of its repository."""
        if reference.digest is None and reference.or_latest() in self.own_images:
            return False
        return _one_name(reference.repository) in self._foreign_names

    @cached_property
    def _foreign_names(self) -> frozenset[tuple[str, str]]:
        return frozenset(map(_one_name, self.foreign_repositories))


def _one_name(repository: Repository) -> tuple[str, str]:
    # An engine asks for http's port where it takes the registry for insecure.
    return registry_spelling(repository.registry, ("443", "80")), repository.path


@dataclass(frozen=True)
class Finding:
    """One thing that is denied: by which rule, in which line (0: not in the file), why, and what would allow it.

    ``setting`` is the field of ``DockerfilePolicy`` that allows it; empty if none does.
    """

    rule: str
    line: int
    reason: str
    setting: str = ""

    @property
    def verdict(self) -> Verdict:
        return Verdict("deny", self.rule, str(self))

    def __str__(self) -> str:
        where = f"Dockerfile line {self.line}: " if self.line else ""
        return f"{where}{self.reason}{f' (setting: {self.setting})' if self.setting else ''}"


def check_dockerfile(
    source: bytes | str, policy: DockerfilePolicy, inputs: BuildInputs, resolve: Resolver | None = None
) -> tuple[Finding, ...]:
    """All that is denied in a Dockerfile, in the order of its lines; nothing if the build may begin.

    ``resolve`` gives the addresses of a name; without it, DNS is not asked. Raises ``DockerfileError`` (a ``Denied``)
    for a file that builders would refuse or disagree on.

    >>> policy = DockerfilePolicy(Dialect.HEREDOCS, "caisson.local")
    >>> text = "FROM alpine\\nADD http://169.254.169.254/latest/ /x\\n"
    >>> [(finding.rule, finding.line) for finding in check_dockerfile(text, policy, BuildInputs("buildkit"))]
    [('add-private-host', 2)]
    """
    text, dialect = decode(source), policy.dialect
    frontends = frontends_of(text, inputs)
    findings = list(_frontend_findings(frontends, policy))
    if not findings and any(policy.follows_syntax or not frontend.line for frontend in frontends):
        dialect = Dialect.SPACED_HEREDOCS
    file = parse_dockerfile(text, dialect)
    fetches = Fetches.HTTP if inputs.builder == "classic" else _FETCHES[dialect]
    for stage in resolve_stages(file, inputs):
        for image in stage.images:
            findings += _image_findings(image, policy, resolve)
        for add in stage.sources:
            findings += _source_findings(add, fetches, policy, resolve)
        for run in stage.runs:
            findings += _run_findings(run, policy)
        findings += _platform_findings(stage, inputs)
    return tuple(sorted(findings, key=lambda finding: finding.line))


def check_trigger(
    trigger: str, policy: DockerfilePolicy, inputs: BuildInputs, resolve: Resolver | None = None
) -> tuple[Finding, ...]:
    """What is denied in what an image has after ONBUILD, which a build that begins with it runs first.

    Raises ``DockerfileError`` for what is not one instruction.

    >>> policy = DockerfilePolicy(Dialect.HEREDOCS, "caisson.local")
    >>> [finding.rule for finding in check_trigger("ADD http://10.0.0.1/ /x", policy, BuildInputs("classic"))]
    ['add-private-host']
    """
    return check_dockerfile(as_dockerfile(trigger), policy, inputs, resolve)


def as_dockerfile(trigger: str) -> str:
    """A file that asks for what an ONBUILD trigger does. Each has one of its own: one that ends with a backslash must
    not take the next for its continuation."""
    return f"FROM {SCRATCH}\nONBUILD {trigger}\n"


def check_steps(steps: Steps, policy: DockerfilePolicy, resolve: Resolver | None = None) -> tuple[Finding, ...]:
    """What is denied of what BuildKit would do, whoever asked for it: the Dockerfile, or a base image's ONBUILD."""
    findings: list[Finding] = []
    for image in steps.images:
        findings += _image_findings(image, policy, resolve, pinned=True)
    for source in steps.sources:
        findings += _source_findings(source, Fetches.GIT, policy, resolve)
    for run in steps.runs:
        findings += _run_findings(run, policy)
    return tuple(findings)


_FETCHES = {
    Dialect.NO_HEREDOCS: Fetches.HTTP,
    Dialect.HEREDOCS: Fetches.BARE_GIT,
    Dialect.SPACED_HEREDOCS: Fetches.GIT,
}


@dataclass(frozen=True)
class FrontendUse:
    """An image that would read the file in the engine's place: the line (0: not in the file), where it stands, and
    its value."""

    line: int
    by: str
    value: str

    @property
    def image(self) -> str:
        """BuildKit takes what stands before the first space, and gives the frontend the rest."""
        return self.value.strip().partition(" ")[0]


def frontends_of(text: str, inputs: BuildInputs) -> list[FrontendUse]:
    """All that are named, on a builder that would run them."""
    if inputs.builder != "buildkit":
        return []
    syntax = find_syntax(text)
    named = [FrontendUse(syntax.line, "'# syntax='", syntax.value)] if syntax is not None else []
    return named + [FrontendUse(0, name, value) for name, value in inputs.build_args if name == "BUILDKIT_SYNTAX"]


def _frontend_findings(frontends: list[FrontendUse], policy: DockerfilePolicy) -> Iterator[Finding]:
    """Such an image runs with all that the build may do, and more."""
    for used in frontends:
        if not _listed(_reference(used.image), policy.frontends):
            reason = f"{used.by} has {_shown(used.value)} read the file, an image that would run in the engine's hands"
            yield Finding("frontend-image", used.line, reason, "frontends")


def _image_findings(
    image: ImageUse, policy: DockerfilePolicy, resolve: Resolver | None, *, pinned: bool = False
) -> Iterator[Finding]:
    """``pinned``: the engine has put the digest behind the tag that was asked for."""
    text, shown = image.name.text, f"{image.by} {_shown(str(image.name))}"
    if text is None:
        if not policy.unresolved:
            yield Finding("unresolved-image", image.line, f"{shown} can't be known before the build", "unresolved")
        return
    if _IMAGE_ID.fullmatch(text):
        yield Finding("image-id", image.line, f"{shown} may be the ID of any image on this engine; name a tag as well")
        return
    reference = _reference(text)
    if reference is None:
        yield Finding("image-unreadable", image.line, f"{shown} is not the name of an image")
        return
    if reference.repository in policy.shared_repositories:
        return
    if split_registry(reference.repository.registry)[0] == split_registry(policy.reserved_registry)[0]:
        reason = f"{shown} is in the registry of images that are Caisson's own"
        yield Finding("image-reserved", image.line, reason, "shared_repositories")
        return
    if policy.is_foreign(reference):
        reason = f"{shown} was built here for another repository"
        yield Finding("image-foreign", image.line, reason, "shared_repositories")
    elif policy.base_images is not None and not (
        _listed(reference, policy.base_images) or (pinned and _listed(_without_digest(reference), policy.base_images))
    ):
        yield Finding("image-not-listed", image.line, f"{shown} is not among the base images", "base_images")
    yield from _registry_findings(reference.repository.registry, image.line, shown, policy, resolve)


_SPELLINGS = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "arm64/v8": "arm64"}


def _platform_findings(stage: ResolvedStage, inputs: BuildInputs) -> Iterator[Finding]:
    """The classic builder has no image of another platform from before, and pulls it in the middle of the build."""
    if (
        inputs.builder != "classic"
        or stage.platform.text == ""
        or not any(image.by == "FROM" for image in stage.images)
    ):
        return
    system, _, machine = inputs.platform.partition("/")
    asked = (stage.platform.text or "").lower().removeprefix(f"{system}/")
    if not machine or _SPELLINGS.get(asked, asked) != _SPELLINGS.get(machine, machine):
        reason = f"FROM --platform={_shown(str(stage.platform))} would be pulled unseen; build it with BuildKit"
        yield Finding("base-image-platform", stage.line, reason)


def _registry_findings(
    registry: str, line: int, shown: str, policy: DockerfilePolicy, resolve: Resolver | None
) -> Iterator[Finding]:
    """An engine that has not the image, or looks whether there is a newer one, connects to where its name says."""
    if registry == DEFAULT_REGISTRY or registry_spelling(registry) in map(registry_spelling, policy.registries):
        return
    host = split_registry(registry)[0]
    judgement = judge(host, resolve, policy.own_addresses)
    if judgement in ("private", "unreadable"):
        where = _inside(host, policy, resolve)
        reason = f"{shown} would be asked for by the engine inside its own network{where}"
        yield Finding("image-private-registry", line, reason, "registries")
    elif judgement == "unjudged" and not policy.unjudged_hosts:
        reason = f"{shown} is in a registry whose name has no address here"
        yield Finding("image-unjudged-registry", line, reason, "registries")


def _inside(host: str, policy: DockerfilePolicy, resolve: Resolver | None) -> str:
    address = inside_address(host, resolve, policy.own_addresses)
    return f": the name has the address {address}" if address else ""


def _source_findings(
    source: AddSource, fetches: Fetches, policy: DockerfilePolicy, resolve: Resolver | None
) -> Iterator[Finding]:
    target, shown = target_of(source.name, fetches), f"ADD {_shown(_without_secrets(str(source.name)))}"
    if target is None:
        if not policy.unresolved:
            reason = f"{shown} may be a URL to anywhere: it can't be known before the build; begin it with ./ or a host"
            yield Finding("unresolved-source", source.line, reason, "unresolved")
        return
    if target.kind == "local":
        return
    if target.kind == "unreadable":
        yield Finding("add-unreadable", source.line, f"{shown} is a URL that different programs read differently")
        return
    if listed(target.host, policy.allowed_hosts):
        return
    judgement = judge(target.host, resolve, policy.own_addresses)
    if judgement == "unreadable":
        yield Finding("add-unreadable", source.line, f"{shown} has a host that different programs read differently")
    elif judgement == "private":
        where = _inside(target.host, policy, resolve)
        reason = f"{shown} would be fetched by the engine from inside its own network{where}"
        yield Finding("add-private-host", source.line, reason, "allowed_hosts")
    elif judgement == "unjudged" and not policy.unjudged_hosts:
        reason = f"{shown} would be fetched by the engine from a name that has no address here"
        yield Finding("add-unjudged-host", source.line, reason, "allowed_hosts")


# Flag of RUN, its value that is denied (None: any), rule, setting, what it would do.
_RUN_RULES: tuple[tuple[str, str | None, str, str, str], ...] = (
    ("network", "host", "run-host-network", "host_network", "would run in the host's network"),
    ("security", "insecure", "run-insecure", "insecure", "would run as root on the host"),
    ("device", None, "run-device", "devices", "would have a device of the host"),
)


def _run_findings(run: Instruction, policy: DockerfilePolicy) -> Iterator[Finding]:
    for flag, denied, rule, setting, effect in _RUN_RULES:
        for value in run.flag_values(flag):
            if (denied is None or value.lower() == denied) and not getattr(policy, setting):
                yield Finding(rule, run.line, f"RUN --{flag}={_shown(value)} {effect}", setting)


def _reference(text: str) -> Reference | None:
    try:
        return parse_reference(text)
    except ValueError:
        return None


def _listed(reference: Reference | None, entries: tuple[str, ...]) -> bool:
    """An entry with a tag or digest allows only that one, without either all of the repository."""
    for entry in map(parse_reference, entries if reference is not None else ()):
        if reference is not None and entry.repository == reference.repository:
            bare = entry.tag is None and entry.digest is None
            if bare or (entry.digest == reference.digest and entry.tag in (None, reference.tag)):
                return True
    return False


def _without_digest(reference: Reference) -> Reference:
    return replace(reference, digest=None) if reference.tag is not None else reference


def _without_secrets(url: str) -> str:
    return re.sub(r"(?<=://)[^/@]*@", "…@", url)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…")
