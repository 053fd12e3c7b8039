"""References: what is accepted, how it is written, and what a person is told of the rest."""

from __future__ import annotations

import doctest

import pytest

import caisson.reference
from caisson.reference import Digest, Reference, Repository, Tag, parse_reference, parse_repository

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


def test_the_examples_in_the_documentation_are_true() -> None:
    failed, attempted = doctest.testmod(caisson.reference)
    assert (failed, attempted > 5) == (0, True)


@pytest.mark.parametrize(
    ("text", "registry", "path"),
    [
        ("debian", "docker.io", "library/debian"),
        ("team/app", "docker.io", "team/app"),
        ("a__b/c---d.e", "docker.io", "a__b/c---d.e"),
        ("docker.io/debian", "docker.io", "library/debian"),
        ("index.docker.io/team/app", "docker.io", "team/app"),
        ("library", "docker.io", "library/library"),
        ("library/a/b", "docker.io", "library/a/b"),
        ("localhost/app", "localhost", "app"),
        ("localhost:5000/app", "localhost:5000", "app"),
        ("host:5000/app", "host:5000", "app"),
        ("registry/app", "docker.io", "registry/app"),
        ("Registry.Example.com/app", "Registry.Example.com", "app"),
        ("127.0.0.1:65535/a/b/c/d", "127.0.0.1:65535", "a/b/c/d"),
        ("[::1]:5000/team/app", "[::1]:5000", "team/app"),
        ("[2001:db8::1]/app", "[2001:db8::1]", "app"),
        ("localhost/sha256", "localhost", "sha256"),
    ],
)
def test_the_first_part_is_a_registry_if_it_has_a_dot_or_a_port_or_is_localhost(
    text: str, registry: str, path: str
) -> None:
    assert parse_repository(text) == Repository(registry, path)


@pytest.mark.parametrize(
    ("text", "familiar", "canonical"),
    [
        ("docker.io/library/debian:12", "debian:12", "docker.io/library/debian:12"),
        ("docker.io/team/app", "team/app", "docker.io/team/app"),
        ("docker.io/library/a/b", "library/a/b", "docker.io/library/a/b"),
        (f"debian@{DIGEST}", f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}"),
        (f"r.io:5/a:t@{DIGEST}", f"r.io:5/a:t@{DIGEST}", f"r.io:5/a:t@{DIGEST}"),
    ],
)
def test_docker_io_and_library_are_left_out_of_the_familiar_form_only(text: str, familiar: str, canonical: str) -> None:
    reference = parse_reference(text)
    assert (reference.familiar(), str(reference), reference.canonical()) == (familiar, familiar, canonical)


def test_a_colon_before_the_last_slash_belongs_to_the_port_and_after_it_to_the_tag() -> None:
    assert parse_reference("r.io:5000/app:5000") == Reference(Repository("r.io:5000", "app"), Tag("5000"))
    assert parse_reference("r.io:5000/app").tag is None
    assert parse_reference("localhost:5000") == Reference(Repository("docker.io", "library/localhost"), Tag("5000"))
    assert parse_reference("[::1]:5000/app:v1") == Reference(Repository("[::1]:5000", "app"), Tag("v1"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Team/App", "'Team/App' has upper-case letters, which a repository can't have; give 'team/app'"),
        ("r.io:5/Team/App", "give 'r.io:5/team/app'"),
        ("Debian", "give 'debian'"),
        ("team/app:1.2", "has the tag '1.2' in it; give 'team/app' alone, and '1.2' among the raw tags"),
        (f"team/app@{DIGEST}", "has a digest in it; give 'team/app' alone"),
        (f"team/app:1@{DIGEST}", "has a digest in it; give 'team/app' alone"),
        ("localhost:5000", "is a registry without a repository, or has a tag in it; give 'localhost:5000/team/app'"),
    ],
)
def test_a_near_miss_is_told_what_to_give_instead(text: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_repository(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "/",
        "/app",
        "app/",
        "a//b",
        "a/b:",
        "a/b@",
        "a:b:c",
        "a\n",
        "a\x00",
        "\uff41",
        "team/\u00fcber",
        "-app",
        "app-",
        "--upload-pack=x",
        "a..b",
        "a___b",
        "a._b",
        "../a",
        "./a",
        "a b",
        "r.io:/a",
        "r.io:0/a",
        "r.io:65536/a",
        "r.io:5000x/a",
        "-r.io/a",
        "r-.io/a",
        "r..io/a",
        "r_x.io/a",
        "[::1/a",
        "[:::]/a",
        "[12345::]/a",
        "::1/a",
        "a:-x",
        "a:.x",
        "a:x y",
        "a:\u00e4",
        f"a:{'x' * 129}",
        "a@sha256:12",
        f"a@{DIGEST.upper()}",
        f"a@sha512:{HEX}",
        f"a@md5:{HEX[:32]}",
        f"a@{DIGEST}:x",
        "x" * 256,
        f"r.io/{'x' * 251}",
    ],
)
def test_what_is_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_reference(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["sha256", HEX, "docker.io/a.b/c", "docker.io/localhost/c", "docker.io/a:1/c"])
def test_what_an_engine_would_take_for_something_else_is_refused(text: str) -> None:
    # Measured on 20.10 and 26.1: both refuse sha256 and 64 digits, and list docker.io/localhost/c as localhost/c.
    with pytest.raises(ValueError):
        parse_reference(text)


def test_values_that_are_made_directly_are_held_to_the_grammar_too() -> None:
    for registry, path in (("docker.io", "debian"), ("registry", "app"), ("", "app"), ("r.io", ""), ("r.io", "A")):
        with pytest.raises(ValueError):
            Repository(registry, path)
    for bad in ("", "x" * 129, "a\n"):
        with pytest.raises(ValueError):
            Tag(bad)
    assert Digest(f"sha512:{HEX}{HEX}").algorithm == "sha512"


def test_the_longest_name_and_the_longest_tag_are_accepted() -> None:
    reference = f"r.io/{'x' * 250}:{'y' * 128}@sha512:{'0' * 128}"
    assert str(parse_reference(reference)) == reference


@pytest.mark.parametrize(
    "text",
    ["https://alice:hunter2@r.io/app", "alice:hunter2@r.io/app", "alice:hunter2!@r.io/app", "r.io/alice:hunter2!@x"],
)
def test_a_password_before_an_at_sign_is_never_repeated(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_repository(text)
    assert "hunter2" not in str(caught.value)


def test_ten_megabytes_are_refused_without_being_read() -> None:
    with pytest.raises(ValueError, match="10485760 characters"):
        parse_reference("a" * (10 << 20))
