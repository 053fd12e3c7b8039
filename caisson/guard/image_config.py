"""The labels in an image's configuration, which a BuildKit client hands to the exporter and so could change. Pure."""

from __future__ import annotations

from caisson.guard.policy import GuardPolicy
from caisson.guard.query import load_strict
from caisson.guard.verdict import Denied


def check_labels(config: bytes, policy: GuardPolicy) -> None:
    """Raise ``Denied`` unless the configuration has the policy's labels, read as Go's JSON decoder would read it.

    That decoder takes a key in any case and merges what comes twice, so neither may be.
    """
    try:
        found = load_strict(config)
    except (ValueError, RecursionError) as error:
        raise Denied("build-result", "An image's configuration is not plain JSON.") from error
    labels = _get(_get(found, "config"), "labels")
    for key, value in policy.labels:
        if not isinstance(labels, dict) or labels.get(key) != value:
            raise Denied("build-labels", f"The image's configuration has not the build's own label {key!r}.")


def _get(value: object, key: str) -> object:
    """The value of a key in any case; raises ``Denied`` where there are two."""
    if not isinstance(value, dict):
        return None
    keys = [name for name in value if name.casefold() == key]
    if len(keys) > 1:
        raise Denied("build-result", f"An image's configuration has {key!r} twice.")
    return value[keys[0]] if keys else None
