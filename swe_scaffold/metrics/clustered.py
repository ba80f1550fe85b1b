"""Ratios of sums as `Metric`s, with intervals that know which rows belong together.

Examples of one repository resemble each other, so the cluster is the unit of the interval: the
linearised clustered t (CR1, G - 1 degrees of freedom) as the headline, the cluster bootstrap beside
it, and the interval of independent rows only under the name "if examples were independent". Where
a few clusters dominate, CR1 is too narrow and `small_sample_t` holds its level. Which quantity is a
ratio of what is decided in `likelihood` and `comparison`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.bootstrap import (
    bootstrap_confidence_interval,
    check_iterations,
    check_level,
    check_seed,
)
from swe_scaffold.metrics.distributions import student_t_quantile
from swe_scaffold.metrics.small_samples import ClusteredError, Mean, cluster_sums, clustered_error
from swe_scaffold.types import Metric

CLUSTERED_T = "clustered t (CR1, G - 1 df)"
CLUSTER_BOOTSTRAP = "cluster percentile bootstrap"
SMALL_SAMPLE_T = "clustered t (CR2, Bell-McCaffrey df)"
NAIVE_T = "t, if examples were independent"
FEW_CLUSTERS = 8
CLUSTER_BY = ("group", "repo", "row")


@dataclass(frozen=True, slots=True)
class Settings:
    """What every interval of a report shares; the values are checked on construction."""

    cluster_by: str = "group"
    iterations: int = 9999
    alpha: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values outside their range before any work is done."""
        if self.cluster_by not in CLUSTER_BY:
            raise UsageError(
                f"unknown cluster unit {self.cluster_by!r}", hint=f"one of {', '.join(CLUSTER_BY)}"
            )
        check_iterations(self.iterations)
        check_level(self.alpha)
        check_seed(self.seed)

    @property
    def level(self) -> float:
        """The confidence level, free of the rounding of 1 - alpha."""
        return round(1 - self.alpha, 12)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A quantity sum(numerators) / sum(denominators), with one entry and one cluster per row."""

    metric: str
    unit: str
    numerators: tuple[float, ...]
    denominators: tuple[float, ...]
    clusters: tuple[str, ...]
    tokens: int

    @property
    def value(self) -> float | None:
        """The ratio itself; None without a denominator."""
        total = math.fsum(self.denominators)
        return math.fsum(self.numerators) / total if total else None

    def standard_error(self, *, independent: bool = False) -> float | None:
        """Return the CR1 standard error by cluster, or by row; None for fewer than two units.

        e_i = numerator_i - ratio * denominator_i, E_g its sum over cluster g, and
        se = sqrt(G / (G - 1) * sum E_g^2) / sum(denominators). Sums are exact, so no order matters.
        """
        value = self.value
        residuals: dict[str | int, list[float]] = {}
        for row, cluster in enumerate(self.clusters):
            expected = (value or 0.0) * self.denominators[row]
            unit = row if independent else cluster
            residuals.setdefault(unit, []).append(self.numerators[row] - expected)
        units = len(residuals)
        if value is None or units < 2:
            return None
        squares = math.fsum(math.fsum(part) ** 2 for part in residuals.values())
        return math.sqrt(units / (units - 1) * squares) / math.fsum(self.denominators)

    def design_effect(self) -> float | None:
        """Return the variance by cluster over the variance of independent rows, if both exist."""
        clustered, naive = self.standard_error(), self.standard_error(independent=True)
        if clustered is None or naive is None:
            return None
        size = math.fsum(map(abs, self.numerators)) / math.fsum(self.denominators)
        # Constant data leaves rounding noise only, and a ratio of noise says nothing.
        return (clustered / naive) ** 2 if naive > 1e-12 * size else None


def clustered_t(ratio: Ratio, settings: Settings) -> Metric:
    """Return the ratio with its clustered t interval, or with the reason why it has none."""
    units = len(set(ratio.clusters))
    metric = _bare(ratio, settings, units, CLUSTERED_T)
    interval = _t_interval(ratio.value, ratio.standard_error(), units, settings.alpha)
    return replace(metric, ci=interval, design_effect=ratio.design_effect())


def small_sample_t(ratio: Ratio, settings: Settings) -> Metric:
    """Return the ratio with the clustered t interval that allows for unequal clusters."""
    units, value = len(set(ratio.clusters)), ratio.value
    metric = _bare(ratio, settings, units, SMALL_SAMPLE_T)
    if value is None or units < 2:
        return metric
    error = small_sample_error(ratio)
    if error is None:
        return replace(metric, reason="one cluster holds nearly every token: no interval")
    half = error.half_width(settings.alpha)
    return replace(
        metric,
        ci=(value - half, value + half),
        design_effect=ratio.design_effect(),
        reason=metric.reason or error.reason,
    )


def small_sample_error(ratio: Ratio) -> ClusteredError | None:
    """Return the CR2 error of a ratio; None without two clusters that share it."""
    value = ratio.value
    if value is None or len(set(ratio.clusters)) < 2:
        return None
    weights = cluster_sums(ratio.denominators, ratio.clusters)
    sums = cluster_sums(ratio.numerators, ratio.clusters)
    return clustered_error([Mean(sums - value * weights, weights)])


def naive_t(ratio: Ratio, settings: Settings, *, method: str = NAIVE_T) -> Metric:
    """Return the ratio with the t interval of independent rows."""
    units = len(ratio.clusters)
    error = ratio.standard_error(independent=True)
    metric = _bare(ratio, settings, units, method, unit_name="example")
    return replace(metric, ci=_t_interval(ratio.value, error, units, settings.alpha))


def cluster_bootstrap(ratio: Ratio, settings: Settings) -> Metric:
    """Return the ratio with the percentile interval of whole clusters resampled."""
    units = len(set(ratio.clusters))
    metric = _bare(ratio, settings, units, CLUSTER_BOOTSTRAP)
    if units < 2:
        return metric
    interval = bootstrap_confidence_interval(
        ratio.numerators,
        settings.iterations,
        settings.alpha,
        clusters=ratio.clusters,
        weights=ratio.denominators,
        seed=settings.seed,
    )
    return replace(metric, ci=interval, resamples=settings.iterations, seed=settings.seed)


def exponentiated(metric: Metric, name: str, unit: str) -> Metric:
    """Return exp of the value and of both interval ends, as another metric.

    A number that would overflow is None, with the reason.
    """
    value, interval, reason = None, None, metric.reason
    try:
        value = None if metric.value is None else math.exp(metric.value)
        if metric.ci is not None:
            interval = (math.exp(metric.ci[0]), math.exp(metric.ci[1]))
    except OverflowError:
        what = "the value" if value is None else "the upper end of the interval"
        reason = f"overflow: exp of {what} ({metric.unit}) is no finite number"
    return replace(metric, metric=name, value=value, unit=unit, ci=interval, reason=reason)


def _bare(
    ratio: Ratio, settings: Settings, units: int, method: str, *, unit_name: str = "cluster"
) -> Metric:
    value, rows = ratio.value, len(ratio.clusters)
    reason = None
    if value is None:
        reason = f"nothing to divide by: the rows have no {ratio.unit.partition('/')[2]}s"
    elif rows == 1:
        reason = "one example: no interval"
    elif units == 1:
        reason = "one cluster holds every example: no interval"
    elif units < FEW_CLUSTERS:
        reason = f"few {unit_name}s ({units} < {FEW_CLUSTERS}): the interval is a rough guide"
    return Metric(
        metric=ratio.metric,
        value=value,
        unit=ratio.unit,
        n=rows,
        tokens=ratio.tokens,
        clusters=units,
        ci=None,
        ci_method=method,
        level=settings.level,
        reason=reason,
    )


def _t_interval(
    value: float | None, error: float | None, units: int, alpha: float
) -> tuple[float, float] | None:
    if value is None or error is None:
        return None
    half = student_t_quantile(1 - alpha / 2, units - 1) * error
    return value - half, value + half
