"""Scores of predictions as means over tasks, with intervals by repository.

Shares have the Wilson interval by cluster, means the clustered t that allows for few or unequal
repositories: the two whose simulated coverage holds (docs/evaluation.md). A task with several
samples counts once, with their mean. The headline is over all tasks, those without a prediction
scored as an empty one; beside it are the tasks that have one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from swe_scaffold.metrics.clustered import (
    Ratio,
    Settings,
    cluster_bootstrap,
    naive_t,
    small_sample_error,
    small_sample_t,
)
from swe_scaffold.metrics.likelihood import WITHIN_GROUP_T
from swe_scaffold.metrics.shares import clustered_share, exact_binomial, holm
from swe_scaffold.metrics.slices import members
from swe_scaffold.metrics.small_samples import p_value
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
_EQUAL_WITHIN = 1e-12


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
            "metric": asdict(clustered(ratio, settings)),
            "bootstrap": asdict(_explained(cluster_bootstrap(ratio, settings))),
        }
        for name, ratio in ratios.items()
    }


def by_repository(tasks: Sequence[TaskScore], settings: Settings) -> dict[str, Any]:
    """Return every metric of each repository, over its own tasks."""
    table = {}
    for name, indices in members(task.repo for task in tasks).items():
        part = [tasks[index] for index in indices]
        table[name] = {
            metric: asdict(_explained(naive_t(ratio, settings, method=WITHIN_GROUP_T)))
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


def clustered(ratio: Ratio, settings: Settings) -> Metric:
    """Return the ratio with its clustered interval, which ends where its values do."""
    if ratio.metric in SHARES and set(ratio.numerators) <= {0.0, 1.0}:
        flags = [value == 1 for value in ratio.numerators]
        share = clustered_share(ratio.metric, flags, ratio.clusters, settings, unit=ratio.unit)
        return _explained(share)
    metric = _explained(small_sample_t(ratio, settings))
    if metric.ci is None or ratio.metric not in METRICS:
        return metric
    most = math.inf if ratio.metric == SIZE else 1.0
    return replace(metric, ci=(max(0.0, metric.ci[0]), min(most, metric.ci[1])))


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
    known = [float(value) for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


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
    return _make(name, unit, parts, _clusters(known, settings))


def _make(
    name: str, unit: str, parts: Sequence[tuple[float, float]], clusters: Sequence[str]
) -> Ratio:
    return Ratio(
        metric=name,
        unit=unit,
        numerators=tuple(numerator for numerator, _ in parts),
        denominators=tuple(denominator for _, denominator in parts),
        clusters=tuple(clusters),
        tokens=0,
    )


def _clusters(tasks: Sequence[TaskScore], settings: Settings) -> list[str]:
    if settings.cluster_by == "row":
        return [task.instance_id for task in tasks]
    return [task.repo if settings.cluster_by == "repo" else task.group for task in tasks]


def _explained(metric: Metric) -> Metric:
    return metric if metric.n else replace(metric, reason="no task has a value")


def _difference(
    name: str, pairs: Sequence[tuple[TaskScore, TaskScore]], settings: Settings
) -> dict[str, Any]:
    known = [
        (ours, a - b)
        for ours, theirs in pairs
        if (a := ours.values[name]) is not None and (b := theirs.values[name]) is not None
    ]
    clusters = _clusters([task for task, _ in known], settings)
    parts = [(difference, 1.0) for _, difference in known]
    ratio = _make(f"{name}_difference", "difference/task", parts, clusters)
    effect = clustered(ratio, settings)
    higher = sum(difference > _EQUAL_WITHIN for _, difference in known)
    lower = sum(difference < -_EQUAL_WITHIN for _, difference in known)
    whole = {difference for _, difference in known} <= {-1.0, 0.0, 1.0}
    return {
        "effect": asdict(effect),
        "bootstrap": asdict(_explained(cluster_bootstrap(ratio, settings))),
        "p_value": _p_value(ratio),
        "mcnemar": exact_binomial(higher, higher + lower) if name in SHARES and whole else None,
        "higher": higher,
        "lower": lower,
        "equal": len(known) - higher - lower,
    }


def _p_value(ratio: Ratio) -> float | None:
    error = small_sample_error(ratio)
    if error is None or ratio.value is None or not error.standard_error:
        return None
    return p_value(ratio.value, error.standard_error, error.df)
