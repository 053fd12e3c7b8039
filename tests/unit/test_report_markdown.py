"""The report that people read: complete, in order, and no stranger's text ever becomes more than text."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from caisson.report import (
    BuildReport,
    DockerfileStepReport,
    GuardCount,
    GuardDenial,
    GuardReport,
    LimitsReport,
    PostureReport,
    StepReport,
    TagReport,
)
from caisson.report_markdown import render_markdown, summary
from caisson.report_picture import bars, svg
from caisson.untrusted import clean, clean_line, code, code_block, folded_block, markdown

_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_SVG = "{http://www.w3.org/2000/svg}"


def _report(text: str = "x", **changes: object) -> BuildReport:
    """A report in which every field that a request, a repository or a log can influence is ``text``."""
    values: dict[str, object] = {
        "outcome": "failed",
        "build_id": "0123456789ab",
        "host": text,
        "engine": text,
        "repository_url": text,
        "ref": text,
        "sha": "a" * 40,
        "spec_hash": "b" * 64,
        "builder": "buildkit",
        "builder_reason": text,
        "image_id": f"sha256:{'c' * 64}",
        "image": text,
        "tags": [TagReport(reference=text, rule="raw", reason=text, previous=text, digest=text)],
        "size": 200 << 20,
        "new_bytes": 3 << 20,
        "started": datetime(2025, 3, 1, 12, 30, tzinfo=UTC),
        "seconds": 12.5,
        "steps": [
            StepReport(name="clone", state="completed", seconds=1),
            StepReport(name="build", state="failed", seconds=9, reason=text),
        ],
        "dockerfile_steps": [
            DockerfileStepReport(name=text, seconds=0, cached=True),
            DockerfileStepReport(name=text, seconds=8, cached=False, error=text),
        ],
        "limits": LimitsReport(status="verified", reason=text, asked_memory=2 << 30, memory=1 << 30, pids=512),
        "posture": [
            PostureReport(title=text, status="pass", reason=text, source=text),
            PostureReport(title=text, status="fail", reason=text),
        ],
        "guard": GuardReport(
            counts=[GuardCount(verdict="deny", rule=text, count=2)],
            denied=2,
            denials=[GuardDenial(time="2025-03-01", method=text, path=text, rule=text, reason=text)],
            audit_file=text,
        ),
        "builder_removed": True,
        "notes": [text],
        "log_tail": [text, text],
        "log_file": text,
        "failure": {"kind": "build-step-failed", "message": text, "hint": text, "details": {"last_lines": [text]}},
    }
    return BuildReport.model_validate({**values, **changes})


def _tokens(text: str) -> list[Token]:
    flat: list[Token] = []
    for token in _MARKDOWN.parse(text):
        flat.extend([token] if token.children is None else [token, *token.children])
    return flat


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(f"<{tag} {attrs}>")

    def handle_endtag(self, tag: str) -> None:
        self.found.append(f"</{tag}>")


def _structure(text: str) -> list[tuple[str, str]]:
    """All that markdown and HTML make of it, but for the text itself, plain or in a fixed-width font."""
    return [
        (token.type, "".join(_Tags(token.content).found) if token.type.startswith("html") else token.info or token.tag)
        for token in _tokens(text)
        if token.type not in ("text", "text_special", "code_inline") and token.content != "<!-- -->"
    ]


def _shown(text: str) -> list[str]:
    """The text of each cell, paragraph and heading, as a reader sees it."""
    return [
        "".join(child.content for child in token.children if child.type != "html_inline")
        for token in _MARKDOWN.parse(text)
        if token.children is not None
    ]


def _svg_of(text: str) -> str:
    match = re.search(r"\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", text)
    assert match is not None
    return base64.b64decode(match[1]).decode()


_FRAGMENTS = [
    "|",
    "`",
    "```",
    "\n",
    "\r\n\r\n",
    "<img src=x onerror=alert(1)>",
    "![](http://evil.example/x.png)",
    "[link](javascript:alert(1))",
    "</details>",
    "</code>",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "&lt;script&gt;",
    "&#60;b&#62;",
    "\\",
    "\\|",
    "**bold**",
    "_i_",
    "~~gone~~",
    "# heading",
    "- item",
    "1. item",
    "---",
    "    indented",
    "http://evil.example",
    "www.evil.example",
    "a@evil.example",
    "<http://evil.example>",
    "[^1]",
    "[x]: http://evil.example",
    "\x1b[31m",
    "\u202e",
    "\x00",
    "\ufffe",
    "$x$",
    ":smile:",
]
_parts = st.lists(st.sampled_from(_FRAGMENTS) | st.text(max_size=8), max_size=8)
hostile = _parts.map(lambda parts: f"x{''.join(parts)}")


@given(text=hostile)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_of_a_stranger_changes_what_the_markdown_is(text: str) -> None:
    assert _structure(render_markdown(_report(text))) == _structure(render_markdown(_report()))


@given(text=hostile)
@settings(max_examples=150, deadline=None)
def test_all_text_is_shown_as_it_was_written(text: str) -> None:
    assert _shown(f"a {markdown(text)} b {code(text)} c") == [f"a {clean(text)} b {clean(text)} c"]
    table = f"| a | b |\n| --- | --- |\n| {markdown(text)} | {code(text)} |"
    assert _shown(table) == ["a", "b", clean(text), clean(text)]


@given(text=hostile)
@settings(max_examples=150, deadline=None)
def test_prefects_page_makes_no_link_of_any_text(text: str) -> None:
    # mdast-util-gfm-autolink-literal 2.0, which looks into each text node after references are decoded.
    autolink = re.compile(r"(https?://|www(?=\.))([-.\w]+)|[-.\w+]+@[-\w]+(?:\.[-\w]+)+", re.IGNORECASE)
    (inline,) = [token for token in _MARKDOWN.parse(f"a {markdown(text)}") if token.children is not None]
    nodes = [""]
    for child in inline.children or []:
        if child.type == "html_inline":
            nodes.append("")
        else:
            nodes[-1] += child.content
    assert not [node for node in nodes if autolink.search(node)]


@given(lines=st.lists(_parts.map("".join) | st.from_regex(r" {0,4}[`~]{3,8} *", fullmatch=True), max_size=5))
@settings(max_examples=150, deadline=None)
def test_no_log_line_ends_its_code_block(lines: list[str]) -> None:
    tokens = _MARKDOWN.parse(code_block(lines))
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content.count("\n") == len(lines)


@given(lines=st.lists(_parts.map("".join) | st.sampled_from(["", " ", "\x1b[0m", "\u2003"]), min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_no_log_line_leaves_the_block_that_it_is_folded_in(lines: list[str]) -> None:
    (token,) = _MARKDOWN.parse(folded_block("log", lines))
    assert token.type == "html_block"
    assert _Tags(token.content).found == [
        *("<details []>", "<summary []>", "</summary>", "<pre []>", "<code []>"),
        *("</code>", "</pre>", "</details>"),
    ]
    shown = ElementTree.fromstring(token.content).findtext("pre/code")
    assert shown is not None
    assert [line.strip() for line in shown.split("\n")] == [*(clean_line(line).strip() for line in lines), ""]


@given(text=hostile)
@settings(max_examples=150, deadline=None)
def test_the_picture_is_a_picture_whatever_a_step_is_called(text: str) -> None:
    root = ElementTree.fromstring(_svg_of(render_markdown(_report(text))))
    assert {element.tag.removeprefix(_SVG) for element in root.iter()} == {"svg", "rect", "text"}
    assert {name for element in root.iter() for name in element.attrib} <= {
        *("x", "y", "width", "height", "rx", "fill", "fill-opacity", "viewBox"),
        *("font-family", "font-size", "font-weight", "text-anchor"),
    }


@pytest.mark.parametrize("character", ["\u202e", "\u2066", "\u200b", "\x00", "\x9b", "\ufeff"])
def test_what_hides_or_turns_text_is_made_visible(character: str) -> None:
    assert clean(f"a{character}b") == "a\ufffdb"


def test_the_outcome_comes_first_and_the_way_out_second() -> None:
    failure = {"kind": "ref-not-found", "message": "There is no branch dev.", "hint": "Use main.", "details": {}}
    shown = _shown(render_markdown(_report(failure=failure, image="team/app")))
    assert shown[0] == "✗ The build of team/app at aaaaaaa failed in step build after 12.5 s."
    assert shown[1:3] == ["ref-not-found: There is no branch dev.", "The way out: Use main."]


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        ("built", "Built team/app at aaaaaaa in 12.5 s."),
        ("reused", "team/app at aaaaaaa was on this host already; tagged without a build in 12.5 s."),
        ("failed", "The build of team/app at aaaaaaa failed in step build after 12.5 s."),
        ("cancelled", "The build of team/app at aaaaaaa was cancelled in step build after 12.5 s."),
    ],
)
def test_the_summary_says_how_it_ended(outcome: str, sentence: str) -> None:
    assert summary(_report(outcome=outcome, image="team/app")) == sentence


def test_a_tag_is_shown_with_what_it_pointed_to_before_and_its_digest() -> None:
    tag = TagReport(
        reference="registry.example:5000/team/app:1.2",
        rule="semver",
        reason="version 1.2.3",
        previous=f"sha256:{'d' * 64}",
        digest=f"sha256:{'e' * 64}",
    )
    text = render_markdown(_report(image="registry.example:5000/team/app", tags=[tag]))
    shown = _shown(text)
    at = shown.index("1.2")
    assert shown[at : at + 4] == ["1.2", "version 1.2.3", "d" * 12, "e" * 12]
    assert f"\nimage ID  sha256:{'c' * 64}\ndigest    registry.example:5000/team/app@{tag.digest}\n" in text


def test_without_a_push_there_is_no_column_of_digests() -> None:
    report = _report(tags=[TagReport(reference="team/app:1", rule="raw", reason="asked for")])
    assert "Digest" not in _shown(render_markdown(report))


def test_limits_are_shown_as_asked_for_and_as_the_kernel_has_them() -> None:
    shown = _shown(render_markdown(_report()))
    at = shown.index("Memory")
    assert shown[at : at + 6] == ["Memory", "2 GiB", "1 GiB", "Memory and swap", "2 GiB", "not told"]


def test_what_the_posture_lacks_is_seen_and_what_passes_is_folded() -> None:
    posture = [
        PostureReport(title="Init", status="pass", reason="tini", source="CIS 5.25"),
        PostureReport(title="SELinux", status="not applicable", reason="off"),
        PostureReport(title="Socket", status="fail", reason="raw", source="CIS 5.32"),
    ]
    text = render_markdown(_report(posture=posture))
    shown = _shown(text)
    at = shown.index("Security posture: 1 pass, 1 n/a, 1 fail")
    table = ["✗\u00a0fail", "Socket", "raw (CIS 5.32)", "–\u00a0n/a", "SELinux", "off"]
    assert shown[at + 4 : at + 10] == table
    assert "<summary>The 1 that pass</summary><pre><code>✓ Init: tini (CIS 5.25)\n</code>" in text


def test_cache_hits_and_misses_are_counted() -> None:
    assert "1 of 2 steps came from the cache, 1 ran" in _shown(render_markdown(_report()))


def test_a_report_of_nothing_done_has_no_empty_parts() -> None:
    report = _report(
        tags=[],
        steps=[],
        dockerfile_steps=[],
        posture=[],
        guard=None,
        notes=[],
        log_tail=[],
        limits=None,
        failure=None,
        builder_removed=None,
        sha="",
        image="team/app",
    )
    text = render_markdown(report)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        r"## ✗ The build of team\/app failed after 12\.5 s\.",
        "### Facts",
    ]
    assert "data:image" not in text


def test_steps_of_the_chain_follow_each_other_and_those_of_the_dockerfile_lie_within_theirs() -> None:
    rows = bars(_report())
    assert [(row.nested, row.start, row.seconds, row.kind) for row in rows] == [
        (False, 0, 1, "completed"),
        (False, 1, 9, "failed"),
        (True, 1, 0, "cached"),
        (True, 1, 8, "failed"),
    ]


def test_each_step_is_drawn_where_it_began() -> None:
    chain = [
        StepReport(name="clone", state="completed", start=0.5, seconds=1),
        StepReport(name="build", state="completed", start=2, seconds=9),
        StepReport(name="tag_image", state="completed", seconds=1),
    ]
    steps = [
        DockerfileStepReport(name=f"RUN {start}", start=start, seconds=3, cached=False) for start in (1.9, 3, 3.5, None)
    ]
    rows = bars(_report(steps=chain, dockerfile_steps=steps))
    assert [(row.label, row.start) for row in rows if not row.nested] == [
        ("clone", 0.5),
        ("build", 2),
        ("tag_image", 11),
    ]
    assert [row.start for row in rows if row.nested] == [2, 3, 3.5, 2]


def test_a_picture_of_very_many_steps_shows_the_slowest_and_the_one_that_failed() -> None:
    steps = [DockerfileStepReport(name=f"RUN {n}", seconds=n / 100, cached=False) for n in range(1, 200)]
    steps.append(DockerfileStepReport(name="RUN bad", seconds=0, cached=False, error="exit code: 1"))
    nested = [row for row in bars(_report(dockerfile_steps=steps)) if row.nested]
    assert len(nested) == 40
    assert nested[0].label == "RUN 161"
    assert nested[-1].label == "RUN bad"


@given(total=st.floats(0, 1e7), seconds=st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_no_bar_leaves_the_picture(total: float, seconds: list[float]) -> None:
    steps = [StepReport(name="clone", state="completed", seconds=item) for item in seconds]
    root = ElementTree.fromstring(svg(bars(_report(steps=steps)), total=total))
    for rect in root.iter(f"{_SVG}rect"):
        assert float(rect.attrib["x"]) >= 0
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= 720
    assert len([text for text in root.iter(f"{_SVG}text") if text.get("text-anchor")]) <= 7


def test_the_guards_decisions_are_a_table_and_its_denials_say_how_many_are_not_told() -> None:
    denial = GuardDenial(time="2025-03-01", method="GET", path="/x", rule="endpoint", reason="No.")
    counts = [GuardCount(verdict="allow", rule="ping", count=3), GuardCount(verdict="deny", rule="endpoint", count=7)]
    text = render_markdown(_report(guard=GuardReport(counts=counts, denied=7, denials=[denial, denial])))
    assert "| Verdict | Rule | Decisions |" in text
    assert "| deny | `endpoint` | 7 |" in text
    assert r"The first 2 denials are told here; 5 more are in the audit only." in text
