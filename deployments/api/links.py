"""Which answers lead to which operations: the links of the OpenAPI document, and the names of the operations.

An operation's name is its ``operationId``, by which links find it and generated clients call it.
"""

from __future__ import annotations

from typing import Any

ASK_FOR_BUILD = "ask_for_build"
LIST_BUILDS = "list_builds"
READ_BUILD = "read_build"
READ_BUILD_LOG = "read_build_log"
CANCEL_BUILD = "cancel_build"
LIST_IMAGES = "list_images"

Links = dict[str, dict[str, Any]]

_OF_A_BUILD = {
    READ_BUILD: "How it goes, and in the end its report",
    READ_BUILD_LOG: "Its log, live or as far as it is",
    CANCEL_BUILD: "End it",
}


def of_build(build_id: str, *but: str) -> Links:
    """Links to what can be asked of a build, ``but`` for some of it.

    ``build_id`` is where the answer has its ID, as a runtime expression (OpenAPI 3.1, "Link Object").

    >>> of_build("$response.body#/id", "read_build_log", "cancel_build")["read_build"]["parameters"]
    {'build_id': '$response.body#/id'}
    """
    return {
        name: {"operationId": name, "parameters": {"build_id": build_id}, "description": description}
        for name, description in _OF_A_BUILD.items()
        if name not in but
    }


def next_page(operation: str) -> Links:
    """The link from one page of a list to the next."""
    return {
        "next": {
            "operationId": operation,
            "parameters": {"cursor": "$response.body#/next"},
            "description": "The next page, with the same filters; `next` is empty on the last one",
        }
    }
