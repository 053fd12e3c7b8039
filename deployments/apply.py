"""The deployments of one host, applied from Python: idempotent, with no path of this machine in the database."""

from __future__ import annotations

from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from caisson.settings import Settings
from deployments.names import pool_name
from flows.build_image import build_image

FLOWS: tuple[Flow[..., Any], ...] = (build_image,)


def apply_deployments(settings: Settings) -> list[str]:
    """Create or update this host's work pool and its deployments; returns their names, ``flow/host``."""
    ensure_work_pool(settings)
    return [apply_flow(flow, settings) for flow in FLOWS]


def apply_flow(flow: Flow[..., Any], settings: Settings) -> str:
    """Create or update the deployment of one flow on this host; returns its name, ``flow/host``."""
    deployment = flow.to_deployment(
        name=settings.host_name,
        description=flow.description,
        work_pool_name=pool_name(settings),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # and no coroutine, since this is no event loop
    deployment.apply()
    return f"{flow.name}/{settings.host_name}"


def ensure_work_pool(settings: Settings) -> WorkPool:
    """The process pool of this host, made if it is not there yet."""
    with get_client(sync_client=True) as client:
        return _ensure(client, pool_name(settings))


def _ensure(client: SyncPrefectClient, name: str) -> WorkPool:
    description = "Builds on this host. Caisson's own worker serves it; start no other for it."
    template = ProcessWorker.get_default_base_job_template()
    # A pipe to the worker would end a run with the worker that reads it; output goes to a file instead.
    template["variables"]["properties"]["stream_output"]["default"] = False
    try:
        return client.create_work_pool(
            WorkPoolCreate(name=name, type="process", description=description, base_job_template=template)
        )
    except ObjectAlreadyExists:
        client.update_work_pool(name, WorkPoolUpdate(description=description, base_job_template=template))
        return client.read_work_pool(name)
