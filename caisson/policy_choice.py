"""Which retention policy a run prunes by. Pure."""

from __future__ import annotations

from caisson.errors import RequestInvalid
from caisson.retention.policy import RetentionPolicy


def choose_policy(of_host: RetentionPolicy, given: RetentionPolicy, *, own_policy: bool) -> RetentionPolicy:
    """The host's, or the one that was given where ``own_policy`` says so.

    A form shows the given one filled in, so that it can't be told from none; raises ``RequestInvalid`` for one that was
    filled in otherwise and would be passed over.
    """
    if own_policy:
        return given
    if given != RetentionPolicy():
        raise RequestInvalid(
            "policy: it was filled in, but own_policy is off, so that the policy of this host's settings holds.",
            hint="Switch own_policy on, or leave policy as it is.",
        )
    return of_host
