"""What the worker gives each run: Prefect's job configuration, with the environment that all runs share."""

from __future__ import annotations

from functools import cache

from prefect.workers.process import ProcessJobConfiguration

# A run's lines are followed live. The worker has hardly any, and its log's thread would wake as often, for ever.
_LOG_BATCH_SECONDS = "0.3"


class JobConfiguration(ProcessJobConfiguration):
    """Prefect's, whose shared part is read once: that takes longer than all else before a run begins."""

    @classmethod
    def _base_environment(cls) -> dict[str, str]:
        return shared_environment()


@cache
def shared_environment() -> dict[str, str]:
    """The Prefect settings of this process, as variables, and what differs in runs. It stays as it was first."""
    return {
        **ProcessJobConfiguration._base_environment(),
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": _LOG_BATCH_SECONDS,
    }
