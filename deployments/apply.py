"""The deployments of one host, applied from Python: idempotent, with no path of this machine in the database."""

from __future__ import annotations

from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from caisson.settings import Settings
from deployments.care_schedule import apply_schedule, monitor_schedule, prune_schedule
from deployments.names import CARE_QUEUE, pool_name
from flows.build_image import build_image
from flows.monitor_disk import monitor_disk
from flows.prune_images import prune_images

FLOWS: tuple[Flow[..., Any], ...] = (build_image,)
# What people edit in Prefect and what ``caisson up`` therefore leaves as it is.
_PEOPLES_OWN = frozenset({"schedules", "paused", "parameters", "tags", "concurrency_limit", "concurrency_options"})


def apply_deployments(settings: Settings) -> list[str]:
    """Create or update this host's work pool and its deployments; returns their names, ``flow/host``."""
    ensure_work_pool(settings)
    names = [apply_flow(flow, settings) for flow in FLOWS]
    for flow, schedule in ((monitor_disk, monitor_schedule), (prune_images, prune_schedule)):
        existed = deployment_exists(flow, settings)
        names.append(apply_flow(flow, settings, queue=CARE_QUEUE))
        apply_schedule(settings, names[-1], schedule(settings), existed=existed)
    return names


def deployment_exists(flow: Flow[..., Any], settings: Settings) -> bool:
    """Whether this host has a deployment of the flow."""
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(f"{flow.name}/{settings.host_name}")
        except ObjectNotFound:
            return False
    return True


def apply_flow(flow: Flow[..., Any], settings: Settings, *, queue: str | None = None) -> str:
    """Create or update the deployment of one flow on this host; returns its name, ``flow/host``.

    What people edit in Prefect stays: schedules, default parameters, tags, whether it is paused.
    """
    deployment = flow.to_deployment(
        name=settings.host_name,
        description=flow.description,
        work_pool_name=pool_name(settings),
        work_queue_name=queue,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # and no coroutine, since this is no event loop
    # A field that is set is written, an empty list of schedules too.
    deployment.__pydantic_fields_set__.difference_update(_PEOPLES_OWN)
    deployment.apply()
    return f"{flow.name}/{settings.host_name}"


def ensure_work_pool(settings: Settings) -> WorkPool:
    """The process pool of this host with its queues, made if it is not there yet."""
    with get_client(sync_client=True) as client:
        pool = _ensure(client, pool_name(settings))
        try:
            client.read_work_queue_by_name(CARE_QUEUE, work_pool_name=pool.name)
        except ObjectNotFound:
            client.create_work_queue(
                name=CARE_QUEUE,
                work_pool_name=pool.name,
                priority=1,
                description="What looks after the host. It has a slot of its own and never waits for builds.",
            )
        return pool


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
