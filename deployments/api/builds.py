"""Builds: asked for, listed, told of, cancelled."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import ValidationError

from caisson.queueing import Priority
from caisson.request import BuildRequest
from caisson.spec import make_spec, refuse_secrets
from caisson.tokens import Scope, TokenRecord
from deployments.api.access import allowed
from deployments.api.answers import problems, with_token
from deployments.api.build_queue import ask_for, asker_of
from deployments.api.build_reader import BuildFilter
from deployments.api.build_view import BuildAccepted, BuildDetail, BuildPage, BuildState
from deployments.api.context import ApiContext
from deployments.api.links import ASK_FOR_BUILD, CANCEL_BUILD, LIST_BUILDS, READ_BUILD, next_page, of_build
from deployments.api.paging import BuildCursor
from deployments.api.problems import Problem, of_validation
from deployments.queue import withdraw
from deployments.trigger import FlowRunId, request_cancel

_LOCATION: dict[str, Any] = {
    "Location": {"description": "The build", "schema": {"type": "string", "format": "uri-reference"}, "required": True}
}
_EXAMPLES: Any = {
    "smallest": {"value": {"repository_url": "https://github.com/team/app.git", "image": "team/app"}},
    "pushed": {
        "value": {
            "repository_url": "git@github.com:team/app.git",
            "ref": "v1.2.3",
            "image": "registry.example.com:5000/team/app",
            "push": True,
            "git_credentials": "deploy-key",
        }
    },
}


async def strict_request(request: Request) -> BuildRequest:
    """The request by its schema to the letter: ``"yes"`` is no boolean, ``"1"`` no number."""
    try:
        return BuildRequest.model_validate_json(await request.body(), strict=True)
    except ValidationError as error:
        raise of_validation([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from None


def router(context: ApiContext) -> APIRouter:
    routes = APIRouter(prefix="/api/builds", tags=["builds"], dependencies=[with_token])
    settings, reader = context.settings, context.builds
    may_build = Depends(allowed(Scope.BUILD))
    wanted_build = Depends(strict_request)
    may_read = Depends(allowed(Scope.BUILD, Scope.READ))

    def found(build_id: UUID, caller: TokenRecord) -> BuildDetail:
        build = reader.find(str(build_id), caller.grant)
        if build is None:
            raise no_build(build_id)
        return build

    @routes.post(
        "",
        status_code=202,
        operation_id=ASK_FOR_BUILD,
        summary="Ask for a build",
        responses={202: {"headers": _LOCATION, "links": of_build("$response.body#/id")}, **problems(400, 413, 415)},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/BuildRequest"},
                        "examples": _EXAMPLES,
                    }
                },
            }
        },
    )
    def ask(
        response: Response,
        idempotency_key: Annotated[
            str,
            Header(
                description="Asked again with the same key, it is the same build and no second one",
                max_length=255,
                pattern=r"^[\x21-\x7e]*$",
            ),
        ] = "",
        host: Annotated[
            str,
            Query(
                description="Where to build: a host's name, or `any`; empty: where this API is",
                max_length=63,
                pattern=r"^[A-Za-z0-9._-]*$",
            ),
        ] = "",
        priority: Annotated[
            Priority,
            Query(description="`high` goes before what was asked for up to four hours earlier, `low` an hour later"),
        ] = Priority.NORMAL,
        wanted: BuildRequest = wanted_build,
        caller: TokenRecord = may_build,
    ) -> BuildAccepted:
        """It waits in the queue, and then runs; `Location` tells how it goes, and `joined` whether it was asked for
        before."""
        refuse_secrets(wanted)
        if not caller.grant.covers(wanted.image, wanted.repository_url):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"The token {caller.name!r} is not for this image and repository.",
                kind="token-limited",
            )
        if uncovered := caller.grant.uncovered_secrets([*wanted.secrets, wanted.git_credentials]):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"The token {caller.name!r} is not for the secret {uncovered[0][:64]!r}; "
                "`caisson tokens create --secret` makes one that is.",
                kind="token-limited",
            )
        if not host or host == settings.host_name:
            # Other hosts have settings of their own, and judge it when they begin.
            make_spec(wanted, settings)
        target = context.deployments.id_of(host or settings.host_name)
        with context.prefect.api() as api:
            made = ask_for(api, wanted, deployment_id=target, token=caller, key=idempotency_key, priority=priority)
        build = reader.new(made.run) if made.run else found(UUID(made.flow_run_id), caller)
        response.headers["Location"] = f"/api/builds/{build.id}"
        return BuildAccepted.model_validate({**build.model_dump(), "joined": made.joined})

    @routes.get(
        "",
        operation_id=LIST_BUILDS,
        summary="List builds, the newest first",
        responses={200: {"links": next_page(LIST_BUILDS) | of_build("$response.body#/builds/0/id")}, **problems()},
    )
    def page(
        state: Annotated[
            list[BuildState] | None, Query(description="Only those; may be repeated", max_length=9)
        ] = None,
        image: Annotated[str, Query(description="Only those of this image repository", max_length=255)] = "",
        repository_url: Annotated[str, Query(description="Only those of this URL", max_length=2048)] = "",
        limit: Annotated[int, Query(description="How many at most", ge=1, le=200)] = 50,
        cursor: Annotated[str, Query(description="`next` of the page before", max_length=8192)] = "",
        caller: TokenRecord = may_read,
    ) -> BuildPage:
        """A token with limits sees those within them. A page may be shorter than `limit` and not be the last."""
        try:
            after = BuildCursor.parse(cursor) if cursor else None
        except ValueError as error:
            raise bad_cursor(error) from None
        wanted = BuildFilter(frozenset(state or ()), image, repository_url)
        builds, following = reader.page(wanted, caller.grant, limit=limit, cursor=after)
        return BuildPage(builds=builds, next=following.dump() if following else "")

    @routes.get(
        "/{build_id}",
        operation_id=READ_BUILD,
        summary="One build: state, step, place in the queue, report",
        responses={200: {"links": of_build("$response.body#/id", READ_BUILD)}, **problems(404)},
    )
    def one(build_id: UUID, caller: TokenRecord = may_read) -> BuildDetail:
        return found(build_id, caller)

    @routes.delete(
        "/{build_id}",
        status_code=202,
        operation_id=CANCEL_BUILD,
        summary="Cancel a build",
        responses={202: {"links": of_build("$response.body#/id", CANCEL_BUILD)}, **problems(404)},
    )
    def cancel(
        build_id: UUID,
        everyone: Annotated[
            bool, Query(description="Cancel it also where others asked for it as well as this token")
        ] = False,
        caller: TokenRecord = may_build,
    ) -> BuildDetail:
        """It is cancelled when its `state` says so: by then its builder is gone. A build that has ended stays as it
        is. Where this token asked for it and others did, too (see `joined`), this token no longer does, and the build
        goes on for the others."""
        found(build_id, caller)
        run = FlowRunId(str(build_id))
        with context.prefect.api() as api:
            if everyone:
                request_cancel(api, run)
            else:
                withdraw(api, run, asker=asker_of(caller))
        reader.forget(str(build_id))
        return found(build_id, caller)

    return routes


def no_build(build_id: UUID) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"There is no build {build_id}.", kind="build-unknown")


def bad_cursor(error: ValueError) -> Problem:
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"cursor: {error}; take `next` of the page before.",
        kind="request-invalid",
        errors=[("cursor", str(error))],
    )
