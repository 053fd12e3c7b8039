"""Every failure has a kind, an exit code and a sentence of its own."""

from __future__ import annotations

import pickle

from caisson import errors
from caisson.errors import BuildStepFailed, CaissonError, RequestInvalid


def _kinds() -> list[type[CaissonError]]:
    return [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, CaissonError)]


def test_kinds_and_exit_codes_are_unique() -> None:
    kinds = _kinds()
    assert len({kind.kind for kind in kinds}) == len(kinds)
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
    # 2 is a usage error of the command line, 126 and above belong to shells and signals.
    assert all(kind.exit_code not in (0, 2) and kind.exit_code < 126 for kind in kinds)


def test_a_failure_survives_pickling_for_prefect() -> None:
    error = BuildStepFailed("It failed.", hint="Mend it.", details={"exit_code": 3})
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is BuildStepFailed
    assert copy.to_dict() == error.to_dict()


def test_a_refused_request_lists_its_fields() -> None:
    error = RequestInvalid.from_fields([("ref", "is empty"), ("image", "has a tag")])
    assert error.details["fields"] == [
        {"field": "ref", "message": "is empty"},
        {"field": "image", "message": "has a tag"},
    ]
    assert str(error) == "The build request is invalid: ref: is empty; image: has a tag."
