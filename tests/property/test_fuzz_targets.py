"""What the fuzzer is given holds for any bytes; a few of them with each run of the tests."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz_targets import TARGETS, WORDS


@pytest.mark.parametrize("name", TARGETS)
def test_a_targets_seeds_break_no_promise(name: str) -> None:
    run, seeds = TARGETS[name]
    for seed in (b"", *seeds):
        run(seed)
        run(seed[:-1])
        run(seed + seed)


parts = st.sampled_from([word.encode() for word in WORDS]) | st.binary(max_size=5)


@settings(max_examples=30)
@given(st.sampled_from(sorted(TARGETS)), st.lists(parts, max_size=12).map(b"".join))
def test_no_bytes_break_a_promise(name: str, data: bytes) -> None:
    run, seeds = TARGETS[name]
    run(data)
    run(seeds[0] + data)
