"""Two models on the same rows: the paired difference, its test, and what it could have shown.

Both models scored every row, so the difference d_i = L_i(tuned) - L_i(base) is what is judged; a
negative effect means that tuning helped. Which rows stand in which table is `comparison`'s matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal

import numpy as np

from swe_scaffold.errors import IntegrityError
from swe_scaffold.metrics.bootstrap import Floats
from swe_scaffold.metrics.clustered import (
    Ratio,
    Settings,
    clustered_t,
    naive_t,
    small_sample_error,
    small_sample_t,
)
from swe_scaffold.metrics.distributions import normal_quantile
from swe_scaffold.metrics.likelihood import NATS_PER_TOKEN, WITHIN_GROUP_T
from swe_scaffold.metrics.slices import members
from swe_scaffold.metrics.small_samples import p_value
from swe_scaffold.types import ExampleScore, Metric

# Evaluation promises 1e-6 nats per token across batch sizes and devices; less is no difference.
EQUAL_WITHIN = 1e-6
EXACT_UP_TO = 16
POWER = 0.8
BETTER, WORSE, NOTHING_SHOWN = "better", "worse", "no difference shown"
Per = Literal["token", "byte"]

_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class SignFlip:
    """Two-sided sign-flip test of whole clusters: all signs if `exact`, else `flips` random ones.

    `smallest_p` is what this number of clusters could show at best.
    """

    p_value: float
    smallest_p: float
    clusters: int
    flips: int
    exact: bool
    seed: int | None


@dataclass(frozen=True, slots=True)
class RowCounts:
    """How many rows got better, worse, or stayed within the evaluation's own precision."""

    better: int
    worse: int
    equal: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between two models over some rows, and what can be said of it.

    `effect` is tuned - base; `effect_small_sample` has the interval that holds its level with few
    or unequal clusters too, `p_value` the two-sided p-value of the same t test, and `p_holm` that
    adjusted for all of its table. `minimum_detectable_effect` (in the effect's unit) is the true
    effect that such a comparison would find in 80 % of repetitions if its standard error were the
    true one; simulated, it is 62 to 79 %. `verdict` is "better", "worse" or "no difference shown".
    """

    effect: Metric
    effect_small_sample: Metric
    rows: RowCounts
    p_value: float | None
    p_holm: float | None
    minimum_detectable_effect: float | None
    verdict: str


def difference(ratio: Ratio, settings: Settings, *, within_group: bool = False) -> Difference:
    """Return what a ratio of paired differences shows; `within_group` treats rows as units."""
    if within_group:
        effect = naive_t(ratio, settings, method=WITHIN_GROUP_T)
        clusters = tuple(f"{row:012d}" for row in range(len(ratio.clusters)))
        ratio = replace(ratio, clusters=clusters)
    else:
        effect = clustered_t(ratio, settings)
    small = small_sample_t(ratio, settings)
    return Difference(
        effect=effect,
        effect_small_sample=small,
        rows=count_rows(ratio),
        p_value=_p_value(ratio),
        p_holm=None,
        minimum_detectable_effect=minimum_detectable_effect(ratio, settings.alpha),
        verdict=verdict(effect, small),
    )


def _p_value(ratio: Ratio) -> float | None:
    error, value = small_sample_error(ratio), ratio.value
    if error is None or value is None:
        return None
    if error.standard_error:
        return p_value(value, error.standard_error, error.df)
    # Every cluster agrees exactly.
    return 0.0 if value else 1.0


def require_same_rows(
    base: Sequence[ExampleScore], tuned: Sequence[ExampleScore], per: Per = "token"
) -> None:
    """Refuse two sets of scores, each sorted, that are not of the same rows.

    Raises:
        IntegrityError: A row is missing on one side, or its tokens (or bytes) differ.
    """
    hint = "score both models on the same file, with the same tokenizer and max_length"
    for left, right in zip_longest(base, tuned):
        if right is None or (left is not None and _key(left) < _key(right)):
            raise IntegrityError(f"tuned has no score of base's row {row_name(left)}", hint=hint)
        if left is None or _key(left) > _key(right):
            raise IntegrityError(f"base has no score of tuned's row {row_name(right)}", hint=hint)
        sizes = _size(left, per), _size(right, per)
        if sizes[0] != sizes[1]:
            raise IntegrityError(
                f"row {row_name(left)} has {sizes[0]} response {per}s in base"
                f" and {sizes[1]} in tuned",
                hint=hint,
            )


def _size(row: ExampleScore, per: Per) -> int:
    return row.tokens if per == "token" else row.bytes


def _key(row: ExampleScore) -> tuple[str, str]:
    return row.instance_id, row.sha256


def row_name(row: ExampleScore) -> str:
    """Return how an error names a row."""
    return f"{row.instance_id!r} (sha256 {row.sha256[:12] or 'unknown'})"


def difference_ratio(
    base: Sequence[ExampleScore],
    tuned: Sequence[ExampleScore],
    clusters: Sequence[str],
    per: Per = "token",
) -> Ratio:
    """Return the summed differences over response tokens, or in bits over response bytes."""
    scale = 1.0 if per == "token" else 1 / math.log(2)
    pairs = zip(base, tuned, strict=True)
    return Ratio(
        metric="nll_difference" if per == "token" else "bits_per_byte_difference",
        unit=NATS_PER_TOKEN if per == "token" else "bits/byte",
        numerators=tuple(scale * (after.nll_sum - before.nll_sum) for before, after in pairs),
        denominators=tuple(float(_size(row, per)) for row in base),
        clusters=tuple(clusters),
        tokens=sum(row.tokens for row in base),
    )


def sign_flip(ratio: Ratio, settings: Settings) -> SignFlip:
    """Flip the sign of whole clusters; under no effect, either sign was as likely.

    p = count of flips at least as extreme / 2^G, or (1 + count) / (R + 1) over R drawn flips.
    """
    sums = np.array(
        [
            math.fsum(ratio.numerators[row] for row in rows)
            for rows in members(ratio.clusters).values()
        ]
    )
    units = len(sums)
    if not units:
        return SignFlip(1.0, 1.0, 0, 1, True, None)
    # Equal sums may differ by rounding; a tie counts as extreme.
    least = abs(math.fsum(sums)) - 1e-12 * float(np.abs(sums).sum())
    if units <= EXACT_UP_TO:
        # The first cluster keeps its sign: flipping all signs gives the same absolute sum.
        codes = np.arange(2 ** (units - 1))[:, None]
        signs = 1 - 2 * (((codes << 1) >> np.arange(units)) & 1)
        extreme = int((np.abs(signs @ sums) >= least).sum())
        flips = 2**units
        return SignFlip(2 * extreme / flips, min(1.0, 2 / flips), units, flips, True, None)
    flips = settings.iterations
    extreme = _random_flips(sums, least, flips, settings.seed)
    smallest = 1 / (flips + 1)
    return SignFlip((1 + extreme) / (flips + 1), smallest, units, flips, False, settings.seed)


def _random_flips(sums: Floats, least: float, flips: int, seed: int) -> int:
    stream = np.random.default_rng(seed)
    block = max(1, _BLOCK_CELLS // len(sums))
    extreme = 0
    for start in range(0, flips, block):
        rows = min(block, flips - start)
        signs = 1 - 2 * stream.integers(0, 2, (rows, len(sums)))
        extreme += int((np.abs(signs @ sums) >= least).sum())
    return extreme


def count_rows(ratio: Ratio) -> RowCounts:
    """Return how many rows moved by more than the precision of scores."""
    per_token = [d / n for d, n in zip(ratio.numerators, ratio.denominators, strict=True)]
    better = sum(value < -EQUAL_WITHIN for value in per_token)
    worse = sum(value > EQUAL_WITHIN for value in per_token)
    return RowCounts(better, worse, len(per_token) - better - worse)


def minimum_detectable_effect(ratio: Ratio, alpha: float) -> float | None:
    """Return (z(1 - alpha/2) + z(power)) * sd / sqrt(n_eff): 2.8016 * sd / sqrt(n_eff) at 5 %.

    sd / sqrt(n) is the linearised error of independent rows and n_eff = n / design effect. A design
    effect below one is luck with few clusters and does not count in favour.
    """
    errors = ratio.standard_error(), ratio.standard_error(independent=True)
    if errors[0] is None or errors[1] is None:
        return None
    return (normal_quantile(1 - alpha / 2) + normal_quantile(POWER)) * max(errors[0], errors[1])


def verdict(effect: Metric, small_sample: Metric) -> str:
    """Return "better" or "worse" only where both intervals exclude zero.

    The headline alone would claim too often where a few clusters hold most rows.
    """
    both = [metric.ci for metric in (effect, small_sample) if metric.ci is not None]
    if effect.value is None or len(both) < 2 or abs(effect.value) <= EQUAL_WITHIN:
        return NOTHING_SHOWN
    if max(high for _, high in both) < 0:
        return BETTER
    return WORSE if min(low for low, _ in both) > 0 else NOTHING_SHOWN
