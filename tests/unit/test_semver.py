"""Semantic versions: what is one, and which comes first."""

from __future__ import annotations

import doctest
from itertools import pairwise

import pytest

import caisson.semver
from caisson.semver import Version


def _parse(text: str) -> Version:
    version = Version.parse(text)
    assert version is not None, text
    return version


def test_the_examples_in_the_documentation_are_true() -> None:
    assert doctest.testmod(caisson.semver).failed == 0


# The two lists that go with semver.org's own expression (https://regex101.com/r/vkijKf/1/).
@pytest.mark.parametrize(
    "text",
    [
        "0.0.4",
        "1.2.3",
        "10.20.30",
        "1.1.2-prerelease+meta",
        "1.1.2+meta",
        "1.1.2+meta-valid",
        "1.0.0-alpha",
        "1.0.0-alpha.beta.1",
        "1.0.0-alpha0.valid",
        "1.0.0-alpha.0valid",
        "1.0.0-alpha-a.b-c-somethinglong+build.1-aef.1-its-okay",
        "2.0.0+build.1848",
        "1.0.0-alpha+beta",
        "1.2.3----RC-SNAPSHOT.12.9.1--.12+788",
        "1.0.0+0.build.1-rc.10000aaa-kk-0.1",
        "99999999999999999999999.999999999999999999.99999999999999999",
        "1.0.0-0A.is.legal",
    ],
)
def test_what_semver_org_calls_valid_is_a_version_that_is_written_as_it_was_read(text: str) -> None:
    assert str(_parse(text)) == text
    assert _parse(f"v{text}") == _parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1.2",
        "1.2.3-0123",
        "1.2.3-0123.0123",
        "1.1.2+.123",
        "+invalid",
        "-invalid",
        "alpha",
        "1.0.0-alpha_beta",
        "1.0.0-alpha..1",
        "01.1.1",
        "1.01.1",
        "1.1.01",
        "1.2.3.DEV",
        "1.2.31.2.3----RC-SNAPSHOT.12.09.1--..12+788",
        "-1.0.3-gamma+b7718",
        "+justmeta",
        "9.8.7+meta+meta",
        "1.2.3\n",
        "1.2.3-",
        "vv1.2.3",
        "V1.2.3",
        "release-1.2.3",
        "app/v1.2.3",
        "\u0661.2.3",
        f"1.2.{'9' * 5000}",
    ],
)
def test_what_semver_org_calls_invalid_is_no_version(text: str) -> None:
    assert Version.parse(text) is None


def test_the_chain_of_section_11_is_in_order() -> None:
    """ "1.0.0-alpha < 1.0.0-alpha.1 < 1.0.0-alpha.beta < 1.0.0-beta < 1.0.0-beta.2 < 1.0.0-beta.11 < 1.0.0-rc.1
    < 1.0.0"; "1.0.0 < 2.0.0 < 2.1.0 < 2.1.1".
    """
    chain = [
        *("1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"),
        *("1.0.0-rc.1", "1.0.0", "2.0.0", "2.1.0", "2.1.1"),
    ]
    for low, high in pairwise(chain):
        assert _parse(low).precedence < _parse(high).precedence
