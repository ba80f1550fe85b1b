"""Shares, McNemar and Holm: textbook cases, values worked by hand, and the ends of the range."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.clustered import Settings
from swe_scaffold.metrics.distributions import wilson_interval
from swe_scaffold.metrics.shares import (
    clustered_share,
    exact_binomial,
    holm,
    mcnemar,
    wilson_share,
)
from swe_scaffold.types import Metric

ALL = Settings()


def ends(metric: Metric) -> tuple[float, float]:
    assert metric.ci is not None
    return metric.ci


def rows(text: str) -> list[bool]:
    return [letter == "1" for letter in text]


def test_wilson_is_that_of_distributions() -> None:
    share = wilson_share("resolved", [True] * 57 + [False] * 23, ALL)
    assert ends(share) == pytest.approx(wilson_interval(57, 80))
    assert (share.value, share.n, share.reason) == (57 / 80, 80, None)
    for outcomes in ([False] * 20, [True] * 20):
        assert ends(wilson_share("resolved", outcomes, ALL)) == pytest.approx(
            wilson_interval(sum(outcomes), 20)
        )


def test_a_clustered_share_worked_by_hand() -> None:
    # Four clusters of two rows, yes in 2, 1, 0, 1 of them: CR2 is the t of the means with df 3.
    share = clustered_share("resolved", rows("11100001"), list("aabbccdd"), ALL)
    variance = ((1 - 0.5) ** 2 + 0 + (0 - 0.5) ** 2 + 0) / 3 / 4
    independent = 0.25 / 7
    t = 3.182446305283708
    n = 8 / (variance / independent)
    half = t / (1 + t * t / n) * (0.25 / n + t * t / (4 * n * n)) ** 0.5
    assert ends(share) == pytest.approx((0.5 - half, 0.5 + half))
    assert share.design_effect == pytest.approx(variance / independent)
    assert (share.clusters, share.n) == (4, 8)
    assert "few clusters" in (share.reason or "")


def test_rows_that_agree_within_their_cluster_widen_the_interval() -> None:
    clusters = [name for name in "abcdefghij" for _ in range(10)]
    apart = clustered_share("resolved", [i % 2 == 0 for i in range(100)], clusters, ALL)
    alike = clustered_share("resolved", [(i // 10) % 2 == 0 for i in range(100)], clusters, ALL)
    wide, narrow = ends(alike), ends(apart)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    # Less variance between clusters than chance would give does not narrow it.
    assert narrow == ends(wilson_share("resolved", [i % 2 == 0 for i in range(100)], ALL))


@pytest.mark.parametrize("value", [False, True])
def test_none_and_all_are_not_certain(value: bool) -> None:
    clusters = [name for name in "abcdefghij" for _ in range(3)]
    share = clustered_share("resolved", [value] * 30, clusters, ALL)
    assert ends(share) == pytest.approx(wilson_interval(10 * value, 10))
    assert "each cluster counts once" in (share.reason or "")
    alone = clustered_share("resolved", [value] * 30, [str(i) for i in range(30)], ALL)
    assert ends(alone) == pytest.approx(wilson_interval(30 * value, 30))


@pytest.mark.parametrize(
    ("outcomes", "clusters", "said"),
    [([], [], "no rows"), ([True], ["a"], "one row"), ([True, False], ["a", "a"], "one cluster")],
)
def test_what_has_no_interval_says_why(outcomes: Any, clusters: Any, said: str) -> None:
    share = clustered_share("resolved", outcomes, clusters, ALL)
    assert share.ci is None
    assert said in (share.reason or "")
    json.dumps(asdict(share), allow_nan=False)


def test_only_true_and_false_are_counted() -> None:
    for outcomes in ([0.5], ["yes"], [[True]], [1, 0]):
        with pytest.raises(UsageError, match="True and False"):
            wilson_share("resolved", outcomes, ALL)


@pytest.mark.parametrize(
    ("successes", "trials", "p"),
    [
        # scipy 1.17.1: binomtest(successes, trials).pvalue
        (0, 0, 1.0),
        (0, 5, 0.0625),
        (1, 6, 0.21875),
        (3, 6, 1.0),
        (16, 20, 0.01181793212890625),
        (3000, 6200, 0.011488253770871584),
        (0, 1100, 2 / 2**1100),
    ],
)
def test_the_exact_test_is_the_binomial_one(successes: int, trials: int, p: float) -> None:
    assert exact_binomial(successes, trials) == pytest.approx(p, rel=1e-9)
    assert exact_binomial(trials - successes, trials) == exact_binomial(successes, trials)


def test_mcnemar_counts_what_differs() -> None:
    # Agresti, Categorical Data Analysis, table of approval: 794, 150, 86, 570.
    first = [True] * 944 + [False] * 656
    second = [True] * 794 + [False] * 150 + [True] * 86 + [False] * 570
    result = mcnemar(first, second, [str(i) for i in range(1600)], ALL)
    counts = result.both, result.only_first, result.only_second, result.neither
    assert counts == (794, 150, 86, 570)
    # 2 * P(X <= 86), X ~ binomial(236, 1/2): scipy 1.17.1.
    assert result.p_value == pytest.approx(3.7159361395713866e-05, rel=1e-9)
    assert result.difference.value == pytest.approx(-0.04)
    # Agresti's large-sample interval is -0.04 +- 1.96 * 0.0095.
    assert ends(result.difference) == pytest.approx((-0.0587, -0.0213), abs=2e-4)
    assert result.clustered_p_value == pytest.approx(2.9e-5, rel=0.1)


def test_the_difference_knows_clusters_and_its_range() -> None:
    first, second = rows("1111000011110000"), rows("1111111111110000")
    alone = mcnemar(first, second, [str(i) for i in range(16)], ALL).difference
    alike = mcnemar(first, second, list("aaaabbbbccccdddd"), ALL).difference
    assert ends(alike)[1] - ends(alike)[0] > ends(alone)[1] - ends(alone)[0]
    assert ends(alike)[1] == 1.0


@pytest.mark.parametrize("value", [-1, 0, 1])
def test_the_same_difference_everywhere_is_not_certain(value: int) -> None:
    first = [value < 0] * 30
    second = [value > 0] * 30
    result = mcnemar(first, second, [f"{i % 10}" for i in range(30)], ALL)
    assert result.difference.value == value
    low, high = ends(result.difference)
    assert high - low > 0.2
    assert -1 <= low <= value <= high <= 1
    assert result.p_value == (1.0 if value == 0 else pytest.approx(2 / 2**30))


def test_mcnemar_refuses_what_is_not_paired() -> None:
    with pytest.raises(UsageError, match="second has 1 rows, first 2"):
        mcnemar([True, False], [True], ["a", "b"], ALL)
    with pytest.raises(UsageError, match="no rows"):
        mcnemar([], [], [], ALL)
    alone = mcnemar([True, False], [True, True], ["a", "a"], ALL)
    assert (alone.difference.ci, alone.clustered_p_value) == (None, None)


def test_holm_worked_by_hand() -> None:
    adjusted = holm({"d": 0.03, "a": 0.01, "c": 0.04, "b": 0.005})
    assert list(adjusted) == ["d", "a", "c", "b"]
    expected = {"b": 0.02, "a": 0.03, "d": 0.06, "c": 0.06}
    assert adjusted == pytest.approx(expected)
    assert holm({}) == {}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="'x'"):
            holm({"x": wrong})
