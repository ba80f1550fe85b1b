"""The page of many walkthroughs: what was found, and each task with a link to its own page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from swe_scaffold.report.html import (
    Html,
    code,
    element,
    join_lines,
    page,
    paragraph,
    section,
    table,
)

_PAGE, _MOST_REPORTED = "walkthrough.html", 3
# What each measure is called, here and in a terminal.
TITLES = {
    "hit_at_1": "first file right",
    "hit_at_5": "right file in 5",
    "reciprocal_rank": "reciprocal rank",
    "file_precision": "file precision",
    "file_recall": "file recall",
    "file_f1": "file F1",
    "seen_file_precision": "file precision, shown",
    "seen_file_recall": "file recall, shown",
    "seen_file_f1": "file F1, shown",
    "seen_line_precision": "line precision, shown",
    "seen_line_recall": "line recall, shown",
    "seen_line_f1": "line F1, shown",
}


def walks_page(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one self-contained HTML page about a batch.

    Args:
        report: Its summary.
        rows: The row of each task; a task that was walked through has a page in its `folder`.
    """
    name = str(report["guide"]["name"])
    sections = [_found(report)] if report["measured"] else []
    body = element("main", _header(report, name), join_lines([*sections, _tasks(rows)]))
    return page(f"Walkthroughs by {name}", body)


def _header(report: Mapping[str, Any], name: str) -> Html:
    told = ", ".join(f"{status} {count}" for status, count in report["statuses"].items())
    return element(
        "header",
        element("p", "SWE Speedrun Scaffold · walkthroughs", class_="kind"),
        element("h1", name),
        paragraph(f"{report['tasks']} tasks: {told}", kind="about"),
    )


def _found(report: Mapping[str, Any]) -> Html:
    lines = []
    for name, title in TITLES.items():
        metric = report["localisation"][name]
        interval = metric["ci"]
        told = "none" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        value = "none" if metric["value"] is None else f"{metric['value']:.3f}"
        lines.append((title, value, told, f"{metric['n']:,}", f"{metric['clusters']:,}"))
    headers = ["measure", "mean", "interval", "tasks", "clusters"]
    unit = report["settings_of_intervals"]["cluster_by"]
    caption = f"Against gold patches; {report['localisation']['hit_at_1']['level']:.0%} by {unit}"
    return section("found", "What was found", table(headers, lines, caption=caption))


def _tasks(rows: Sequence[Mapping[str, Any]]) -> Html:
    lines = [
        (
            _name(row),
            str(row["repo"]),
            str(row["status"]),
            _first(row.get("reported", [])[:_MOST_REPORTED]),
            "" if row.get("steps") is None else f"{row['steps']:,}",
            "" if row.get("seconds") is None else f"{row['seconds']:.1f}",
            _rank(row),
        )
        for row in rows
    ]
    headers = ["task", "repository", "status", "reported first", "steps", "seconds", "rank"]
    caption = "rank: of the first file that the gold patch changes"
    return section("tasks", "Tasks", table(headers, lines, caption=caption, text_columns=4))


def _name(row: Mapping[str, Any]) -> Html:
    label = code(str(row["instance_id"]))
    if row.get("steps") is None:
        return label
    return element("a", label, href=f"{quote(row['folder'])}/{_PAGE}")


def _first(paths: Sequence[str]) -> Html:
    return element("span", *(part for path in paths for part in (code(path), element("br"))))


def _rank(row: Mapping[str, Any]) -> str:
    if row["reciprocal_rank"] is None:
        return ""
    return f"{1 / row['reciprocal_rank']:.0f}" if row["reciprocal_rank"] else "none"
