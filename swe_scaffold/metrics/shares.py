"""Everything about a yes or no per row: shares, two of them on the same rows, many p-values.

Rows of one repository resemble each other, so the headline share has an interval by cluster; the
Wilson interval of independent rows stands beside it under that name. No interval by cluster is
narrower than that of independent rows, and none has width 0.
What the yes means (resolved, applies, stopped) is the caller's matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.bootstrap import Floats
from swe_scaffold.metrics.clustered import FEW_CLUSTERS, SMALL_SAMPLE_T, Settings
from swe_scaffold.metrics.distributions import (
    normal_quantile,
    student_t_quantile,
    wilson_interval,
)
from swe_scaffold.metrics.small_samples import (
    ClusteredError,
    Mean,
    cluster_sums,
    clustered_error,
    p_value,
)
from swe_scaffold.types import Metric

WILSON = "Wilson, if examples were independent"
CLUSTERED_WILSON = "Wilson by cluster (effective n, CR2, Bell-McCaffrey df)"


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two systems on the same rows: the four counts, the exact test, and the difference.

    `p_value` is that of McNemar's exact test, which takes rows for independent;
    `clustered_p_value` is that of the clustered difference. `difference` is second - first.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float
    clustered_p_value: float | None
    difference: Metric


def wilson_share(
    metric: str, outcomes: Sequence[bool], settings: Settings, *, unit: str = "share of examples"
) -> Metric:
    """Return the share of True with its Wilson interval, as if rows were independent."""
    rows = _flags(outcomes)
    bare = _bare(metric, unit, rows, len(rows), settings, WILSON)
    if not len(rows):
        return bare
    interval = wilson_interval(int(rows.sum()), len(rows), alpha=settings.alpha)
    return replace(bare, ci=interval, reason=None)


def clustered_share(
    metric: str,
    outcomes: Sequence[bool],
    clusters: Sequence[str],
    settings: Settings,
    *,
    unit: str = "share of examples",
) -> Metric:
    """Return the share of True with an interval that knows which rows belong together.

    The Wilson interval of n / design effect rows with the t quantile of the clustered variance in
    place of the normal one (C. Franco, R. J. A. Little, T. A. Louis and E. V. Slud, 2019), the
    variance CR2 and its degrees of freedom Bell-McCaffrey; never narrower than `wilson_share`.
    Where all rows agree nothing shows how alike the rows of a cluster are, and each cluster counts
    once.
    """
    rows = _flags(outcomes)
    weights = cluster_sums(np.ones(len(rows)), clusters)
    bare = _bare(metric, unit, rows, len(weights), settings, CLUSTERED_WILSON)
    if len(weights) < 2 or bare.value is None:
        return bare
    share, units = bare.value, len(weights)
    z = normal_quantile(1 - settings.alpha / 2)
    if share in (0.0, 1.0):
        reason = bare.reason or "all rows agree: each cluster counts once"
        return replace(bare, ci=_wilson(share, units, z), reason=reason)
    error = _mean_error(rows, weights, clusters)
    independent = share * (1 - share) / (len(rows) - 1)
    effect = error.standard_error**2 / independent
    # The interval depends on quantile^2 / n only, so the larger of the two has the larger interval.
    quantile = max(z, student_t_quantile(1 - settings.alpha / 2, error.df) * math.sqrt(effect))
    interval = _wilson(share, len(rows), quantile)
    return replace(bare, ci=interval, design_effect=effect, reason=bare.reason or error.reason)


def mcnemar(
    first: Sequence[bool],
    second: Sequence[bool],
    clusters: Sequence[str],
    settings: Settings,
    *,
    metric: str = "share_difference",
) -> McNemar:
    """Compare two systems on the same rows.

    The test is exact (Q. McNemar, 1947): two-sided binomial on the rows where the two disagree.
    The interval of the difference is the clustered t, never narrower than that of independent
    rows, cut at -1 and 1; where every row has the same difference it comes from the share of rows
    that have it, each cluster counted once.

    Raises:
        UsageError: The three columns differ in length, or there are no rows.
    """
    before, after = _flags(first), _flags(second)
    if len(before) != len(after):
        raise UsageError(f"second has {len(after)} rows, first {len(before)}")
    if not len(before):
        raise UsageError("no rows to compare")
    differences = after - before
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    both = int((before * after).sum())
    difference, p_clustered = _difference(metric, differences, clusters, settings)
    return McNemar(
        both=both,
        only_first=worse,
        only_second=better,
        neither=len(before) - both - better - worse,
        p_value=exact_binomial(better, better + worse),
        clustered_p_value=p_clustered,
        difference=difference,
    )


def exact_binomial(successes: int, trials: int) -> float:
    """Return the two-sided p-value of a fair coin, twice the smaller tail; 1 without trials.

    Raises:
        UsageError: `successes` is outside 0..trials.
    """
    if not 0 <= successes <= trials:
        raise UsageError(f"no share in {successes} of {trials}")
    term, tail = 1, 0
    for count in range(min(successes, trials - successes) + 1):
        tail += term
        term = term * (trials - count) // (count + 1)
    return min(1.0, 2 * tail / (1 << trials))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's step-down adjusted p-values (S. Holm, 1979), in the order given.

    The k-th smallest of m is multiplied by m - k + 1; none is below a smaller one, or above 1.

    Raises:
        UsageError: A p-value is outside 0..1.
    """
    for name, value in p_values.items():
        if not 0 <= value <= 1:
            raise UsageError(f"the p-value of {name!r} is {value}")
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}


def _flags(outcomes: Sequence[bool]) -> Floats:
    column = np.asarray(outcomes)
    if column.size and (column.ndim != 1 or column.dtype.kind != "b"):
        raise UsageError("a share is counted over True and False only")
    return column.astype(np.float64)


def _bare(
    metric: str, unit: str, rows: Floats, units: int, settings: Settings, method: str
) -> Metric:
    reason = None
    if not len(rows):
        reason = "no rows: no share"
    elif units == 1:
        reason = "one row: no interval" if len(rows) == 1 else "one cluster: no interval"
    elif units < FEW_CLUSTERS:
        reason = f"few clusters ({units} < {FEW_CLUSTERS}): the interval is a rough guide"
    return Metric(
        metric=metric,
        value=float(rows.mean()) if len(rows) else None,
        unit=unit,
        n=len(rows),
        tokens=0,
        clusters=units,
        ci=None,
        ci_method=method,
        level=settings.level,
        reason=reason,
    )


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    square = quantile * quantile / n
    centre = share + square / 2
    half = math.sqrt(square * (share * (1 - share) + square / 4))
    low = 0.0 if share == 0 else (centre - half) / (1 + square)
    high = 1.0 if share == 1 else (centre + half) / (1 + square)
    return low, high


def _mean_error(values: Floats, weights: Floats, clusters: Sequence[str]) -> ClusteredError:
    residuals = cluster_sums(values, clusters) - float(values.mean()) * weights
    error = clustered_error([Mean(residuals, weights)])
    assert error is not None  # two clusters with rows
    return error


def _difference(
    metric: str, differences: Floats, clusters: Sequence[str], settings: Settings
) -> tuple[Metric, float | None]:
    weights = cluster_sums(np.ones(len(differences)), clusters)
    units, rows = len(weights), len(differences)
    bare = _bare(metric, "difference of shares", differences, units, settings, SMALL_SAMPLE_T)
    if units < 2:
        return bare, None
    mean = float(differences.mean())
    z = normal_quantile(1 - settings.alpha / 2)
    if not np.ptp(differences):
        low, _ = _wilson(1.0, units, z)
        # At least `low` of all rows have this difference, and the others at most 1 of any sign.
        ends = (low * mean - (1 - low), low * mean + (1 - low))
        interval = max(-1.0, ends[0]), min(1.0, ends[1])
        reason = bare.reason or "all rows agree: each cluster counts once"
        return replace(bare, ci=interval, reason=reason), 1.0 if mean == 0 else None
    error = _mean_error(differences, weights, clusters)
    independent = float(differences.std()) / math.sqrt(rows - 1)
    effect = (error.standard_error / independent) ** 2
    half = max(error.half_width(settings.alpha), z * independent)
    interval = max(-1.0, mean - half), min(1.0, mean + half)
    # The larger p-value belongs to the wider interval: it is below alpha where that excludes 0.
    p_clustered = p_value(mean, error.standard_error, error.df)
    p_independent = math.erfc(abs(mean) / independent / math.sqrt(2))
    compared = replace(bare, ci=interval, design_effect=effect, reason=bare.reason or error.reason)
    return compared, max(p_clustered, p_independent)
