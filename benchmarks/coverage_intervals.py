"""Every interval the project prints, for thousands of simulated sets at once.

Axes: R sets, n rows of a set, G clusters. The formulas are those of `swe_scaffold.metrics`;
`simulate_coverage.py` compares some sets of every setting with that package, to seven digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from swe_scaffold.metrics.distributions import normal_quantile, student_t_quantile
from swe_scaffold.metrics.shares import exact_binomial

Ends = tuple[np.ndarray, np.ndarray]

RESAMPLES = 9999
Z = normal_quantile(0.975)
_CHUNK = 500


@dataclass(frozen=True)
class Layout:
    """Rows in clusters, the rows of a cluster side by side."""

    sizes: np.ndarray

    @property
    def rows(self) -> int:
        return int(self.sizes.sum())

    @property
    def clusters(self) -> int:
        return len(self.sizes)

    @cached_property
    def owner(self) -> np.ndarray:
        return np.repeat(np.arange(self.clusters), self.sizes)

    @cached_property
    def names(self) -> list[str]:
        """Names whose order as text is that of the clusters."""
        return [f"r{index:03d}" for index in self.owner]

    def sums(self, values: np.ndarray) -> np.ndarray:
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        return np.add.reduceat(values, starts, axis=1)


@dataclass(frozen=True)
class Fit:
    """A ratio of sums in every set: its value, sums by cluster, and the naive standard error."""

    value: np.ndarray
    sums: np.ndarray
    sizes: np.ndarray
    naive_error: np.ndarray
    rows: int

    @property
    def residuals(self) -> np.ndarray:
        return self.sums - self.value[:, None] * self.sizes

    @property
    def cr1_error(self) -> np.ndarray:
        units = self.sums.shape[1]
        squares = (self.residuals**2).sum(1)
        return np.sqrt(units / (units - 1) * squares) / self.sizes.sum(1)


def fit_ratio(numerators: np.ndarray, denominators: np.ndarray, layout: Layout) -> Fit:
    totals = denominators.sum(1)
    value = numerators.sum(1) / totals
    rows = layout.rows
    squares = ((numerators - value[:, None] * denominators) ** 2).sum(1)
    return Fit(
        value=value,
        sums=layout.sums(numerators),
        sizes=layout.sums(denominators),
        naive_error=np.sqrt(rows / (rows - 1) * squares) / totals,
        rows=rows,
    )


def around(value: np.ndarray, half: np.ndarray, bounds: tuple[float, float] | None = None) -> Ends:
    low, high = value - half, value + half
    return (np.maximum(low, bounds[0]), np.minimum(high, bounds[1])) if bounds else (low, high)


def clustered_t(fit: Fit) -> np.ndarray:
    """Return half widths of the headline interval."""
    return student_t_quantile(0.975, fit.sums.shape[1] - 1) * fit.cr1_error


def naive_t(fit: Fit) -> np.ndarray:
    return student_t_quantile(0.975, fit.rows - 1) * fit.naive_error


def small_sample_t(fit: Fit) -> np.ndarray:
    error, df = cr2([(fit.residuals, fit.sizes, np.ones(len(fit.value)))])
    return t_quantile(df) * error


def cr2(means: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Ends:
    """Return CR2 errors and Bell-McCaffrey degrees of freedom; NaN where there are none."""
    terms, trace, scaled = 0.0, 0.0, []
    with np.errstate(divide="ignore", invalid="ignore"):
        for residuals, weights, variance in means:
            total = weights.sum(1, keepdims=True)
            left = np.sqrt(np.where(weights < total * (1 - 1e-12), 1 - weights / total, np.nan))
            terms = terms + residuals / (total * left)
            trace = trace + variance / total[:, 0]
            scaled.append((variance / total[:, 0] ** 2, weights, weights / left / np.sqrt(total)))
        squares = np.zeros(len(means[0][0]))
        for one, weights, beside in scaled:
            for other, others, beside_others in scaled:
                crossed = beside * beside_others
                off = crossed.sum(1) ** 2 - (crossed**2).sum(1)
                squares += one * other * ((weights * others).sum(1) + off)
        df = np.maximum(1.0, trace**2 / squares)
    return np.sqrt((terms**2).sum(1)), df


@cache
def _t_table(p: float) -> Ends:
    inverse = np.linspace(1e-4, 1, 2001)
    return inverse, np.array([student_t_quantile(p, 1 / value) for value in inverse])


def t_quantile(df: np.ndarray, p: float = 0.975) -> np.ndarray:
    inverse, table = _t_table(p)
    return np.interp(1 / df, inverse, table)


@cache
def _draws(units: int) -> np.ndarray:
    """Return how often each unit is drawn in each resample of the documented stream, seed 0."""
    drawn = np.random.default_rng(0).integers(0, units, (RESAMPLES, units))
    flat = drawn + units * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(flat.ravel(), minlength=RESAMPLES * units)
    return counts.reshape(RESAMPLES, units).T.astype(np.float64)


def percentile(sums: np.ndarray, sizes: np.ndarray) -> Ends:
    ends = np.empty((2, len(sums)))
    for part, resampled in _resampled(sums, sizes):
        ends[:, part] = np.quantile(resampled, [0.025, 0.975], axis=1, overwrite_input=True)
    return ends[0], ends[1]


def bca(sums: np.ndarray, sizes: np.ndarray) -> Ends:
    """Return BCa ends, or percentile ones where it is undefined, as the package does."""
    from statistics import NormalDist

    normal, ends = NormalDist(), np.empty((2, len(sums)))
    estimates = sums.sum(1) / sizes.sum(1)
    left_out = (sums.sum(1, keepdims=True) - sums) / (sizes.sum(1, keepdims=True) - sizes)
    gaps = left_out.mean(1, keepdims=True) - left_out
    accelerations = (gaps**3).sum(1) / (6 * (gaps**2).sum(1) ** 1.5)
    for part, resampled in _resampled(sums, sizes):
        resampled.sort(axis=1)
        for row, index in enumerate(range(part.start, part.stop)):
            below = np.searchsorted(resampled[row], estimates[index]) / RESAMPLES
            tails = [0.025, 0.975]
            if 0 < below < 1:
                bias, slope = normal.inv_cdf(below), accelerations[index]
                shifted = [bias + normal.inv_cdf(tail) for tail in tails]
                if all(slope * shift < 1 for shift in shifted):
                    tails = [normal.cdf(bias + s / (1 - slope * s)) for s in shifted]
            ends[:, index] = np.interp(
                [tail * (RESAMPLES - 1) for tail in tails], np.arange(RESAMPLES), resampled[row]
            )
    return ends[0], ends[1]


def _resampled(sums: np.ndarray, sizes: np.ndarray):
    draws = _draws(sums.shape[1])
    for start in range(0, len(sums), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(sums)))
        yield part, (sums[part] @ draws) / (sizes[part] @ draws)


def sign_flip_p(sums: np.ndarray) -> np.ndarray:
    units = sums.shape[1]
    if units <= 16:
        codes = np.arange(2 ** (units - 1))[:, None]
        signs = 1 - 2 * (((codes << 1) >> np.arange(units)) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng(0).integers(0, 2, (RESAMPLES, units))
    least = np.abs(sums.sum(1)) - 1e-12 * np.abs(sums).sum(1)
    extreme = np.zeros(len(sums))
    flips = signs.T.astype(np.float64)
    for start in range(0, len(sums), _CHUNK):
        part = slice(start, start + _CHUNK)
        extreme[part] = (np.abs(sums[part] @ flips) >= least[part, None]).sum(1)
    if units <= 16:
        return 2 * extreme / 2**units
    return (1 + extreme) / (RESAMPLES + 1)


def wilson(share: np.ndarray, n: float | np.ndarray, quantile: float | np.ndarray) -> Ends:
    square = quantile * quantile / n
    half = np.sqrt(square * (share * (1 - share) + square / 4))
    centre = share + square / 2
    low = np.where(share == 0, 0.0, (centre - half) / (1 + square))
    high = np.where(share == 1, 1.0, (centre + half) / (1 + square))
    return low, high


def clustered_wilson(fit: Fit) -> Ends:
    share, rows, units = fit.value, fit.rows, fit.sums.shape[1]
    error, df = cr2([(fit.residuals, fit.sizes, np.ones(len(share)))])
    certain = (share == 0) | (share == 1)
    independent = np.sqrt(np.where(certain, 1, share * (1 - share)) / (rows - 1))
    quantile = np.maximum(Z, t_quantile(df) * error / independent)
    quantile = np.where(certain, Z * np.sqrt(rows / units), quantile)
    return wilson(share, rows, quantile)


def clustered_difference(fit: Fit) -> tuple[Ends, np.ndarray]:
    """Return the interval of a difference of shares, and whether it excludes 0."""
    error, df = cr2([(fit.residuals, fit.sizes, np.ones(len(fit.value)))])
    half = np.maximum(t_quantile(df) * error, Z * fit.naive_error)
    low, high = around(fit.value, half, (-1.0, 1.0))
    same = fit.naive_error == 0
    least, _ = wilson(np.ones(1), fit.sums.shape[1], Z)
    low = np.where(same, np.maximum(-1, least * fit.value - (1 - least)), low)
    high = np.where(same, np.minimum(1, least * fit.value + (1 - least)), high)
    return (low, high), (low > 0) | (high < 0)


def mcnemar_p(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    pairs, place = np.unique(np.column_stack([better, worse]), axis=0, return_inverse=True)
    table = np.array([exact_binomial(int(b), int(b + w)) for b, w in pairs])
    return table[place.ravel()]


def auc(scores: np.ndarray, flags: np.ndarray, layout: Layout) -> tuple[np.ndarray, Ends, Ends]:
    """Return AUC, its clustered and its DeLong interval; NaN ends where there are none."""
    placed = np.full(scores.shape, np.nan)
    for index, (row, yes) in enumerate(zip(scores, flags, strict=True)):
        if yes.any() and not yes.all():
            above, below = np.sort(row[yes]), np.sort(row[~yes])
            placed[index, yes] = _below(below, row[yes])
            placed[index, ~yes] = 1 - _below(above, row[~yes])
    many, few = flags.sum(1), (~flags).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(flags, placed, 0).sum(1) / many
        means, independent = [], 0.0
        for part, size in ((flags, many), (~flags, few)):
            gaps = np.where(part, placed - value[:, None], 0.0)
            variance = np.where(size > 1, (gaps**2).sum(1) / (size - 1), 0.0)
            means.append((layout.sums(gaps), layout.sums(part.astype(float)), variance))
            independent = independent + variance / size
        error, df = cr2(means)
        slope = value * (1 - value)
        usable = np.where((slope > 0) & (error > 0), error, np.nan)
        half = t_quantile(df) * usable / slope
        logit = np.log(value / (1 - value))
        clustered = tuple(1 / (1 + np.exp(-(logit + side * half))) for side in (-1, 1))
        delong = around(value, Z * np.sqrt(independent))
    return value, clustered, delong  # type: ignore[return-value]


def _below(others: np.ndarray, values: np.ndarray) -> np.ndarray:
    left, right = (np.searchsorted(others, values, side) for side in ("left", "right"))
    return (left + right) / (2 * len(others))


def pairs_in_order(scores: np.ndarray, flags: np.ndarray) -> Ends:
    """Return ordered pairs and all pairs (yes, no) of each stratum; the last axis is its rows."""
    ordered = np.zeros(scores.shape[:-1])
    pairs = np.zeros(scores.shape[:-1])
    for one in range(scores.shape[-1]):
        for other in range(scores.shape[-1]):
            pair = flags[..., one] & ~flags[..., other]
            gap = scores[..., one] - scores[..., other]
            pairs += pair
            ordered += pair * ((gap > 0) + 0.5 * (gap == 0))
    return ordered, pairs
