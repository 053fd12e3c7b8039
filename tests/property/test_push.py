"""Pushes, whatever engines and registries say."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from caisson.engine import PushProgress
from caisson.errors import EngineRefused, PushDenied, RegistryUnreachable
from caisson.push import PushLog, classify_push_error, should_retry

statuses = st.sampled_from(
    ["Preparing", "Waiting", "Pushing", "Pushed", "Layer already exists", "Retrying in 5 seconds"]
)
sizes = st.integers(0, 1 << 40)
events = st.builds(PushProgress, st.sampled_from("abcd"), statuses, sizes, sizes)
words = st.sampled_from(["denied", "unauthorized", ": ", "\n", '"', "https://a?b", "x509: ", "503", "status: ", "\\"])


@given(st.text(max_size=300) | st.lists(words, max_size=30).map("".join))
def test_any_sentence_is_one_of_three_failures_in_one_line(message: str) -> None:
    error = classify_push_error(message)
    assert type(error) in (PushDenied, RegistryUnreachable, EngineRefused)
    assert not [character for character in error.message if unicodedata.category(character) in ("Cc", "Cf", "Cs")]
    assert len(error.message) < 500
    if not isinstance(error, RegistryUnreachable):
        assert not should_retry(error)


@given(st.lists(st.tuples(st.floats(0, 5), events), max_size=60))
def test_there_is_no_more_than_one_line_a_second_and_never_more_than_everything_done(
    steps: list[tuple[float, PushProgress]],
) -> None:
    log, now, said = PushLog(), 0.0, []
    for wait, event in steps:
        now += wait
        if line := log.add(event, now=now):
            said.append(now)
            done, _, layers = line.removeprefix("pushing: ").partition(" of ")
            assert 0 <= int(done) <= int(layers.split()[0]) <= 4
    assert all(later - earlier >= 1 for earlier, later in pairwise(said))
