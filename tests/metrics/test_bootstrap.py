"""The public bootstrap: its documented stream, its units, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.bootstrap import bootstrap_confidence_interval


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    stream = np.random.default_rng(7)
    tokens = stream.integers(5, 300, 37)
    return {
        "tokens": tokens.tolist(),
        "nll": (tokens * stream.gamma(4, 0.2, 37)).tolist(),
        "base": (tokens * stream.gamma(4, 0.3, 37)).tolist(),
        "repo": [f"r{index % 5}" for index in range(37)],
    }


@pytest.mark.parametrize("iterations", [1, 499, 500, 501, 1703])
def test_the_stream_is_the_documented_one(rows: dict[str, Any], iterations: int) -> None:
    values, weights = np.array(rows["nll"]), np.array(rows["tokens"], dtype=float)
    drawn = np.random.default_rng(3).integers(0, 37, (iterations, 37))
    ratios = values[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    expected = tuple(np.quantile(ratios, [0.05, 0.95]))
    interval = bootstrap_confidence_interval(
        rows["nll"], iterations, 0.1, weights=rows["tokens"], seed=3
    )
    assert interval == expected


def test_a_large_sample_is_drawn_in_smaller_blocks_of_the_same_stream() -> None:
    values = np.random.default_rng(0).normal(size=30_001)
    drawn = np.random.default_rng(0).integers(0, 30_001, (200, 30_001))
    expected = tuple(np.quantile(values[drawn].mean(axis=1), [0.025, 0.975]))
    assert bootstrap_confidence_interval(values, 200) == pytest.approx(expected, rel=1e-12)


def test_clusters_are_drawn_whole_in_the_order_of_their_labels(rows: dict[str, Any]) -> None:
    values, weights = np.array(rows["nll"]), np.array(rows["tokens"], dtype=float)
    sums, sizes = (np.array([col[g::5].sum() for g in range(5)]) for col in (values, weights))
    drawn = np.random.default_rng(0).integers(0, 5, (1000, 5))
    expected = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    interval = bootstrap_confidence_interval(
        rows["nll"], 1000, clusters=rows["repo"], weights=rows["tokens"]
    )
    assert interval == pytest.approx(tuple(expected), rel=1e-12)


def test_with_clusters_row_order_cannot_matter(rows: dict[str, Any]) -> None:
    def interval(order: list[int]) -> tuple[float, float]:
        nll, tokens, repo = ([rows[key][i] for i in order] for key in ("nll", "tokens", "repo"))
        return bootstrap_confidence_interval(nll, 300, clusters=repo, weights=tokens)

    shuffled = np.random.default_rng(1).permutation(37).tolist()
    assert interval(shuffled) == interval(list(range(37)))


def test_paired_is_the_interval_of_the_differences(rows: dict[str, Any]) -> None:
    differences = [a - b for a, b in zip(rows["nll"], rows["base"], strict=True)]
    paired = bootstrap_confidence_interval(
        rows["nll"], 500, weights=rows["tokens"], paired=rows["base"]
    )
    assert paired == bootstrap_confidence_interval(differences, 500, weights=rows["tokens"])


def test_pairing_narrows_what_shares_its_noise() -> None:
    stream = np.random.default_rng(2)
    base = stream.normal(3, 1, 40)
    tuned = base - 0.2 + stream.normal(0, 0.05, 40)
    low, high = bootstrap_confidence_interval(tuned, 999, paired=base)
    alone = bootstrap_confidence_interval(tuned, 999)
    assert -0.25 < low < high < -0.15
    assert high - low < 0.2 * (alone[1] - alone[0])


def test_without_weights_the_statistic_is_the_mean() -> None:
    low, high = bootstrap_confidence_interval([1.0, 3.0], 2000)
    assert (low, high) == (1.0, 3.0)
    flags = bootstrap_confidence_interval([True, False] * 50, 500)
    assert 0.3 < flags[0] < 0.5 < flags[1] < 0.7


def test_more_confidence_is_a_wider_interval(rows: dict[str, Any]) -> None:
    wide = bootstrap_confidence_interval(rows["nll"], 999, 0.01)
    narrow = bootstrap_confidence_interval(rows["nll"], 999, 0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_seed_decides(rows: dict[str, Any]) -> None:
    first, again, other = (
        bootstrap_confidence_interval(rows["nll"], 200, seed=seed) for seed in (4, 4, 5)
    )
    assert first == again != other


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("options", [{}, {"clusters": list("aab")}, {"clusters": list("abc")}])
def test_constant_data_gives_the_constant_twice(options: dict[str, Any], method: str) -> None:
    assert bootstrap_confidence_interval([0.1] * 3, 200, method=method, **options) == (0.1, 0.1)


def test_clusters_of_one_row_each_are_the_rows(rows: dict[str, Any]) -> None:
    names = [f"{index:02d}" for index in range(37)]
    for method in ("percentile", "bca"):
        options = {"weights": rows["tokens"], "method": method}
        assert bootstrap_confidence_interval(
            rows["nll"], 400, clusters=names, **options
        ) == bootstrap_confidence_interval(rows["nll"], 400, **options)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_rows_without_tokens_and_value_take_no_part(rows: dict[str, Any], method: str) -> None:
    def interval(**columns: list[Any]) -> tuple[float, float]:
        return bootstrap_confidence_interval(columns.pop("values"), 300, method=method, **columns)

    nll, tokens, repo = rows["nll"], rows["tokens"], rows["repo"]
    padded = {"values": [0.0, *nll, 0.0], "weights": [0, *tokens, 0]}
    assert interval(**padded) == interval(values=nll, weights=tokens)
    # One empty row within a cluster, one that is a cluster by itself.
    assert interval(**padded, clusters=["r1", *repo, "r9"]) == interval(
        values=nll, weights=tokens, clusters=repo
    )


@pytest.mark.parametrize("scale", [1e-250, 1e-3, 1e250])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_unit_of_measure_is_free(scale: float, method: str) -> None:
    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0, 7.0])
    plain = bootstrap_confidence_interval(values, 300, method=method)
    scaled = bootstrap_confidence_interval(values * scale, 300, method=method)
    assert scaled == pytest.approx(tuple(end * scale for end in plain), rel=1e-9)


# Made with scipy 1.17.1: bootstrap(..., paired=True, method="BCa", rng=default_rng(3)).
BCA = {
    "rows": (0.6592752803091313, 0.8813746509893188),
    "clusters": (0.6576288312563152, 0.8472242566280943),
    "skewed": (5.577309534728453, 19.70978922656184),
}


@pytest.mark.parametrize("case", sorted(BCA))
def test_bca_is_what_scipy_gives(rows: dict[str, Any], case: str) -> None:
    columns = bca_case(rows, case)
    interval = bootstrap_confidence_interval(
        columns.pop("values"), 1999, 0.1, method="bca", seed=3, **columns
    )
    assert interval == pytest.approx(BCA[case], rel=1e-12)


@pytest.mark.parametrize("case", ["rows", "clusters", "skewed"])
def test_bca_is_what_scipy_gives_here(rows: dict[str, Any], case: str) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    columns = bca_case(rows, case)
    values, weights = np.array(columns["values"]), np.array(columns["weights"], dtype=float)
    if "clusters" in columns:
        values, weights = (np.array([c[g::5].sum() for g in range(5)]) for c in (values, weights))
    expected = stats.bootstrap(
        (values, weights),
        lambda v, w, axis: v.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=1999,
        confidence_level=0.9,
        method="BCa",
        rng=np.random.default_rng(3),
    ).confidence_interval
    interval = bootstrap_confidence_interval(
        columns.pop("values"), 1999, 0.1, method="bca", seed=3, **columns
    )
    assert interval == pytest.approx((expected.low, expected.high), rel=1e-12)


def bca_case(rows: dict[str, Any], case: str) -> dict[str, Any]:
    if case == "skewed":
        return {"values": np.exp(np.linspace(-2, 4, 15)).tolist(), "weights": [1] * 15}
    # Whole numbers: a resample that repeats the data equals the estimate to the last bit.
    columns = {"values": np.rint(rows["nll"]), "weights": rows["tokens"]}
    return {**columns, "clusters": rows["repo"]} if case == "clusters" else columns


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([0.3, 0.9, 0.4], {"iterations": 1}),
        # All the weight in one unit: without it there is nothing to divide by.
        ([3.0, 1.0, 1.0], {"weights": [1e200, 1.0, 1.0]}),
        # Both resamples lie above the estimate.
        ([1.0, 1.0, 2.0], {"iterations": 2, "seed": 4}),
    ],
)
def test_where_bca_is_undefined_the_percentile_interval_stands_in(
    values: list[float], options: dict[str, Any]
) -> None:
    percentile = bootstrap_confidence_interval(values, **options)
    assert bootstrap_confidence_interval(values, method="bca", **options) == percentile


def test_bca_moves_the_interval_of_skewed_data_to_the_tail() -> None:
    values = np.exp(np.linspace(-2, 4, 15))
    percentile = bootstrap_confidence_interval(values, 1999)
    bca = bootstrap_confidence_interval(values, 1999, method="bca")
    assert bca[0] > percentile[0]
    assert bca[1] > percentile[1]


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ([], {}, "no values"),
        ([1.0], {}, "one row"),
        ([1.0, 2.0], {"clusters": ["a", "a"]}, "one cluster"),
        ([1.0, math.nan], {}, "entry 2"),
        ([math.inf, 1.0], {}, "entry 1"),
        ([1e308, 1e308], {}, "finite"),
        ([1.0, None], {}, "numbers"),
        (["1", "2"], {}, "numbers"),
        ([[1.0], [2.0]], {}, "numbers"),
        ([[1.0], [2.0, 3.0]], {}, "numbers"),
        ([0.0, 0.0], {"weights": [0, 0]}, "every weight is 0"),
        ([1.0, 2.0], {"weights": [0, 0]}, "positive"),
        ([1.0, 0.0], {"weights": [2, 0]}, "one row"),
        ([1.0, 0.0], {"weights": [2, 0], "clusters": ["a", "b"]}, "one cluster"),
        ([1.0, 2.0], {"weights": [1, 0], "paired": [1.0, 2.5]}, "positive"),
        ([1.0, 2.0], {"weights": [1, 0]}, "positive"),
        ([1.0, 2.0], {"weights": [1, -1]}, "positive"),
        ([1.0, 2.0], {"weights": [1, math.nan]}, "finite"),
        ([1.0, 2.0], {"weights": [1]}, "weights has 1"),
        ([1.0, 2.0], {"paired": [1, 2, 3]}, "paired has 3"),
        ([1.0, 2.0], {"clusters": ["a"]}, "clusters has 1"),
        ([1.0, 2.0], {"alpha": 0}, "alpha"),
        ([1.0, 2.0], {"alpha": 1}, "alpha"),
        ([1.0, 2.0], {"alpha": 95}, "alpha"),
        ([1.0, 2.0], {"alpha": math.nan}, "alpha"),
        ([1.0, 2.0], {"iterations": 0}, "iterations"),
        ([1.0, 2.0], {"iterations": 1.5}, "iterations"),
        ([1.0, 2.0], {"iterations": True}, "iterations"),
        ([1.0, 2.0], {"seed": -1}, "seed"),
        ([1.0, 2.0], {"seed": None}, "seed"),
        ([1.0, 2.0], {"method": "basic"}, "basic"),
        ([1.0], {"method": "bca"}, "one row"),
        ([1.0, 2.0], {"method": "bca", "clusters": ["a", "a"]}, "one cluster"),
    ],
)
def test_what_has_no_interval_is_refused_in_words(
    values: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        bootstrap_confidence_interval(values, **{"iterations": 50, **options})
    assert isinstance(caught.value, ValueError)
