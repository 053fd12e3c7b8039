"""Step: who holds the disk? Asks the engine, which may take minutes; so it is a task, with a state of its own."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from caisson.disk_account import account
from caisson.disk_attribution import Attribution, holders
from caisson.docker_engine import DockerEngine
from caisson.errors import CaissonError
from caisson.settings import Settings
from tasks.step import run_logger


@task(name="attribute_disk", task_run_name="attribute_disk", cache_policy=NO_CACHE, persist_result=False)
def attribute_disk(settings: Settings, used: int | None) -> Attribution | None:
    """Account for the disk and keep the account; None where the engine is not there, which is no failure of a look."""
    logger = run_logger()
    try:
        with DockerEngine(settings.docker_host) as engine:
            found = account(engine, settings, used=used)
    except (CaissonError, OSError) as error:
        logger.warning(f"What holds the disk is not known: {error}")
        return None
    for words in found.unknown:
        logger.warning(f"Not known: {words}")
    logger.info(f"Accounted for in {found.seconds:.1f} s: {', '.join(holders(found)) or 'nothing'}")
    return found
