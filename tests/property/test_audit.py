"""The audit's promises, whatever an engine answers."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from caisson.audit.containers import CONTAINER_RULES
from caisson.audit.daemon import DAEMON_RULES
from caisson.audit.markdown import audit_markdown
from caisson.audit.report import audit
from caisson.engine import EngineDescription
from tests.audited import HARDENED, builder, changed, daemon, host

RULES = {rule.name: rule for rule in CONTAINER_RULES}
NEEDS = [(rule.name, need) for rule in CONTAINER_RULES for need in rule.needs]
# What no key of inspect holds. None is what an engine tells for an empty list, and so no garbage for every key.
GARBAGE = st.one_of(
    st.just(object()),
    st.floats(allow_nan=True),
    st.sets(st.integers(), max_size=1),
    st.binary(max_size=3),
)


def status_of(raw: dict[str, Any], rule: str) -> str:
    (finding,) = [item for item in audit(host(raw), None).findings if item.rule == rule]
    return finding.status


@given(need=st.sampled_from(NEEDS))
def test_unknown_input_never_passes_a_missing_key(need: tuple[str, str]) -> None:
    """What could not be read is ``unknown``."""
    rule, key = need
    assert status_of(changed(builder(), **{key.replace(".", "__"): ...}), rule) == "unknown"


@given(st.dictionaries(st.sampled_from(["HostConfig", "Config", "Mounts", "State"]), GARBAGE | st.none()))
def test_unknown_input_never_passes_garbage(parts: dict[str, Any]) -> None:
    """Only what was read and is as it should be is ``pass``."""
    for item in audit(host({"Name": "/x", **parts}), None).findings:
        assert item.area != "containers" or item.status in ("unknown", "fail", "not applicable")
        if item.area == "containers" and item.status == "not applicable":
            # By the engine's word, or by the container's name, and not by anything that it says of itself.
            assert item.rule in ("apparmor", "selinux", "user-namespace", "builder-mounts", "other-bind")


@given(st.dictionaries(st.sampled_from(sorted(daemon().engine.info)), GARBAGE | st.none()))  # type: ignore[union-attr]
def test_unknown_input_never_passes_a_daemon(info: dict[str, Any]) -> None:
    """Only what was read and is as it should be is ``pass``. That there is no warning is what an engine tells."""
    facts = daemon(config=None, engine=EngineDescription(info, {}))
    told = {
        rule.name: rule.check(facts).status for rule in DAEMON_RULES if rule.name not in ("socket-mode", "config-mode")
    }
    if info.get("Warnings", ...) is None:
        assert told.pop("api-tls") == "pass"
    assert "pass" not in told.values()


@settings(max_examples=25)
@given(st.permutations(["a", "b", "c", "d"]), st.data())
def test_the_order_of_containers_does_not_change_the_findings(names: list[str], data: st.DataObject) -> None:
    """Whatever the order in which the engine lists them."""
    made = {}
    for name in sorted(names):
        memory = data.draw(st.sampled_from([0, 1 << 30]))
        made[name] = changed(HARDENED, Name=f"/{name}", HostConfig__Memory=memory)
    shuffled = audit(host(*(made[name] for name in names)), None)
    assert shuffled == audit(host(*made.values()), None)
    assert audit_markdown(shuffled) == audit_markdown(audit(host(*made.values()), None))


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=30), max_size=3), st.text(min_size=1, max_size=40))
def test_no_value_of_the_environment_gets_into_a_report(names: list[str], secret: str) -> None:
    """Of the environment only names are told."""
    mark = f"<<{secret}>>"
    entries = [f"{name}=x{mark}" for name in [*names, "API_TOKEN"] if "=" not in name]
    report = audit(host(changed(HARDENED, Config__Env=entries)), None)
    assert mark not in report.model_dump_json()
