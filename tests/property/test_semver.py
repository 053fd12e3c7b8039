"""Semantic versions, by the sentences of https://semver.org/spec/v2.0.0.html."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from caisson.semver import Version

numbers = st.integers(0, 12)
numeric = numbers.map(str)
words = st.from_regex(r"[0-9]?[A-Za-z-][0-9A-Za-z-]{0,2}", fullmatch=True)
pre = st.lists(numeric | words, max_size=3).map(tuple)
build = st.lists(st.from_regex(r"[0-9A-Za-z-]{1,3}", fullmatch=True), max_size=2).map(tuple)
versions = st.builds(Version, numbers, numbers, numbers, pre, build)


@given(versions)
def test_a_version_is_read_as_it_is_written(version: Version) -> None:
    assert Version.parse(str(version)) == version
    assert Version.parse(f"v{version}") == version


@given(versions, versions, versions)
def test_precedence_is_a_total_order(one: Version, two: Version, three: Version) -> None:
    """ "Precedence refers to how versions are compared to each other when ordered." (§11)"""
    a, b, c = one.precedence, two.precedence, three.precedence
    assert (a < b) + (a == b) + (a > b) == 1
    if a <= b <= c:
        assert a <= c


@given(versions, build)
def test_build_metadata_is_ignored(version: Version, other: tuple[str, ...]) -> None:
    """ "Build metadata MUST be ignored when determining version precedence." (§10)"""
    assert version.precedence == replace(version, build=other).precedence


@given(numbers, numbers, numbers, st.integers(1, 5), pre, pre)
def test_major_minor_and_patch_are_compared_numerically(
    major: int, minor: int, patch: int, more: int, one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    """ "the first difference when comparing each of these identifiers from left to right ... Major, minor, and patch
    versions are always compared numerically." (§11.2)
    """
    low = Version(major, minor, patch, one).precedence
    assert low < Version(major + more, 0, 0, other).precedence
    assert low < Version(major, minor + more, 0, other).precedence
    assert low < Version(major, minor, patch + more, other).precedence


@given(versions.filter(lambda version: version.is_prerelease))
def test_a_prerelease_is_lower_than_its_release(version: Version) -> None:
    """ "When major, minor, and patch are equal, a pre-release version has lower precedence than a normal version."
    (§11.3)
    """
    assert version.precedence < replace(version, pre=()).precedence


@given(pre, numbers, st.integers(1, 5))
def test_digits_are_compared_numerically(start: tuple[str, ...], number: int, more: int) -> None:
    """ "Identifiers consisting of only digits are compared numerically." (§11.4.1)"""
    low = Version(1, 0, 0, (*start, str(number)))
    assert low.precedence < Version(1, 0, 0, (*start, str(number + more))).precedence


@given(pre, words, words)
def test_letters_are_compared_in_ascii_order(start: tuple[str, ...], one: str, other: str) -> None:
    """ "Identifiers with letters or hyphens are compared lexically in ASCII sort order." (§11.4.2)"""
    low, high = sorted((one, other), key=lambda text: text.encode("ascii"))
    assert Version(1, 0, 0, (*start, low)).precedence <= Version(1, 0, 0, (*start, high)).precedence


@given(pre, numeric, words)
def test_numbers_are_lower_than_words(start: tuple[str, ...], number: str, word: str) -> None:
    """ "Numeric identifiers always have lower precedence than non-numeric identifiers." (§11.4.3)"""
    assert Version(1, 0, 0, (*start, number)).precedence < Version(1, 0, 0, (*start, word)).precedence


@given(pre.filter(bool), numeric | words)
def test_the_larger_set_of_fields_is_higher(start: tuple[str, ...], more: str) -> None:
    """ "A larger set of pre-release fields has a higher precedence than a smaller set, if all of the preceding
    identifiers are equal." (§11.4.4)
    """
    assert Version(1, 0, 0, start).precedence < Version(1, 0, 0, (*start, more)).precedence
