"""From `ExampleScore`s to NLL per token, perplexity, bits per byte and their slices.

The corpus numbers are ratios of sums over response tokens, so batch size, order and padding cannot
move them; the mean over examples is another quantity and is named "per example". Scores come from
the engine; `comparison` pairs two models; rounding and tables belong to the rooms above.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from swe_scaffold.errors import DataError, UsageError
from swe_scaffold.metrics.clustered import (
    Ratio,
    Settings,
    cluster_bootstrap,
    clustered_t,
    exponentiated,
    naive_t,
    small_sample_t,
)
from swe_scaffold.metrics.shares import wilson_share
from swe_scaffold.metrics.slices import GROUP, cluster_labels, slices
from swe_scaffold.types import ExampleScore, Metric, SpeedrunLabel

NATS_PER_TOKEN = "nats/token"
WITHIN_GROUP_T = "t over the examples of this group"
# Far beyond any likelihood; squares of sums must stay finite.
LARGEST_NLL = 1e100


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums behind every number, and the unit of clustering."""

    examples: int
    tokens: int
    prompt_tokens: int
    bytes: int
    nll_sum: float
    clusters: int
    cluster_by: str


@dataclass(frozen=True, slots=True)
class ExampleQuantiles:
    """The per-example view: distribution of NLL per token over examples, each counted once."""

    n: int
    unit: str
    mean: float
    median: float
    p05: float
    p95: float


@dataclass(frozen=True, slots=True)
class Slice:
    """One line of a table by group, label or length."""

    nll: Metric
    per_example: ExampleQuantiles


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How many examples carry a label, and their share of all."""

    count: int
    share: Metric


@dataclass(frozen=True, slots=True)
class LikelihoodSummary:
    """What `summarise` reports; `dataclasses.asdict` of it is strict JSON.

    `slices` holds the tables of `slices.slices`; the intervals of one group treat its examples as
    independent. `by_class` is NLL by token class.
    """

    nll: Metric
    perplexity: Metric
    bits_per_byte: Metric
    nll_small_sample: Metric
    nll_bootstrap: Metric
    nll_naive: Metric
    quantiles: ExampleQuantiles
    slices: dict[str, dict[str, Slice]]
    by_class: dict[str, Metric]
    labels: dict[str, LabelCount]
    totals: Totals


def summarise(
    scores: Sequence[ExampleScore],
    *,
    cluster_by: str = "group",
    iterations: int = 9999,
    alpha: float = 0.05,
    seed: int = 0,
) -> LikelihoodSummary:
    """Summarise the scores of one model on one set of rows.

    Rows are sorted by instance_id and sha256 first and all sums are exact: order cannot matter.

    Args:
        scores: One score per example.
        cluster_by: The independent unit: "group", "repo" or "row".
        iterations: Resamples of the bootstrap interval.
        alpha: 1 - confidence level of all intervals.
        seed: Seed of the bootstrap.

    Raises:
        UsageError: There are no scores, or an option is outside its range.
        DataError: A score is not finite or has no tokens.
    """
    settings = Settings(cluster_by, iterations, alpha, seed)
    rows = ordered(scores)
    clusters = cluster_labels(rows, cluster_by)
    ratio = nll_ratio(rows, clusters)
    by_cluster = partial(clustered_t, settings=settings)
    within_group = partial(naive_t, settings=settings, method=WITHIN_GROUP_T)
    nll = by_cluster(ratio)
    return LikelihoodSummary(
        nll=nll,
        perplexity=exponentiated(nll, "perplexity", "per token"),
        bits_per_byte=by_cluster(_bits_ratio(rows, clusters)),
        nll_small_sample=small_sample_t(ratio, settings),
        nll_bootstrap=cluster_bootstrap(ratio, settings),
        nll_naive=naive_t(ratio, settings),
        quantiles=_quantiles(rows),
        slices={
            table: _slices(rows, clusters, parts, within_group if table == GROUP else by_cluster)
            for table, parts in slices(rows, cluster_by).items()
        },
        by_class=_by_class(rows, clusters, settings),
        labels=_label_counts(rows, settings),
        totals=_totals(rows, nll, cluster_by),
    )


def ordered(scores: Iterable[ExampleScore]) -> list[ExampleScore]:
    """Return the scores sorted by instance_id and sha256, each one checked.

    Raises:
        UsageError: There are no scores.
        DataError: A score is not finite, or counts no tokens or negative ones.
    """
    rows = sorted(
        scores, key=lambda row: (row.instance_id, row.sha256, row.tokens, row.bytes, row.nll_sum)
    )
    if not rows:
        raise UsageError("no scores: nothing was evaluated")
    for row in rows:
        require_usable(row)
    return rows


def nll_ratio(rows: Sequence[ExampleScore], clusters: Sequence[str]) -> Ratio:
    """Return summed NLL over response tokens."""
    return Ratio(
        metric="nll_per_token",
        unit=NATS_PER_TOKEN,
        numerators=tuple(row.nll_sum for row in rows),
        denominators=tuple(float(row.tokens) for row in rows),
        clusters=tuple(clusters),
        tokens=sum(row.tokens for row in rows),
    )


def class_names(rows: Iterable[ExampleScore]) -> list[str]:
    """Return the token classes that occur, sorted."""
    return sorted({name for row in rows for name in row.nll_by_class})


def require_usable(row: ExampleScore) -> None:
    """Refuse a score that is not finite, or counts no tokens or negative ones.

    Raises:
        DataError: It is.
    """
    where = f"score of {row.instance_id!r}"
    if not abs(row.nll_sum) < LARGEST_NLL:
        raise DataError(f"nll_sum is {row.nll_sum}, not a usable number", where=where)
    if row.tokens < 1:
        raise DataError(f"{row.tokens} response tokens: there is nothing to score", where=where)
    if row.bytes < 0:
        raise DataError(f"{row.bytes} response bytes", where=where)
    for name, (nll, tokens) in row.nll_by_class.items():
        if not abs(nll) < LARGEST_NLL or tokens < 0:
            raise DataError(f"token class {name!r} has NLL {nll} of {tokens} tokens", where=where)


def _bits_ratio(rows: Sequence[ExampleScore], clusters: Sequence[str]) -> Ratio:
    return Ratio(
        metric="bits_per_byte",
        unit="bits/byte",
        numerators=tuple(row.nll_sum / math.log(2) for row in rows),
        denominators=tuple(float(row.bytes) for row in rows),
        clusters=tuple(clusters),
        tokens=sum(row.tokens for row in rows),
    )


def _by_class(
    rows: Sequence[ExampleScore], clusters: Sequence[str], settings: Settings
) -> dict[str, Metric]:
    table = {}
    for name in class_names(rows):
        parts = [row.nll_by_class.get(name, (0.0, 0)) for row in rows]
        table[name] = clustered_t(class_ratio("nll_per_token", parts, clusters), settings)
    return table


def class_ratio(metric: str, parts: Sequence[tuple[float, int]], clusters: Sequence[str]) -> Ratio:
    """Return NLL over tokens of one token class; rows without such tokens take no part."""
    kept = [
        (nll, tokens, cluster)
        for (nll, tokens), cluster in zip(parts, clusters, strict=True)
        if tokens
    ]
    return Ratio(
        metric=metric,
        unit=NATS_PER_TOKEN,
        numerators=tuple(nll for nll, _, _ in kept),
        denominators=tuple(float(tokens) for _, tokens, _ in kept),
        clusters=tuple(cluster for _, _, cluster in kept),
        tokens=sum(tokens for _, tokens, _ in kept),
    )


def _quantiles(rows: Sequence[ExampleScore]) -> ExampleQuantiles:
    per_token = sorted(row.nll_sum / row.tokens for row in rows)
    p05, median, p95 = np.quantile(per_token, [0.05, 0.5, 0.95]).tolist()
    mean = math.fsum(per_token) / len(rows)
    return ExampleQuantiles(len(rows), NATS_PER_TOKEN, mean, median, p05, p95)


def _slices(
    rows: Sequence[ExampleScore],
    clusters: Sequence[str],
    groups: Mapping[str, Sequence[int]],
    interval: Callable[[Ratio], Metric],
) -> dict[str, Slice]:
    table = {}
    for name, indices in groups.items():
        part = [rows[index] for index in indices]
        ratio = nll_ratio(part, [clusters[index] for index in indices])
        table[name] = Slice(interval(ratio), _quantiles(part))
    return table


def _label_counts(rows: Sequence[ExampleScore], settings: Settings) -> dict[str, LabelCount]:
    table = {}
    for label in SpeedrunLabel:
        flags = [row.label == label for row in rows]
        table[label.value] = LabelCount(sum(flags), wilson_share("label_share", flags, settings))
    return table


def _totals(rows: Sequence[ExampleScore], nll: Metric, cluster_by: str) -> Totals:
    return Totals(
        examples=len(rows),
        tokens=nll.tokens,
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        bytes=sum(row.bytes for row in rows),
        nll_sum=math.fsum(row.nll_sum for row in rows),
        clusters=nll.clusters,
        cluster_by=cluster_by,
    )
