"""What a build's end means: which failure it was, and how far its limits held. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from caisson.cgroup_watch import CgroupEvidence
from caisson.cgroups import KernelLimits
from caisson.engine import ImageInfo, short_id
from caisson.errors import (
    BuildFailed,
    BuildStepFailed,
    CaissonError,
    DockerfileInvalid,
    EngineFault,
    EngineLost,
    EngineUnreachable,
    GuardDenied,
    LimitsNotEnforceable,
    OutOfMemory,
    PidsExhausted,
    WorkspaceFull,
)
from caisson.guard.verdict import Verdict
from caisson.plan import ChosenBuilder
from caisson.progress import BuildProgress, DockerfileStep
from caisson.pull import base_image_failure
from caisson.report import LimitsReport
from caisson.sizes import format_size
from caisson.spec import Limits

_LAST_LINES = 15

# Where these come from: BuildKit's frontend/dockerfile/parser and instructions packages, and builder/dockerfile of
# the classic builder; both say "dockerfile parse error" or name the instruction.
_DOCKERFILE_ERRORS = re.compile(
    r"dockerfile parse error|unknown instruction|failed to parse dockerfile|failed to process .*: unexpected"
    r"|failed to create LLB definition|file with no instructions|no build stage in current context"
    r"|Dockerfile(?: \(.*\))? cannot be empty|failed to read dockerfile|target stage .* could not be found"
    r"|failed to reach build target|invalid reference format|Cannot locate specified Dockerfile"
    r"|requires (?:at least|exactly) \w+ argument",
    re.IGNORECASE,
)
_NO_SPACE = re.compile(r"no space left on device", re.IGNORECASE)
_IMAGE_MISSING = re.compile(
    r"pull access denied|failed to resolve source metadata|manifest unknown|failed to do request|"
    r"error getting credentials|unable to find image|Get \"https?://",
    re.IGNORECASE,
)
# runc loses its child before a step's first instruction, on a loaded host; libcontainer/process_linux.go.
_ENGINE_FAULT = re.compile(
    r"runc (?:run|create) failed: unable to start container process: waiting for init preliminary setup"
    r"|failed to create (?:shim )?task.*(?:connection reset by peer|ttrpc: closed|deadline exceeded)",
    re.IGNORECASE | re.DOTALL,
)
# A command is quoted in the engine's words, and could say anything itself.
_COMMAND = re.compile(r"process \".*\" did not|executor failed running \[.*\]|The command '.*' returned", re.DOTALL)


def _engine_fault(progress: BuildProgress, tail: list[str]) -> str:
    """What the engine itself says of its fault; empty where it says that a program ended, or something else."""
    step = progress.failed_step
    said = [progress.error, step.error if step else ""]
    if not any(said):
        # The classic builder's last line; after a program's own words comes one with its exit code.
        said = tail[-1:]
    words = [_COMMAND.sub("", text) for text in said]
    return next((text.strip() for text in words if _ENGINE_FAULT.search(text)), "")


def classify_build_failure(
    *,
    exit_code: int,
    progress: BuildProgress,
    evidence: CgroupEvidence,
    limits: Limits,
    tail: list[str],
    refusal: Verdict | None = None,
) -> CaissonError:
    """Which failure a build that ended with ``exit_code`` met; ``tail`` are its last log lines.

    ``refusal`` is what the guard of its socket denied.

    Out of memory and out of processes are what the kernel counted since the failing step began, never a guess from an
    exit code.
    """
    step = progress.failed_step
    details = _details(step, exit_code, tail)
    where = f" in step {step.name}" if step else ""
    if evidence.oom_kills:
        return OutOfMemory(
            f"The build ran out of memory{where}: the kernel killed a process at the limit of "
            f"{format_size(limits.memory)}.",
            hint="Raise limits.memory, or let the step use less (fewer parallel jobs).",
            details={**details, "oom_kills": evidence.oom_kills, "memory": limits.memory},
        )
    if evidence.pids_refused:
        return PidsExhausted(
            f"The build ran out of processes{where}: the kernel refused one at the limit of {limits.pids}.",
            hint="Raise limits.pids, or let the step start fewer processes.",
            details={**details, "pids_refused": evidence.pids_refused, "pids": limits.pids},
        )
    if fault := _engine_fault(progress, tail):
        return EngineFault(
            f"The engine could not run the build{where}: {_last(fault)}.",
            hint="Start the build again; if it comes again, see the engine's log.",
            details=details,
        )
    text = "\n".join([progress.error, *(item.error for item in progress.steps if item.error), *tail[-5:]])
    if step is not None and step.exit_code is not None:
        return BuildStepFailed(
            f"The Dockerfile step {step.name} ended with exit code {step.exit_code}.",
            hint="The last lines of its log say why.",
            details=details,
        )
    if refusal is not None:
        return GuardDenied(
            f"The guard denied what the build asked of the engine: {refusal.reason.rstrip('.')}.",
            hint="The report lists every denial, and the request or the Dockerfile that asks for it can be changed.",
            details={**details, "rule": refusal.rule},
        )
    if _NO_SPACE.search(text):
        return WorkspaceFull(
            f"There is no space left{where}: {_last(text)}.",
            hint="Raise limits.workspace if the repository is large; else see the disk that Docker is on.",
            details=details,
        )
    if _IMAGE_MISSING.search(text):
        return base_image_failure(text, _reason(progress, tail), details)
    if _DOCKERFILE_ERRORS.search(text):
        return DockerfileInvalid(f"The Dockerfile is invalid: {_reason(progress, tail)}.", details=details)
    return BuildFailed(f"The build failed{where}: {_reason(progress, tail)}.", details=details)


def classify_clone_failure(
    error: CaissonError, evidence: CgroupEvidence, limits: Limits, *, in_memory: bool
) -> CaissonError:
    """What a failed clone means when the kernel killed in the builder meanwhile: git's own words then tell of the
    consequence, such as a pack that ended early. ``in_memory`` says whether the workspace counts to the memory.

    Unchanged without such a kill, and where the builder or the engine itself went away.
    """
    if not evidence.oom_kills or isinstance(error, EngineLost | EngineUnreachable):
        return error
    counts = f", to which what is in the workspace of {format_size(limits.workspace)} counts" if in_memory else ""
    return OutOfMemory(
        f"The clone ran out of memory: the kernel killed a process at the limit of "
        f"{format_size(limits.memory)}{counts}.",
        hint="Raise limits.memory for this repository"
        + (", or set CAISSON_WORKSPACE=layer on its host." if in_memory else "."),
        details={**error.details, "oom_kills": evidence.oom_kills, "memory": limits.memory},
    )


def _details(step: DockerfileStep | None, exit_code: int, tail: list[str]) -> dict[str, object]:
    code = step.exit_code if step and step.exit_code is not None else exit_code
    return {"step": step.name if step else "", "exit_code": code, "last_lines": tail[-_LAST_LINES:]}


def _reason(progress: BuildProgress, tail: list[str]) -> str:
    step = progress.failed_step
    text = progress.error or (step.error if step else "") or (tail[-1] if tail else "it gave no reason")
    return _last(text)


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".")[:500] if lines else "it gave no reason"


def judge_limits(
    *,
    planned: Limits,
    kernel: KernelLimits | None,
    chosen: ChosenBuilder,
    progress: BuildProgress,
    evidence: CgroupEvidence,
) -> LimitsReport:
    """How far the limits held, from what the kernel said: never assumed, never taken from Docker's own answer."""
    read = {
        "asked_memory": planned.memory,
        "asked_pids": planned.pids,
        "asked_cpus": planned.cpus,
        "memory": kernel.memory if kernel else None,
        "memory_and_swap": kernel.memory_and_swap if kernel else None,
        "pids": kernel.pids if kernel else None,
        "cpus": kernel.cpus if kernel else None,
        "step_groups": len(evidence.nested),
        "workspace": planned.workspace,
        "timeout_seconds": planned.timeout_seconds,
    }
    if doubt := doubt_of_limits(planned, kernel):
        return LimitsReport(status="unverified", reason=doubt, **read)
    if not progress.ran_steps:
        return LimitsReport(status="no steps", reason="no RUN step ran, so there was none to hold", **read)
    if evidence.nested:
        return LimitsReport(
            status="verified",
            reason=f"the kernel ran the RUN steps below the group with these limits ({len(evidence.nested)} seen)",
            **read,
        )
    if not chosen.holds_steps:
        return LimitsReport(
            status="builder only",
            reason=f"the {chosen.builder.value} builder of this engine can't hold its RUN steps to the limits",
            **read,
        )
    return LimitsReport(
        status="builder only", reason="RUN steps ran, but none was seen below the group with these limits", **read
    )


def doubt_of_limits(planned: Limits, kernel: KernelLimits | None) -> str:
    """Why the kernel does not confirm the limits of the group that is to hold the build; empty where it does."""
    if kernel is None:
        return "the build's control group can't be read here"
    wrong = _deviations(planned, kernel)
    return f"the kernel has other limits: {'; '.join(wrong)}" if wrong else ""


def require_confirmed(planned: Limits, kernel: KernelLimits | None) -> None:
    """Before anything runs; raises ``LimitsNotEnforceable`` where the limits can't be verified later either."""
    if doubt := doubt_of_limits(planned, kernel):
        raise _not_held(f"RUN steps can't be held to the limits for certain: {doubt}.")


def require_held(limits: LimitsReport) -> None:
    """After the build; raises ``LimitsNotEnforceable`` unless steps were seen to be held, or there were none."""
    if limits.status not in ("verified", "no steps"):
        raise _not_held(f"RUN steps were not held to the limits for certain: {limits.reason}.")


def _not_held(sentence: str) -> LimitsNotEnforceable:
    return LimitsNotEnforceable(
        sentence,
        hint="Let Caisson see the engine's processes and control groups (`caisson doctor`), upgrade the engine, "
        "choose builder=classic, or unset CAISSON_REQUIRE_LIMITS.",
    )


def _deviations(planned: Limits, kernel: KernelLimits) -> list[str]:
    wrong: list[str] = []
    if kernel.memory is None or kernel.memory > planned.memory:
        wrong.append(f"memory {kernel.memory} instead of {planned.memory}")
    # Without swap accounting in the kernel there is no file to read; without swap there is nothing to hold.
    if kernel.memory_and_swap is not None and kernel.memory_and_swap > planned.memory:
        wrong.append(f"memory and swap {kernel.memory_and_swap} instead of {planned.memory}")
    if kernel.pids is None or kernel.pids > planned.pids:
        wrong.append(f"pids {kernel.pids} instead of {planned.pids}")
    if kernel.cpus is None or kernel.cpus > planned.cpus + 0.01:
        wrong.append(f"cpus {kernel.cpus} instead of {planned.cpus:g}")
    return wrong


def require_labels(image: ImageInfo, labels: Mapping[str, str]) -> None:
    """Raise ``BuildFailed`` unless the image that came about has all of these labels: else it is another one."""
    if wrong := sorted(key for key, value in labels.items() if image.labels.get(key) != value):
        raise BuildFailed(
            f"The image {short_id(image.id)} was built without the labels of its build, such as {wrong[0]}.",
            hint="The guard's audit tells who asked for what; if the repository is trusted, please report this.",
        )
