"""What the command walkthrough prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.cli.tables import counts, facts, level, number, place, table
from swe_scaffold.report.walks_page import TITLES

if TYPE_CHECKING:
    from swe_scaffold.walkthrough import Walk

_BY_REPOSITORY = ("hit_at_1", "hit_at_5", "reciprocal_rank", "file_f1", "seen_line_recall")


def one_value(walked: Walk, output: Path) -> dict[str, Any]:
    """Return what --json says of one walkthrough."""
    from swe_scaffold.walkthrough.seen import inspected

    return {
        "exit_status": walked.exit_status,
        "submitted": walked.exit_status == "Submitted",
        "unchanged": walked.unchanged,
        "changed": walked.changed,
        "steps": walked.steps,
        "seconds": walked.seconds,
        "files": [
            {"path": file.path, "ranges": [list(pair) for pair in file.ranges]}
            for file in inspected(walked.trajectory)
        ],
        "report": walked.report,
        "output": str(output),
    }


def one_text(walked: Walk, output: Path) -> str:
    """Return the report of one walkthrough, and how it went."""
    from swe_scaffold.terminal import show_block
    from swe_scaffold.walkthrough import PAGE
    from swe_scaffold.walkthrough.seen import inspected
    from swe_scaffold.walkthrough.summary import verdict

    about = facts(
        "walkthrough",
        [
            ("ended", walked.exit_status),
            ("steps", f"{walked.steps} in {walked.seconds:.1f} s"),
            ("files inspected", str(len(inspected(walked.trajectory)))),
            ("repository", verdict(walked.trajectory["info"]["repository"])),
            ("page", str(output / PAGE)),
        ],
    )
    return f"{show_block(walked.report)}\n\n{about}" if walked.report else about


def many_text(report: Mapping[str, Any], output: Path) -> str:
    """Return what is told of a batch: the ledger, what was found, by repository, compared."""
    return "\n".join(_lines(report, output))


def _lines(report: Mapping[str, Any], output: Path) -> Iterator[str]:
    from swe_scaffold.walkthrough.batch import INDEX

    left_out = report["left_out"]
    told = f" ({counts(left_out)})" if left_out else ""
    yield (
        f"rows: {report['rows']} = tasks {report['tasks']} + left out "
        f"{sum(left_out.values())}{told}"
    )
    yield f"tasks: {counts(report['statuses'])}"
    if report["files_left_out"]:
        yield f"files that trees lack here (over 32 MiB, say): {report['files_left_out']}"
    yield f"guide: {report['guide']['name']}"
    if report["median_seconds"] is not None:
        yield f"each: {report['median_steps']:g} steps in {report['median_seconds']:.1f} s (median)"
    if report["measured"]:
        yield ""
        yield from _found(report)
    else:
        yield "no task that was walked through has a gold patch to compare with"
    if "against" in report:
        yield ""
        yield from _compared(report["against"])
    yield ""
    if kept := report.get("kept"):
        yield f"kept: {kept['rows']} trajectories, in {place(kept['path'])}"
    yield f"page: {place(output / INDEX)}"
    yield f"next: swe-scaffold build --dataset {place(kept['path'] if kept else output)}"


def _found(report: Mapping[str, Any]) -> Iterator[str]:
    measures = report["localisation"]
    headers = ["measure", f"mean [{level(measures['hit_at_1'])} interval]", "n", "clusters"]
    yield table(
        headers,
        [
            [TITLES[name], number(metric), metric["n"], metric["clusters"]]
            for name, metric in measures.items()
            if metric["n"]
        ],
    )
    yield f"intervals by {report['settings_of_intervals']['cluster_by']}"
    if reason := measures["hit_at_1"]["reason"]:
        yield f"beware: {reason}"
    yield ""
    rows = [
        [repo, part["tasks"], *(_value(part[name]) for name in _BY_REPOSITORY)]
        for repo, part in report["by_repository"].items()
    ]
    yield table(["repository", "tasks", *(TITLES[name] for name in _BY_REPOSITORY)], rows)


def _value(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _compared(against: Mapping[str, Any]) -> Iterator[str]:
    yield f"against {place(against['folder'])}, over {against['tasks']} tasks of both"
    lines = []
    for name, one in against["measures"].items():
        if one["effect"]["n"]:
            ps = ["" if p is None else f"{p:.3g}" for p in (one["p_value"], one["p_holm"])]
            sides = [one[side] for side in ("higher", "lower", "equal")]
            lines.append([TITLES[name], number(one["effect"]), *sides, *ps])
    yield table(["measure", "difference", "higher", "lower", "equal", "p", "p (Holm)"], lines)
    yield "p: clustered t test; Holm: adjusted for all measures"
