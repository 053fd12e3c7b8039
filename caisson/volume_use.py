"""When a container last had an anonymous volume: the latest of all that tells of it. Pure.

- A volume that was never seen before was used now; so was one that a container, in any state, has now.
- One that a container had at the last look, or got since by the engine's events, and none has now, was had until some
  time in between, of which no event tells: until now, then.
- Where events were lost, every volume may have been used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from caisson.ledger.volumes import KnownVolume

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


def is_anonymous(name: str) -> bool:
    """Whether the engine gave a volume its name: 64 hexadecimal digits (moby, ``volume/service``).

    >>> is_anonymous("0a" * 32), is_anonymous("database")
    (True, False)
    """
    return _ANONYMOUS.fullmatch(name) is not None


def look_at_volumes(
    known: Mapping[str, KnownVolume],
    *,
    listed: Collection[str],
    held: Collection[str],
    used: Collection[str],
    is_complete: bool,
    now: datetime,
) -> dict[str, KnownVolume]:
    """What is known after a look.

    ``listed`` are the volumes that are there, as far as that was asked, ``held`` those that a container has, ``used``
    those that the events since the last look tell of; ``is_complete`` is that none of these was lost.
    """
    found = {name for name in (*listed, *held) if is_anonymous(name)}
    after = {name: KnownVolume(name, now, now, now, held=name in held) for name in found - known.keys()}
    for name, before in known.items():
        is_held = name in held
        is_used = is_held or before.held or name in used or not is_complete
        after[name] = replace(
            before,
            last_used=max(before.last_used, now) if is_used else before.last_used,
            last_listed=now if name in found else before.last_listed,
            held=is_held,
        )
    return after
