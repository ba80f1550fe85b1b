"""Base against tuned on the same rows: is the difference more than chance, and where does it lie?

The paired difference itself is made in `pairing`. What one model scored alone is `likelihood`'s
matter, and what to conclude is the reader's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from swe_scaffold.errors import IntegrityError
from swe_scaffold.metrics.clustered import (
    Settings,
    cluster_bootstrap,
    exponentiated,
)
from swe_scaffold.metrics.likelihood import class_names, class_ratio, ordered
from swe_scaffold.metrics.pairing import (
    NOTHING_SHOWN,
    Difference,
    Per,
    RowCounts,
    SignFlip,
    difference,
    difference_ratio,
    require_same_rows,
    row_name,
    sign_flip,
)
from swe_scaffold.metrics.shares import holm
from swe_scaffold.metrics.slices import GROUP, cluster_labels, slices
from swe_scaffold.types import ExampleScore, Metric

WORST_ROWS = 5
TOKEN_CLASS = "token_class"


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
class PairedComparison:
    """What `compare` reports; `dataclasses.asdict` of it is strict JSON.

    `effect` is tuned - base in nats per token (bits per byte where tokenizers differ, and then
    without a perplexity ratio); `worst` are the rows of the largest rise. `slices` holds the tables
    of `slices.slices`, and `token_class` where both were scored by class; p-values within a table
    are adjusted by Holm, and its verdicts need them below alpha. Fields shared with `Difference`
    mean the same.
    """

    effect: Metric
    effect_small_sample: Metric
    effect_bootstrap: Metric
    perplexity_ratio: Metric | None
    base_nll: float
    tuned_nll: float
    sign_flip: SignFlip
    rows: RowCounts
    worst: tuple[RowDifference, ...]
    slices: dict[str, dict[str, Difference]]
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
    per: Per = "token",
) -> PairedComparison:
    """Compare two models on the same rows, paired; row order cannot matter.

    Args:
        base: Scores of the first model; it also names groups and repositories.
        tuned: Scores of the second model for the same rows, tokenized alike.
        cluster_by: The independent unit: "group", "repo" or "row".
        iterations: Resamples of the bootstrap, and sign flips beyond 16 clusters.
        alpha: 1 - confidence level of all intervals.
        seed: Seed of bootstrap and sign flips.
        per: What sums are divided by: response tokens, or bytes, which two tokenizers share.

    Raises:
        UsageError: There are no scores, or an option is outside its range.
        DataError: A score is not finite or has no tokens.
        IntegrityError: The rows differ; the first difference is named.
    """
    settings = Settings(cluster_by, iterations, alpha, seed)
    before, after = ordered(base), ordered(tuned)
    require_same_rows(before, after, per)
    clusters = cluster_labels(before, cluster_by)
    ratio = difference_ratio(before, after, clusters, per)
    whole = difference(ratio, settings)
    effect = whole.effect
    return PairedComparison(
        effect=effect,
        effect_small_sample=whole.effect_small_sample,
        effect_bootstrap=cluster_bootstrap(ratio, settings),
        perplexity_ratio=exponentiated(effect, "perplexity_ratio", "tuned / base")
        if per == "token"
        else None,
        base_nll=_per_token(before),
        tuned_nll=_per_token(after),
        sign_flip=sign_flip(ratio, settings),
        rows=whole.rows,
        worst=_worst_rows(before, after),
        slices=_slices(before, after, settings, per),
        minimum_detectable_effect=whole.minimum_detectable_effect,
        cluster_by=cluster_by,
        verdict=whole.verdict,
    )


def _per_token(rows: Sequence[ExampleScore]) -> float:
    return math.fsum(row.nll_sum for row in rows) / sum(row.tokens for row in rows)


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


def _slices(
    base: Sequence[ExampleScore], tuned: Sequence[ExampleScore], settings: Settings, per: Per
) -> dict[str, dict[str, Difference]]:
    clusters = cluster_labels(base, settings.cluster_by)
    tables = {}
    for table, parts in slices(base, settings.cluster_by).items():
        found = {}
        for name, indices in parts.items():
            before, after = ([rows[index] for index in indices] for rows in (base, tuned))
            ratio = difference_ratio(before, after, [clusters[index] for index in indices], per)
            found[name] = difference(ratio, settings, within_group=table == GROUP)
        tables[table] = _adjusted(found, settings.alpha)
    if per == "token" and class_names(base) and class_names(tuned):
        tables[TOKEN_CLASS] = _adjusted(_by_class(base, tuned, clusters, settings), settings.alpha)
    return tables


def _adjusted(table: Mapping[str, Difference], alpha: float) -> dict[str, Difference]:
    """Put beside each p-value the one that allows for all of the table; verdicts need it too."""
    known = {name: entry.p_value for name, entry in table.items() if entry.p_value is not None}
    adjusted = holm(known)
    return {
        name: replace(
            entry,
            p_holm=adjusted.get(name),
            verdict=entry.verdict if adjusted.get(name, 1.0) < alpha else NOTHING_SHOWN,
        )
        for name, entry in table.items()
    }


def _by_class(
    base: Sequence[ExampleScore],
    tuned: Sequence[ExampleScore],
    clusters: Sequence[str],
    settings: Settings,
) -> dict[str, Difference]:
    table = {}
    for name in class_names([*base, *tuned]):
        parts = []
        for before, after in zip(base, tuned, strict=True):
            (nll_before, tokens), (nll_after, tokens_after) = (
                row.nll_by_class.get(name, (0.0, 0)) for row in (before, after)
            )
            if tokens != tokens_after:
                raise IntegrityError(
                    f"row {row_name(before)} has {tokens} tokens of class {name!r} in base"
                    f" and {tokens_after} in tuned"
                )
            parts.append((nll_after - nll_before, tokens))
        ratio = class_ratio("nll_difference", parts, clusters)
        table[name] = difference(ratio, settings)
    return table
