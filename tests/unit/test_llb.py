"""What BuildKit would do, read from its own words; what is not known in them is denied."""

from __future__ import annotations

import pytest

from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_policy import DockerfilePolicy, check_steps
from caisson.guard.llb import read_answer, read_definition
from caisson.guard.verdict import Denied
from tests.buildkit_client import answer_of, pb, source

POLICY = DockerfilePolicy(Dialect.HEREDOCS, "caisson.local", base_images=("debian:trixie-slim", "alpine"))
RUN = pb((1, pb((1, "true"))), (2, pb((3, "/"))))
DIGEST = f"sha256:{'a' * 64}"


def rules(*operations: bytes, policy: DockerfilePolicy = POLICY) -> list[str]:
    steps = read_definition(pb(*((1, operation) for operation in operations), (2, pb((1, DIGEST), (2, b"")))))
    found = check_steps(steps, policy, {"inside.example": ("10.0.0.1",), "outside.example": ("1.1.1.1",)}.__getitem__)
    return [finding.rule for finding in found]


def test_a_build_that_asks_for_files_alone_passes() -> None:
    end = pb((1, pb((1, DIGEST))))
    copied = pb((1, pb((1, DIGEST))), (4, pb((2, b""))), (10, pb((1, "amd64"), (2, "linux"))), (11, b""))
    ran = pb((1, pb((1, DIGEST))), (2, RUN))
    assert rules(source("local://context"), source("docker-image://docker.io/library/alpine:3"), copied, ran, end) == []


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("http://10.0.0.1/x", ["add-private-host"]),
        ("https://169.254.169.254/latest/", ["add-private-host"]),
        ("http://inside.example/x", ["add-private-host"]),
        ("http://outside.example/x", []),
        ("git://inside.example/team/app.git#main", ["add-private-host"]),
        ("git://git@inside.example/team/app.git", ["add-private-host"]),
        ("docker-image://caisson.local/build:x", ["image-reserved"]),
        ("docker-image://10.0.0.1:5000/alpine:3", ["image-not-listed", "image-private-registry"]),
        ("docker-image://docker.io/library/busybox:1", ["image-not-listed"]),
        # The engine puts the digest behind the tag that it has found it by.
        (f"docker-image://docker.io/library/debian:trixie-slim@{DIGEST}", []),
        (f"docker-image://docker.io/library/debian@{DIGEST}", ["image-not-listed"]),
    ],
)
def test_a_source_is_judged_like_the_dockerfiles(identifier: str, expected: list[str]) -> None:
    assert rules(source(identifier)) == expected


def test_where_git_really_goes_is_judged_too() -> None:
    elsewhere = source("git://outside.example/app.git", {"git.fullurl": "ssh://git@10.0.0.1/app.git"})
    assert rules(elsewhere) == ["add-private-host"]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (RUN + pb((3, 1)), ["run-host-network"]),
        (RUN + pb((3, 2)), []),
        (RUN + pb((4, 1)), ["run-insecure"]),
        (RUN + pb((6, pb((1, "vendor.com/device=x")))), ["run-device"]),
        (RUN + pb((3, 1), (4, 1)), ["run-host-network", "run-insecure"]),
    ],
)
def test_a_step_is_judged_like_the_dockerfiles(step: bytes, expected: list[str]) -> None:
    assert rules(pb((2, step))) == expected


@pytest.mark.parametrize(
    "operation",
    [
        pb((5, pb((1, 1)))),
        source("oci-layout://other/x"),
        source("blob://other"),
        source("http:10.0.0.1"),
        pb((2, RUN + pb((3, 3)))),
        pb((2, RUN + pb((4, 2)))),
        pb((2, RUN + pb((9, 1)))),
        pb((8, b"")),
        pb((2, RUN), (4, b"")),
    ],
)
def test_what_is_not_known_is_denied(operation: bytes) -> None:
    with pytest.raises(Denied) as caught:
        rules(operation)
    assert caught.value.rule == "build-steps"


def test_an_answer_without_steps_names_nothing_that_could_be_handed_on() -> None:
    assert read_answer(b"") is None
    assert read_answer(pb((3, pb((3, pb((1, ""))))))) is None
    assert read_answer(pb((3, pb((3, pb((1, "r1"))))))) is None
    assert read_answer(pb((3, pb((1, "r1"))))) is None
    found = read_answer(answer_of("r1", source("http://a.example/")))
    assert found is not None
    assert (found[0], [str(item.name) for item in found[1].sources]) == ("r1", ["http://a.example/"])
    with pytest.raises(Denied):
        read_answer(pb((9, "x")))
