"""`summarise`: the right ratios, intervals that cover, and plain reasons where there is none."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from swe_scaffold.errors import DataError, UsageError
from swe_scaffold.metrics.bootstrap import bootstrap_confidence_interval
from swe_scaffold.metrics.likelihood import summarise
from swe_scaffold.types import ExampleScore, SpeedrunLabel

Make = Callable[..., ExampleScore]


@pytest.fixture
def three(make_score: Make) -> list[ExampleScore]:
    return [
        make_score("a-1", 10.0, 10, group="a"),
        make_score("a-2", 30.0, 10, group="a"),
        make_score("b-1", 20.0, 180, group="b"),
    ]


@pytest.fixture(scope="module")
def many(make_score: Make) -> list[ExampleScore]:
    draw = random.Random(5)
    rows = []
    for index in range(60):
        tokens = draw.randint(3, 1500)
        added = tokens // 3
        nll = tokens * draw.uniform(0.2, 2.0)
        rows.append(
            make_score(
                f"row-{index:02d}",
                nll,
                tokens,
                group=f"g{index % 9}",
                repo=f"owner/r{index % 3}",
                label=SpeedrunLabel.FAILURE if index % 4 == 0 else SpeedrunLabel.SUCCESS,
                nll_by_class={"added": (nll / 4, added), "other": (nll * 3 / 4, tokens - added)},
            )
        )
    return rows


def test_perplexity_is_exp_of_summed_nll_over_summed_tokens(three: list[ExampleScore]) -> None:
    summary = summarise(three, iterations=50)
    assert summary.nll.value == pytest.approx(0.3)
    assert summary.perplexity.value == pytest.approx(1.3499, abs=5e-5)
    assert summary.bits_per_byte.value == pytest.approx(60 / math.log(2) / 800)
    # The mean over examples, which is no perplexity: exp of it would be 3.94.
    assert math.exp(summary.quantiles.mean) == pytest.approx(3.94, abs=5e-3)
    assert (summary.totals.examples, summary.totals.tokens) == (3, 200)
    assert (summary.totals.bytes, summary.totals.nll_sum) == (800, 60.0)
    assert (summary.totals.prompt_tokens, summary.totals.cluster_by) == (150, "group")


def test_the_intervals_follow_the_formula_worked_by_hand(three: list[ExampleScore]) -> None:
    summary = summarise(three, iterations=50)
    # e = 7, 27 | -34, so E = 34 | -34 and se = sqrt(2 / 1 * 2 * 34^2) / 200 = 0.34; t(0.975, 1).
    half = 12.706204736174694 * 0.34
    assert summary.nll.ci == pytest.approx((0.3 - half, 0.3 + half))
    assert summary.nll.clusters == 2
    ends = (math.exp(0.3 - half), math.exp(0.3 + half))
    assert summary.perplexity.ci == pytest.approx(ends)
    scale = 200 / 800 / math.log(2)
    assert summary.bits_per_byte.ci == pytest.approx(((0.3 - half) * scale, (0.3 + half) * scale))
    # Three independent rows: sqrt(3 / 2 * (7^2 + 27^2 + 34^2)) / 200; t(0.975, 2).
    naive = 4.302652729749462 * math.sqrt(1.5 * 1934) / 200
    assert summary.nll_naive.ci == pytest.approx((0.3 - naive, 0.3 + naive))
    assert "independent" in summary.nll_naive.ci_method
    assert summary.nll.design_effect == pytest.approx(4624 / 2901)


def test_the_bootstrap_is_the_public_one_over_the_same_clusters(many: list[ExampleScore]) -> None:
    nll, tokens = [row.nll_sum for row in many], [row.tokens for row in many]
    groups = [row.group for row in many]
    metric = summarise(many, iterations=200, seed=6).nll_bootstrap
    assert metric.ci == bootstrap_confidence_interval(
        nll, 200, weights=tokens, clusters=groups, seed=6
    )
    assert (metric.resamples, metric.seed, metric.clusters) == (200, 6, 9)
    by_row = summarise(many, cluster_by="row", iterations=200, seed=6).nll_bootstrap
    assert by_row.ci == bootstrap_confidence_interval(nll, 200, weights=tokens, seed=6)


def test_order_cannot_matter(many: list[ExampleScore]) -> None:
    for cluster_by in ("group", "repo", "row"):
        expected = summarise(many, cluster_by=cluster_by, iterations=300)
        shuffled = list(many)
        random.Random(1).shuffle(shuffled)
        assert summarise(shuffled, cluster_by=cluster_by, iterations=300) == expected


def test_the_cluster_unit_is_the_one_asked_for(many: list[ExampleScore]) -> None:
    by_unit = {
        unit: summarise(many, cluster_by=unit, iterations=99) for unit in ("group", "repo", "row")
    }
    clusters = {unit: summary.nll.clusters for unit, summary in by_unit.items()}
    assert clusters == {"group": 9, "repo": 3, "row": 60}
    assert by_unit["row"].nll.ci == by_unit["row"].nll_naive.ci
    assert by_unit["row"].nll.design_effect == pytest.approx(1)
    assert sorted(by_unit["repo"].slices["group"]) == ["owner/r0", "owner/r1", "owner/r2"]
    assert len(by_unit["row"].slices["group"]) == 9


def test_rows_without_a_group_are_their_own_clusters(make_score: Make) -> None:
    rows = [make_score(f"r{i}", 1.0 + i, 4, group="", repo="") for i in range(3)]
    assert summarise(rows, iterations=9).nll.clusters == 3
    rows = [replace(row, repo="owner/one") for row in rows]
    assert summarise(rows, iterations=9).nll.clusters == 1


@pytest.mark.slow
def test_the_clustered_interval_covers_where_the_naive_one_does_not(make_score: Make) -> None:
    stream = np.random.default_rng(11)
    sets, covered, naive = 200, 0, 0
    for _ in range(sets):
        shared = stream.normal(0, math.sqrt(0.3), 12)
        rows = []
        for index in range(120):
            tokens = int(np.exp(stream.normal(4.5, 0.5))) + 1
            mean = 5 + shared[index % 12] + stream.normal(0, math.sqrt(0.7))
            rows.append(make_score(f"{index}", tokens * mean, tokens, group=f"{index % 12}"))
        summary = summarise(rows, iterations=1)
        covered += _covers(summary.nll.ci, 5)
        naive += _covers(summary.nll_naive.ci, 5)
    assert covered / sets > 0.88
    assert naive / sets < 0.75


def test_slices_add_up_and_carry_their_own_numbers(many: list[ExampleScore]) -> None:
    summary = summarise(many, iterations=9)
    for table in summary.slices.values():
        assert sum(part.nll.n for part in table.values()) == 60
        assert sum(part.nll.tokens for part in table.values()) == summary.totals.tokens
    group = [row for row in many if row.group == "g3"]
    expected = sum(row.nll_sum for row in group) / sum(row.tokens for row in group)
    part = summary.slices["group"]["g3"]
    assert part.nll.value == pytest.approx(expected)
    assert part.nll.ci is not None
    assert part.nll.clusters == part.nll.n == len(group)
    per_token = [row.nll_sum / row.tokens for row in group]
    assert part.per_example.median == pytest.approx(np.median(per_token))
    assert summary.slices["label"]["failure"].nll.clusters == 9


def test_deciles_of_length_hold_every_row_and_part_no_equals(make_score: Make) -> None:
    lengths = [*range(1, 41)]
    rows = [make_score(f"r{tokens}", 1.0, tokens) for tokens in lengths]
    table = summarise(rows, iterations=9).slices["length"]
    assert list(table)[:2] == ["1-4 tokens", "5-8 tokens"]
    assert [part.nll.n for part in table.values()] == [4] * 10
    equal = [make_score(f"r{index}", 1.0, 5 if index < 30 else 9) for index in range(40)]
    table = summarise(equal, iterations=9).slices["length"]
    assert {name: part.nll.n for name, part in table.items()} == {"5 tokens": 30, "9 tokens": 10}
    alone = summarise([make_score("x", 1.0, 64)], iterations=9).slices["length"]
    assert list(alone) == ["64 tokens"]


def test_quantiles_count_every_example_once(make_score: Make) -> None:
    rows = [make_score(f"r{i:03d}", i * (i + 1.0), i + 1, group=f"{i % 10}") for i in range(101)]
    quantiles = summarise(rows, iterations=9).quantiles
    found = (quantiles.n, quantiles.mean, quantiles.median, quantiles.p05, quantiles.p95)
    assert found == pytest.approx((101, 50, 50, 5, 95))


def test_token_classes_weigh_only_their_own_tokens(make_score: Make) -> None:
    rows = [
        make_score("a", 9.0, 6, group="a", nll_by_class={"added": (8.0, 2), "context": (1.0, 4)}),
        make_score("b", 4.0, 8, group="b", nll_by_class={"context": (4.0, 8), "added": (0.0, 0)}),
        make_score("c", 2.0, 2, group="c", nll_by_class={"added": (2.0, 2)}),
    ]
    table = summarise(rows, iterations=9).by_class
    assert list(table) == ["added", "context"]
    assert table["added"].value == pytest.approx(2.5)
    assert (table["added"].n, table["added"].tokens, table["added"].clusters) == (2, 4, 2)
    # e = 3 and -3, so se = sqrt(2 * 18) / 4 = 1.5.
    half = 12.706204736174694 * 1.5
    assert table["added"].ci == pytest.approx((2.5 - half, 2.5 + half))
    assert table["context"].value == pytest.approx(5 / 12)


def test_labels_have_wilson_intervals_even_where_none_occur(make_score: Make) -> None:
    labels = summarise([make_score(f"{i}", 1.0, 2) for i in range(20)], iterations=9).labels
    assert (labels["success"].count, labels["failure"].count) == (20, 0)
    assert labels["failure"].share.value == 0
    assert labels["failure"].share.ci == pytest.approx((0, 0.1611251), abs=1e-6)
    assert "independent" in labels["failure"].share.ci_method
    assert (labels["failure"].share.n, labels["failure"].share.clusters) == (20, 20)


def test_one_example_has_a_value_and_a_reason(make_score: Make) -> None:
    summary = summarise([make_score("only", 5.0, 10)])
    for metric in (summary.nll, summary.perplexity, summary.nll_bootstrap, summary.nll_naive):
        assert metric.value is not None
        assert metric.ci is None
        assert "one example" in str(metric.reason)
    assert summary.nll_bootstrap.resamples is None


def test_one_cluster_has_no_interval_but_the_naive_one(make_score: Make) -> None:
    summary = summarise([make_score(f"{i}", 5.0 + i, 10, group="one") for i in range(9)])
    for metric in (summary.nll, summary.perplexity, summary.nll_bootstrap, summary.bits_per_byte):
        assert metric.ci is None
        assert "one cluster" in str(metric.reason)
    assert summary.nll_naive.ci is not None
    assert summary.nll_naive.reason is None


@pytest.mark.parametrize(("clusters", "warned"), [(7, True), (8, False)])
def test_few_clusters_are_a_warning(make_score: Make, clusters: int, warned: bool) -> None:
    rows = [make_score(f"{i}", 5.0 + i % 5, 10, group=f"{i % clusters}") for i in range(40)]
    summary = summarise(rows, iterations=99)
    for metric in (summary.nll, summary.perplexity, summary.nll_bootstrap):
        assert metric.ci is not None
        assert ("few clusters" in str(metric.reason)) is warned


def test_perplexity_beyond_a_float_is_null_with_its_reason(make_score: Make) -> None:
    rows = [make_score(f"{i}", 8000.0 + i, 10, group=f"{i}") for i in range(9)]
    perplexity = summarise(rows, iterations=9).perplexity
    assert (perplexity.value, perplexity.ci) == (None, None)
    assert "overflow" in str(perplexity.reason)
    wide = [make_score("x", 10.0, 10, group="x"), make_score("y", 6000.0, 10, group="y")]
    summary = summarise(wide, iterations=9)
    assert summary.perplexity.value == pytest.approx(math.exp(300.5))
    assert summary.perplexity.ci is None
    assert "upper end" in str(summary.perplexity.reason)
    assert summary.nll.ci is not None


def test_no_bytes_leaves_bits_per_byte_open(make_score: Make) -> None:
    summary = summarise([make_score(f"{i}", 1.0, 1, bytes=0) for i in range(3)], iterations=9)
    assert (summary.bits_per_byte.value, summary.bits_per_byte.ci) == (None, None)
    assert "no bytes" in str(summary.bits_per_byte.reason)


def test_equal_rows_have_an_interval_of_no_width(make_score: Make) -> None:
    rows = [make_score(f"{i}", 0.1 * (i + 11), i + 11, group=f"{i % 9}") for i in range(27)]
    summary = summarise(rows, iterations=99)
    assert summary.nll.ci == pytest.approx((0.1, 0.1), abs=1e-12)
    assert summary.nll_bootstrap.ci == pytest.approx((0.1, 0.1), abs=1e-12)
    assert summary.nll.design_effect is None


def test_every_output_is_strict_json(
    many: list[ExampleScore], make_score: Make, strict_json: Callable[[Any], Any]
) -> None:
    awkward = [make_score("x", 9000.0, 1, bytes=0, nll_by_class={"empty": (0.0, 0)})]
    for rows in (many, awkward):
        seen = strict_json(summarise(rows, iterations=99))
        assert list(seen["nll"]) == [
            *("metric", "value", "unit", "n", "tokens", "clusters", "ci", "ci_method", "level"),
            *("resamples", "seed", "design_effect", "reason"),
        ]
        assert seen["nll"]["level"] == 0.95
        assert json.dumps(seen, allow_nan=False)
    assert seen["by_class"]["empty"]["value"] is None


@pytest.mark.parametrize(
    "fields",
    [
        {"nll_sum": math.nan},
        {"nll_sum": math.inf},
        {"nll_sum": 1e200},
        {"tokens": 0},
        {"tokens": -3},
        {"bytes": -1},
        {"nll_by_class": {"added": (math.nan, 3)}},
        {"nll_by_class": {"added": (1.0, -3)}},
    ],
)
def test_an_unusable_score_is_named(make_score: Make, fields: dict[str, Any]) -> None:
    rows = [make_score("good", 1.0, 2), replace(make_score("bad-row", 1.0, 2), **fields)]
    with pytest.raises(DataError, match="bad-row"):
        summarise(rows)


@pytest.mark.parametrize(
    "options",
    [{"cluster_by": "label"}, {"alpha": 95}, {"iterations": 0}, {"seed": -1}, {"seed": 0.5}],
)
def test_options_are_checked_before_any_work(make_score: Make, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        summarise([make_score("only", 1.0, 2)], **options)


def test_no_scores_are_an_error() -> None:
    with pytest.raises(UsageError, match="no scores"):
        summarise([])


def _covers(ci: tuple[float, float] | None, truth: float) -> bool:
    assert ci is not None
    return ci[0] <= truth <= ci[1]
