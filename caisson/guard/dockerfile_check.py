"""A Dockerfile on its way to the engine, judged while the guard still holds its end."""

from __future__ import annotations

from collections.abc import Callable

from caisson.guard.dockerfile_names import Names, Unasked
from caisson.guard.dockerfile_policy import DockerfilePolicy, check_dockerfile
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.verdict import Denied

_MOST_SHOWN = 5


def dockerfile_check(policy: DockerfilePolicy, names: Names) -> Callable[[bytes, BuildInputs], None]:
    """What ``Guard`` takes as its ``check_dockerfile``. It waits for nothing: it raises ``Unasked`` where a name has to
    be asked for first.

    It raises ``Denied`` by the rule of the first finding, with all of them (up to five) in the reason, and for a file
    that the engine's own reader would not take: an engine can be brought down by one (BuildKit's panics without FROM).
    """

    def check(dockerfile: bytes, inputs: BuildInputs) -> None:
        unknown: list[str] = []

        def resolve(name: str) -> tuple[str, ...]:
            found = names.known(name)
            if found is None:
                unknown.append(name)
            return found or ()

        findings = check_dockerfile(dockerfile, policy, inputs, resolve)
        if unknown:
            raise Unasked(names, unknown)
        if findings:
            shown = "; ".join(f"line {finding.line}: {finding.reason}" for finding in findings[:_MOST_SHOWN])
            more = f"; and {len(findings) - _MOST_SHOWN} more" if len(findings) > _MOST_SHOWN else ""
            raise Denied(findings[0].rule, f"Dockerfile, {shown}{more}")

    return check
