"""Who holds the disk: by layers, never by the sum of images' sizes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from caisson.disk_account import account, log_bytes
from caisson.disk_attribution import Attribution, attribute, chain, holders
from caisson.disk_state import only_one, read_attribution
from caisson.engine import ContainerID, DiskPart, Engine, ImageID, ImageInfo, Layer
from caisson.engine_disk import CacheDisk, ContainerDisk, EngineDisk, ImageDisk, VolumeDisk, parse_engine_disk
from caisson.errors import EngineUnreachable
from caisson.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE, APP, TOOL = (ImageID(f"sha256:{name}") for name in ("base", "app", "tool"))
DISK = EngineDisk(
    layers_size=100 + 20 + 3,
    images=(
        ImageDisk(BASE, ("debian:1",), 100),
        ImageDisk(APP, ("team/app:1", "team/app:2"), 120),
        ImageDisk(TOOL, (), 103),
    ),
    containers=(
        ContainerDisk(ContainerID("c1"), "web", "running", 7),
        ContainerDisk(ContainerID("c2"), "db", "exited", 0),
    ),
    volumes=(VolumeDisk("data", 50, 1), VolumeDisk("remote", None, 0)),
    cache=(
        CacheDisk("regular", 10, in_use=True, shared=False),
        CacheDisk("regular", 20, in_use=False, shared=True),
        CacheDisk("source.local", 5, in_use=False, shared=False),
    ),
)
LAYERS = {
    BASE: [("base", 100)],
    APP: [("base", 100), ("app", 20)],
    TOOL: [("base", 100), ("tool", 3)],
}


def attributed(**changes: Any) -> Attribution:
    values: dict[str, Any] = {"layers": LAYERS, "logs": {ContainerID("c1"): 2}, "used": 300, "at": NOW, "seconds": 1}
    return attribute(DISK, **(values | changes))


def test_a_repository_holds_what_no_other_holds_and_shares_the_rest() -> None:
    found = {item.name: item for item in attributed().repositories}
    assert (found["team/app"].exclusive, found["team/app"].shared, found["team/app"].images) == (20, 100, 1)
    assert (found["debian"].exclusive, found["debian"].shared) == (0, 100)
    assert (found["<untagged>"].exclusive, found["<untagged>"].shared) == (3, 100)
    assert attributed().shared_layers == 100


def test_all_layers_together_are_the_engines_own_sum() -> None:
    found = attributed()
    assert sum(item.exclusive for item in found.repositories) + found.shared_layers == found.images == DISK.layers_size


def test_cache_that_images_hold_too_is_counted_once() -> None:
    regular, local = attributed().build_cache
    assert (regular.type, regular.records, regular.size, regular.in_use) == ("regular", 2, 10, 10)
    assert (local.type, local.size) == ("source.local", 5)


def test_what_is_left_over_is_not_dockers() -> None:
    assert attributed().not_docker == 300 - 123 - 15 - 7 - 2 - 50
    assert attributed(used=None).not_docker is None
    assert attributed(used=10).not_docker == 0


def test_what_is_not_known_is_none_and_not_nothing() -> None:
    found = attributed()
    assert {item.name: item.logs for item in found.containers} == {"web": 2, "db": None}
    assert {item.name: item.size for item in found.volumes} == {"data": 50, "remote": None}


def test_the_largest_holders_come_first() -> None:
    words = holders(attributed())
    assert words[:2] == ["what Docker does not account for 103 B", "layers that repositories share 100 B"]
    assert len(words) == 4


def test_sizes_are_dealt_to_layers_in_order_and_add_up() -> None:
    plain = chain(["a", "b", "c"], [0, 10, 0, 5, 1])
    assert [size for _, size in plain] == [10, 5, 1]
    # Images that share layers have equal chain IDs, whatever is above; equal layers on other ground have not.
    assert chain(["a", "b"], [10, 5])[1][0] == plain[1][0]
    assert chain(["b"], [5])[0][0] != plain[1][0]
    # Fewer sizes than layers: one layer is empty. Which one is known from another image that ends there.
    empty = chain(["a", "b"], [10])
    assert [size for _, size in empty] == [10, 0]
    assert [size for _, size in chain(["a", "b", "c"], [10, 7], dict(empty))] == [10, 0, 7]
    assert [size for _, size in chain(["a"], [1, 2])] == [3]
    assert chain([], [1]) == []


class AccountingEngine:
    """An engine that accounts for ``DISK``, or fails as it is told to."""

    def __init__(self, error: EngineUnreachable | None = None, inspect_error: EngineUnreachable | None = None) -> None:
        self.error, self.inspect_error, self.asked = error, inspect_error, 0

    def disk_usage(self, *, timeout: float, parts: Collection[DiskPart] = ()) -> EngineDisk:
        self.asked += 1
        if self.error:
            raise self.error
        return DISK

    def inspect_image(self, image: str) -> ImageInfo:
        if self.inspect_error:
            raise self.inspect_error
        layers = tuple(name for name, _ in LAYERS[ImageID(image)])
        return ImageInfo(ImageID(image), (), (), {}, 0, layers, "")

    def history(self, image: str) -> list[Layer]:
        return [Layer(size, 0) for _, size in LAYERS[ImageID(image)]]


def accounted(tmp_path: Path, engine: AccountingEngine, timeout: float = 10) -> Attribution:
    settings = Settings(_env_file=None, state_dir=tmp_path / "state", docker_data_root=str(tmp_path / "docker"))
    return account(cast(Engine, engine), settings, used=300, timeout_seconds=timeout, now=lambda: NOW)


def test_an_account_is_kept_for_who_asks_later(tmp_path: Path) -> None:
    logs = tmp_path / "docker" / "containers" / "c1"
    logs.mkdir(parents=True)
    (logs / "c1-json.log").write_bytes(b"x" * 10_000)
    (logs / "c1-json.log.1").write_bytes(b"x" * 10_000)
    found = accounted(tmp_path, AccountingEngine())
    assert read_attribution(tmp_path / "state") == found
    assert {item.name: item.logs for item in found.containers} == {"web": 24_576, "db": None}
    assert found.unknown == (f"Logs: {tmp_path / 'docker' / 'containers'} can't be read here.",)
    assert log_bytes(tmp_path, ContainerID("none")) is None


def test_an_engine_that_takes_too_long_is_unknown_and_the_last_account_stays(tmp_path: Path) -> None:
    before = accounted(tmp_path, AccountingEngine())
    found = accounted(tmp_path, AccountingEngine(EngineUnreachable("It did not answer in time.")))
    assert found.unknown == ("It did not answer in time.",)
    assert (found.images, found.not_docker) == (0, None)
    assert read_attribution(tmp_path / "state") == before


def test_without_time_for_the_layers_the_rest_is_told(tmp_path: Path) -> None:
    found = accounted(tmp_path, AccountingEngine(), timeout=-1)
    assert found.unknown[0] == "Layers of 3 of 3 images: not read in time."
    assert found.images == 123
    lost = accounted(tmp_path, AccountingEngine(inspect_error=EngineUnreachable("It is gone.")))
    assert lost.unknown[0] == "Layers: It is gone."


def test_two_never_ask_at_once(tmp_path: Path) -> None:
    engine = AccountingEngine()
    with only_one(tmp_path / "state", "disk-account"):
        assert accounted(tmp_path, engine).unknown == ("Another process is asking the engine just now.",)
    assert engine.asked == 0


@pytest.mark.parametrize("answer", [{}, {"LayersSize": "x"}, {"LayersSize": 1, "Images": [{}]}])
def test_an_answer_that_is_none_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        parse_engine_disk(answer)


def test_lists_that_an_engine_leaves_out_are_empty() -> None:
    assert parse_engine_disk({"LayersSize": 0, "Images": None, "Volumes": None}) == EngineDisk(0, (), (), (), ())
