"""Base against tuned on the same rows: is the difference more than chance?

Both models scored every row, so the rows are paired and the difference d_i = L_i(tuned) - L_i(base)
is what is resampled; a negative effect means that tuning helped. What one model scored alone is
`likelihood`'s matter, and what to conclude from several comparisons is the reader's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from swe_scaffold.errors import IntegrityError
from swe_scaffold.metrics.bootstrap import Floats
from swe_scaffold.metrics.clustered import (
    Ratio,
    Settings,
    cluster_bootstrap,
    clustered_t,
    exponentiated,
    naive_t,
)
from swe_scaffold.metrics.distributions import normal_quantile
from swe_scaffold.metrics.likelihood import (
    NATS_PER_TOKEN,
    WITHIN_GROUP_T,
    class_names,
    class_ratio,
    cluster_labels,
    group_labels,
    members,
    ordered,
)
from swe_scaffold.types import ExampleScore, Metric

# Evaluation promises 1e-6 nats per token across batch sizes and devices; less is no difference.
EQUAL_WITHIN = 1e-6
WORST_ROWS = 5
EXACT_UP_TO = 16
POWER = 0.8

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
class RowDifference:
    """One row under both models, in summed nats."""

    instance_id: str
    sha256: str
    group: str
    tokens: int
    base_nll_sum: float
    tuned_nll_sum: float
    difference: float


@dataclass(frozen=True, slots=True)
class GroupDifference:
    """One group's effect, with an interval over its own examples."""

    effect: Metric
    rows: RowCounts


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """What `compare` reports; `dataclasses.asdict` of it is strict JSON.

    `effect` is tuned - base in nats per token; `worst` are the rows of the largest rise.
    `minimum_detectable_effect` (nats per token) is the true effect such a comparison finds in
    80 % of repetitions. `verdict` is "better", "worse" or "no difference shown".
    """

    effect: Metric
    effect_bootstrap: Metric
    perplexity_ratio: Metric
    base_nll: float
    tuned_nll: float
    sign_flip: SignFlip
    rows: RowCounts
    worst: tuple[RowDifference, ...]
    by_group: dict[str, GroupDifference]
    by_class: dict[str, Metric]
    minimum_detectable_effect: float | None
    cluster_by: str
    verdict: str


def compare(
    base: Sequence[ExampleScore],
    tuned: Sequence[ExampleScore],
    *,
    cluster_by: str = "group",
    iterations: int = 9999,
    alpha: float = 0.05,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models on the same rows, paired; row order cannot matter.

    Args:
        base: Scores of the first model; it also names groups and repositories.
        tuned: Scores of the second model for the same rows, tokenized alike.
        cluster_by: The independent unit: "group", "repo" or "row".
        iterations: Resamples of the bootstrap, and sign flips beyond 16 clusters.
        alpha: 1 - confidence level of all intervals.
        seed: Seed of bootstrap and sign flips.

    Raises:
        UsageError: There are no scores, or an option is outside its range.
        DataError: A score is not finite or has no tokens.
        IntegrityError: The rows differ; the first difference is named.
    """
    settings = Settings(cluster_by, iterations, alpha, seed)
    before, after = ordered(base), ordered(tuned)
    _check_same_rows(before, after)
    clusters = cluster_labels(before, cluster_by)
    ratio = _difference_ratio(before, after, clusters)
    effect = clustered_t(ratio, settings)
    return PairedComparison(
        effect=effect,
        effect_bootstrap=cluster_bootstrap(ratio, settings),
        perplexity_ratio=exponentiated(effect, "perplexity_ratio", "tuned / base"),
        base_nll=math.fsum(row.nll_sum for row in before) / effect.tokens,
        tuned_nll=math.fsum(row.nll_sum for row in after) / effect.tokens,
        sign_flip=_sign_flip(ratio, settings),
        rows=_count_rows(ratio),
        worst=_worst_rows(before, after),
        by_group=_by_group(before, after, settings),
        by_class=_by_class(before, after, clusters, settings),
        minimum_detectable_effect=_minimum_detectable_effect(ratio, settings.alpha),
        cluster_by=cluster_by,
        verdict=_verdict(effect),
    )


def _check_same_rows(base: Sequence[ExampleScore], tuned: Sequence[ExampleScore]) -> None:
    hint = "score both models on the same file, with the same tokenizer and max_length"
    for left, right in zip_longest(base, tuned):
        if right is None or (left is not None and _key(left) < _key(right)):
            raise IntegrityError(f"tuned has no score of base's row {_name(left)}", hint=hint)
        if left is None or _key(left) > _key(right):
            raise IntegrityError(f"base has no score of tuned's row {_name(right)}", hint=hint)
        if left.tokens != right.tokens:
            raise IntegrityError(
                f"row {_name(left)} has {left.tokens} response tokens in base"
                f" and {right.tokens} in tuned",
                hint=hint,
            )


def _key(row: ExampleScore) -> tuple[str, str]:
    return row.instance_id, row.sha256


def _name(row: ExampleScore) -> str:
    return f"{row.instance_id!r} (sha256 {row.sha256[:12] or 'unknown'})"


def _difference_ratio(
    base: Sequence[ExampleScore], tuned: Sequence[ExampleScore], clusters: Sequence[str]
) -> Ratio:
    pairs = zip(base, tuned, strict=True)
    return Ratio(
        metric="nll_difference",
        unit=NATS_PER_TOKEN,
        numerators=tuple(after.nll_sum - before.nll_sum for before, after in pairs),
        denominators=tuple(float(row.tokens) for row in base),
        clusters=tuple(clusters),
        tokens=sum(row.tokens for row in base),
    )


def _sign_flip(ratio: Ratio, settings: Settings) -> SignFlip:
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


def _count_rows(ratio: Ratio) -> RowCounts:
    per_token = [d / n for d, n in zip(ratio.numerators, ratio.denominators, strict=True)]
    better = sum(value < -EQUAL_WITHIN for value in per_token)
    worse = sum(value > EQUAL_WITHIN for value in per_token)
    return RowCounts(better, worse, len(per_token) - better - worse)


def _worst_rows(
    base: Sequence[ExampleScore], tuned: Sequence[ExampleScore]
) -> tuple[RowDifference, ...]:
    differences = [
        RowDifference(
            instance_id=before.instance_id,
            sha256=before.sha256,
            group=before.group,
            tokens=before.tokens,
            base_nll_sum=before.nll_sum,
            tuned_nll_sum=after.nll_sum,
            difference=after.nll_sum - before.nll_sum,
        )
        for before, after in zip(base, tuned, strict=True)
    ]
    return tuple(sorted(differences, key=lambda row: -row.difference)[:WORST_ROWS])


def _by_group(
    base: Sequence[ExampleScore], tuned: Sequence[ExampleScore], settings: Settings
) -> dict[str, GroupDifference]:
    table = {}
    for name, indices in members(group_labels(base, settings.cluster_by)).items():
        ratio = _difference_ratio(
            [base[i] for i in indices], [tuned[i] for i in indices], [name] * len(indices)
        )
        effect = naive_t(ratio, settings, method=WITHIN_GROUP_T)
        table[name] = GroupDifference(effect, _count_rows(ratio))
    return table


def _by_class(
    base: Sequence[ExampleScore],
    tuned: Sequence[ExampleScore],
    clusters: Sequence[str],
    settings: Settings,
) -> dict[str, Metric]:
    """Return the difference by token class; empty where one side was scored without classes."""
    if not class_names(base) or not class_names(tuned):
        return {}
    table = {}
    for name in class_names([*base, *tuned]):
        parts = []
        for before, after in zip(base, tuned, strict=True):
            (nll_before, tokens), (nll_after, tokens_after) = (
                row.nll_by_class.get(name, (0.0, 0)) for row in (before, after)
            )
            if tokens != tokens_after:
                raise IntegrityError(
                    f"row {_name(before)} has {tokens} tokens of class {name!r} in base"
                    f" and {tokens_after} in tuned"
                )
            parts.append((nll_after - nll_before, tokens))
        table[name] = clustered_t(class_ratio("nll_difference", parts, clusters), settings)
    return table


def _minimum_detectable_effect(ratio: Ratio, alpha: float) -> float | None:
    """Return (z(1 - alpha/2) + z(power)) * sd / sqrt(n_eff): 2.8016 * sd / sqrt(n_eff) at 5 %.

    sd / sqrt(n) is the linearised error of independent rows and n_eff = n / design effect. A design
    effect below one is luck with few clusters and does not count in favour.
    """
    errors = ratio.standard_error(), ratio.standard_error(independent=True)
    if errors[0] is None or errors[1] is None:
        return None
    return (normal_quantile(1 - alpha / 2) + normal_quantile(POWER)) * max(errors[0], errors[1])


def _verdict(effect: Metric) -> str:
    if effect.value is None or effect.ci is None or abs(effect.value) <= EQUAL_WITHIN:
        return "no difference shown"
    if effect.ci[1] < 0:
        return "better"
    return "worse" if effect.ci[0] > 0 else "no difference shown"
