"""Means over tasks with intervals by repository, and paired differences of two such means.

Shares have the Wilson interval by cluster, means the clustered t that allows for few or unequal
repositories: the two whose simulated coverage holds (docs/evaluation.md). What is measured of a
task is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from swe_scaffold.metrics.clustered import (
    Ratio,
    Settings,
    cluster_bootstrap,
    small_sample_error,
    small_sample_t,
)
from swe_scaffold.metrics.shares import clustered_share, exact_binomial
from swe_scaffold.metrics.small_samples import p_value
from swe_scaffold.types import Metric

_EQUAL_WITHIN = 1e-12


def make_ratio(
    name: str, unit: str, parts: Sequence[tuple[float, float]], clusters: Sequence[str]
) -> Ratio:
    """Return sum / sum of one numerator and denominator per task."""
    return Ratio(
        metric=name,
        unit=unit,
        numerators=tuple(numerator for numerator, _ in parts),
        denominators=tuple(denominator for _, denominator in parts),
        clusters=tuple(clusters),
        tokens=0,
    )


def mean_over_tasks(
    name: str,
    values: Sequence[float],
    clusters: Sequence[str],
    settings: Settings,
    *,
    is_share: bool = False,
) -> Metric:
    """Return the mean of values between 0 and 1 with its clustered interval.

    `is_share` says that a value is yes or no; the mean over several samples may lie between.
    """
    ratio = make_ratio(
        name, "share/task" if is_share else "mean/task", [(v, 1.0) for v in values], clusters
    )
    return interval_of(ratio, settings, is_share=is_share, most=1.0)


def interval_of(
    ratio: Ratio, settings: Settings, *, is_share: bool = False, most: float | None = None
) -> Metric:
    """Return a ratio with its clustered interval; with `most` it ends at 0 and there."""
    if is_share and set(ratio.numerators) <= {0.0, 1.0}:
        flags = [value == 1 for value in ratio.numerators]
        share = clustered_share(ratio.metric, flags, ratio.clusters, settings, unit=ratio.unit)
        return explained(share)
    metric = explained(small_sample_t(ratio, settings))
    if metric.ci is None or most is None:
        return metric
    return replace(metric, ci=(max(0.0, metric.ci[0]), min(most, metric.ci[1])))


def paired_difference(
    name: str,
    differences: Sequence[float],
    clusters: Sequence[str],
    settings: Settings,
    *,
    is_share: bool = False,
) -> dict[str, Any]:
    """Return the mean of the differences of single tasks, and how many are higher or lower.

    `p_value` is that of the clustered t test against no difference, two-sided; `mcnemar` the exact
    test of a share, which takes tasks for independent.
    """
    parts = [(difference, 1.0) for difference in differences]
    ratio = make_ratio(f"{name}_difference", "difference/task", parts, clusters)
    higher = sum(difference > _EQUAL_WITHIN for difference in differences)
    lower = sum(difference < -_EQUAL_WITHIN for difference in differences)
    whole = is_share and set(differences) <= {-1.0, 0.0, 1.0}
    return {
        "effect": asdict(interval_of(ratio, settings)),
        "bootstrap": asdict(explained(cluster_bootstrap(ratio, settings))),
        "p_value": _p_value(ratio),
        "mcnemar": exact_binomial(higher, higher + lower) if whole else None,
        "higher": higher,
        "lower": lower,
        "equal": len(differences) - higher - lower,
    }


def explained(metric: Metric) -> Metric:
    """Return a metric that says why, if it has no value."""
    return metric if metric.n else replace(metric, reason="no task has a value")


def mean_of(values: Sequence[float]) -> float | None:
    """Return the exact mean of some values; None of none."""
    return math.fsum(values) / len(values) if values else None


def _p_value(ratio: Ratio) -> float | None:
    error = small_sample_error(ratio)
    if error is None or ratio.value is None or not error.standard_error:
        return None
    return p_value(ratio.value, error.standard_error, error.df)
