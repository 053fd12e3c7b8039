"""The report of a request whose build never began: refused, without its secrets, or without an engine. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime

from caisson.git import check_ref, parse_repository_url
from caisson.reference import parse_repository
from caisson.report import BuildReport, describe_failure, outcome_of_failure
from caisson.request import BuildRequest

# Shown whether or not this host allows it: the failure says that it does not.
_PROTOCOLS = ("https", "http", "ssh", "git")


def report_unbegun(
    request: BuildRequest, failure: BaseException, *, host: str, flow_run_id: str, started: datetime, seconds: float
) -> BuildReport:
    """What can be told: the failure and what was asked for, where that is valid. The rest stays empty.

    What is not valid is not repeated: a URL may have a password in it.
    """
    return BuildReport(
        outcome=outcome_of_failure(failure),
        build_id=uuid.uuid4().hex[:12],
        flow_run_id=flow_run_id,
        host=host,
        repository_url=_if_valid(lambda: parse_repository_url(request.repository_url, _PROTOCOLS).display()),
        ref=_if_valid(lambda: check_ref(request.ref) if request.ref else ""),
        image=_if_valid(lambda: str(parse_repository(request.image))),
        started=started,
        seconds=round(seconds, 3),
        failure=describe_failure(failure),
    )


def _if_valid(parse: Callable[[], str]) -> str:
    try:
        return parse()
    except ValueError:
        return ""
