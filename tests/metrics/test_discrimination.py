"""AUC and its interval: counted by hand, DeLong's variance, and where there is no interval."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.clustered import Settings
from swe_scaffold.metrics.discrimination import separation, separation_within
from swe_scaffold.metrics.distributions import student_t_quantile

ALL = Settings()


def sample(size: int = 60, clusters: int = 10) -> tuple[list[float], list[bool], list[str]]:
    stream = np.random.default_rng(8)
    flags = stream.random(size) < 0.4
    scores = np.round(stream.normal(size=size) + flags, 1)
    return scores.tolist(), flags.tolist(), [f"c{i % clusters}" for i in range(size)]


def by_pairs(scores: list[float], flags: list[bool]) -> float:
    yes = [s for s, flag in zip(scores, flags, strict=True) if flag]
    no = [s for s, flag in zip(scores, flags, strict=True) if not flag]
    return sum((a > b) + (a == b) / 2 for a in yes for b in no) / (len(yes) * len(no))


def test_ties_count_half() -> None:
    found = separation([1, 2, 2, 3], [False, False, True, True], list("abcd"), ALL)
    # Pairs: 2>1, 2=2, 3>1, 3>2.
    assert found.auc.value == 3.5 / 4
    assert (found.positives, found.negatives, found.auc.n) == (2, 2, 4)


def test_the_auc_is_that_of_all_pairs_and_its_mirror() -> None:
    scores, flags, clusters = sample()
    found = separation(scores, flags, clusters, ALL).auc
    assert found.value == pytest.approx(by_pairs(scores, flags))
    mirror = separation([-s for s in scores], flags, clusters, ALL).auc
    assert mirror.value == pytest.approx(1 - by_pairs(scores, flags))
    assert found.ci is not None
    assert mirror.ci == pytest.approx((1 - found.ci[1], 1 - found.ci[0]))


def test_rows_of_their_own_have_delongs_variance() -> None:
    scores, flags, _ = sample()
    found = separation(scores, flags, [f"{i:02d}" for i in range(60)], ALL).auc
    yes, no = (
        [s for s, f in zip(scores, flags, strict=True) if f is kind] for kind in (True, False)
    )
    above = [sum((a > b) + (a == b) / 2 for b in no) / len(no) for a in yes]
    below = [sum((a > b) + (a == b) / 2 for a in yes) / len(yes) for b in no]
    variance = np.var(above, ddof=1) / len(yes) + np.var(below, ddof=1) / len(no)
    auc = by_pairs(scores, flags)
    assert found.ci is not None
    logits = [math.log(end / (1 - end)) for end in found.ci]
    assert sum(logits) / 2 == pytest.approx(math.log(auc / (1 - auc)))
    quantile = (logits[1] - logits[0]) / 2 * auc * (1 - auc) / math.sqrt(variance)
    assert student_t_quantile(0.975, 58) < quantile < student_t_quantile(0.975, 20)
    assert found.design_effect == pytest.approx(1)


def test_clusters_that_share_class_and_score_widen_the_interval() -> None:
    scores, flags, _ = sample(20)
    alone = separation(scores, flags, [f"{i:02d}" for i in range(20)], ALL).auc
    copies = separation(scores * 5, flags * 5, [f"{i:02d}" for i in range(20)] * 5, ALL).auc
    blind = separation(scores * 5, flags * 5, [f"{i:03d}" for i in range(100)], ALL).auc
    assert alone.ci is not None
    assert copies.ci is not None
    assert blind.ci is not None
    assert copies.ci == pytest.approx(alone.ci, abs=0.03)
    assert blind.ci[1] - blind.ci[0] < 0.6 * (copies.ci[1] - copies.ci[0])
    assert copies.design_effect == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize(
    ("scores", "flags", "clusters", "value", "said"),
    [
        ([], [], "", None, "no positive"),
        ([1, 2], [True, True], "ab", None, "no negative"),
        ([1, 2], [False, False], "ab", None, "no positive"),
        ([1, 2, 3], [False, True, True], "abc", 1.0, "one order"),
        ([3, 2, 1], [False, True, True], "abc", 0.0, "one order"),
        ([1, 3, 2, 0], [True, False, True, False], "aaaa", 0.5, "one cluster"),
        ([1, 3, 2, 0], [True, False, True, False], "abac", 0.5, "whole class"),
        ([5, 5, 5, 5], [True, False, True, False], "abcd", 0.5, "no variance"),
    ],
)
def test_what_has_no_interval_says_why(
    scores: list[float], flags: list[bool], clusters: str, value: float | None, said: str
) -> None:
    found = separation(scores, flags, list(clusters), ALL)
    assert found.auc.value == value
    assert found.auc.ci is None
    assert said in (found.auc.reason or "")
    json.dumps(asdict(found), allow_nan=False)


def test_an_auc_near_its_end_stays_within_it() -> None:
    scores = [float(i) for i in range(40)]
    flags = [i >= 20 for i in range(40)]
    flags[19], flags[20] = True, False
    found = separation(scores, flags, [f"{i % 8}" for i in range(40)], ALL).auc
    assert found.ci is not None
    assert 0 < found.ci[0] < (found.value or 0) < found.ci[1] < 1


def test_within_a_stratum_only_its_own_pairs_count() -> None:
    # Task x: resolved 9 and 8 against 1; task y: resolved 0 against 5; z has one class only.
    scores = [9.0, 8.0, 1.0, 0.0, 5.0, 100.0]
    flags = [True, True, False, True, False, True]
    found = separation_within(scores, flags, list("xxxyyz"), list("aaabbc"), ALL)
    assert found.auc.value == pytest.approx(2 / 3)
    assert (found.auc.n, found.auc.clusters) == (2, 2)
    assert found.auc.ci == (0.0, 1.0)
    ties = separation_within([1.0] * 6, flags, list("xxxyyz"), list("aaabbc"), ALL).auc
    assert (ties.value, ties.ci) == (0.5, None)
    assert "no variance" in (ties.reason or "")
    none = separation_within(scores[5:], flags[5:], ["z"], ["c"], ALL)
    assert "no stratum" in (none.auc.reason or "")
    with pytest.raises(UsageError, match="'x' lies in 2 clusters"):
        separation_within([1, 2], [True, False], ["x", "x"], ["a", "b"], ALL)


@pytest.mark.parametrize(
    ("scores", "flags", "clusters", "said"),
    [
        ([1, math.nan], [True, False], ["a", "b"], "entry 2"),
        ([1, 2], [1, 0], ["a", "b"], "True or False"),
        ([1, 2], [True], ["a", "b"], "do not match"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    scores: Any, flags: Any, clusters: Any, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        separation(scores, flags, clusters, ALL)
