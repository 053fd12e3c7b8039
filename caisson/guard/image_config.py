"""What a BuildKit client hands to the exporter as an image's configuration, and so could change. Pure."""

from __future__ import annotations

from caisson.guard.policy import GuardPolicy
from caisson.guard.query import load_strict
from caisson.guard.verdict import Denied

_MOST_TRIGGERS = 256


def check_labels(config: bytes, policy: GuardPolicy) -> None:
    """Raise ``Denied`` unless the configuration has the policy's labels, read as Go's JSON decoder would read it.

    That decoder takes a key in any case and merges what comes twice, so neither may be.
    """
    labels = _get(_config(config), "labels")
    for key, value in policy.labels:
        if not isinstance(labels, dict) or labels.get(key) != value:
            raise Denied("build-labels", f"The image's configuration has not the build's own label {key!r}.")


def triggers_in(config: bytes) -> tuple[str, ...]:
    """What the configuration has after ONBUILD, which builds that begin with the image run; raises ``Denied``.

    >>> triggers_in(b'{"config": {"OnBuild": ["RUN make"]}}')
    ('RUN make',)
    """
    found = _get(_config(config), "onbuild")
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(trigger, str) for trigger in found):
        raise Denied("build-result", "ONBUILD in an image's configuration is no list of texts.")
    if len(found) > _MOST_TRIGGERS:
        raise Denied("build-result", f"An image has more than {_MOST_TRIGGERS} ONBUILD triggers.")
    return tuple(found)


def _config(config: bytes) -> object:
    try:
        return _get(load_strict(config), "config")
    except (ValueError, RecursionError) as error:
        raise Denied("build-result", "An image's configuration is not plain JSON.") from error


def _get(value: object, key: str) -> object:
    """The value of a key in any case; raises ``Denied`` where there are two."""
    if not isinstance(value, dict):
        return None
    keys = [name for name in value if name.casefold() == key]
    if len(keys) > 1:
        raise Denied("build-result", f"An image's configuration has {key!r} twice.")
    return value[keys[0]] if keys else None
