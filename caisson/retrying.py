"""Which failure of a build is worth another try. Pure.

Only one whose cause lies outside of the request and passes by itself: the engine was restarted or failed to start a
step, the network to a repository or a registry failed. Never what the Dockerfile did, a refusal, a limit, a timeout or
a cancel: those come again, or were meant.
"""

from __future__ import annotations

from caisson import push
from caisson.errors import (
    BaseImageUnreachable,
    CaissonError,
    EngineFault,
    EngineLost,
    EngineUnreachable,
    RegistryUnreachable,
    RepositoryUnreachable,
)

LEAST_SECONDS = 10.0
"""With less time left of the build's timeout there is no other try."""
_OF_THE_ENGINE = (EngineLost, EngineUnreachable, EngineFault)
_OF_THE_NETWORK = (RepositoryUnreachable, RegistryUnreachable, BaseImageUnreachable)


def may_try_again(failure: BaseException, *, tried: int, attempts: int, seconds_left: float) -> bool:
    """Whether a build that has failed ``tried`` times, the last time so, may be tried once more."""
    passes_by = isinstance(failure, CaissonError) and isinstance(failure, _OF_THE_ENGINE + _OF_THE_NETWORK)
    if isinstance(failure, RegistryUnreachable):
        passes_by = push.should_retry(failure)
    return passes_by and tried < attempts and seconds_left >= LEAST_SECONDS
