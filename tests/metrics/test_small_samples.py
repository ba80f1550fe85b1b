"""CR2 and Bell-McCaffrey against their definition with matrices, and where they become textbook."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.clustered import Ratio, Settings, clustered_t, small_sample_t
from swe_scaffold.metrics.discrimination import separation
from swe_scaffold.metrics.shares import clustered_share, mcnemar
from swe_scaffold.metrics.small_samples import (
    ClusteredError,
    Mean,
    cluster_sums,
    clustered_error,
    p_value,
)


def error_of(values: np.ndarray, clusters: list[str]) -> ClusteredError:
    ones = cluster_sums(np.ones(len(values)), clusters)
    error = clustered_error([Mean(cluster_sums(values - values.mean(), clusters), ones)])
    assert error is not None
    return error


def by_definition(
    values: np.ndarray, design: np.ndarray, clusters: list[str], variances: np.ndarray
) -> tuple[float, float]:
    """Return CR2 and df of the sum of the coefficients, as the papers write them."""
    contrast, rows = np.ones(design.shape[1]), np.array(clusters)
    inverse = np.linalg.inv(design.T @ design)
    hat = design @ inverse @ design.T
    left = np.eye(len(values)) - hat
    terms, columns = [], []
    for name in sorted(set(clusters)):
        inside = np.flatnonzero(rows == name)
        eigenvalues, vectors = np.linalg.eigh(left[np.ix_(inside, inside)])
        root = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
        weights = root @ design[inside] @ inverse @ contrast
        terms.append((left @ values)[inside] @ weights)
        columns.append(left[:, inside] @ weights)
    loadings = np.array(columns).T
    matrix = loadings.T @ np.diag(variances) @ loadings
    return math.sqrt(sum(t * t for t in terms)), np.trace(matrix) ** 2 / float((matrix**2).sum())


def test_one_mean_is_the_definition_with_matrices() -> None:
    stream = np.random.default_rng(4)
    clusters = [f"c{i}" for i in stream.integers(0, 6, 40)]
    values = stream.normal(size=40)
    expected = by_definition(values, np.ones((40, 1)), clusters, np.ones(40))
    error = error_of(values, clusters)
    assert (error.standard_error, error.df) == pytest.approx(expected, rel=1e-12)


def test_a_sum_of_two_means_is_the_definition_with_matrices() -> None:
    stream = np.random.default_rng(5)
    clusters = [f"c{i}" for i in stream.integers(0, 6, 40)]
    yes = stream.random(40) < 0.4
    values = stream.normal(size=40) + yes
    design = np.column_stack([yes, ~yes]).astype(float)
    means = [
        Mean(
            cluster_sums((values - values[part].mean()) * part, clusters),
            cluster_sums(part, clusters),
            variance,
        )
        for part, variance in ((yes, 0.7), (~yes, 1.9))
    ]
    expected = by_definition(values, design, clusters, np.where(yes, 0.7, 1.9))
    error = clustered_error(means)
    assert error is not None
    assert (error.standard_error, error.df) == pytest.approx(expected, rel=1e-12)


def test_equal_clusters_are_the_t_interval_of_their_means() -> None:
    values = np.array([3.1, 2.4, 4.0, 3.3, 2.2, 5.1, 3.9, 2.8, 3.0, 4.4])
    error = error_of(values, list("aabbccddee"))
    means = [statistics.fmean(values[i : i + 2]) for i in range(0, 10, 2)]
    assert error.standard_error == pytest.approx(statistics.stdev(means) / math.sqrt(5))
    assert error.df == pytest.approx(4)
    assert error.half_width(0.1) == pytest.approx(2.1318467863266495 * error.standard_error)


def test_one_large_cluster_costs_degrees_of_freedom() -> None:
    # The sizes of SWE-bench Lite's twelve repositories.
    sizes = [114, 77, 23, 23, 17, 16, 6, 6, 6, 5, 4, 3]
    clusters = [f"{name:02d}" for name, size in enumerate(sizes) for _ in range(size)]
    error = error_of(np.random.default_rng(0).normal(size=300), clusters)
    assert 3 < error.df < 4


def test_a_cluster_that_is_everything_has_no_error() -> None:
    assert clustered_error([Mean(np.zeros(2), np.array([5.0, 0.0]))]) is None
    assert clustered_error([Mean(np.zeros(2), np.zeros(2))]) is None


def test_the_small_sample_interval_of_a_ratio_is_wider_where_a_cluster_dominates() -> None:
    values = (3.1, 2.4, 4.0, 3.3, 2.2, 5.1, 3.9, 2.8, 3.0, 4.4)
    ratio = Ratio("mean", "nats/token", values, (1.0,) * 10, tuple("aaaaaabcde"), tokens=10)
    usual, small = clustered_t(ratio, Settings()), small_sample_t(ratio, Settings())
    assert usual.ci is not None
    assert small.ci is not None
    assert small.ci[0] < usual.ci[0] < usual.ci[1] < small.ci[1]
    assert (small.value, small.n, small.clusters) == (usual.value, usual.n, usual.clusters)
    assert "Bell-McCaffrey" in small.ci_method
    alone = Ratio("mean", "nats/token", values, (1.0,) * 10, ("a",) * 10, tokens=10)
    assert small_sample_t(alone, Settings()).ci is None
    heavy = Ratio("mean", "nats/token", (1.0, 2.0), (1e15, 1.0), ("a", "b"), tokens=2)
    assert small_sample_t(heavy, Settings()).ci is None
    assert "nearly every token" in (small_sample_t(heavy, Settings()).reason or "")


def test_clusters_that_dominate_are_named() -> None:
    sizes = [90, 5, 5, 5, 5, 5, 5, 5, 5]
    clusters = [f"c{name}" for name, size in enumerate(sizes) for _ in range(size)]
    stream = np.random.default_rng(1)
    values = stream.normal(size=len(clusters))
    ones = (1.0,) * len(clusters)
    ratio = Ratio("mean", "nats/token", tuple(values), ones, tuple(clusters), tokens=0)
    flags = (values > 0.2).tolist()
    for metric in (
        small_sample_t(ratio, Settings()),
        clustered_share("s", flags, clusters, Settings()),
        mcnemar(flags, (values > 0.5).tolist(), clusters, Settings()).difference,
        separation(stream.normal(size=len(flags)).tolist(), flags, clusters, Settings()).auc,
    ):
        assert metric.ci is not None
        assert "few clusters dominate" in (metric.reason or "")
    assert clustered_t(ratio, Settings()).reason is None


def test_p_values_are_students() -> None:
    assert p_value(2.200985160091639, 1.0, 11) == pytest.approx(0.05)
    assert p_value(-2.200985160091639, 1.0, 11) == pytest.approx(0.05)
    assert (p_value(0.0, 0.0, 5), p_value(1.0, 0.0, 5)) == (1.0, 0.0)


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(UsageError, match="clusters has 2 entries for 3"):
        cluster_sums([1, 2, 3], ["a", "b"])
