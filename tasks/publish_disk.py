"""The disk's page in Prefect: one artifact for each host, renewed in place."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import ObjectNotFound

from caisson.untrusted import markdown
from tasks.artifact_keys import host_key


def artifact_key(host: str) -> str:
    """The key of a host's page; Prefect takes small letters, digits and dashes only.

    >>> artifact_key("build_1.Example")
    'disk-build-1-example'
    """
    return host_key("disk", host)


def publish_page(host: str, page: str, summary: str, *, artifact: str, flow_run_id: UUID | None) -> str:
    """Renew the host's page, or make a new version of it where there is none; returns the artifact's ID.

    With a ``flow_run_id`` always a new one, which that run shows: for runs that people start.
    """
    description = markdown(summary)
    with get_client(sync_client=True) as client:
        if artifact and flow_run_id is None:
            try:
                client.update_artifact(UUID(artifact), ArtifactUpdate(data=page, description=description))
            except ObjectNotFound:
                pass  # removed in Prefect: made anew
            else:
                return artifact
        values = {"key": artifact_key(host), "type": "markdown", "data": page, "description": description}
        created = client.create_artifact(
            ArtifactCreate(**values, flow_run_id=flow_run_id) if flow_run_id else ArtifactCreate(**values)
        )
    return str(created.id)
