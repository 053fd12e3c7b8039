"""What a build's guard and Dockerfile policy are made of, and what a denial tells."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

import pytest

from caisson.engine import EngineInfo
from caisson.errors import DockerfileDenied, DockerfileInvalid
from caisson.git import parse_repository_url
from caisson.guard.audit import Audit, Entry
from caisson.guard.dockerfile_policy import check_dockerfile
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.verdict import Verdict
from caisson.guard_plan import (
    LARGEST_DOCKERFILE,
    build_inputs,
    dockerfile_policy,
    find_refusal,
    guard_policy,
    guard_report,
    image_owners,
    require_allowed_dockerfile,
    require_allowed_triggers,
)
from caisson.plan import BuildIdentity
from caisson.request import Builder
from caisson.settings import load_settings
from caisson.spec import make_spec, parse_request

ENGINE = EngineInfo(
    "26.1.5", "1.45", "overlay2", "cgroupfs", 2, "/var/lib/docker", (), 2, 1 << 30, False, platform="linux/amd64"
)
IDENTITY = BuildIdentity("0123456789ab", "", "", "here", datetime(2030, 1, 1, tzinfo=UTC))
SETTINGS = load_settings(_env_file=None)
ADDRESSES: defaultdict[str, tuple[str, ...]] = defaultdict(
    tuple, {"inside.example": ("10.0.0.1",), "public.example": ("1.1.1.1",)}
)


def check(text: bytes, **settings: object) -> None:
    spec = make_spec(parse_request({"repository_url": "https://h.example/a.git", "image": "a"}), SETTINGS)
    policy = dockerfile_policy(load_settings(_env_file=None, **settings), ENGINE.version)
    require_allowed_dockerfile(text, policy, build_inputs(spec, Builder.BUILDKIT, ENGINE), ADDRESSES.__getitem__)


def test_the_guard_knows_what_the_build_may_have() -> None:
    request = {
        "repository_url": "https://h.example/a.git",
        "image": "a",
        "limits": {"memory": "1g", "cpus": 0.5},
    }
    settings = load_settings(_env_file=None, dockerfile_frontends=("docker/dockerfile:1",))
    policy = guard_policy(make_spec(parse_request(request), settings), IDENTITY, settings)
    assert (str(policy.image), policy.memory, policy.cpus) == (IDENTITY.reference, 1 << 30, 0.5)
    assert policy.frontends == frozenset({"docker/dockerfile:1"})
    assert policy.cache_mount_namespace.startswith("caisson-")
    # The labels of the image are not known before the commit is.
    assert not policy.may_build


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"# only a comment\n",
        b"ARG ONLY=this\n",
        b"RUN true\n",
        b"FROM x\nRUN <<EOF\n",
        b"x" * (LARGEST_DOCKERFILE + 1),
    ],
)
def test_what_an_engine_would_not_take_is_invalid(text: bytes) -> None:
    with pytest.raises(DockerfileInvalid):
        check(text)


@pytest.mark.parametrize(
    ("text", "setting", "value"),
    [
        (b"# syntax=docker/dockerfile:1\nFROM x\n", "dockerfile_frontends", ("docker/dockerfile:1",)),
        (b"FROM x\nADD http://10.0.0.1/x /x\n", "dockerfile_allowed_hosts", ("10.0.0.0/8",)),
        (b"FROM caisson.local/build:1\n", "dockerfile_shared_repositories", ("caisson.local/build",)),
        (b"FROM x\nADD $WHAT /x\n", "dockerfile_unresolved", True),
        (b"FROM x\nADD http://inside.example /x\n", "dockerfile_allowed_hosts", ("inside.example",)),
        (b"FROM x\nADD http://unknown.example /x\n", "dockerfile_allowed_hosts", ("unknown.example",)),
        (b"FROM 10.0.0.1:5000/x\n", "dockerfile_registries", ("10.0.0.1:5000",)),
        (b"FROM inside.example/x\n", "dockerfile_registries", ("inside.example",)),
        (b"FROM unknown.example/x\n", "dockerfile_registries", ("unknown.example",)),
    ],
)
def test_a_denial_names_the_setting_that_allows_it(text: bytes, setting: str, value: object) -> None:
    with pytest.raises(DockerfileDenied) as caught:
        check(text)
    assert f"CAISSON_{setting.upper()}" in caught.value.hint
    check(text, **{setting: value})


def test_what_has_a_public_address_is_allowed() -> None:
    check(b"FROM public.example/x\nADD http://public.example/x /x\n")


def test_the_registry_that_pushes_go_to_may_be_read_from() -> None:
    for registry in ("10.0.0.1:5000", "http://10.0.0.1:5000"):
        check(b"FROM 10.0.0.1:5000/x\n", registry=registry)
    with pytest.raises(DockerfileDenied, match="image-private-registry"):
        check(b"FROM 10.0.0.1:5000/x\n", registry="10.0.0.1:5001")


def test_names_that_only_a_proxy_knows_are_a_setting() -> None:
    text = b"FROM unknown.example/x\nADD http://unknown.example/x /x\n"
    check(text, dockerfile_unjudged_hosts=True)
    with pytest.raises(DockerfileDenied, match="image-private-registry"):
        check(b"FROM inside.example/x\n", dockerfile_unjudged_hosts=True)


def test_only_listed_base_images_where_there_is_a_list() -> None:
    check(b"FROM y\n")
    with pytest.raises(DockerfileDenied, match="CAISSON_DOCKERFILE_BASE_IMAGES"):
        check(b"FROM y\n", dockerfile_base_images=("x",))


def test_what_no_setting_allows_says_so() -> None:
    with pytest.raises(DockerfileDenied, match="Nothing allows it"):
        check(b"FROM x\nRUN --security=insecure true\n")


OWN = parse_repository_url("https://h.example/a.git", ["https"])
OURS, THEIRS = "https://H.example:443/a", "https://h.example/b.git"


def may_begin_with(image: str, *tagged: tuple[str, str]) -> bool:
    policy = dockerfile_policy(SETTINGS, ENGINE.version, image_owners(OWN, tagged))
    findings = check_dockerfile(f"FROM {image}\n", policy, BuildInputs("buildkit"))
    assert {finding.rule for finding in findings} <= {"image-foreign"}
    return not findings


def test_images_of_other_repositories_are_theirs() -> None:
    tagged = ((THEIRS, "team/theirs:1"), (OURS, "team/ours:1"))
    assert not may_begin_with("team/theirs:1", *tagged)
    assert not may_begin_with("team/theirs:other", *tagged)
    assert may_begin_with("team/ours:1", *tagged)
    assert may_begin_with(f"team/ours@sha256:{'a' * 64}", *tagged)
    assert may_begin_with("team/third", *tagged)


def test_who_builds_one_image_of_a_repository_may_not_read_the_others_images_in_it() -> None:
    tagged = ((THEIRS, "team/both:1"), (THEIRS, "team/both:2"), (OURS, "team/both:latest"), (OURS, "team/both:2"))
    assert may_begin_with("team/both", *tagged)
    assert may_begin_with("team/both:2", *tagged)
    assert not may_begin_with("team/both:1", *tagged)
    assert not may_begin_with("team/both:3", *tagged)
    # A digest can be that of any image in it.
    assert not may_begin_with(f"team/both:2@sha256:{'a' * 64}", *tagged)
    assert not may_begin_with("team/both:2", *tagged, (THEIRS, "team/both:2"))


def test_what_clients_only_try_out_is_no_reason_for_a_failure() -> None:
    audit = Audit()
    audit.record(Entry("decision", Verdict("allow", "ping", "")))
    audit.record(Entry("decision", Verdict("deny", "buildkit-declined", "Not here.")))
    assert find_refusal(audit.summary()) is None
    audit.record(Entry("decision", Verdict("deny", "build-name", "Another name."), "POST", "/build"))
    assert find_refusal(audit.summary()) == Verdict("deny", "build-name", "Another name.")
    report = guard_report(audit.summary(), "/log")
    assert (report.denied, len(report.denials), report.audit_file) == (2, 2, "/log")
    assert {(item.verdict, item.rule): item.count for item in report.counts} == {
        ("allow", "ping"): 1,
        ("deny", "buildkit-declined"): 1,
        ("deny", "build-name"): 1,
    }


def check_base(*triggers: str, **settings: object) -> None:
    policy = dockerfile_policy(load_settings(_env_file=None, **settings), ENGINE.version)
    require_allowed_triggers("base:1", triggers, policy, BuildInputs("classic"), ADDRESSES.__getitem__)


def test_what_a_base_image_has_a_build_do_may_ask_for_no_more_than_a_dockerfile() -> None:
    check_base("ARG NODE_ENV", "ENV NODE_ENV $NODE_ENV", "COPY package.json /app/", "RUN make && make install")
    with pytest.raises(
        DockerfileDenied, match=r"ONBUILD trigger 'ADD http://inside.*of the base image base:1"
    ) as caught:
        check_base("RUN make", "ADD http://inside.example/x /x")
    assert "CAISSON_DOCKERFILE_ALLOWED_HOSTS" in caught.value.hint
    check_base("ADD http://inside.example/x /x", dockerfile_allowed_hosts=("inside.example",))


def test_each_trigger_is_judged_alone() -> None:
    """As the engine reads it: together, the first would make the second its own argument."""
    with pytest.raises(DockerfileDenied, match="add-private-host"):
        check_base("RUN true \\", "ADD http://10.0.0.1/x /x")


@pytest.mark.parametrize(
    "trigger", ["", "# escape=`", "FROM x", "RUN a\nRUN b\nFROM", "\nADD http://10.0.0.1/ /x", "ONBUILD RUN x", "x y"]
)
def test_a_trigger_that_is_no_instruction_is_denied(trigger: str) -> None:
    with pytest.raises(DockerfileDenied, match="can't be judged"):
        check_base(trigger)
