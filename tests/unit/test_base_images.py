"""Which images a classic build begins with, and that the guard lets none pass but those that were judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from caisson.guard.base_images import JudgedBases, base_images
from caisson.guard.build_query import read_build_query
from caisson.guard.dockerfile_check import dockerfile_check
from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_names import Names
from caisson.guard.dockerfile_policy import DockerfilePolicy, check_dockerfile
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.verdict import Denied
from tests.buildkit_client import IMAGE, POLICY

RULES = DockerfilePolicy(Dialect.HEREDOCS, "caisson.local", unresolved=True)
STAGES = b"FROM a AS one\nFROM b:2 AS two\nCOPY --from=c / /\nFROM one\nFROM scratch\nFROM d\n"


@pytest.mark.parametrize(
    ("target", "expected"),
    [("", "a b:2 d"), ("one", "a"), ("TWO", "a b:2"), ("0", "a b:2 d"), ("other", "a b:2 d")],
)
def test_what_a_build_begins_its_stages_with_up_to_its_target(target: str, expected: str) -> None:
    found = base_images(STAGES, Dialect.HEREDOCS, BuildInputs("classic", target=target))
    assert " ".join(str(image.name) for image in found) == expected


CLASSIC = BuildInputs("classic")


def denied(dockerfile: str, *judged: str, inputs: BuildInputs = CLASSIC) -> str:
    """The rule by which a Dockerfile is denied; empty: it is not."""
    bases = JudgedBases()
    for name in judged:
        bases.add(name)
    try:
        dockerfile_check(RULES, Names(ask=lambda _: ("1.1.1.1",)), bases)(dockerfile.encode(), inputs)
    except Denied as error:
        return error.rule
    return ""


@pytest.mark.parametrize(
    ("dockerfile", "judged", "expected"),
    [
        ("FROM debian", (), True),
        ("FROM debian", ("debian:latest",), False),
        ("FROM docker.io/library/debian", ("debian",), False),
        ("FROM debian:12", ("debian",), True),
        ("FROM debian\nFROM other", ("debian",), True),
        (f"FROM debian@sha256:{'a' * 64}", ("debian",), True),
        ("FROM scratch", (), False),
        ("FROM debian AS x\nFROM x", ("debian",), False),
        # Nothing of what is only copied from is run.
        ("FROM scratch\nCOPY --from=other / /", (), False),
        # What only the base's variables tell is for the setting to decide.
        ("ARG A=x\nFROM debian${A/x/y}", (), False),
    ],
)
def test_a_build_begins_with_what_was_judged(dockerfile: str, judged: tuple[str, ...], expected: bool) -> None:
    assert denied(dockerfile, *judged) == ("base-image-unjudged" if expected else "")


def test_what_buildkit_would_do_is_judged_otherwise_and_without_a_flow_nobody_judges() -> None:
    assert not denied("FROM debian", inputs=BuildInputs("buildkit"))
    dockerfile_check(RULES, Names())(b"FROM debian", BuildInputs("classic"))


def test_a_variable_of_the_build_counts() -> None:
    given = BuildInputs("classic", (("B", "other"),))
    assert denied("ARG B=one\nFROM $B", "one", inputs=given)
    assert not denied("ARG B=one\nFROM $B", "other", inputs=given)


def test_what_was_judged_is_not_looked_up_anew() -> None:
    asked = (("t", IMAGE), ("pull", "1"))
    assert read_build_query(asked, POLICY).pull
    with pytest.raises(Denied) as caught:
        read_build_query(asked, replace(POLICY, may_pull=False))
    assert caught.value.rule == "build-pull"
    assert not read_build_query((("t", IMAGE), ("pull", "0")), replace(POLICY, may_pull=False)).pull


@pytest.mark.parametrize(
    ("platform", "builder", "expected"),
    [
        ("linux/amd64", "classic", []),
        ("AMD64", "classic", []),
        ("linux/x86_64", "classic", []),
        ("linux/arm64", "classic", ["base-image-platform"]),
        ("linux/amd64/v3", "classic", ["base-image-platform"]),
        ("$P", "classic", ["base-image-platform"]),
        ("linux/arm64", "buildkit", []),
    ],
)
def test_an_image_of_another_platform_is_pulled_unseen_by_the_classic_builder(
    platform: str, builder: str, expected: list[str]
) -> None:
    inputs = BuildInputs(builder, (), "linux/amd64")  # type: ignore[arg-type]
    text = f"ARG P=linux/s390x\nFROM --platform={platform} debian AS x\nFROM --platform=linux/arm64 x\n"
    assert [finding.rule for finding in check_dockerfile(text, RULES, inputs)] == expected
