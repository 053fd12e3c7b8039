"""A page of a flow run in Prefect: a markdown artifact. A failure of it is told, and is none of the run's."""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.context import FlowRunContext

from tasks.step import run_logger


def show_page(what: str, *, key: str, description: str, page: str) -> None:
    """Make the page, where this is a flow run. Prefect's pages show ``description`` as markdown too."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    artifact = ArtifactCreate(
        key=key, type="markdown", description=description, data=page, flow_run_id=context.flow_run.id
    )
    try:
        with get_client(sync_client=True) as client:
            client.create_artifact(artifact)
    except Exception as error:
        run_logger().warning(f"The {what} could not be shown in Prefect ({type(error).__name__}: {error}).")
