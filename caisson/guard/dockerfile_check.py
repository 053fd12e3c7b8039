"""A Dockerfile on its way to the engine, and what BuildKit has made of it, judged while the guard still holds both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from caisson.guard.base_images import JudgedBases
from caisson.guard.dockerfile_hosts import Resolver
from caisson.guard.dockerfile_names import Names, Unasked
from caisson.guard.dockerfile_policy import DockerfilePolicy, Finding, check_dockerfile, check_steps
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.llb import Steps
from caisson.guard.verdict import Denied

_MOST_SHOWN = 5


def dockerfile_check(
    policy: DockerfilePolicy, names: Names, bases: JudgedBases | None = None
) -> Callable[[bytes, BuildInputs], None]:
    """What ``Guard`` takes as its ``check_dockerfile``. It waits for nothing: it raises ``Unasked`` where a name has to
    be asked for first.

    It raises ``Denied`` by the rule of the first finding, with all of them (up to five) in the reason, and for a file
    that the engine's own reader would not take: an engine can be brought down by one (BuildKit's panics without FROM).
    ``bases`` are the only images that a classic build may begin with; None: any, whatever they have after ONBUILD.
    """

    def check(dockerfile: bytes, inputs: BuildInputs) -> None:
        findings = _with_names(names, lambda resolve: check_dockerfile(dockerfile, policy, inputs, resolve))
        if findings:
            raise _denial("Dockerfile", [f"line {finding.line}: {finding.reason}" for finding in findings], findings)
        if bases is not None and inputs.builder == "classic":
            bases.check(dockerfile, policy.dialect, inputs)

    return check


def steps_check(policy: DockerfilePolicy, names: Names) -> Callable[[Steps], None]:
    """What ``Guard`` takes as its ``check_steps``, likewise."""

    def check(steps: Steps) -> None:
        findings = _with_names(names, lambda resolve: check_steps(steps, policy, resolve))
        if findings:
            raise _denial("What the build would do", [finding.reason for finding in findings], findings)

    return check


def _with_names(names: Names, check: Callable[[Resolver], Sequence[Finding]]) -> Sequence[Finding]:
    unknown: list[str] = []

    def resolve(name: str) -> tuple[str, ...]:
        found = names.known(name)
        if found is None:
            unknown.append(name)
        return found or ()

    findings = check(resolve)
    if unknown:
        raise Unasked(names, unknown)
    return findings


def _denial(what: str, reasons: list[str], findings: Sequence[Finding]) -> Denied:
    shown = "; ".join(reasons[:_MOST_SHOWN])
    more = f"; and {len(reasons) - _MOST_SHOWN} more" if len(reasons) > _MOST_SHOWN else ""
    return Denied(findings[0].rule, f"{what}, {shown}{more}")
