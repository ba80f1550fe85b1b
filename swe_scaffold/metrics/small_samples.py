"""Clustered errors that stay honest with few clusters, or with one that holds much of the data.

The usual clustered error (CR1) with G - 1 degrees of freedom is too small where a few clusters
dominate. Here each cluster's residual is divided by the root of what it leaves to the others (CR2),
and the degrees of freedom are those of the variance estimate (R. M. Bell and D. F. McCaffrey, 2002;
G. W. Imbens and M. Kolesar, 2016; J. E. Pustejovsky and E. Tipton, 2018). Which interval a quantity
gets is decided in the other files of this room.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.bootstrap import Floats
from swe_scaffold.metrics.distributions import student_t_quantile, student_t_sf

# As few as the simulated settings went down to; what they cover below is not known.
ROUGH_DF = 2.0
_ALL = 1 - 1e-12


@dataclass(frozen=True, slots=True)
class Mean:
    """One mean of an estimate that is a sum of means, cluster by cluster.

    `residuals` and `weights` are sums over the rows of each cluster: of value - mean * weight, and
    of the weight. `variance` is that of one row of weight 1; it matters beside other means only.
    """

    residuals: Floats
    weights: Floats
    variance: float = 1.0


@dataclass(frozen=True, slots=True)
class ClusteredError:
    """A standard error, and the degrees of freedom of Student's t that go with it."""

    standard_error: float
    df: float

    @property
    def reason(self) -> str | None:
        """Why the interval is a rough guide, where a few clusters hold nearly everything."""
        if self.df >= ROUGH_DF:
            return None
        return f"few clusters dominate ({self.df:.1f} degrees of freedom): a rough guide"

    def half_width(self, alpha: float) -> float:
        """Return half the width of the (1 - alpha) interval."""
        return student_t_quantile(1 - alpha / 2, self.df) * self.standard_error


def clustered_error(means: Sequence[Mean]) -> ClusteredError | None:
    """Return the CR2 error of a sum of means; None where one cluster is all of one mean.

    With h_g = w_g / W the weight of cluster g in a mean and E_g its summed residual,
    se^2 = sum_g (sum over means of E_g / (W sqrt(1 - h_g)))^2 and df = tr(K)^2 / tr(K K). K is the
    covariance of these G terms if rows were independent: per mean variance / W^2 times
    w_g on the diagonal and -w_g w_h / (W sqrt((1 - h_g) (1 - h_h))) beside it.
    """
    terms = np.zeros(len(means[0].weights))
    scaled = []
    trace = 0.0
    for mean in means:
        total = math.fsum(mean.weights)
        if not total > 0 or mean.weights.max() > _ALL * total:
            return None
        left = np.sqrt(1 - mean.weights / total)
        terms += mean.residuals / (total * left)
        trace += mean.variance / total
        scale = mean.variance / total**2
        scaled.append((scale, mean.weights, mean.weights / left / math.sqrt(total)))
    squares = 0.0
    for (one, weights, beside), (other, others, beside_others) in product(scaled, repeat=2):
        crossed = beside * beside_others
        off_diagonal = float(crossed.sum()) ** 2 - float((crossed**2).sum())
        squares += one * other * (float((weights * others).sum()) + off_diagonal)
    # Without any variance the error is 0, and the degrees of freedom do not matter.
    df = trace**2 / squares if squares > 0 else 1.0
    return ClusteredError(math.sqrt(math.fsum(terms**2)), max(1.0, df))


def cluster_sums(values: ArrayLike, clusters: Sequence[str]) -> Floats:
    """Return the sums of a column by cluster, clusters in the order of their names.

    Raises:
        UsageError: The lengths differ.
    """
    column = np.asarray(values, dtype=np.float64)
    if len(column) != len(clusters):
        raise UsageError(f"clusters has {len(clusters)} entries for {len(column)} values")
    members: dict[str, list[float]] = {name: [] for name in sorted(set(clusters))}
    for value, name in zip(column.tolist(), clusters, strict=True):
        members[name].append(value)
    return np.array([math.fsum(part) for part in members.values()], dtype=np.float64)


def p_value(effect: float, standard_error: float, df: float) -> float:
    """Return the two-sided p-value of Student's t; 1 for no effect, 0 for one without error."""
    if effect == 0:
        return 1.0
    if standard_error == 0:
        return 0.0
    return 2 * student_t_sf(abs(effect) / standard_error, df)
