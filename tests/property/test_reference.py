"""References, by the sentences of their grammar (github.com/distribution/reference, OCI distribution spec)."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from caisson.reference import Digest, Reference, Tag, parse_reference, parse_repository

components = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
paths = st.lists(components, min_size=1, max_size=4).map("/".join)
hosts = st.from_regex(
    r"[a-zA-Z0-9]{1,6}(-[a-zA-Z0-9]{1,3})?(\.[a-zA-Z0-9]{1,5}){0,2}", fullmatch=True
) | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
registries = (
    st.just("localhost")
    | st.builds(lambda host, port: f"{host}:{port}", hosts, st.integers(1, 65535))
    | hosts.filter(lambda host: "." in host)
)
tags = st.from_regex(re.compile(r"\w[\w.-]{0,127}", re.ASCII), fullmatch=True)
digests = st.sampled_from([("sha256", 64), ("sha384", 96), ("sha512", 128)]).flatmap(
    lambda kind: st.text("0123456789abcdef", min_size=kind[1], max_size=kind[1]).map(lambda text: f"{kind[0]}:{text}")
)
references = st.builds(
    lambda registry, path, tag, digest: (
        f"{registry and f'{registry}/'}{path}{tag and f':{tag}'}{digest and f'@{digest}'}"
    ),
    st.just("") | registries,
    paths,
    st.just("") | tags,
    st.just("") | digests,
)


def _parse(text: str) -> Reference | None:
    try:
        return parse_reference(text)
    except ValueError:
        return None


@given(references)
def test_every_reference_of_the_grammar_that_is_accepted_round_trips(text: str) -> None:
    reference = _parse(text)
    assume(reference is not None)
    assert reference is not None
    assert parse_reference(reference.familiar()) == reference
    assert parse_reference(reference.canonical()) == reference
    assert parse_repository(str(reference.repository)) == reference.repository


@given(registries, paths, tags, digests)
def test_reference_is_name_colon_tag_at_digest(registry: str, path: str, tag: str, digest: str) -> None:
    """ "reference := name [ ":" tag ] [ "@" digest ]"; "name := [domain '/'] remote-name"."""
    assume(registry not in ("docker.io", "index.docker.io"))
    reference = parse_reference(f"{registry}/{path}:{tag}@{digest}")
    assert (reference.repository.registry, reference.repository.path) == (registry, path)
    assert (reference.tag, reference.digest) == (Tag(tag), Digest(digest))


@given(st.text(max_size=300) | st.text("aA0._-:/@[]\n ", max_size=60))
def test_any_text_is_a_reference_that_round_trips_or_a_value_error(text: str) -> None:
    reference = _parse(text)
    if reference is not None:
        assert parse_reference(str(reference)) == reference


@given(references)
def test_length_of_the_name_is_at_most_255_and_its_path_is_lower_case(text: str) -> None:
    """ "Many clients impose a limit of 255 characters on the length of the concatenation of the registry hostname (and
    optional port), /, and <name> value." (OCI distribution spec, "Pulling manifests")
    """
    reference = _parse(text)
    assume(reference is not None)
    assert reference is not None
    assert len(reference.repository.canonical()) <= 255
    assert reference.repository.path == reference.repository.path.lower()


@given(st.text(max_size=140))
def test_a_tag_is_at_most_128_characters_of_its_alphabet(text: str) -> None:
    """ "<reference> as a tag MUST be at most 128 characters in length and MUST match the following regular expression:
    [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}" (OCI distribution spec, "Pulling manifests")
    """
    allowed = re.fullmatch(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", text) is not None
    try:
        accepted = str(Tag(text)) == text
    except ValueError:
        accepted = False
    assert accepted == allowed


@given(st.text("abcxyz", min_size=1, max_size=20), st.sampled_from(["", "localhost:5000/", "r.io/"]))
def test_an_upper_case_repository_is_refused_and_its_lower_case_proposed(name: str, registry: str) -> None:
    """ "remote-name := path-component ['/' path-component]*; alpha-numeric := /[a-z0-9]+/"."""
    with pytest.raises(ValueError, match=re.escape(f"give {f'{registry}{name}'!r}")):
        parse_repository(f"{registry}{name.upper()}")
