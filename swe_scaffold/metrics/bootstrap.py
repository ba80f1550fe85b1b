"""The bootstrap of a mean or a token-weighted ratio, over rows or whole clusters.

Reproducible without scipy: resample r takes the units of row r of `default_rng(seed).integers(0, n,
(R, n))`, and the ends are linear quantiles of the R statistics. The indices are drawn in blocks,
which numpy continues as one stream. The units are the rows in their order, or the clusters in the
order of their labels as text. Whether an interval is wanted is decided by the callers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swe_scaffold.errors import UsageError

Floats = NDArray[np.float64]

_BLOCK_ROWS = 500
_BLOCK_CELLS = 4_000_000
# Beyond these a sum over a resample, or its ratio, may overflow.
_LARGEST_SUM = 1e290
_SMALLEST_WEIGHT = 1e-9
_METHODS = ("percentile", "bca")


def bootstrap_confidence_interval(  # noqa: PLR0913 the documented public signature
    values: Iterable[float],
    iterations: int = 9999,
    alpha: float = 0.05,
    *,
    clusters: Iterable[object] | None = None,
    weights: Iterable[float] | None = None,
    paired: Iterable[float] | None = None,
    method: str = "percentile",
    seed: int = 0,
) -> tuple[float, float]:
    """Return the (1 - alpha) bootstrap interval of a mean or ratio.

    The statistic is mean(values); with `weights` (token counts) it is sum(values) / sum(weights),
    the values then being sums over tokens. Value and weight of a row are resampled together.
    The result follows the order of the rows (with `clusters`: only the order of the sorted labels),
    so callers sort rows by id first. A row of weight 0 and value 0 adds nothing to either sum: it
    takes no part, and the units are counted without it.

    "bca" is bias-corrected and accelerated (B. Efron, 1987), the acceleration from the jackknife
    over the units. Where it is undefined the percentile interval is returned: constant data, every
    resample on one side of the estimate, one unit with all the weight, or an acceleration too
    large for its formula. Simulated, it covers no better here than "percentile".

    Args:
        values: One number per row.
        iterations: Number of resamples; at 9,999 the ends carry a noise of 0.7 % of the width.
        alpha: 1 - confidence level.
        clusters: One label per row; rows of a label are drawn together, as one unit.
        weights: One number per row, none negative.
        paired: A second number per row; the statistic is that of `values - paired`.
        method: "percentile" or "bca".
        seed: Seed of the index stream.

    Raises:
        UsageError: The input is empty, unequal in length, not finite, has a weight that is
            negative or 0 beside a value, or is a single row or cluster; or an option is outside
            its range.
    """
    check_level(alpha)
    check_iterations(iterations)
    check_seed(seed)
    if method not in _METHODS:
        raise UsageError(f"unknown bootstrap method {method!r}", hint="'percentile' or 'bca'")
    sums = _column(values, "values")
    if not len(sums):
        raise UsageError("no values to bootstrap")
    if paired is not None:
        sums = sums - _column(paired, "paired", rows=len(sums))
    sizes = np.ones_like(sums) if weights is None else _column(weights, "weights", rows=len(sums))
    labels = None if clusters is None else _labels(clusters, rows=len(sums))
    counted = _with_weight(sums, sizes)
    sums, sizes = sums[counted], sizes[counted]
    ratios = sums / sizes
    if labels is not None:
        kept = [label for label, part in zip(labels, counted.tolist(), strict=True) if part]
        sums, sizes = _cluster_sums(sums, sizes, kept)
    if len(sums) == 1:
        raise UsageError(f"no interval from one {'row' if labels is None else 'cluster'}")
    statistics = _resampled_ratios(sums, sizes, iterations, seed)
    # Every resampled ratio lies between the extreme rows; the clip removes only rounding noise.
    np.clip(statistics, ratios.min(), ratios.max(), out=statistics)
    tails = (alpha / 2, 1 - alpha / 2)
    if method == "bca":
        tails = _bca_tails(statistics, sums, sizes, alpha) or tails
    low, high = np.quantile(statistics, tails)
    return float(low), float(high)


def check_level(alpha: float) -> None:
    """Refuse an `alpha` outside (0, 1)."""
    if not 0 < alpha < 1:
        raise UsageError(
            f"alpha must lie between 0 and 1, not {alpha}", hint="0.05 gives a 95 % interval"
        )


def check_iterations(iterations: int) -> None:
    """Refuse anything but a whole number of resamples, at least 1."""
    if not _is_integer(iterations) or iterations < 1:
        raise UsageError(f"iterations must be a whole number of at least 1, not {iterations!r}")


def check_seed(seed: int) -> None:
    """Refuse anything but a whole number of at least 0 (None would not be reproducible)."""
    if not _is_integer(seed) or seed < 0:
        raise UsageError(f"seed must be a whole number of at least 0, not {seed!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _column(values: Iterable[Any], name: str, *, rows: int | None = None) -> Floats:
    try:
        raw = np.asarray(values if isinstance(values, np.ndarray) else list(values))
    except ValueError as error:
        raise UsageError(f"{name} must be a plain sequence of numbers") from error
    if raw.size and (raw.ndim != 1 or raw.dtype.kind not in "biuf"):
        raise UsageError(f"{name} must be a plain sequence of numbers")
    column = raw.astype(np.float64)
    if rows is not None and len(column) != rows:
        raise UsageError(f"{name} has {len(column)} entries for {rows} values")
    usable = np.abs(column) < _LARGEST_SUM / max(column.size, 1)
    if not usable.all():
        raise UsageError(f"{name} must be finite: entry {int(np.argmin(usable)) + 1} is not")
    return column


def _labels(clusters: Iterable[object], *, rows: int) -> list[object]:
    labels = list(clusters)
    if len(labels) != rows:
        raise UsageError(f"clusters has {len(labels)} entries for {rows} values")
    return labels


def _with_weight(sums: Floats, sizes: Floats) -> NDArray[np.bool_]:
    """Return which rows take part; a value without a weight is refused."""
    empty: NDArray[np.bool_] = (sizes == 0) & (sums == 0)
    if empty.all():
        raise UsageError("every weight is 0: there is nothing to divide by")
    if sizes[~empty].min() < _SMALLEST_WEIGHT:
        raise UsageError("every weight must be positive: a row without tokens has no likelihood")
    return np.logical_not(empty)


def _cluster_sums(sums: Floats, sizes: Floats, labels: Sequence[object]) -> tuple[Floats, Floats]:
    members: dict[object, list[int]] = {}
    for row, label in enumerate(labels):
        members.setdefault(label, []).append(row)
    groups = [members[label] for label in sorted(members, key=str)]
    return _exact_sums(sums, groups), _exact_sums(sizes, groups)


def _exact_sums(column: Floats, groups: list[list[int]]) -> Floats:
    return np.array([math.fsum(column[rows].tolist()) for rows in groups], dtype=np.float64)


def _resampled_ratios(sums: Floats, sizes: Floats, iterations: int, seed: int) -> Floats:
    units = len(sums)
    stream = np.random.default_rng(seed)
    block = max(1, min(_BLOCK_ROWS, _BLOCK_CELLS // units))
    statistics = np.empty(iterations, dtype=np.float64)
    for start in range(0, iterations, block):
        stop = min(start + block, iterations)
        drawn = stream.integers(0, units, (stop - start, units))
        statistics[start:stop] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return statistics


def _bca_tails(
    statistics: Floats, sums: Floats, sizes: Floats, alpha: float
) -> tuple[float, float] | None:
    """Return the two probabilities whose quantiles are the BCa ends; None where undefined.

    z0 = Phi^-1 of the share of resamples below the estimate (ties count half),
    a = sum u^3 / (6 (sum u^2)^(3/2)) with u = mean of the jackknife - jackknife, and
    each tail is Phi(z0 + (z0 + z) / (1 - a (z0 + z))).
    """
    normal = NormalDist()
    estimate = math.fsum(sums) / math.fsum(sizes)
    # Resamples that equal the estimate may differ from it by rounding.
    offsets = statistics - estimate
    offsets[np.abs(offsets) <= 1e-12 * float(np.ptp(statistics))] = 0.0
    below = float((offsets < 0).mean() + (offsets <= 0).mean()) / 2
    acceleration = _acceleration(sums, sizes)
    if acceleration is None or not 0 < below < 1:
        return None
    bias = normal.inv_cdf(below)
    tails = []
    for p in (alpha / 2, 1 - alpha / 2):
        shifted = bias + normal.inv_cdf(p)
        if acceleration * shifted >= 1:
            return None
        z = bias + shifted / (1 - acceleration * shifted)
        tails.append(math.erfc(-z / math.sqrt(2)) / 2)
    return tails[0], tails[1]


def _acceleration(sums: Floats, sizes: Floats) -> float | None:
    rest = math.fsum(sizes) - sizes
    if rest.min() < _SMALLEST_WEIGHT:
        return None
    left_out = (math.fsum(sums) - sums) / rest
    deviations = left_out.mean() - left_out
    spread = float(np.abs(deviations).max())
    # What rounding leaves of constant data has no skewness.
    if spread <= 1e-13 * float(np.abs(left_out).max()):
        return None
    scaled = deviations / spread
    return float((scaled**3).sum() / (6 * (scaled**2).sum() ** 1.5))
