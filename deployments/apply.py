"""The work pool, a host's queues and deployments, applied from Python: idempotent, with no path of this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
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
from deployments.care_schedule import CareSchedule, apply_schedule, audit_schedule, monitor_schedule, prune_schedule
from deployments.names import ANY_HOST, POOL, SHARED_QUEUE, care_queue, host_queue
from deployments.prune_switches import keep_switches
from flows.audit_host import audit_host
from flows.build_image import build_image
from flows.monitor_disk import monitor_disk
from flows.prune_images import prune_images

FLOWS: tuple[Flow[..., Any], ...] = (build_image,)
# What people edit in Prefect and what ``caisson up`` therefore leaves as it is.
_PEOPLES_OWN = frozenset({"schedules", "paused", "parameters", "tags", "concurrency_limit", "concurrency_options"})

_OLD_POOL = "Builds on this host. Caisson's own worker serves it"


def apply_deployments(settings: Settings) -> list[str]:
    """Create or update the work pool, this host's queues and its deployments; returns their names, ``flow/host``.

    The deployment whose builds any host may take is applied by each of them, in the same words. Alerts that are set up
    learn of the host, or of how often it is pruned.
    """
    ensure_work_pool(settings)
    names = [apply_flow(flow, settings) for flow in FLOWS]
    names += [apply_flow(flow, settings, host=ANY_HOST, queue=SHARED_QUEUE) for flow in FLOWS]
    care: tuple[tuple[Flow[..., Any], Callable[[Settings], CareSchedule]], ...] = (
        (monitor_disk, monitor_schedule),
        (prune_images, prune_schedule),
        (audit_host, audit_schedule),
    )
    for flow, schedule in care:
        existed = deployment_exists(flow, settings)
        names.append(apply_flow(flow, settings, queue=care_queue(settings.host_name)))
        apply_schedule(settings, names[-1], schedule(settings), existed=existed)
    keep_switches(settings)
    _remove_old_pool(settings)
    return names


def deployment_exists(flow: Flow[..., Any], settings: Settings) -> bool:
    """Whether this host has a deployment of the flow."""
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(f"{flow.name}/{settings.host_name}")
        except ObjectNotFound:
            return False
    return True


def apply_flow(flow: Flow[..., Any], settings: Settings, *, host: str = "", queue: str = "") -> str:
    """Create or update the deployment of one flow; returns its name, ``flow/host``.

    It is this host's, and its runs wait in the queue of this host's builds, where ``host`` and ``queue`` name no other.
    What people edit in Prefect stays: schedules, default parameters, tags, whether it is paused.
    """
    host = host or settings.host_name
    deployment = flow.to_deployment(
        name=host,
        description=flow.description,
        work_pool_name=POOL,
        work_queue_name=queue or host_queue(host),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # and no coroutine, since this is no event loop
    # A field that is set is written, an empty list of schedules too.
    deployment.__pydantic_fields_set__.difference_update(_PEOPLES_OWN)
    deployment.apply()
    return f"{flow.name}/{host}"


def ensure_work_pool(settings: Settings) -> WorkPool:
    """The process pool with the queues of this host and the shared one, made if they are not there yet."""
    host = settings.host_name
    with get_client(sync_client=True) as client:
        pool = _ensure_pool(client)
        # In the order of their priority: of many runs that wait, Prefect offers those of the first queue first.
        care = "What looks after this host. It has slots of its own and never waits for builds."
        _ensure_queue(client, care_queue(host), care, priority=1)
        _ensure_queue(client, host_queue(host), "Builds that were asked of this very host. Paused, the host drains.")
        _ensure_queue(client, SHARED_QUEUE, "Builds that any host may take.")
        return pool


def _ensure_pool(client: SyncPrefectClient) -> WorkPool:
    description = "Builds on all hosts. Caisson's own workers serve it; start no other for it."
    template = ProcessWorker.get_default_base_job_template()
    # A pipe to the worker would end a run with the worker that reads it; output goes to a file instead.
    template["variables"]["properties"]["stream_output"]["default"] = False
    try:
        return client.create_work_pool(
            WorkPoolCreate(name=POOL, type="process", description=description, base_job_template=template)
        )
    except ObjectAlreadyExists:
        client.update_work_pool(POOL, WorkPoolUpdate(description=description, base_job_template=template))
        return client.read_work_pool(POOL)


def _ensure_queue(client: SyncPrefectClient, name: str, description: str, *, priority: int | None = None) -> None:
    try:
        client.read_work_queue_by_name(name, work_pool_name=POOL)
    except ObjectNotFound:
        # Another host may make the shared one at the same time.
        with suppress(ObjectAlreadyExists):
            client.create_work_queue(name=name, work_pool_name=POOL, priority=priority, description=description)


def _remove_old_pool(settings: Settings) -> None:
    """Each host had a pool of its own before there was one for all; nobody would take what waits in it."""
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        if (client.read_work_pool(f"docker-{settings.host_name}").description or "").startswith(_OLD_POOL):
            client.delete_work_pool(f"docker-{settings.host_name}")
