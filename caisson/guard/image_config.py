"""What a BuildKit client hands to the exporter as an image's configuration, and so could change. Pure.

The exporter replaces what it knows by name (``rootfs``: the layers that it has made) and passes on the rest; the image
store then reads the whole as Go does, which takes a key in any case and by Unicode's folding, the last one of several.
So ``rootfs`` with the long s (U+017F) at its end would make an image of any layers that the engine has. Only the keys
that BuildKit's frontend writes may be there, spelt as it spells them (moby/buildkit ``dockerfile2llb.Image`` and
moby/docker-image-spec, v0.8 to HEAD).
"""

from __future__ import annotations

from collections.abc import Mapping

from caisson.guard.policy import GuardPolicy
from caisson.guard.query import load_strict
from caisson.guard.verdict import Denied

_MOST_TRIGGERS = 256

_IMAGE = frozenset(
    {
        "created", "author", "architecture", "variant", "os", "os.version", "os.features", "config", "rootfs",
        "history",
    }
)  # fmt: skip
_CONFIG = frozenset(
    {
        "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal",
        "ArgsEscaped", "Healthcheck", "OnBuild", "StopTimeout", "Shell",
    }
)  # fmt: skip


def check_labels(config: bytes, policy: GuardPolicy) -> None:
    """Raise ``Denied`` unless it is a configuration that has the policy's labels."""
    labels = _read_config(config).get("Labels")
    for key, value in policy.labels:
        if not isinstance(labels, dict) or labels.get(key) != value:
            raise Denied("build-labels", f"The image's configuration has not the build's own label {key!r}.")


def triggers_in(config: bytes) -> tuple[str, ...]:
    """What the configuration has after ONBUILD, which builds that begin with the image run; raises ``Denied``.

    >>> triggers_in(b'{"config": {"OnBuild": ["RUN make"]}}')
    ('RUN make',)
    """
    found = _read_config(config).get("OnBuild")
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(trigger, str) for trigger in found):
        raise Denied("build-result", "ONBUILD in an image's configuration is no list of texts.")
    if len(found) > _MOST_TRIGGERS:
        raise Denied("build-result", f"An image has more than {_MOST_TRIGGERS} ONBUILD triggers.")
    return tuple(found)


def _read_config(config: bytes) -> Mapping[str, object]:
    try:
        value = load_strict(config)
    except (ValueError, RecursionError) as error:
        raise Denied("build-result", "An image's configuration is not plain JSON.") from error
    inner = _known(value, _IMAGE).get("config")
    return {} if inner is None else _known(inner, _CONFIG)


def _known(value: object, keys: frozenset[str]) -> Mapping[str, object]:
    # Of null, some exporters make a panic.
    if not isinstance(value, dict):
        raise Denied("build-result", "An image's configuration is no JSON object.")
    if unknown := value.keys() - keys:
        raise Denied("build-result", f"An image's configuration has {min(unknown)[:80]!r}, which BuildKit's has not.")
    return value
