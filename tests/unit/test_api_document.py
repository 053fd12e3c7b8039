"""The OpenAPI document of Caisson's own API: examples of whatever is sent, which fit, and links that lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from caisson.settings import Settings
from deployments.api.app import create_app

METHODS = ("get", "post", "delete")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(_env_file=None, state_dir=tmp_path_factory.mktemp("state"), api_url="http://127.0.0.1:9/api")
    found: dict[str, Any] = create_app(settings).openapi()
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = [path[method] for path in document["paths"].values() for method in METHODS if method in path]
    named = {operation["operationId"]: operation for operation in found}
    assert len(named) == len(found)
    return named


def contents(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What is sent and answered: where, as what kind, and what the document says of it."""
    for name, operation in operations(document).items():
        bodies = [("body", operation["requestBody"])] if "requestBody" in operation else []
        for where, told in [*bodies, *operation["responses"].items()]:
            for kind, content in told.get("content", {}).items():
                yield f"{name} {where}", kind, content


def examples(document: dict[str, Any], content: dict[str, Any]) -> list[Any]:
    schema = content.get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    own = [content["example"]] if "example" in content else []
    named = [each["value"] for each in content.get("examples", {}).values()]
    return [*own, *named, *schema.get("examples", [])]


def test_whatever_is_sent_has_an_example_and_each_fits_its_schema(document: dict[str, Any]) -> None:
    without = [where for where, _, content in contents(document) if not examples(document, content)]
    assert without == []
    for where, kind, content in contents(document):
        if kind.endswith("json"):
            schema = {**content["schema"], "components": document["components"]}
            for example in examples(document, content):
                errors = jsonschema.Draft202012Validator(schema).iter_errors(example)
                assert [f"{where}: {error.json_path}: {error.message}" for error in errors] == []


def test_each_link_names_an_operation_and_parameters_that_it_has(document: dict[str, Any]) -> None:
    named = operations(document)
    links = [
        link
        for operation in named.values()
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert len(links) > 10
    for link in links:
        target = named[link["operationId"]]
        assert set(link["parameters"]) <= {parameter["name"] for parameter in target["parameters"]}
