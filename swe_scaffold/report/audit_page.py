"""The page of an audit: the verdict, the identity, what was found, and what the rows are like.

Dev and hold-out stand side by side, so that a difference is seen. Everything is taken from the
audit's report; no row is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swe_scaffold.numbers import Estimate, count, counted
from swe_scaffold.report.audit_tables import (
    contamination,
    files,
    identities,
    sources,
    tokens,
    tools,
)
from swe_scaffold.report.charts import Words, figure
from swe_scaffold.report.html import (
    NOTHING,
    Html,
    code,
    details,
    element,
    escape,
    join_lines,
    page,
    paragraph,
    section,
    table,
)
from swe_scaffold.report.plots import Bars, bar_plot

if TYPE_CHECKING:
    from swe_scaffold.audit import AuditReport, FileReport
    from swe_scaffold.quality.findings import Finding

_SENTENCES = {
    "ok": ("better", "Nothing stands against training on this.", "No error and no warning."),
    "attention": ("none", "Look at the warnings first.", "No error"),
    "failed": ("worse", "Not fit to train on as it is.", ""),
}
_HEADINGS = {"error": "Errors", "warning": "Warnings", "info": "For information"}
_KINDS = ("tuned", "hold")
_LENGTHS = (
    ("row_chars", "Characters of a whole row", "all text that training sees of a row"),
    ("trained_chars", "Characters that are trained", "the response, or a chat's trained turns"),
)


def audit_page(report: AuditReport) -> str:
    """Return one self-contained HTML page about an audit."""
    names = [Path(file.path).name for file, _ in report.units]
    title = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    rows = sum(file.rows for file in report.files)
    about = [counted(len(report.files), "file"), counted(rows, "readable row")]
    if report.model:
        about.append(f"tokens of {Path(report.model).name}")
    header = element(
        "header",
        element("p", "SWE Speedrun Scaffold · data audit", class_="kind"),
        element("h1", title),
        paragraph(" · ".join(about), kind="about"),
    )
    sections = (
        _verdict(report),
        section("files", "Files", files(report), *identities(report)),
        _findings(report),
        contamination(report),
        _labels(report),
        _lengths(report),
        sources(report),
        tools(report),
        tokens(report),
    )
    notes = [paragraph(note, kind="foot") for note in report.notes]
    footer = element("footer", *notes) if notes else NOTHING
    return page(f"Audit of {title}", element("main", header, join_lines(sections), footer))


def _verdict(report: AuditReport) -> Html:
    kind, lead, text = _SENTENCES[report.verdict]
    many = {
        name: sum(finding.severity == name for finding in report.findings)
        for name in ("error", "warning")
    }
    told = [counted(number, name) for name, number in many.items() if number]
    if report.verdict == "attention":
        text = f"{text}, {told[0]}."
    elif report.verdict == "failed":
        text = f"{' and '.join(told)}."
    sentence = element("p", element("strong", lead), " ", text, class_=f"verdict {kind}")
    return section("verdict", f"Verdict: {report.verdict}", sentence)


def _findings(report: AuditReport) -> Html:
    parts: list[Html] = []
    for severity, heading in _HEADINGS.items():
        found = [finding for finding in report.findings if finding.severity == severity]
        if found:
            parts.append(element("h3", f"{heading} ({len(found)})"))
            parts += [_finding(finding) for finding in found]
    if not parts:
        parts = [paragraph("Nothing was found.")]
    return section("findings", "Findings", join_lines(parts))


def _finding(finding: Finding) -> Html:
    name = element("strong", finding.code.replace("_", " "))
    lines = [paragraph(name, ": ", escape(finding.message))]
    if finding.where:
        lines.append(paragraph(code(finding.where, width=4096), kind="note"))
    if finding.evidence:
        rows = [element("li", code(row, width=400)) for row in finding.evidence]
        shown = element("ul", join_lines(rows))
        lines.append(details("Rows", shown) if finding.severity == "info" else shown)
    return element("div", join_lines(lines))


def _labels(report: AuditReport) -> Html:
    parts = [
        _compared(
            f"labels-{number}",
            (dev, test),
            lambda file: file.summary["labels"],
            heading="Labels",
        )
        for number, (dev, test) in enumerate(report.units)
    ]
    return section("labels", "Labels", join_lines(parts)) if any(parts) else NOTHING


def _compared(
    key: str,
    pair: tuple[FileReport, FileReport | None],
    counts: Callable[[FileReport], Mapping[str, int]],
    *,
    heading: str,
) -> Html:
    """Return shares of the rows by some name, dev beside hold-out, with the counts behind."""
    present = [file for file in pair if file is not None and file.rows]
    names = list(dict.fromkeys(name for file in present for name in counts(file)))
    rows = [
        Bars(
            name,
            [
                (kind, _side(file), Estimate(_share(counts(file).get(name, 0), file.rows)))
                for kind, file in zip(_KINDS, present, strict=False)
            ],
        )
        for name in names
    ]
    if not rows:
        return NOTHING
    title = f"{heading}: {Path(pair[0].path).name}"
    words = Words(key, title, f"Share of the rows: {', '.join(names)}.", x="% of the rows")
    headers = [heading, *(f"{_side(file)} rows" for file in present)]
    lines = [[name, *(count(counts(file).get(name, 0)) for file in present)] for name in names]
    return figure(
        lambda width: bar_plot(rows, words, width=width, top_value=_top(rows)),
        caption=title,
        legend=[(kind, _side(file)) for kind, file in zip(_KINDS, present, strict=False)],
        behind=table(headers, lines, caption=title),
    )


def _lengths(report: AuditReport) -> Html:
    parts = [
        _compared(
            f"{key}-{number}",
            (dev, test),
            _binned((dev, test), key),
            heading=name,
        )
        for number, (dev, test) in enumerate(report.units)
        for key, name, _ in _LENGTHS
    ]
    if not any(parts):
        return NOTHING
    what = "; ".join(f"{name.lower()}: {meaning}" for _, name, meaning in _LENGTHS)
    return section(
        "lengths",
        "Length of the rows",
        join_lines(parts),
        _quantiles(report),
        paragraph(
            f"{what[:1].upper()}{what[1:]}. Each bin is twice as wide as the last.", kind="note"
        ),
    )


def _binned(
    pair: Sequence[FileReport | None], key: str
) -> Callable[[FileReport], Mapping[str, int]]:
    """Return rows by bin, over all bins that one of the files has."""
    edges = sorted(
        {(one["from"], one["below"]) for file in pair if file for one in file.lengths[key]}
    )

    def counts(file: FileReport) -> dict[str, int]:
        found = {one["from"]: one["rows"] for one in file.lengths[key]}
        return {f"{_short(low)} to {_short(high)}": found.get(low, 0) for low, high in edges}

    return counts


def _quantiles(report: AuditReport) -> Html:
    lines = [
        [f"{Path(file.path).name}: {what}", *(count(round(numbers[key])) for key in _PICKED)]
        for file in report.files
        for what, numbers in _measured(file)
    ]
    headers = ["Characters", "Shortest", "Median", "90\u00a0%", "99\u00a0%", "Longest"]
    return table(headers, lines, caption="Lengths of prompts and responses, in characters")


_PICKED = ("minimum", "p50", "p90", "p99", "maximum")


def _measured(file: FileReport) -> Iterator[tuple[str, Mapping[str, float]]]:
    for what in ("prompt", "response"):
        yield what, file.summary[f"{what}_chars"]


def _side(file: FileReport) -> str:
    return {"dev": "dev", "test": "hold-out", "file": "file"}[file.role]


def _share(part: int, whole: int) -> float:
    return round(100 * part / whole, 1)


def _top(rows: Sequence[Bars]) -> float:
    """Return a round end of the axis, in percent."""
    highest = max(estimate.value for row in rows for _, _, estimate in row.parts)
    return next(top for top in (10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 101.0) if highest <= top)


def _short(characters: int) -> str:
    for unit, size in (("M", 1 << 20), ("k", 1 << 10)):
        if characters >= size:
            return f"{characters // size}{unit}"
    return str(characters)
