"""What holds for any secret, any text around it, and any way to cut the stream."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from caisson.redact import Redactor, forms_of

# Few characters, so that beginnings, overlaps and repeats of secrets are common; among them all that encoders touch.
_CHARACTERS = st.sampled_from("aabbAB01+/=%&'\"\\<>@:*- \nü€\x00")
_SECRETS = st.text(_CHARACTERS, min_size=0, max_size=12) | st.text(min_size=4, max_size=30)
_TEXTS = st.text(_CHARACTERS, max_size=30) | st.text(max_size=30)


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _stream(redactor: Redactor, data: bytes, cuts: list[int]) -> bytes:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    chunks = [data[begin:end] for begin, end in pairwise(places)]
    return b"".join(redactor.feed(chunk) for chunk in chunks) + redactor.flush()


@st.composite
def _planted(draw: st.DrawFn) -> tuple[list[str], bytes]:
    secrets = draw(st.lists(_SECRETS, min_size=1, max_size=3))
    forms = sorted(frozenset().union(*map(forms_of, secrets)))
    pieces = draw(st.lists(_TEXTS | st.sampled_from(forms) if forms else _TEXTS, max_size=5))
    # Half a form at the end is what a stream has to wait for.
    if forms and draw(st.booleans()):
        form = draw(st.sampled_from(forms))
        pieces.append(form[: draw(st.integers(0, len(form)))])
    return secrets, _encode("".join(pieces))


@given(_planted(), st.lists(st.integers(0, 1000), max_size=8))
def test_no_form_of_a_secret_comes_out_wherever_the_stream_is_cut(
    planted: tuple[list[str], bytes], cuts: list[int]
) -> None:
    secrets, data = planted
    assume("*" not in "".join(secrets) or not any("▒" in s or "[" in s for s in secrets))
    shown = _stream(Redactor(secrets), data, cuts)
    for form in frozenset().union(*map(forms_of, secrets)):
        assert _encode(form) not in shown


@given(_planted(), st.lists(st.integers(0, 1000), max_size=8))
def test_a_stream_comes_out_as_the_whole_would_however_it_is_cut(
    planted: tuple[list[str], bytes], cuts: list[int]
) -> None:
    secrets, data = planted
    assert _stream(Redactor(secrets), data, cuts) == _stream(Redactor(secrets), data, [])


@given(_planted())
def test_a_text_and_a_stream_are_masked_alike(planted: tuple[list[str], bytes]) -> None:
    secrets, data = planted
    text = data.decode(errors="surrogatepass")
    assert _encode(Redactor(secrets).redact(text)) == _stream(Redactor(secrets), data, [])


@given(st.lists(_SECRETS, max_size=3), st.binary(max_size=60), st.lists(st.integers(0, 1000), max_size=8))
def test_what_holds_no_secret_passes_unchanged(secrets: list[str], data: bytes, cuts: list[int]) -> None:
    assume(not any(_encode(form) in data for secret in secrets for form in forms_of(secret)))
    assert _stream(Redactor(secrets), data, cuts) == data


@given(_planted(), st.integers(0, 1000))
def test_no_more_is_held_back_than_what_may_be_a_secret(planted: tuple[list[str], bytes], cut: int) -> None:
    secrets, data = planted
    forms = [_encode(form) for secret in secrets for form in forms_of(secret)]
    data = data[: cut % (len(data) + 1)]
    assume(not any(form in data for form in forms))
    held = data[len(Redactor(secrets).feed(data)) :]
    assert not held or any(form.startswith(held) for form in forms)
