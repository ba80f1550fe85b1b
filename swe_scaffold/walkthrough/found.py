"""What walkthroughs found of what gold patches change: means over tasks, by repository.

The tasks are those that were walked through and have a gold patch of files that exist before it;
one that ended without a report has named nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from swe_scaffold.errors import IntegrityError
from swe_scaffold.metrics.clustered import Settings
from swe_scaffold.metrics.over_tasks import mean_of, mean_over_tasks, paired_difference
from swe_scaffold.metrics.shares import holm
from swe_scaffold.metrics.slices import members

Row = Mapping[str, Any]

SHARES = ("hit_at_1", "hit_at_5")
MEASURES = (
    *SHARES,
    "reciprocal_rank",
    *("file_precision", "file_recall", "file_f1"),
    *("seen_file_precision", "seen_file_recall", "seen_file_f1"),
    *("seen_line_precision", "seen_line_recall", "seen_line_f1"),
)


def summarise(rows: Sequence[Row], settings: Settings) -> dict[str, Any]:
    """Return every measure with its interval, the same by repository, and what it took."""
    known = [row for row in rows if row["hit_at_1"] is not None]
    seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
    steps = [row["steps"] for row in rows if row.get("steps") is not None]
    return {
        "measured": len(known),
        "files_left_out": sum(
            sum(row["tree"]["left_out"].values()) for row in rows if "tree" in row
        ),
        "median_seconds": median(seconds) if seconds else None,
        "median_steps": median(steps) if steps else None,
        "settings_of_intervals": asdict(settings),
        "localisation": _measures(known, settings),
        "by_repository": {
            repo: {
                "tasks": len(places),
                **{name: _mean([known[place] for place in places], name) for name in MEASURES},
            }
            for repo, places in members(str(row["repo"]) for row in known).items()
        },
    }


def against(ours: Sequence[Row], theirs: Sequence[Row], settings: Settings) -> dict[str, Any]:
    """Return the paired differences, ours - theirs, over the tasks that both have measures of.

    Raises:
        IntegrityError: There is no such task, or they do not agree on a task's gold files.
    """
    others = {row["instance_id"]: row for row in theirs if row["hit_at_1"] is not None}
    pairs = [
        (row, others[row["instance_id"]])
        for row in ours
        if row["hit_at_1"] is not None and row["instance_id"] in others
    ]
    if not pairs:
        raise IntegrityError("the two batches have measures of no task in common")
    for row, other in pairs:
        if row["gold"] != other["gold"]:
            raise IntegrityError(f"another gold patch: {row['instance_id']}")
    measures = {}
    for name in MEASURES:
        known = [
            (row, row[name] - other[name])
            for row, other in pairs
            if row[name] is not None and other[name] is not None
        ]
        measures[name] = paired_difference(
            name,
            [difference for _, difference in known],
            _clusters([row for row, _ in known], settings),
            settings,
            is_share=name in SHARES,
        )
    ps = {name: one["p_value"] for name, one in measures.items() if one["p_value"] is not None}
    adjusted = holm(ps)
    for name, one in measures.items():
        one["p_holm"] = adjusted.get(name)
    return {"tasks": len(pairs), "measures": measures}


def _measures(rows: Sequence[Row], settings: Settings) -> dict[str, Any]:
    table = {}
    for name in MEASURES:
        known = [row for row in rows if row[name] is not None]
        values = [float(row[name]) for row in known]
        clusters = _clusters(known, settings)
        metric = mean_over_tasks(name, values, clusters, settings, is_share=name in SHARES)
        table[name] = asdict(metric)
    return table


def _clusters(rows: Sequence[Row], settings: Settings) -> list[str]:
    unit = {"row": "instance_id", "repo": "repo", "group": "group"}[settings.cluster_by]
    return [str(row[unit]) for row in rows]


def _mean(rows: Sequence[Row], name: str) -> float | None:
    return mean_of([float(row[name]) for row in rows if row[name] is not None])
