"""Scores of predictions as means over tasks, with intervals by repository.

A task with several samples counts once, with their mean. The headline is over all tasks, those
without a prediction scored as an empty one; beside it are the tasks that have one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from swe_scaffold.metrics.clustered import Ratio, Settings, cluster_bootstrap, naive_t
from swe_scaffold.metrics.likelihood import WITHIN_GROUP_T
from swe_scaffold.metrics.over_tasks import (
    explained,
    interval_of,
    make_ratio,
    mean_of,
    paired_difference,
)
from swe_scaffold.metrics.shares import holm
from swe_scaffold.metrics.slices import members
from swe_scaffold.types import Metric

Row = Mapping[str, Any]

SHARES = (
    *("resolved", "applies", "parses", "exact_match", "same_lines", "empty"),
    *("touches_tests", "only_tests"),
)
MEANS = (
    *("file_precision", "file_recall", "file_f1", "hunk_precision", "hunk_recall", "hunk_f1"),
    *("function_precision", "function_recall", "function_f1", "similarity"),
)
SIZE = "size_ratio"
METRICS = (*SHARES, *MEANS, SIZE)
_REASONS = ("applies_reason", "problem", "functions_by", "similarity_reason")


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One task: the mean of each metric over its samples, None where no sample has a value."""

    instance_id: str
    repo: str
    group: str
    values: Mapping[str, float | None]
    lines: float
    gold_lines: float


def by_task(rows: Iterable[Row]) -> list[TaskScore]:
    """Bring the rows of each task together, tasks in the order of their ids."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["instance_id"], []).append(row)
    return [_task(samples) for _, samples in sorted(found.items())]


def summarise(tasks: Sequence[TaskScore], settings: Settings) -> dict[str, Any]:
    """Return every metric with its clustered interval and the bootstrap's beside it."""
    ratios = {name: _ratio(name, tasks, settings) for name in METRICS}
    return {
        name: {
            "metric": asdict(_interval(ratio, settings)),
            "bootstrap": asdict(explained(cluster_bootstrap(ratio, settings))),
        }
        for name, ratio in ratios.items()
    }


def by_repository(tasks: Sequence[TaskScore], settings: Settings) -> dict[str, Any]:
    """Return every metric of each repository, over its own tasks."""
    table = {}
    for name, indices in members(task.repo for task in tasks).items():
        part = [tasks[index] for index in indices]
        table[name] = {
            metric: asdict(explained(naive_t(ratio, settings, method=WITHIN_GROUP_T)))
            for metric in METRICS
            for ratio in [_ratio(metric, part, settings)]
        }
    return table


def compare_tasks(
    ours: Sequence[TaskScore], theirs: Sequence[TaskScore], settings: Settings
) -> dict[str, Any]:
    """Return the paired differences, ours - theirs, over the tasks that both have.

    `p_value` is that of the clustered t test against no difference, two-sided; `p_holm` the same
    adjusted for the number of metrics. `mcnemar` is the exact test of a share, which takes tasks
    for independent.
    """
    others = {task.instance_id: task for task in theirs}
    pairs = [(task, others[task.instance_id]) for task in ours if task.instance_id in others]
    metrics = {name: _difference(name, pairs, settings) for name in METRICS if name != SIZE}
    known = {name: one["p_value"] for name, one in metrics.items() if one["p_value"] is not None}
    adjusted = holm(known)
    for name, one in metrics.items():
        one["p_holm"] = adjusted.get(name)
    return {"tasks": len(pairs), "metrics": metrics}


def reasons(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Count why values are what they are, by field and reason."""
    counts = {name: Counter[str]() for name in _REASONS}
    for row in rows:
        for name in _REASONS:
            if row[name]:
                counts[name][row[name]] += 1
    return {name: dict(sorted(counter.items())) for name, counter in counts.items()}


def _task(samples: Sequence[Row]) -> TaskScore:
    first = samples[0]
    values = {name: _mean(row[name] for row in samples) for name in (*SHARES, *MEANS)}
    return TaskScore(
        instance_id=first["instance_id"],
        repo=first["repo"] or first["group"],
        group=first["group"],
        values=values,
        lines=_mean(row["lines_added"] + row["lines_removed"] for row in samples) or 0.0,
        gold_lines=float(first["gold_lines_added"] + first["gold_lines_removed"]),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    return mean_of([float(value) for value in values if value is not None])


def _ratio(name: str, tasks: Sequence[TaskScore], settings: Settings) -> Ratio:
    """Return a mean over tasks; of sizes, all lines over all gold lines."""
    if name == SIZE:
        known = [task for task in tasks if task.gold_lines]
        parts = [(task.lines, task.gold_lines) for task in known]
        unit = "changed lines per gold line/task"
    else:
        known = [task for task in tasks if task.values[name] is not None]
        parts = [(task.values[name] or 0.0, 1.0) for task in known]
        unit = "share/task" if name in SHARES else "mean/task"
    return make_ratio(name, unit, parts, _clusters(known, settings))


def _interval(ratio: Ratio, settings: Settings) -> Metric:
    most = math.inf if ratio.metric == SIZE else 1.0
    return interval_of(ratio, settings, is_share=ratio.metric in SHARES, most=most)


def _clusters(tasks: Sequence[TaskScore], settings: Settings) -> list[str]:
    if settings.cluster_by == "row":
        return [task.instance_id for task in tasks]
    return [task.repo if settings.cluster_by == "repo" else task.group for task in tasks]


def _difference(
    name: str, pairs: Sequence[tuple[TaskScore, TaskScore]], settings: Settings
) -> dict[str, Any]:
    known = [
        (ours, a - b)
        for ours, theirs in pairs
        if (a := ours.values[name]) is not None and (b := theirs.values[name]) is not None
    ]
    clusters = _clusters([task for task, _ in known], settings)
    differences = [difference for _, difference in known]
    return paired_difference(name, differences, clusters, settings, is_share=name in SHARES)
