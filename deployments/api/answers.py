"""What the OpenAPI document says of answers that are no success."""

from __future__ import annotations

from typing import Any

from fastapi import Depends
from fastapi.security import HTTPBearer

from caisson.request import BuildRequest
from deployments.api.examples import EXAMPLES
from deployments.api.problems import MEDIA_TYPE, ProblemDocument

_WORDS = {
    400: "What was sent can't be read",
    401: "There is no valid token",
    403: "The token does not allow it",
    404: "There is no such thing, or it is none of the caller's",
    406: "No form of the answer is acceptable",
    413: "The body is too large",
    415: "The body is of another kind",
    422: "What was sent breaks a rule; `errors` names the fields",
    429: "Too many requests; `Retry-After` tells when to try again",
    503: "Prefect or the engine does not answer; `Retry-After` tells when to try again",
}

with_token = Depends(
    HTTPBearer(auto_error=False, scheme_name="token", description="A token of `caisson tokens create`")
)
"""Shows in the OpenAPI document that a token is needed; the gates have asked for it long before."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents that a route may answer with, besides those which any may that needs a token."""
    return of_statuses(401, 403, 422, 429, 503, *statuses)


def of_statuses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These problem documents and no others."""
    return {
        status: {
            "description": _WORDS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted(statuses)
    }


def add_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with the schemas that routes refer to by name, with examples, and without FastAPI's own
    schemas of errors."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, model in (("Problem", ProblemDocument), ("BuildRequest", BuildRequest)):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[name] = schema
    for name, examples in EXAMPLES.items():
        schemas[name]["examples"] = list(examples)
    return document
