"""Ratios with clustered intervals: the textbook cases they must contain."""

from __future__ import annotations

import math
import statistics

import pytest

from swe_scaffold.metrics.clustered import (
    Ratio,
    Settings,
    cluster_bootstrap,
    clustered_t,
    exponentiated,
    naive_t,
)

VALUES = (3.1, 2.4, 4.0, 3.3, 2.2, 5.1, 3.9, 2.8, 3.0, 4.4)


def ratio_of(values: tuple[float, ...], clusters: str) -> Ratio:
    ones = (1.0,) * len(values)
    return Ratio("mean", "nats/token", values, ones, tuple(clusters), tokens=len(values))


def test_rows_of_their_own_give_the_textbook_t_interval_of_a_mean() -> None:
    metric = clustered_t(ratio_of(VALUES, "abcdefghij"), Settings())
    half = 2.262157162798205 * statistics.stdev(VALUES) / math.sqrt(10)
    mean = statistics.fmean(VALUES)
    assert metric.ci == pytest.approx((mean - half, mean + half))
    assert metric.design_effect == pytest.approx(1)


def test_equal_clusters_give_the_t_interval_of_their_means() -> None:
    metric = clustered_t(ratio_of(VALUES, "aabbccddee"), Settings(alpha=0.1))
    means = [statistics.fmean(VALUES[i : i + 2]) for i in range(0, 10, 2)]
    half = 2.1318467863266495 * statistics.stdev(means) / math.sqrt(5)
    mean = statistics.fmean(means)
    assert metric.ci == pytest.approx((mean - half, mean + half))
    assert (metric.level, metric.clusters, metric.n) == (0.9, 5, 10)


def test_rows_copied_within_their_cluster_add_nothing_but_to_the_naive_interval() -> None:
    once = ratio_of(VALUES, "abcdefghij")
    copied = ratio_of(VALUES * 4, "abcdefghij" * 4)
    assert clustered_t(copied, Settings()).ci == pytest.approx(clustered_t(once, Settings()).ci)
    narrow, wide = naive_t(copied, Settings()).ci, naive_t(once, Settings()).ci
    assert narrow is not None
    assert wide is not None
    assert narrow[1] - narrow[0] < 0.5 * (wide[1] - wide[0])
    bootstraps = [cluster_bootstrap(ratio, Settings(iterations=99)).ci for ratio in (once, copied)]
    assert bootstraps[0] == pytest.approx(bootstraps[1])


def test_exponentiated_keeps_everything_but_the_scale() -> None:
    metric = clustered_t(ratio_of(VALUES, "abcdefghij"), Settings())
    perplexity = exponentiated(metric, "perplexity", "per token")
    assert metric.value is not None
    assert metric.ci is not None
    assert perplexity.value == math.exp(metric.value)
    assert perplexity.ci == (math.exp(metric.ci[0]), math.exp(metric.ci[1]))
    assert (perplexity.n, perplexity.ci_method) == (metric.n, metric.ci_method)
    assert (perplexity.metric, perplexity.unit) == ("perplexity", "per token")
