"""What the steps of a prune share."""

from __future__ import annotations

from caisson.prune_report import PruneReport
from caisson.prune_view import HostView
from caisson.retention.prune_plan import PrunePlan
from caisson.settings import Settings


class PruneRun:
    """One run of the flow, with its ID; steps fill in ``plan`` and ``report``.

    Not a dataclass, since Prefect walks through all that is in one which a task gets: plans are long.
    """

    def __init__(self, settings: Settings, view: HostView, *, run: str, trigger: str) -> None:
        self.settings, self.view, self.run, self.trigger = settings, view, run, trigger
        self._plan: PrunePlan | None = None
        self.report: PruneReport | None = None

    @property
    def plan(self) -> PrunePlan:
        """What would be removed; raises ``RuntimeError`` before it is made."""
        if self._plan is None:
            raise RuntimeError("make the plan first")
        return self._plan

    @plan.setter
    def plan(self, plan: PrunePlan) -> None:
        self._plan = plan
