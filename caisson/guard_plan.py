"""``BuildSpec`` → what the build's guard lets through, and what its Dockerfile may ask for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caisson.addresses import Address
from caisson.build_group import group_key
from caisson.engine import EngineInfo
from caisson.errors import DockerfileDenied, DockerfileInvalid
from caisson.git import DEFAULT_PORTS, RepositoryURL, parse_repository_url
from caisson.guard.audit import AuditSummary, Entry
from caisson.guard.dockerfile_hosts import Resolver
from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_policy import DockerfilePolicy, Finding, check_dockerfile, check_trigger
from caisson.guard.dockerfile_stages import BuildInputs, Kind
from caisson.guard.dockerfile_words import DockerfileError
from caisson.guard.policy import GuardPolicy
from caisson.guard.verdict import Verdict
from caisson.plan import BuildIdentity
from caisson.reference import Reference, Repository, parse_reference
from caisson.report import GuardCount, GuardDenial, GuardReport
from caisson.request import Builder
from caisson.settings import Settings
from caisson.spec import RESERVED_REGISTRY, BuildSpec

LARGEST_DOCKERFILE = 1 << 20
"""Bytes. The longest that are known have a tenth of it."""

# What clients try out and do without, in every build: no reason for a failure.
_DECLINED = "buildkit-declined"


def guard_policy(spec: BuildSpec, identity: BuildIdentity, settings: Settings) -> GuardPolicy:
    """What is possible on the build's socket. Its control group and labels are named later, when they are known; until
    then nothing can be built."""
    return GuardPolicy(
        image=parse_reference(identity.reference),
        build_id=identity.build_id,
        memory=spec.limits.memory,
        cpus=spec.limits.cpus,
        cache_mount_namespace=f"caisson-{group_key(spec.repository_url.canonical())}",
        frontends=frozenset(settings.dockerfile_frontends),
        may_pull=False,
        may_build=False,
    )


@dataclass(frozen=True)
class ImageOwners:
    """``foreign``: image repositories in which some tag is another git repository's; ``own``: this one's tags."""

    foreign: frozenset[Repository] = frozenset()
    own: frozenset[Reference] = frozenset()


def dockerfile_policy(
    settings: Settings,
    engine_version: str,
    owners: ImageOwners = ImageOwners(),
    own_addresses: frozenset[Address] = frozenset(),
) -> DockerfilePolicy:
    """What a Dockerfile may ask for on this host, which has ``own_addresses``."""
    return DockerfilePolicy(
        dialect=Dialect.of_engine(engine_version),
        reserved_registry=RESERVED_REGISTRY,
        foreign_repositories=owners.foreign,
        own_images=owners.own,
        shared_repositories=frozenset(
            parse_reference(text).repository for text in settings.dockerfile_shared_repositories
        ),
        base_images=settings.dockerfile_base_images or None,
        frontends=settings.dockerfile_frontends,
        follows_syntax=settings.socket == "raw",
        allowed_hosts=settings.dockerfile_allowed_hosts,
        registries=(*settings.dockerfile_registries, *_own_registry(settings)),
        own_addresses=own_addresses,
        unjudged_hosts=settings.dockerfile_unjudged_hosts,
        unresolved=settings.dockerfile_unresolved,
    )


def _own_registry(settings: Settings) -> tuple[str, ...]:
    return (settings.registry.removeprefix("http://"),) if settings.registry else ()


def image_owners(own: RepositoryURL, tagged: Iterable[tuple[str, str]]) -> ImageOwners:
    """Whose the images on this engine are: a tag is that git repository's which gave it last.

    ``tagged`` are pairs of a git repository's URL and a reference that its image was given, the last one last.
    """
    last = {parse_reference(reference).or_latest(): _one_spelling(url) for url, reference in tagged}
    ours = frozenset(reference for reference, url in last.items() if url == _one_spelling(own.display()))
    return ImageOwners(frozenset(reference.repository for reference in last.keys() - ours), ours)


def _one_spelling(url: str) -> str:
    try:
        return parse_repository_url(url, DEFAULT_PORTS).canonical()
    except ValueError:
        return url


def build_inputs(spec: BuildSpec, builder: Builder, engine: EngineInfo) -> BuildInputs:
    """What the engine's reader of the Dockerfile is given."""
    kind: Kind = "buildkit" if builder is Builder.BUILDKIT else "classic"
    return BuildInputs(kind, spec.build_args, engine.platform, spec.target)


def require_allowed_dockerfile(
    content: bytes, policy: DockerfilePolicy, inputs: BuildInputs, resolve: Resolver
) -> None:
    """Raise what is wrong with a Dockerfile, before any engine reads it.

    ``DockerfileInvalid`` for one that an engine would not take, or be brought down by (one without FROM makes
    BuildKit's frontend panic, and dockerd with it); ``DockerfileDenied`` for what the host does not allow, with the
    setting that would. ``resolve`` gives the addresses of names.
    """
    if len(content) > LARGEST_DOCKERFILE:
        raise DockerfileInvalid(f"The Dockerfile is larger than {LARGEST_DOCKERFILE} bytes.")
    try:
        findings = check_dockerfile(content, policy, inputs, resolve)
    except DockerfileError as error:
        where = f", line {error.line}" if error.line else ""
        raise DockerfileInvalid(
            f"The Dockerfile is invalid{where}: {error.reason.rstrip('.')}.", details={"line": error.line}
        ) from None
    if findings:
        first = findings[0]
        where = f", line {first.line}" if first.line else ""
        raise _denial_of("The Dockerfile", findings, where)


def require_allowed_triggers(
    image: str, triggers: Iterable[str], policy: DockerfilePolicy, inputs: BuildInputs, resolve: Resolver
) -> None:
    """Raise ``DockerfileDenied`` for a base image whose ONBUILD triggers ask for what the Dockerfile itself may not."""
    for trigger in triggers:
        what = f"The ONBUILD trigger {trigger[:80]!r} of the base image {image}"
        try:
            findings = check_trigger(trigger, policy, inputs, resolve)
        except DockerfileError as error:
            raise DockerfileDenied(
                f"{what} can't be judged: {error.reason.rstrip('.')}.", hint="Begin with another image."
            ) from None
        if findings:
            raise _denial_of(what, findings)


def _denial_of(what: str, findings: Sequence[Finding], where: str = "") -> DockerfileDenied:
    first, more = findings[0], f" ({len(findings) - 1} more)" if len(findings) > 1 else ""
    return DockerfileDenied(
        f"{what} is denied by the rule {first.rule!r}{where}: {first.reason.rstrip('.')}{more}.",
        hint=_way_out(first),
        details={"findings": [_finding(finding) for finding in findings]},
    )


def _variable(finding: Finding) -> str:
    name = f"dockerfile_{finding.setting}"
    return f"CAISSON_{name.upper()}" if finding.setting and name in Settings.model_fields else ""


def _way_out(finding: Finding) -> str:
    variable = _variable(finding)
    return f"{variable} of this host can allow it." if variable else "Nothing allows it; write it in another way."


def _finding(finding: Finding) -> Mapping[str, Any]:
    return {
        "line": finding.line,
        "rule": finding.rule,
        "reason": finding.reason,
        "setting": _variable(finding),
    }


def find_refusal(summary: AuditSummary) -> Verdict | None:
    """The first denial that can be why a build failed; None: there was none."""
    for entry in summary.denials:
        if entry.verdict.rule != _DECLINED:
            return entry.verdict
    return None


def guard_report(summary: AuditSummary, audit_file: str) -> GuardReport:
    """What the guard decided, as a part of the build's report."""
    return GuardReport(
        counts=[GuardCount(verdict=verdict, rule=rule, count=count) for verdict, rule, count in summary.counts],
        denied=summary.denied,
        denials=[_denial(entry) for entry in summary.denials],
        audit_file=audit_file,
    )


def _denial(entry: Entry) -> GuardDenial:
    return GuardDenial(
        time=entry.time,
        method=entry.method,
        path=entry.path,
        rule=entry.verdict.rule,
        reason=entry.verdict.reason,
    )
