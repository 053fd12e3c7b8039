"""A plan as people read it: totals first, each row with its reason, and no stranger's text that does anything."""

from __future__ import annotations

from dataclasses import replace

from caisson.prune_markdown import MOST_ROWS, plan_summary, render_plan
from caisson.snapshot import CacheEntry, VolumeState
from tests.prune_hosts import MIB, container, days_ago, host, image, image_id, plan, policy

HOST = host(
    image("expired", "team/app:1", "team/app:2", "team/app:3", "team/app:4", idle=40),
    image("named", "team/app:old", "team/app:v1", idle=40),
    image("unknown", "team/app:5", idle=None),
    containers=(container("done", "gone", finished=days_ago(9)),),
    anonymous_volumes=(VolumeState("f" * 64, MIB, 0, days_ago(9)),),
    build_cache=(CacheEntry("c", "regular", 30 * MIB),),
)
CHOSEN = policy(
    scope="host",
    exited_containers_age="7d",
    anonymous_volumes_age="7d",
    otherwise={"keep_tags": ["v*"]},
    build_cache={"reserved_space": "0", "max_used_space": "20m"},
)


def test_the_summary_counts_what_goes_and_says_what_is_still_missing() -> None:
    assert plan_summary(plan(HOST, CHOSEN)) == (
        "Would remove 1 image, 1 tag, 1 container, 1 volume and build cache: about 21 MiB."
    )
    assert plan_summary(plan(HOST, CHOSEN, free_mib=500)).endswith(
        "after which 359 MiB to the low threshold would still be missing."
    )
    assert plan_summary(plan(host())) == "Nothing would be removed."
    missing = "Nothing would be removed, though 100 MiB to the low threshold would still be missing."
    assert plan_summary(plan(host(), free_mib=200)) == missing
    failed = plan(host(problems=("GET /volumes timed out",)))
    assert plan_summary(failed) == "Nothing would be removed, since the host could not be read in full."
    assert "timed out" in render_plan(failed)


def test_every_kind_of_item_has_a_row_with_its_rule_and_reason() -> None:
    found = plan(HOST, CHOSEN)
    text = render_plan(found)
    table = text[text.index("### What goes") : text.index("### What stays")]
    for item in found.items:
        assert f"`{item.rule}`" in table
    assert "`team/app:1`, `team/app:2`, `team/app:3` and 1 more" in table
    assert "from 30 MiB down to 20 MiB" in table
    assert "`team/app:old` of `named`, which stays" in table
    assert "40 days ago" in table


def test_what_stays_is_told_by_rule_and_image_by_image() -> None:
    text = render_plan(plan(HOST, CHOSEN))
    table = text[text.index("### What stays: 2 images") :]
    assert "| `keep-pattern` | 1 | 10 MiB |" in table
    assert "| `unknown` | `team/app:5` | not known | 10 MiB | `min-age` |" in table


def test_text_of_strangers_does_nothing_on_the_page() -> None:
    evil = "<img src=x onerror=alert(1)>|[a](http://evil.example)`\n# head"
    web = container(evil, "a")
    found = plan(host(image("a", "team/app:1"), containers=(web,), problems=()))
    text = render_plan(found)
    assert "<img" not in text.replace("\\<img", "")
    assert "\n# head" not in text
    assert "](http" not in text
    row = next(line for line in text.splitlines() if "`in-use`" in line and "onerror" in line)
    assert row.replace("\\|", "").count("|") == 7


def test_a_long_plan_is_cut_and_says_so() -> None:
    many = [image(f"i{number:04}", f"team/app:{number}") for number in range(MOST_ROWS + 5)]
    text = render_plan(plan(host(*many)))
    assert "5 more, about 50 MiB, are in the JSON only." in text
    kept = render_plan(plan(host(*(replace(item, deployed=0) for item in many))))
    assert "5 more are in the JSON only." in kept
    assert image_id("i0000") not in kept
