"""How well a score separates two classes: the area under the ROC curve, with intervals by cluster.

What the score and the classes are (a patch metric, resolved or not) is the caller's matter, and so
is the direction: an AUC below 1/2 separates as well as its mirror image above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.bootstrap import Floats
from swe_scaffold.metrics.clustered import FEW_CLUSTERS, Ratio, Settings, small_sample_t
from swe_scaffold.metrics.small_samples import Mean, cluster_sums, clustered_error
from swe_scaffold.types import Metric

Flags = NDArray[np.bool_]

AUC = "auc"
CLUSTERED_AUC = "logit t of placements by cluster (CR2, Bell-McCaffrey df)"
_UNIT = "share of pairs"


@dataclass(frozen=True, slots=True)
class Separation:
    """An AUC and the sizes of the two classes."""

    auc: Metric
    positives: int
    negatives: int


def separation(
    scores: Sequence[float], positives: Sequence[bool], clusters: Sequence[str], settings: Settings
) -> Separation:
    """Return the share of (positive, negative) pairs that the score puts in order; ties count half.

    The variance is that of placement values summed by cluster (E. R. DeLong, D. M. DeLong and
    D. L. Clarke-Pearson, 1988; N. A. Obuchowski, 1997): V_i is the share of negatives below
    positive i, V_j the share of positives above negative j, and both means are the AUC. Each
    cluster contributes the sum of its two deviations, CR2 with Bell-McCaffrey degrees of freedom;
    the interval is Student's t on the logit scale, which keeps it within 0 and 1.

    Raises:
        UsageError: The columns differ in length, or a score is not finite.
    """
    values, flags = _columns(scores, positives, clusters)
    many, few = int(flags.sum()), int((~flags).sum())
    units = len(set(clusters))
    bare = _bare(len(values), units, settings)
    if not many or not few:
        missing = "positive" if not many else "negative"
        return Separation(
            replace(bare, reason=f"no {missing} rows: nothing to separate"), many, few
        )
    placed = _placements(values, flags)
    auc = float(placed[flags].mean())
    metric = replace(bare, value=auc)
    if units > 1:
        metric = _with_interval(metric, placed, flags, clusters, settings)
    return Separation(metric, many, few)


def separation_within(
    scores: Sequence[float],
    positives: Sequence[bool],
    strata: Sequence[str],
    clusters: Sequence[str],
    settings: Settings,
) -> Separation:
    """Return the AUC over pairs of one stratum only, as a ratio of sums over strata.

    With a task as the stratum, what makes a task easy cannot pass for what makes a patch good. The
    interval is the clustered t of sum(pairs in order) / sum(pairs), cut at 0 and 1; `n` counts the
    strata that hold both classes.

    Raises:
        UsageError: The columns differ in length, a score is not finite, or a stratum has rows of
            several clusters.
    """
    values, flags = _columns(scores, positives, clusters)
    if len(strata) != len(values):
        raise UsageError(f"strata has {len(strata)} entries for {len(values)} scores")
    rows: dict[str, list[int]] = {}
    for row, stratum in enumerate(strata):
        rows.setdefault(stratum, []).append(row)
    ordered, pairs, owners = [], [], []
    for stratum in sorted(rows):
        inside = rows[stratum]
        names = {clusters[row] for row in inside}
        if len(names) > 1:
            raise UsageError(f"the stratum {stratum!r} lies in {len(names)} clusters")
        part = flags[inside]
        size = int(part.sum()) * int((~part).sum())
        if size:
            ordered.append(float(_placements(values[inside], part)[part].sum() * (~part).sum()))
            pairs.append(float(size))
            owners.append(names.pop())
    many, few = int(flags.sum()), int((~flags).sum())
    if not pairs:
        bare = _bare(len(values), len(set(clusters)), settings)
        return Separation(replace(bare, reason="no stratum holds both classes"), many, few)
    ratio = Ratio(AUC, _UNIT, tuple(ordered), tuple(pairs), tuple(owners), tokens=0)
    metric = small_sample_t(ratio, settings)
    if metric.ci is not None and metric.ci[0] == metric.ci[1]:
        metric = replace(metric, ci=None, reason="no variance between clusters: no interval")
    elif metric.ci is not None:
        metric = replace(metric, ci=(max(0.0, metric.ci[0]), min(1.0, metric.ci[1])))
    return Separation(metric, many, few)


def _columns(
    scores: Sequence[float], positives: Sequence[bool], clusters: Sequence[str]
) -> tuple[Floats, Flags]:
    values, flags = np.asarray(scores, dtype=np.float64), np.asarray(positives)
    if not len(values) == len(flags) == len(clusters):
        raise UsageError(
            f"{len(values)} scores, {len(flags)} classes and {len(clusters)} clusters do not match"
        )
    if len(flags) and flags.dtype.kind != "b":
        raise UsageError("positives must be True or False")
    if not np.isfinite(values).all():
        raise UsageError(f"scores must be finite: entry {int(np.isfinite(values).argmin()) + 1}")
    return values, flags.astype(bool)


def _placements(values: Floats, flags: Flags) -> Floats:
    """Return for each row the share of the other class that lies on the right side of it."""
    above, below = np.sort(values[flags]), np.sort(values[~flags])
    placed = np.empty(len(values), dtype=np.float64)
    placed[flags] = _share_below(below, values[flags])
    placed[~flags] = 1 - _share_below(above, values[~flags])
    return placed


def _share_below(others: Floats, values: Floats) -> Floats:
    left, right = (np.searchsorted(others, values, side) for side in ("left", "right"))
    return (left + right) / (2 * len(others))


def _with_interval(
    metric: Metric, placed: Floats, flags: Flags, clusters: Sequence[str], settings: Settings
) -> Metric:
    auc = metric.value or 0.0
    if auc in (0.0, 1.0):
        return replace(metric, reason="every pair is in one order: no interval")
    error = clustered_error([_mean(placed, part, clusters, auc) for part in (flags, ~flags)])
    if error is None:
        return replace(metric, reason="one cluster holds a whole class: no interval")
    if not error.standard_error > 0:
        return replace(metric, reason="no variance between clusters: no interval")
    centre = math.log(auc / (1 - auc))
    half = error.half_width(settings.alpha) / (auc * (1 - auc))
    low, high = (1 / (1 + math.exp(-_bounded(centre + side))) for side in (-half, half))
    independent = math.sqrt(sum(_variance(placed[part]) for part in (flags, ~flags)))
    effect = (error.standard_error / independent) ** 2 if independent > 0 else None
    reason = metric.reason or error.reason
    return replace(metric, ci=(low, high), design_effect=effect, reason=reason)


def _mean(placed: Floats, part: Flags, clusters: Sequence[str], auc: float) -> Mean:
    return Mean(
        residuals=cluster_sums(np.where(part, placed - auc, 0.0), clusters),
        weights=cluster_sums(part, clusters),
        variance=_variance(placed[part]) * int(part.sum()),
    )


def _variance(placements: Floats) -> float:
    """Return the variance of their mean if rows were independent; DeLong's S / m."""
    return float(placements.var(ddof=1)) / len(placements) if len(placements) > 1 else 0.0


def _bounded(logit: float) -> float:
    return max(-700.0, min(700.0, logit))


def _bare(rows: int, units: int, settings: Settings) -> Metric:
    reason = None
    if units == 1:
        reason = "one cluster: no interval"
    elif units < FEW_CLUSTERS:
        reason = f"few clusters ({units} < {FEW_CLUSTERS}): the interval is a rough guide"
    return Metric(
        metric=AUC,
        value=None,
        unit=_UNIT,
        n=rows,
        tokens=0,
        clusters=units,
        ci=None,
        ci_method=CLUSTERED_AUC,
        level=settings.level,
        reason=reason,
    )
