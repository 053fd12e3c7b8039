"""The bounds of a prune of build cache, in the words that an engine's API has for them. Pure."""

from __future__ import annotations

THREE_BOUNDS = (1, 48)
"""The API from which on an engine takes BuildKit's three bounds: ``docs/api/version-history.md`` of the Engine."""


def cache_bounds(api: tuple[int, int], *, keep: int, reserved: int = 0, min_free: int = 0) -> dict[str, int]:
    """The query of ``POST /build/prune``, all in bytes; an older engine is told ``keep`` alone.

    BuildKit goes down to ``keep``, and further until ``min_free`` are free, but never below ``reserved``
    (``calculateKeepBytes`` in its ``cache/manager.go``).

    >>> cache_bounds((1, 45), keep=20, reserved=2, min_free=9)
    {'keep-storage': 20}
    >>> cache_bounds((1, 48), keep=20, reserved=2, min_free=9)
    {'max-used-space': 20, 'reserved-space': 2, 'min-free-space': 9}
    """
    if api < THREE_BOUNDS:
        return {"keep-storage": keep}
    # To BuildKit 0 is no bound, and three of them are none at all: then all goes, as it should. With only what is to be
    # free for a bound, what is beyond that would stay.
    return {"max-used-space": keep, "reserved-space": reserved, "min-free-space": min_free if keep else 0}
