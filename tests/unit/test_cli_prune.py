"""``caisson prune``, ``images`` and ``why`` as they are read, and what they refuse before they ask any engine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caisson.errors import EngineUnreachable, RequestInvalid, SettingsInvalid
from caisson.image_account import ImageAccount, image_account
from caisson.image_lookup import find_images
from caisson.image_rows import image_rows, of_repositories
from caisson.ledger import KnownImage
from caisson.prune import dry_run
from caisson.prune_report import ItemResult, PruneReport
from caisson.retention.facts import Facts
from caisson.retention.plan import plan_prune
from caisson.retention.plan_json import plan_to_json
from caisson.retention.policy import RetentionPolicy
from caisson.retention.policy_text import policy_from_text
from caisson.retention.prune_plan import FreeTarget
from caisson.snapshot import Snapshot
from deployments.cli import app
from deployments.cli_images import account_lines, image_lines
from deployments.cli_prune_text import plan_lines, report_lines, result_line, saved_lines
from deployments.cli_signals import signals_stop
from tests.prune_hosts import MIB, NOW, USAGE, container, days_ago, host, image, image_id, lease, plan, policy, stack

runner = CliRunner()
EVIL = "\x1b[31mred\u202e\nline"


@pytest.fixture(autouse=True)
def _a_host_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAISSON_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("CAISSON_DOCKER_HOST", f"unix://{tmp_path}/none.sock")


def known(name: str, how: str, *, idle: float = 100) -> Mapping[str, KnownImage]:
    date = days_ago(idle)
    return {image_id(name): KnownImage(image_id(name), date, date, how, date)}


def account(snapshot: Snapshot, name: str, chosen: RetentionPolicy | None = None) -> ImageAccount:
    used = chosen or policy()
    rows = image_rows(plan_prune(snapshot, used, NOW, pressure=None), {})
    going = {row.id for row in rows if row.decision == "remove"}
    (row,) = (row for row in rows if row.id == image_id(name))
    return image_account(Facts(snapshot, used, NOW), row, going)


def text(lines: object) -> str:
    return "\n".join(lines)  # type: ignore[call-overload]


# The plan


def test_a_plan_has_totals_what_goes_in_order_and_what_stays_by_rule() -> None:
    base = ("base", 50)
    found = plan(
        host(
            image("a", "team/app:1", idle=90, layers=stack(base, ("a", 10))),
            image("b", "team/app:2", idle=60, layers=stack(base, ("b", 20))),
            image("c", "team/web:1", idle=100, layers=stack(("c", 5))),
            containers=(container("user", "c"),),
        )
    )
    lines = text(plan_lines(found)).splitlines()
    assert lines[0] == "Would remove 2 images: about 80 MiB."
    assert "  pressure  none: only what has had its time goes" in lines
    rows = [line.split(maxsplit=5) for line in lines if "expired" in line]
    assert [(row[0], row[1], row[4]) for row in rows] == [("1", "10", "a"), ("2", "70", "b")]
    assert "90 days ago  expired  not used for 90 days, longer than the 30d of team/app" in text(lines)
    assert lines[-1].split() == ["in-use", "1", "5", "MiB"]


def test_under_pressure_it_says_until_when_and_what_stays_missing() -> None:
    snapshot = host(image("a", "team/app:1", idle=5))
    found = plan_prune(snapshot, policy(), NOW, pressure=FreeTarget(200 * MIB, 950_000))
    lines = text(plan_lines(found))
    assert "  pressure  until 200 MiB and 950,000 inodes are free" in lines
    assert "to the low threshold would still be missing" in lines
    assert "least-recently-used" in lines


def test_the_disk_has_what_users_can_fill_as_df_says() -> None:
    usage = replace(USAGE, reserved_bytes=300 * MIB)
    assert "  free      100 MiB of 700 MiB, 900,000 of 1,000,000 inodes at" in text(plan_lines(plan(host(usage=usage))))


def test_a_long_plan_is_cut_and_the_cut_is_told() -> None:
    found = plan(host(*(image(f"{number:03}", f"team/app:{number}", idle=90) for number in range(203))))
    assert "  and 3 more, about 30 MiB (--json shows them all)" in text(plan_lines(found))


def test_a_host_that_could_not_be_read_is_told() -> None:
    lines = text(plan_lines(plan(host(image("a", "x:1"), problems=(f"the listing {EVIL}",)))))
    assert lines.startswith("Nothing would be removed, since the host could not be read in full.\n  ✗ the listing red")


def test_nothing_of_a_strangers_text_reaches_the_terminal_as_it_is() -> None:
    snapshot = host(
        image("a", "x:1", idle=90, labels={"caisson.keep-until": EVIL}),
        image("b", f"y:{EVIL}", idle=90),
        image("c", "z:1", idle=90),
        containers=(container(EVIL, "c"),),
    )
    found = plan(snapshot, policy(exited_containers_age="1d"))
    rows = image_rows(found, known("b", EVIL))
    shown = [*plan_lines(found), *image_lines(rows, NOW), *saved_lines(dry_run(found, trigger="a test"))]
    for name in "abc":
        shown += account_lines(account(snapshot, name), NOW)
    shown += [result_line(ItemResult(item, "kept", EVIL, EVIL), 1, 1) for item in found.items]
    assert "\x1b" not in "".join(shown)
    assert "\u202e" not in "".join(shown)
    assert not any("\n" in line for line in shown)


# What came of it


def report(**changes: object) -> PruneReport:
    found = plan(host(image("a", "team/app:1", idle=90), image("b", "team/app:2", idle=60)), free_mib=150)
    results = (
        ItemResult(found.items[0], "removed", "expired", "its time", 0.5),
        ItemResult(found.items[1], "kept", "in-use", "the container x was made from it"),
    )
    done = replace(
        dry_run(found, trigger="a test"),
        results=results,
        dry_run=False,
        freed_bytes=9 * MIB,
        freed_inodes=12,
        ending="short",
        usage_after=replace(found.usage, free_bytes=109 * MIB),
    )
    return replace(done, **changes)  # type: ignore[arg-type]


def test_the_end_has_freed_against_predicted_and_what_is_missing() -> None:
    lines = text(report_lines(report()))
    assert lines.startswith("Removed 1 of 2 planned: 9 MiB freed; 41 MiB to the low threshold still missing.\n")
    assert "9 MiB more are free at /var/lib/docker than before (+12 inodes); by the plan 10 MiB." in lines
    assert "besides   1 kept" in lines


def test_what_ended_it_early_is_told() -> None:
    lines = text(report_lines(report(ending="stopped", problem="The engine does not answer.", freed_bytes=-MIB)))
    assert "0 B freed" in lines
    assert "1 MiB less are free" in lines
    assert "it ended early: The engine does not answer." in lines


def test_each_removal_is_a_line_with_its_number() -> None:
    first, second = report().results
    assert result_line(first, 1, 2) == "[1/2] removed  image a (team/app:1), 10 MiB, 0.50 s"
    assert result_line(second, 2, 2) == "[2/2] kept     image b (team/app:2) (in-use: the container x was made from it)"


def test_a_saved_plan_shows_what_of_it_may_still_go() -> None:
    found = report(started=NOW + timedelta(hours=3))
    first, second = found.results
    shown = text(saved_lines(replace(found, results=(replace(first, outcome="not-reached"), second))))
    assert shown.startswith("Of 2 planned 3 h ago, 1 may still go: about 10 MiB.")
    goes, stays = shown.splitlines()[2:4]
    assert goes.split()[0] == "goes"
    assert goes.endswith("not used for 90 days, longer than the 30d of team/app")
    assert stays.split()[0] == "stays"
    assert stays.endswith("the container x was made from it")


# Images


def test_images_are_sorted_by_what_they_hold_alone_and_agree_with_the_plan() -> None:
    base = ("base", 500)
    snapshot = host(
        image("a", "team/app:1", idle=90, layers=stack(base, ("a", 10))),
        image("b", "team/app:2", idle=2, layers=stack(base, ("b", 40))),
        image("c", idle=90, pushed=False, layers=stack(("c", 5))),
    )
    found = plan(snapshot)
    rows = image_rows(found, known("a", "container start", idle=90))
    assert [(row.id, row.marginal_bytes // MIB, row.decision, row.rule) for row in rows] == [
        (image_id("b"), 540, "keep", "not-expired"),
        (image_id("a"), 10, "remove", "expired"),
        (image_id("c"), 5, "remove", "dangling"),
    ]
    assert [row.last_use for row in rows] == ["not known", "container start", "not known"]
    lines = text(image_lines(rows, NOW)).splitlines()
    assert lines[2].split()[:4] == ["a", "10", "MiB", "510"]
    assert "container start  goes   expired      team/app:1" in lines[2]
    assert lines[3].endswith("untagged")
    assert lines[-1] == "3 images, of which a prune now would remove 2: about 15 MiB."


def test_a_use_that_only_the_plan_knows_of_is_told_as_lent() -> None:
    snapshot = host(image("p", "p:1", idle=90), image("c", "c:1", idle=1, parent=image_id("p")))
    (row,) = (row for row in image_rows(plan(snapshot), known("p", "tagged", idle=90)) if row.id == image_id("p"))
    assert row.last_use == "an image that was built on it was used"


def test_images_of_a_repository_are_found_by_any_of_their_names() -> None:
    snapshot = host(
        image("a", "team/app:1", "other:1"), image("b", "team/web/x:1"), image("c", pushed=False), image("d", "Bad:1")
    )
    rows = image_rows(plan(snapshot), {})
    assert [row.id for row in of_repositories(rows, "team/*")] == [image_id("a")]
    assert [row.id for row in of_repositories(rows, "team/**")] == [image_id("a"), image_id("b")]
    assert text(image_lines([], NOW)) == "There are no such images on this host."


def test_tags_that_go_while_their_image_stays_are_told() -> None:
    chosen = policy(rules=[{"repositories": "kept", "max_age": "", "keep_last": 0}])
    (row,) = image_rows(plan(host(image("a", "kept:1", "old:1", idle=90)), chosen), {})
    assert (row.decision, row.going_tags) == ("keep", ("old:1",))
    assert "kept:1, old:1; goes: old:1" in text(image_lines([row], NOW))


# One image


def test_every_protection_is_told_not_only_the_first() -> None:
    snapshot = host(
        image("a", "team/app:1", idle=0.5, labels={"caisson.keep-until": "2026-07-01"}, deployed=0),
        image("b", "team/app:2", idle=0.2, layers=stack(("a", 10), ("b", 1)), parent=image_id("a")),
        containers=(container("user", "a"),),
        leases=(lease(images=["a"]),),
    )
    found = account(snapshot, "a", policy(keep=["team/app"], otherwise={"keep_last": 2}))
    assert [reason.rule for reason in found.protections] == [
        *("in-use", "lease", "keep-until", "deployed", "min-age", "keep-pattern", "keep-last", "ancestor")
    ]
    lines = text(account_lines(found, NOW))
    assert all(f"{reason.rule}: {reason.reason}" in lines for reason in found.protections)
    assert "goes      no time can be told: the container user (exited) was made from it" in lines
    assert "stays, also when the disk is full" in lines


def test_when_it_goes_is_told_where_time_alone_brings_it_about() -> None:
    found = account(host(image("a", "team/app:1", idle=0.5)), "a")
    assert found.goes == NOW + timedelta(days=29.5)
    assert found.evictable == NOW + timedelta(days=0.5)
    lines = text(account_lines(found, NOW))
    assert "at 2026-07-01 00:00 UTC at the earliest, if nothing changes" in lines
    assert "may go when the disk is full, from 2026-06-02 00:00 UTC" in lines
    assert "shares    nothing" in lines


def test_a_label_with_a_zone_of_its_own_is_told_in_utc() -> None:
    label = {"caisson.keep-until": "2026-06-10T02:00:00+02:00"}
    found = account(host(image("a", "team/app:1", idle=90, labels=label)), "a")
    assert "at 2026-06-10 00:00 UTC" in text(account_lines(found, NOW))
    # Beyond the calendar's end.
    far = {"caisson.keep-until": "9999-12-31T23:59:59.999999"}
    assert account(host(image("a", "team/app:1", idle=90, labels=far)), "a").goes is None


def test_what_it_shares_and_with_whom() -> None:
    base, more = ("base", 50), ("more", 7)
    snapshot = host(
        image("a", "team/app:1", layers=stack(base, more, ("a", 3))),
        image("b", "team/app:2", layers=stack(base, more, ("b", 3))),
        image("c", "team/web:1", layers=stack(base)),
        image("d", "other:1", layers=stack(("d", 9))),
    )
    found = account(snapshot, "a", policy(keep=["**"]))
    assert [(other.id, other.layers, other.size // MIB) for other in found.shared_with] == [
        (image_id("b"), 2, 57),
        (image_id("c"), 1, 50),
    ]
    assert found.alone_bytes == 3 * MIB
    assert "shares    57 MiB in 2 layers with b (team/app:2)" in text(account_lines(found, NOW))


IDS = ("0a" * 32, "0b" * 32, "ff" * 32)


@pytest.mark.parametrize(
    ("meant", "found"),
    [
        ("team/app:1", [0]),
        ("docker.io/team/app:1", [0]),
        ("team/app", [1]),  # its latest, and not the repository
        ("team/web", [2]),  # there is no latest, and one image
        ("stable", [2]),
        ("1", [0, 2]),
        ("0a0a", [0]),
        (f"sha256:{'0b' * 32}", [1]),
        ("0a0", []),  # three digits
        ("0a0a0b", []),
        (f"team/app@sha256:{'0' * 64}", [0, 1]),
        ("team/nothing", []),
        ("", []),
        ("*", []),
    ],
)
def test_which_image_is_meant(meant: str, found: list[int]) -> None:
    names = (("team/app:1",), ("team/app:latest",), ("team/web:1", "team/web:stable"))
    images = [image(name, *tags) for name, tags in zip(IDS, names, strict=True)]
    facts = Facts(host(*images), policy(), NOW)
    assert [one.id for one in find_images(facts, meant)] == [image_id(IDS[number]) for number in found]


# Files and options


@pytest.mark.parametrize(
    "content",
    [
        '{"scope": "host", "otherwise": {"keep_last": 5}}',
        '{"retention": {"scope": "host", "otherwise": {"keep_last": 5}}}',
        'scope = "host"\n[otherwise]\nkeep_last = 5\n',
        'memory = "3g"\n[retention]\nscope = "host"\n[retention.otherwise]\nkeep_last = 5\n',
    ],
)
def test_a_policy_is_read_from_toml_and_json_with_and_without_its_table(content: str) -> None:
    found = policy_from_text(content)
    assert (found.scope, found.otherwise.keep_last) == ("host", 5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "there is no policy in it"),
        ("{}", "there is no policy in it"),
        ("[retention]\n", "there is no policy in it"),
        ("{", "it is not JSON"),
        ("= 1", "neither JSON"),
        ("[otherwise]\nkeep_last = -1", "otherwise.keep_last: "),
        ("keep_lst = 1", "keep_lst: "),
        ('{"retention": [1]}', "the policy: "),
        ("\ud800", ""),
    ],
)
def test_a_policy_that_can_not_be_meant_is_one_sentence(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "policy"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    for command in (["prune"], ["images"], ["why", "x"]):
        result = runner.invoke(app, [*command, "--policy", str(file)])
        assert (result.exit_code, result.stdout) == (SettingsInvalid.exit_code, "")
        assert result.stderr.startswith(f"caisson: --policy: {file} can't be used: ")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("content", ["", "garbage", "[]", '{"version": 2}', '{"version": 1}', "\0"])
def test_a_plan_of_another_version_or_none_is_one_sentence_with_a_way_out(content: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    for more in ([], ["--apply", "--yes"]):
        result = runner.invoke(app, ["prune", *more, str(file)])
        assert (result.exit_code, result.stdout) == (RequestInvalid.exit_code, "")
        assert result.stderr.startswith(f"caisson: The plan {file} can't be used: ")
        assert f"`caisson prune --plan {file}` writes a new one" in result.stderr


def test_a_plan_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = runner.invoke(app, ["prune", "nothing.json", "--json"])
    assert result.exit_code == RequestInvalid.exit_code
    assert "No such file" in json.loads(result.stdout)["failure"]["message"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--apply"], "add --yes"),
        (["--yes"], "--yes is for --apply"),
        (["plan.json", "--plan", "other.json"], "give one of them"),
        (["plan.json", "--pressure"], "give one of them"),
    ],
)
def test_options_that_do_not_go_together_are_told(options: list[str], words: str) -> None:
    result = runner.invoke(app, ["prune", *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", [["prune"], ["prune", "--apply", "--yes"], ["images"], ["why", "x"]])
def test_without_an_engine_nothing_is_done_and_it_is_told(command: list[str], tmp_path: Path) -> None:
    result = runner.invoke(app, [*command, "--json"])
    assert result.exit_code == EngineUnreachable.exit_code
    assert json.loads(result.stdout)["failure"]["kind"] == "engine-unreachable"


def test_a_pattern_that_can_not_be_meant_is_told() -> None:
    result = runner.invoke(app, ["images", "--repository", "a b"])
    assert result.exit_code == 2
    assert "not a pattern of repositories" in result.stderr


def test_a_saved_plan_needs_the_engine_and_not_the_policy_it_was_made_with(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(plan_to_json(plan(host(image("a", "x:1", idle=90)))))
    assert runner.invoke(app, ["prune", str(file)]).exit_code == EngineUnreachable.exit_code


def test_signals_stop_what_asks_and_are_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with signals_stop("Stopping.") as stop:
        assert not stop.is_set()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert stop.is_set()
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr().err == "Stopping.\n"
