"""What a build's end means."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from caisson.cgroup_watch import CgroupEvidence
from caisson.cgroups import KernelLimits
from caisson.engine import ImageID, ImageInfo
from caisson.errors import (
    BaseImageUnreachable,
    BuildFailed,
    BuildStepFailed,
    CaissonError,
    DockerfileInvalid,
    EngineFault,
    EngineLost,
    EngineUnreachable,
    LimitsNotEnforceable,
    OutOfMemory,
    PidsExhausted,
    RepositoryUnreachable,
    WorkspaceFull,
)
from caisson.outcome import (
    classify_build_failure,
    classify_clone_failure,
    judge_limits,
    require_confirmed,
    require_held,
    require_labels,
)
from caisson.plan import ChosenBuilder
from caisson.progress import BuildProgress, DockerfileStep
from caisson.report import LimitsReport
from caisson.request import Builder
from caisson.spec import Limits

LIMITS = Limits(cpus=1, memory=1 << 30, pids=64, workspace=1 << 29, timeout_seconds=60)
KERNEL = KernelLimits(memory=1 << 30, memory_and_swap=1 << 30, pids=64, cpus=1.0)
FAILED_STEP = DockerfileStep("[2/2] RUN make", started=True, error="executor failed running [make]: exit code: 137")
HOLDS = ChosenBuilder(Builder.BUILDKIT, "", holds_steps=True)
HOLDS_NOT = ChosenBuilder(Builder.BUILDKIT, "", holds_steps=False)


def _classify(
    progress: BuildProgress, evidence: CgroupEvidence | None = None, tail: list[str] | None = None
) -> Exception:
    return classify_build_failure(
        exit_code=1, progress=progress, evidence=evidence or CgroupEvidence(), limits=LIMITS, tail=tail or []
    )


def test_exit_137_without_the_kernels_word_is_a_failed_step_and_no_guess() -> None:
    error = _classify(BuildProgress(steps=[FAILED_STEP]))
    assert isinstance(error, BuildStepFailed)
    assert error.details["exit_code"] == 137
    assert error.details["step"] == "[2/2] RUN make"


def test_out_of_memory_is_what_the_kernel_counted() -> None:
    error = _classify(BuildProgress(steps=[FAILED_STEP]), CgroupEvidence(oom_kills=1))
    assert isinstance(error, OutOfMemory)
    assert "[2/2] RUN make" in error.message
    assert "1 GiB" in error.message


def test_pids_exhausted_is_what_the_kernel_counted() -> None:
    assert isinstance(_classify(BuildProgress(steps=[FAILED_STEP]), CgroupEvidence(pids_refused=3)), PidsExhausted)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("dockerfile parse error on line 2: unknown instruction: FRUM", DockerfileInvalid),
        ("Error response from daemon: dockerfile parse error line 1: unknown instruction: X", DockerfileInvalid),
        ("target stage nope could not be found", DockerfileInvalid),
        ("failed to reach build target nope in Dockerfile", DockerfileInvalid),
        ("write /app/x: no space left on device", WorkspaceFull),
        ("pull access denied, repository does not exist or may require authorization", BuildFailed),
        ('failed to create LLB definition: failed to do request: Head "https://registry"', BuildFailed),
        ("the Dockerfile cannot be empty", DockerfileInvalid),
        ("the Dockerfile (Dockerfile) cannot be empty", DockerfileInvalid),
        ("something nobody has foreseen", BuildFailed),
    ],
)
def test_failures_outside_a_step(text: str, kind: type[Exception]) -> None:
    assert type(_classify(BuildProgress(error=text))) is kind
    assert type(_classify(BuildProgress(), tail=["before", text])) is kind


def _judge(chosen: ChosenBuilder, *, kernel: KernelLimits | None = KERNEL, nested: bool, ran: bool = True) -> str:
    steps = (
        [DockerfileStep("[2/2] RUN make", started=True)] if ran else [DockerfileStep("[1/2] COPY . .", started=True)]
    )
    return judge_limits(
        planned=LIMITS,
        kernel=kernel,
        chosen=chosen,
        progress=BuildProgress(steps=steps),
        evidence=CgroupEvidence(nested=("buildkit/x",) if nested else ()),
    ).status


def test_limits_are_verified_only_when_steps_were_seen_below_the_builder() -> None:
    assert _judge(HOLDS, nested=True) == "verified"
    assert _judge(HOLDS, nested=False) == "builder only"
    assert _judge(HOLDS_NOT, nested=False) == "builder only"
    assert _judge(HOLDS, nested=False, ran=False) == "no steps"


@pytest.mark.parametrize(
    "kernel",
    [
        None,
        KernelLimits(None, None, 64, 1.0),
        KernelLimits(2 << 30, 2 << 30, 64, 1.0),
        KernelLimits(1 << 30, 2 << 30, 64, 1.0),
        KernelLimits(1 << 30, 1 << 30, None, 1.0),
        KernelLimits(1 << 30, 1 << 30, 64, None),
        KernelLimits(1 << 30, 1 << 30, 64, 2.0),
    ],
)
def test_a_limit_that_the_kernel_does_not_confirm_is_never_called_verified(kernel: KernelLimits | None) -> None:
    assert _judge(HOLDS, kernel=kernel, nested=True) == "unverified"
    with pytest.raises(LimitsNotEnforceable):
        require_confirmed(LIMITS, kernel)


def test_limits_that_the_kernel_confirms_are_not_refused() -> None:
    require_confirmed(LIMITS, KERNEL)


@pytest.mark.parametrize("status", get_args(LimitsReport.model_fields["status"].annotation))
def test_required_limits_accept_only_what_was_seen(status: Any) -> None:
    limits = LimitsReport(status=status, reason="what was seen")
    if status in ("verified", "no steps"):
        require_held(limits)
    else:
        with pytest.raises(LimitsNotEnforceable, match="what was seen"):
            require_held(limits)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_clone_in_which_the_kernel_killed_ran_out_of_memory_whatever_git_said(in_memory: bool) -> None:
    said = RepositoryUnreachable("git failed: early EOF.", details={"step": "fetch", "last_lines": ["early EOF"]})
    error = classify_clone_failure(said, CgroupEvidence(oom_kills=2), LIMITS, in_memory=in_memory)
    assert isinstance(error, OutOfMemory)
    assert error.details == {**said.details, "oom_kills": 2, "memory": LIMITS.memory}
    assert "at the limit of 1 GiB" in error.message
    assert ("the workspace of 512 MiB counts" in error.message) == in_memory
    assert ("CAISSON_WORKSPACE" in error.hint) == in_memory


@pytest.mark.parametrize(
    ("error", "kills"),
    [(RepositoryUnreachable("x"), 0), (WorkspaceFull("x"), 0), (EngineLost("x"), 1), (EngineUnreachable("x"), 1)],
)
def test_a_clone_that_failed_otherwise_means_what_git_or_the_engine_said(error: CaissonError, kills: int) -> None:
    assert classify_clone_failure(error, CgroupEvidence(oom_kills=kills), LIMITS, in_memory=True) is error


RUNC = (
    "runc run failed: unable to start container process: waiting for init preliminary setup: read init-p: "
    "connection reset by peer"
)


@pytest.mark.parametrize(
    "progress",
    [
        BuildProgress(steps=[DockerfileStep("[2/2] RUN make", started=True, error=f'process "make" did not: {RUNC}')]),
        BuildProgress(error=f"failed to solve: {RUNC}: unknown"),
        BuildProgress(error="failed to create shim task: ttrpc: closed: unknown"),
    ],
)
def test_a_step_that_the_engine_could_not_start_is_the_engines_fault(progress: BuildProgress) -> None:
    assert isinstance(_classify(progress), EngineFault)


def test_the_classic_builder_says_the_engines_fault_in_its_last_line() -> None:
    assert isinstance(_classify(BuildProgress(), tail=["Step 2/2 : RUN make", RUNC]), EngineFault)
    assert not isinstance(_classify(BuildProgress(), tail=[RUNC, "dockerfile parse error"]), EngineFault)


@pytest.mark.parametrize(
    "error",
    [
        f"process \"/bin/sh -c echo '{RUNC}'; exit 1\" did not complete successfully: exit code: 1",
        f"The command '/bin/sh -c echo {RUNC}; exit 1' returned a non-zero code: 1",
        f"executor failed running [/bin/sh -c echo {RUNC}; exit 1]: exit code: 1",
    ],
)
def test_a_command_that_says_so_is_no_fault_of_the_engine(error: str) -> None:
    step = DockerfileStep("[2/2] RUN make", started=True, error=error)
    failure = _classify(BuildProgress(steps=[step], error=error), tail=[RUNC])
    assert isinstance(failure, BuildStepFailed)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('failed to do request: Head "https://r/v2/": dial tcp 192.0.2.1:443: i/o timeout', BaseImageUnreachable),
        ('Get "https://r/v2/": net/http: TLS handshake timeout', BaseImageUnreachable),
        ("failed to resolve source metadata for r/a: unexpected status: 503 Service Unavailable", BaseImageUnreachable),
        ("failed to resolve source metadata for r/a: not found", BuildFailed),
        ("pull access denied for a, repository does not exist", BuildFailed),
    ],
)
def test_a_registry_out_of_reach_is_told_from_an_image_that_is_not_there(text: str, kind: type[Exception]) -> None:
    assert type(_classify(BuildProgress(error=text))) is kind


def test_an_image_without_the_labels_of_its_build_is_another() -> None:
    made = ImageInfo(ImageID("sha256:" + "1" * 64), (), (), {"a": "1", "b": "of another", "base": "x"}, 0, (), "")
    require_labels(made, {"a": "1"})
    for wanted in ({"a": "1", "b": "2"}, {"c": ""}):
        with pytest.raises(BuildFailed, match="without the labels"):
            require_labels(made, wanted)
