"""A preflight as text: the verdict first, then checks, first tokens, memory, time, choices."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from swe_scaffold.cli.tables import level, number, table
from swe_scaffold.metrics.positions import POSITIONS
from swe_scaffold.numbers import gibibytes
from swe_scaffold.terminal import show

if TYPE_CHECKING:
    from swe_scaffold.training.checks import Finding
    from swe_scaffold.training.preflight import Preflight, TimeEstimate
    from swe_scaffold.training.starts import StartReport

_WIDTH, _PARAGRAPH, _TOKEN_WIDTH, _PROMPT_WIDTH, _VALUE_WIDTH = 100, 600, 24, 48, 60
# Lines of the table by position; `--json` has every one.
_SHOWN_POSITIONS = (1, 2, 3, 4, 8, 16)


def preflight_text(result: Preflight) -> str:
    """Return the page of a preflight."""
    verdict = {0: "ready", 7: "does not fit"}.get(result.exit_code, "training would be pointless")
    warnings = sum(finding.level == "warning" for finding in result.findings)
    noted = f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    blocks = [
        f"preflight: {verdict}{noted}",
        *map(_finding, result.findings),
        _facts("rows and tokens", _checks(result)),
        _starts(result.starts),
        _facts("memory and time", _costs(result)),
        _decisions(result),
    ]
    return "\n\n".join(blocks)


def _facts(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return a title and below it one `name  value` a paragraph, every text made safe."""
    pairs = list(rows)
    width = max(len(name) for name, _ in pairs)
    lines = [title]
    for name, value in pairs:
        lines += textwrap.wrap(
            show(value, width=_PARAGRAPH),
            _WIDTH,
            initial_indent=f"  {name.ljust(width)}  ",
            subsequent_indent=" " * (width + 4),
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _finding(finding: Finding) -> str:
    word = "stop" if finding.level == "stop" else "warning"
    text = f"{word}: {finding.name}: {show(finding.message, width=_PARAGRAPH)}"
    lines = textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    if finding.hint:
        lines += textwrap.wrap(
            f"hint: {show(finding.hint, width=_PARAGRAPH)}",
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _checks(result: Preflight) -> Iterator[tuple[str, str]]:
    mask, words, proof = result.mask, result.vocabulary, result.mask.proof
    yield (
        "mask proof",
        f"{proof['rows']} rows: text and trained spans are the template's; "
        f"{proof['identical']} with the tokenizer's own ids, {proof['boundary_merges']} answers "
        f"split from their header, {proof['spelt_controls']} spell a control token",
    )
    end = show(mask.end, width=_TOKEN_WIDTH)
    stops = {True: "generation stops at it", False: "generation does NOT stop at it"}
    said = "no file says where generation stops"
    whole = mask.spans - mask.spans_without_end
    yield (
        "ends",
        f"{whole} of {mask.spans} trained spans end in {end} (id {mask.end_id}); "
        + (said if mask.end_is_stop is None else stops[mask.end_is_stop]),
    )
    same = " (the end token, which padding never trains)" if mask.pad_id == mask.end_id else ""
    yield (
        "padding",
        f"id {mask.pad_id}{same}, a target {mask.pad_targets} times of {mask.targets:,}",
    )
    default = json.dumps(mask.default_system, ensure_ascii=False, allow_nan=False)
    yield (
        "system prompt",
        f"{mask.rows_with_default} of {mask.rows} rows have the template's own, "
        f"{show(default, width=_PROMPT_WIDTH)}; {mask.system_prompts} different",
    )
    yield (
        "vocabulary",
        f"highest id {words.highest_id} < {words.embeddings} embeddings; the tokenizer has "
        f"{words.tokenizer_size}",
    )
    context = "unknown" if words.context is None else str(words.context)
    yield (
        "context",
        f"longest row {words.longest_row} <= max_length {words.max_length}; the model's is "
        f"{context}; {words.prompts_shortened} prompts shortened, {words.over_length} rows skipped",
    )


def _starts(report: StartReport) -> str:
    summary = report.summary
    places = [
        [
            place.position,
            place.n,
            *(f"{value:.2f}" for value in (place.mean, place.p10, place.median, place.p90)),
        ]
        for place in summary.positions
        if place.position in _SHOWN_POSITIONS
    ]
    unit = f"{level(asdict(summary.first))} intervals, {summary.first.clusters} clusters"
    title = (
        f"responses under the base: {report.rows} of {report.of_rows} trained rows, seed "
        f"{report.seed}; {unit}"
    )
    rows = [
        ("first token", f"{number(asdict(summary.first))} nats"),
        (f"after {POSITIONS}", f"{number(asdict(summary.rest))} nats per token"),
        ("as the base", f"{number(asdict(summary.agreement))} of the rows begin as it would"),
    ]
    for name, entries in (("data begin", summary.of_data), ("base would", summary.of_model)):
        shown = (
            f"{_quoted(report.texts[entry.token])} {entry.rows} (p {entry.probability:.2g})"
            for entry in entries
        )
        rows.append((name, ", ".join(shown)))
    if summary.first.ci and summary.first.reason:
        rows.append(("beware", summary.first.reason))
    headers = ["  position", "n", "mean NLL", "p10", "median", "p90"]
    return _facts(f"{title}\n{table(headers, places)}", rows)


def _quoted(text: str) -> str:
    return f'"{show(text, width=_TOKEN_WIDTH)}"'


def _costs(result: Preflight) -> Iterator[tuple[str, str]]:
    memory, time = result.memory, result.time
    size = f"{memory.rows} rows, longest {memory.longest} tokens"
    if memory.fits and memory.needed_bytes is not None:
        used = f"{gibibytes(memory.needed_bytes)} of {gibibytes(memory.limit_bytes)}"
        yield "fits", f"yes: the largest pass of the run ({size}) peaks at {used}"
    else:
        yield "fits", f"no: the largest pass of the run is {size}; see above"
    if time is not None:
        yield "time", _time(time)
        more = f"about {_duration(time.evaluation_seconds)} more, {time.evaluations} times"
        yield "evaluation", more if time.evaluations else "never"
        yield "not counted", "loading and checkpoints"


def _time(time: TimeEstimate) -> str:
    sizes = ", ".join(f"{cost.rows} x {cost.longest}" for cost in time.timed)
    speed = time.tokens / time.seconds
    return (
        f"about {_duration(time.seconds)} ({_duration(time.low)} to {_duration(time.high)}): "
        f"{time.steps} steps, {time.passes} passes, {time.tokens:,} tokens at "
        f"{speed:,.0f}/s ({len(time.timed)} timed: {sizes})"
    )


def _duration(seconds: float) -> str:
    """Return a length of time in the unit that suits it."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _decisions(result: Preflight) -> str:
    rows = [
        [
            decision.key,
            show(decision.value, width=_VALUE_WIDTH),
            decision.origin,
            show(decision.why, width=_WIDTH),
        ]
        for decision in result.decisions
    ]
    return table(["choice", "value", "by", "why"], rows)
