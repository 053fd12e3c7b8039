"""Where the secrets of webhooks are looked for, and what counts while Prefect can't be asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from caisson.errors import SecretMissing
from deployments.api.hook_secrets import HookSecrets
from deployments.prefect_api import PrefectApi
from deployments.prefect_pool import PrefectPool
from tests.webhook_peers import Peer, peer


@pytest.fixture
def prefect() -> Iterator[Peer]:
    with peer() as served:
        served.blocks = {"app-hook": "of the block"}
        yield served


@pytest.fixture
def pool(prefect: Peer) -> PrefectPool:
    return PrefectPool(lambda: PrefectApi(f"{prefect.url}/api", timeout=1))


def asked(prefect: Peer) -> int:
    return sum("block_documents" in path for path, _, _ in prefect.got)


def test_a_variable_goes_before_a_block_and_needs_no_prefect(prefect: Peer, pool: PrefectPool) -> None:
    secrets = HookSecrets(pool, {"CAISSON_SECRET_APP_HOOK": "of the variable"})
    assert secrets.value("app-hook") == "of the variable"
    assert asked(prefect) == 0
    assert HookSecrets(pool, {"CAISSON_SECRET_APP_HOOK": ""}).value("app-hook") == "of the block"


def test_one_that_is_nowhere_is_looked_for_once_in_a_while(prefect: Peer, pool: PrefectPool) -> None:
    secrets = HookSecrets(pool, {})
    for _ in range(5):
        with pytest.raises(SecretMissing, match="'other' is not known") as missing:
            secrets.value("other")
    assert "CAISSON_SECRET_OTHER" in (missing.value.hint or "")
    assert "Secret block" in (missing.value.hint or "")
    assert asked(prefect) == 1


def test_what_a_block_last_said_counts_while_prefect_is_away(prefect: Peer, pool: PrefectPool) -> None:
    secrets = HookSecrets(pool, {})

    def found_later() -> str:
        secrets._read.drop("app-hook")
        try:
            return secrets.value("app-hook")
        except SecretMissing:
            return ""

    prefect.is_up = False
    assert found_later() == ""
    prefect.is_up = True
    assert found_later() == "of the block"
    prefect.is_up = False
    assert found_later() == "of the block"
    prefect.is_up = True
    prefect.blocks["app-hook"] = "a newer one"
    assert found_later() == "a newer one"
    prefect.blocks.clear()
    assert found_later() == ""
    # A block that was removed does not come back with an outage.
    prefect.is_up = False
    assert found_later() == ""


def test_a_block_of_something_else_than_text_is_no_secret(prefect: Peer, pool: PrefectPool) -> None:
    prefect.blocks = {"app-hook": {"not": "text"}}  # type: ignore[dict-item]
    with pytest.raises(SecretMissing):
        HookSecrets(pool, {}).value("app-hook")
