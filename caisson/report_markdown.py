"""A build's report as people read it: markdown for Prefect's artifact page. Pure.

What they look for first comes first: how it ended, what to do about it, the image's names. Whatever a request or a
repository can influence goes through ``caisson.untrusted``.
"""

from __future__ import annotations

from collections.abc import Iterator

from caisson.engine import short_id
from caisson.markdown_table import markdown_table
from caisson.report import BuildReport, LimitsReport, PostureReport, TagReport
from caisson.report_picture import format_seconds, picture
from caisson.sizes import format_size
from caisson.untrusted import code, code_block, folded_block, markdown

_MARKS = {"pass": "✓\u00a0pass", "not applicable": "–\u00a0n/a", "fail": "✗\u00a0fail"}


def render_markdown(report: BuildReport) -> str:
    """The report as markdown, the picture of its time included as a data URI."""
    sections = [
        f"## {_headline(report)}",
        *_failure(report),
        *_image(report),
        *_time(report),
        *_facts(report),
        *_limits(report),
        *_posture(report),
        *_guard(report),
        *_notes(report),
        *_log(report),
    ]
    return "\n\n".join(sections) + "\n"


def summary(report: BuildReport) -> str:
    """One plain sentence: how the build ended; for a list of artifacts. Holds nothing but text."""
    at = f" at {report.sha[:7]}" if report.sha else ""
    took = format_seconds(report.seconds)
    image = report.image or "an image without a valid name"
    if report.outcome == "built":
        return f"Built {image}{at} in {took}."
    if report.outcome == "reused":
        return f"{image}{at} was on this host already; tagged without a build in {took}."
    where = next((f" in step {step.name}" for step in report.steps if step.state == "failed"), "")
    return f"The build of {image}{at} {_ENDED[report.outcome]}{where} after {took}."


_ENDED = {"failed": "failed", "cancelled": "was cancelled"}
_MARK_OF = {"built": "✓", "reused": "✓", "failed": "✗", "cancelled": "⏹"}


def _headline(report: BuildReport) -> str:
    return f"{_MARK_OF[report.outcome]} {markdown(summary(report))}"


def _failure(report: BuildReport) -> Iterator[str]:
    failure = report.failure
    if failure is None:
        return
    yield f"**{markdown(str(failure.get('kind', 'error')))}**: {markdown(str(failure.get('message', '')), 2000)}"
    if failure.get("hint"):
        yield f"**The way out**: {markdown(str(failure['hint']), 2000)}"
    details = failure.get("details")
    lines = details.get("last_lines") if isinstance(details, dict) else None
    if lines:
        yield code_block([str(line) for line in lines])


def _image(report: BuildReport) -> Iterator[str]:
    if not report.tags:
        return
    yield f"### Image {code(report.image)}"
    pushed = any(tag.digest for tag in report.tags)
    header = ["Tag", "Why", "Was", *(["Digest"] if pushed else [])]
    yield markdown_table(header, (_tag_row(report, tag, pushed=pushed) for tag in report.tags))
    digests = dict.fromkeys(f"{report.image}@{tag.digest}" for tag in report.tags if tag.digest)
    # A block, since IDs are there to be copied, and too long for a table.
    yield code_block([f"image ID  {report.image_id}", *(f"digest    {digest}" for digest in digests)])


def _tag_row(report: BuildReport, tag: TagReport, *, pushed: bool) -> list[str]:
    return [
        code(tag.reference.removeprefix(f"{report.image}:")),
        markdown(tag.reason or tag.rule),
        code(short_id(tag.previous)) or "new",
        *([code(short_id(tag.digest)) or "–"] if pushed else []),
    ]


def _time(report: BuildReport) -> Iterator[str]:
    uri = picture(report)
    if uri:
        yield "### Where the time went"
        yield f"![The duration of each step]({uri})"


def _facts(report: BuildReport) -> Iterator[str]:
    yield "### Facts"
    yield markdown_table(["", ""], ([name, value] for name, value in _fact_rows(report) if value))


def _fact_rows(report: BuildReport) -> Iterator[tuple[str, str]]:
    yield "Repository", code(report.repository_url, 2048)
    yield "Ref", code(report.ref) if report.ref else "the remote's default branch"
    yield "Commit", code(report.sha)
    yield "Size", _size(report)
    yield "Builder", f"{markdown(report.builder)}: {markdown(report.builder_reason)}" if report.builder else ""
    yield "Cache", _cache(report)
    yield "Spec", code(report.spec_hash)
    yield "Host", f"{markdown(report.host)}{f', Docker {markdown(report.engine)}' if report.engine else ''}"
    yield "Started", f"{report.started:%Y-%m-%d %H:%M:%S %Z}".strip()
    yield "Took", format_seconds(report.seconds)
    yield "Builder container", _removed(report)
    yield "Build", code(report.build_id)


def _size(report: BuildReport) -> str:
    if not report.size:
        return ""
    least = "" if report.new_bytes_exact else "at least "
    return f"{format_size(report.size)}, of which {least}{format_size(report.new_bytes)} were new to this host"


def _cache(report: BuildReport) -> str:
    steps = report.dockerfile_steps
    return f"{report.cache_hits} of {len(steps)} steps came from the cache, {report.cache_misses} ran" if steps else ""


def _removed(report: BuildReport) -> str:
    if report.builder_removed is None:
        return "none was started"
    return "removed" if report.builder_removed else "✗ not removed; it destroys itself at its deadline"


def _limits(report: BuildReport) -> Iterator[str]:
    limits = report.limits
    if limits is None:
        return
    yield "### Limits"
    yield f"**{limits.status}**: {markdown(limits.reason)}"
    yield markdown_table(["Limit", "Asked for", "The kernel has"], _limit_rows(limits))


def _limit_rows(limits: LimitsReport) -> Iterator[list[str]]:
    yield ["Memory", _bytes(limits.asked_memory), _bytes(limits.memory)]
    yield ["Memory and swap", _bytes(limits.asked_memory), _bytes(limits.memory_and_swap)]
    yield ["CPUs", _number(limits.asked_cpus), _number(limits.cpus)]
    yield ["Processes", _number(limits.asked_pids), _number(limits.pids)]
    yield ["Workspace", _bytes(limits.workspace), "held by the file system"]
    yield ["Time", format_seconds(limits.timeout_seconds), "held by Caisson and by the builder's own deadline"]


def _bytes(size: int | None) -> str:
    return "not told" if size is None else format_size(size)


def _number(number: float | None) -> str:
    return "not told" if number is None else f"{number:g}"


def _posture(report: BuildReport) -> Iterator[str]:
    items = report.posture
    if not items:
        return
    counts = ", ".join(
        f"{count} {_MARKS[status].split()[1]}"
        for status in _MARKS
        if (count := sum(item.status == status for item in items))
    )
    yield f"### Security posture: {counts}"
    wanting = [item for status in ("fail", "not applicable") for item in items if item.status == status]
    if wanting:
        yield markdown_table(["", "What", "As it was found"], (_posture_row(item) for item in wanting))
    passed = [f"✓ {item.title}: {_found(item)}" for item in items if item.status == "pass"]
    if passed:
        yield folded_block(f"The {len(passed)} that pass", passed)


def _posture_row(item: PostureReport) -> list[str]:
    return [_MARKS[item.status], markdown(item.title), markdown(_found(item))]


def _found(item: PostureReport) -> str:
    return f"{item.reason} ({item.source})" if item.source else item.reason


def _guard(report: BuildReport) -> Iterator[str]:
    guard = report.guard
    if guard is None:
        return
    allowed = sum(item.count for item in guard.counts if item.verdict == "allow")
    yield f"### Guard of the socket: {allowed} allowed, {guard.denied} denied"
    if guard.denials:
        rows = ([code(f"{item.method} {item.path}"), code(item.rule), markdown(item.reason)] for item in guard.denials)
        yield markdown_table(["Denied", "Rule", "Why"], rows)
        if guard.denied > len(guard.denials):
            kept, more = len(guard.denials), guard.denied - len(guard.denials)
            yield f"The first {kept} denials are told here; {more} more are in the audit only."
    if guard.counts:
        counted = ([markdown(item.verdict), code(item.rule), str(item.count)] for item in guard.counts)
        yield markdown_table(["Verdict", "Rule", "Decisions"], counted)
    if guard.counts and guard.audit_file:
        yield f"Each decision is on {markdown(report.host)} in {code(guard.audit_file)}."


def _notes(report: BuildReport) -> Iterator[str]:
    if report.notes:
        yield "### Notes"
        yield "\n".join(f"* {markdown(note)}" for note in report.notes)


def _log(report: BuildReport) -> Iterator[str]:
    if not report.log_tail:
        return
    yield folded_block(f"The last {len(report.log_tail)} lines of the log", report.log_tail)
    if report.log_file:
        yield f"The whole log is on {markdown(report.host)} in {code(report.log_file)}."
