"""Errors as problem documents (RFC 9457): one form for whatever goes wrong, and no input repeated in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import fastapi
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from caisson.errors import CaissonError, EngineLost, EngineUnreachable, RequestInvalid, ServiceUnreachable

MEDIA_TYPE = "application/problem+json"
_STATUS: Mapping[type[CaissonError], int] = {
    RequestInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    ServiceUnreachable: HTTPStatus.SERVICE_UNAVAILABLE,
    EngineUnreachable: HTTPStatus.SERVICE_UNAVAILABLE,
    EngineLost: HTTPStatus.SERVICE_UNAVAILABLE,
}
_RETRY_SECONDS = 2


class FieldProblem(BaseModel):
    """One field that breaks a rule; ``field`` is its path from the outermost, with dots."""

    field: str
    message: str


class ProblemDocument(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(
        title="Problem",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:caisson:problem:request-invalid",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "detail": "The build request is invalid: image: is empty.",
                    "errors": [{"field": "image", "message": "is empty"}],
                }
            ]
        },
    )

    type: str = Field("about:blank", description="`urn:caisson:problem:KIND`, or `about:blank`: the status says it all")
    title: str = Field(description="The status in words")
    status: int = Field(description="The HTTP status", ge=400, le=599)
    detail: str = Field("", description="What is wrong this time, in a sentence, with the way out")
    errors: list[FieldProblem] = Field(default=[], description="The fields that are wrong, where some are")


class Problem(fastapi.HTTPException):
    """Ends a request with a problem document.

    It is FastAPI's own exception, since that makes a 400 of every other one which comes while it reads a body.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
        errors: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(int(status), detail, dict(headers or {}))
        self.kind = kind
        self.errors = [FieldProblem(field=field, message=message) for field, message in errors]

    @property
    def document(self) -> ProblemDocument:
        return ProblemDocument(
            type=f"urn:caisson:problem:{self.kind}" if self.kind else "about:blank",
            title=title_of(self.status_code),
            status=self.status_code,
            detail=self.detail,
            errors=self.errors,
        )

    def response(self) -> Response:
        body = json.dumps(self.document.model_dump(exclude_defaults=True) | {"type": self.document.type})
        return Response(body, self.status_code, headers=dict(self.headers or {}), media_type=MEDIA_TYPE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application, for what ends a request before there is a route."""
        await self.response()(scope, receive, send)


def title_of(status: int) -> str:
    """The reason phrase, as RFC 9110 has it."""
    renamed = {413: "Content Too Large", 422: "Unprocessable Content"}
    try:
        return renamed.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def of_failure(error: CaissonError) -> Problem:
    """The problem that a failure of ours is to a caller."""
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    fields = error.details.get("fields", ()) if isinstance(error, RequestInvalid) else ()
    return Problem(
        status,
        str(error),
        kind=error.kind,
        headers={"Retry-After": str(_RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {},
        errors=[(item["field"], item["message"]) for item in fields],
    )


def of_validation(errors: Iterable[Mapping[str, Any]]) -> Problem:
    """The problem of input that does not fit its schema. What was sent is not repeated: it may hold a secret."""
    found = [(_field(error["loc"]), str(error["msg"])) for error in errors if error["type"] != "json_invalid"]
    if not found:
        return Problem(HTTPStatus.BAD_REQUEST, "The body is not JSON.", kind="body-invalid")
    detail = "; ".join(f"{field}: {message}" for field, message in found)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{detail}.", kind="request-invalid", errors=found)


def _field(where: tuple[int | str, ...]) -> str:
    """
    >>> _field(("body", "limits", "cpus")), _field(("query", "limit")), _field(("body",))
    ('limits.cpus', 'limit', 'body')
    """
    return ".".join(str(part) for part in where[1:]) or str(where[0])


def handle_errors(app: FastAPI) -> None:
    """Have the app answer every error with a problem document."""

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def failure(_: Request, error: Exception) -> Response:
        assert isinstance(error, CaissonError)
        return of_failure(error).response()

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return of_validation(error.errors()).response()

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(sorted(allowed_methods(app, request.scope)))
        return Problem(
            error.status_code, _SENTENCES.get(error.status_code, str(error.detail)), headers=headers
        ).response()

    async def bug(_: Request, error: Exception) -> Response:
        return Problem(500, f"Caisson failed ({type(error).__name__}); its log says more.").response()

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(CaissonError, failure)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, bug)


_SENTENCES: Mapping[int, str] = {404: "There is nothing at this path.", 405: "This path does not take that method."}


def allowed_methods(app: FastAPI, scope: Mapping[str, Any]) -> set[str]:
    """The methods that the path takes; Starlette tells those of the first route only."""
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return {
        method
        for method in methods
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.router.routes)
    }
