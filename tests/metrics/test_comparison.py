"""`compare`: paired, by cluster, on the same rows only, and silent where nothing is shown."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from swe_scaffold.errors import DataError, IntegrityError, UsageError
from swe_scaffold.metrics.bootstrap import bootstrap_confidence_interval
from swe_scaffold.metrics.comparison import compare
from swe_scaffold.metrics.likelihood import summarise
from swe_scaffold.types import ExampleScore

Make = Callable[..., ExampleScore]
Pair = tuple[list[ExampleScore], list[ExampleScore]]


@pytest.fixture(scope="session")
def pair(make_score: Make) -> Callable[..., Pair]:
    """Return a builder of base and tuned scores with given differences and groups."""

    def build(
        differences: Sequence[float], groups: Sequence[object] | None = None, tokens: int = 10
    ) -> Pair:
        names = list(range(len(differences))) if groups is None else list(groups)
        base = [
            make_score(f"row-{i:03d}", 100.0, tokens, group=f"g{name}")
            for i, name in enumerate(names)
        ]
        tuned = [
            replace(row, nll_sum=row.nll_sum + d) for row, d in zip(base, differences, strict=True)
        ]
        return base, tuned

    return build


@pytest.fixture(scope="module")
def noisy(make_score: Make) -> Pair:
    draw = random.Random(3)
    base: list[ExampleScore] = []
    tuned: list[ExampleScore] = []
    for index in range(60):
        tokens = draw.randint(5, 200)
        level = draw.gauss(3, 1)
        scores = [(level, base), (level - 0.2 + draw.gauss(0, 0.1), tuned)]
        for mean, rows in scores:
            rows.append(
                make_score(
                    f"row-{index:02d}",
                    tokens * mean,
                    tokens,
                    group=f"g{index % 20}",
                    repo=f"owner/r{index % 10}",
                    nll_by_class={"added": (tokens * mean / 2, tokens // 2 + 1)},
                )
            )
    return base, tuned


def test_the_effect_follows_the_formula_worked_by_hand(make_score: Make) -> None:
    base = [
        make_score("a-1", 20.0, 10, group="a"),
        make_score("a-2", 30.0, 10, group="a"),
        make_score("b-1", 50.0, 80, group="b"),
    ]
    tuned = [replace(row, nll_sum=nll) for row, nll in zip(base, (15.0, 31.0, 34.0), strict=True)]
    report = compare(base, tuned, iterations=300, seed=2)
    # d = -5, 1 | -16 over 100 tokens; E = -4 + 4 | -16 + 16 = 0, so the clusters agree exactly.
    assert report.effect.value == pytest.approx(-0.2)
    assert report.effect.ci == pytest.approx((-0.2, -0.2))
    assert report.perplexity_ratio.value == pytest.approx(math.exp(-0.2))
    assert report.perplexity_ratio.ci == pytest.approx((math.exp(-0.2),) * 2)
    assert (report.base_nll, report.tuned_nll) == pytest.approx((1.0, 0.8))
    # By row e = -3, 3, 0: se = sqrt(3 / 2 * 18) / 100 and t(0.975, 2).
    by_row = compare(base, tuned, cluster_by="row", iterations=300, seed=2)
    half = 4.302652729749462 * math.sqrt(27) / 100
    assert by_row.effect.ci == pytest.approx((-0.2 - half, -0.2 + half))
    expected = bootstrap_confidence_interval(
        [15.0, 31.0, 34.0], 300, weights=[10, 10, 80], paired=[20.0, 30.0, 50.0], seed=2
    )
    assert by_row.effect_bootstrap.ci == pytest.approx(expected)


def test_order_cannot_matter(noisy: Pair) -> None:
    base, tuned = (list(rows) for rows in noisy)
    expected = compare(base, tuned, iterations=300)
    random.Random(1).shuffle(base)
    random.Random(2).shuffle(tuned)
    assert compare(base, tuned, iterations=300) == expected


def test_a_gain_on_every_row_is_better_and_its_mirror_is_worse(noisy: Pair) -> None:
    base, tuned = noisy
    report, mirror = compare(base, tuned, iterations=999), compare(tuned, base, iterations=999)
    assert (report.verdict, mirror.verdict) == ("better", "worse")
    assert report.effect.value is not None
    assert mirror.effect.value == pytest.approx(-report.effect.value)
    assert (mirror.rows.better, mirror.rows.worse) == (report.rows.worse, report.rows.better)
    assert mirror.sign_flip.p_value == report.sign_flip.p_value < 0.01


def test_pairing_shows_what_two_separate_intervals_hide(noisy: Pair) -> None:
    base, tuned = noisy
    paired = compare(base, tuned, iterations=99).effect.ci
    alone = [summarise(rows, iterations=99).nll.ci for rows in noisy]
    assert paired is not None
    assert alone[0] is not None
    assert alone[1] is not None
    assert paired[1] < 0
    assert alone[1][1] > alone[0][0]


def test_a_model_against_itself_shows_nothing(noisy: Pair) -> None:
    report = compare(noisy[0], noisy[0], iterations=99)
    assert (report.effect.value, report.effect.ci) == (0.0, (0.0, 0.0))
    assert report.effect_bootstrap.ci == (0.0, 0.0)
    assert report.sign_flip.p_value == 1
    assert (report.rows.better, report.rows.worse, report.rows.equal) == (0, 0, 60)
    assert report.verdict == "no difference shown"


def test_less_than_the_precision_of_evaluation_is_no_difference(pair: Callable[..., Pair]) -> None:
    report = compare(*pair([-5e-6] * 10), iterations=99)
    assert report.rows.equal == 10
    assert report.verdict == "no difference shown"


def test_a_gain_of_one_group_alone_is_not_shown(pair: Callable[..., Pair]) -> None:
    differences = [-5.0 if index % 10 == 0 else 0.0 for index in range(100)]
    report = compare(*pair(differences, [i % 10 for i in range(100)]), iterations=999)
    assert report.verdict == "no difference shown"
    assert compare(*pair(differences), iterations=99).verdict == "better"
    assert report.slices["group"]["g0"].effect.value == pytest.approx(-0.5)
    assert (report.slices["group"]["g0"].rows.better, report.slices["group"]["g1"].rows.equal) == (
        10,
        10,
    )
    assert report.effect.design_effect is not None
    assert report.effect.design_effect > 5


def test_a_verdict_needs_the_interval_for_unequal_clusters_too(pair: Callable[..., Pair]) -> None:
    # Two clusters hold two thirds of the rows, as in SWE-bench Lite.
    sizes = [114, 77, 23, 23, 17, 16, 6, 6, 6, 5, 4, 3]
    shifts = [-1.0, -0.4, *[0.2, -0.6] * 5]
    differences = [shift for size, shift in zip(sizes, shifts, strict=True) for _ in range(size)]
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    report = compare(*pair(differences, groups), iterations=99)
    assert report.effect.ci is not None
    assert report.effect_small_sample.ci is not None
    assert report.effect.ci[1] < 0 < report.effect_small_sample.ci[1]
    assert report.verdict == "no difference shown"


def test_sign_flips_are_those_of_brute_force(pair: Callable[..., Pair]) -> None:
    differences = [-3.0, 1.0, -2.5, -0.5, 2.0, -4.0, 0.25, -1.0]
    groups = ["a", "a", "b", "c", "c", "d", "e", "e"]
    sums = [-2.0, -2.5, 1.5, -4.0, -0.75]
    flipped = [
        abs(sum(s * x for s, x in zip(signs, sums, strict=True)))
        for signs in itertools.product((1, -1), repeat=5)
    ]
    expected = sum(value >= 7.75 for value in flipped) / 32
    test = compare(*pair(differences, groups), iterations=9).sign_flip
    assert test.p_value == expected
    assert 2 / 32 < expected < 0.5
    assert (test.exact, test.flips, test.clusters, test.smallest_p) == (True, 32, 5, 2 / 32)


def test_ties_of_rounding_count_as_extreme(pair: Callable[..., Pair]) -> None:
    test = compare(*pair([0.6, 0.8, -0.6, 0.2, 0.4, 0.1]), iterations=9).sign_flip
    sums = [6, 8, -6, 2, 4, 1]
    count = sum(
        abs(sum(s * x for s, x in zip(signs, sums, strict=True))) >= 15
        for signs in itertools.product((1, -1), repeat=6)
    )
    assert test.p_value == count / 64


def test_sign_flips_are_exact_up_to_sixteen_clusters_and_drawn_beyond(
    pair: Callable[..., Pair],
) -> None:
    differences = [-1.0] * 12 + [1.0] * 4
    exact = compare(*pair(differences), iterations=9).sign_flip
    extreme = sum(math.comb(16, k) for k in range(17) if abs(16 - 2 * k) >= 8)
    assert exact.p_value == extreme / 2**16
    assert (exact.exact, exact.flips, exact.seed) == (True, 2**16, None)
    drawn = compare(*pair([*differences, -1.0]), seed=4).sign_flip
    expected = sum(math.comb(17, k) for k in range(18) if abs(17 - 2 * k) >= 9) / 2**17
    assert drawn.p_value == pytest.approx(expected, abs=4 * math.sqrt(expected / 9999))
    assert (drawn.exact, drawn.flips, drawn.seed) == (False, 9999, 4)


def test_a_drawn_p_value_is_never_zero(pair: Callable[..., Pair]) -> None:
    test = compare(*pair([-1.0] * 40), iterations=499).sign_flip
    assert test.p_value == test.smallest_p == 1 / 500


def test_the_minimum_detectable_effect_of_the_reference(pair: Callable[..., Pair]) -> None:
    # 50 rows whose differences have a standard deviation of 0.15 nats per token: 0.059 nats.
    size = 0.15 * math.sqrt(49 / 50) * 10
    differences = [size if index % 2 else -size for index in range(50)]
    independent = compare(*pair(differences), iterations=9)
    assert independent.minimum_detectable_effect == pytest.approx(0.0594, abs=5e-5)
    # The same rows in 10 clusters of five equal ones: the design effect is about 5.
    groups = [2 * (index // 10) + index % 2 for index in range(50)]
    clustered = compare(*pair(differences, groups), iterations=9)
    assert clustered.effect.design_effect == pytest.approx(5 * 10 / 9 * 49 / 50)
    assert clustered.minimum_detectable_effect == pytest.approx(0.0594 * 2.3333, rel=1e-3)


def test_balanced_clusters_do_not_flatter_the_minimum_detectable_effect(
    pair: Callable[..., Pair],
) -> None:
    differences = [1.0 if index % 2 else -1.0 for index in range(50)]
    report = compare(*pair(differences, [index // 5 for index in range(50)]), iterations=9)
    plain = compare(*pair(differences), iterations=9)
    assert report.effect.design_effect is not None
    assert report.effect.design_effect < 1
    assert report.minimum_detectable_effect == plain.minimum_detectable_effect


def test_every_table_says_what_each_part_shows(make_score: Make) -> None:
    base, tuned = [], []
    for index in range(40):
        language, source = ("python", "patch") if index % 2 else ("rust", "test_patch")
        row = make_score(
            f"r{index:02d}",
            100.0,
            10 + index,
            group=f"g{index % 10}",
            language=language,
            response_source=source,
        )
        base.append(row)
        gain = -3.0 - index % 3 if language == "python" else (-1) ** (index // 2) * 0.5
        tuned.append(replace(row, nll_sum=100.0 + gain))
    report = compare(base, tuned, iterations=499)
    table = report.slices["language"]
    assert (table["python"].verdict, table["rust"].verdict) == ("better", "no difference shown")
    assert table["python"].rows.better == 20
    assert table["rust"].minimum_detectable_effect is not None
    assert report.slices["response_source"]["patch"] == table["python"]
    assert list(report.slices["label"]) == ["success"]
    assert len(report.slices["length"]) == 10
    assert sum(part.effect.n for part in report.slices["length"].values()) == 40
    for parts in report.slices.values():
        for part in parts.values():
            assert part.p_holm is not None
            assert part.p_value <= part.p_holm <= 1
    # Two tests in this table: the smaller p-value counts double.
    assert table["python"].p_holm == pytest.approx(2 * table["python"].p_value)


def test_a_part_is_not_claimed_for_being_one_of_many(make_score: Make) -> None:
    """Of forty parts without any difference, two would be claimed by their own intervals."""
    stream, base, tuned = np.random.default_rng(0), [], []
    for index in range(400):
        row = make_score(
            f"r{index:03d}", 100.0, 10, group=f"g{index % 8}", language=f"l{index // 10}"
        )
        base.append(row)
        tuned.append(replace(row, nll_sum=100.0 + stream.normal()))
    table = compare(base, tuned, iterations=9).slices["language"]
    alone = [part for part in table.values() if part.p_value is not None and part.p_value < 0.05]
    assert alone
    assert {part.verdict for part in table.values()} == {"no difference shown"}


def test_bytes_are_what_two_tokenizers_share(pair: Callable[..., Pair]) -> None:
    base, tuned = pair([-4.0, -6.0, -5.0])
    other = [replace(row, tokens=7, nll_by_class={"end": (1.0, 1)}) for row in tuned]
    with pytest.raises(IntegrityError, match="response tokens"):
        compare(base, other)
    report = compare(base, other, iterations=9, per="byte")
    assert report.effect.unit == "bits/byte"
    assert report.effect.value == pytest.approx(-15 / math.log(2) / 120)
    assert report.perplexity_ratio is None
    assert "token_class" not in report.slices
    with pytest.raises(IntegrityError, match="response bytes"):
        compare(base, [replace(row, bytes=row.bytes + 1) for row in other], per="byte")


def test_the_worst_rows_are_listed_first(pair: Callable[..., Pair]) -> None:
    report = compare(*pair([-1.0, 4.0, 0.5, -2.0, 3.0, 0.1, 0.2]), iterations=9)
    assert [row.difference for row in report.worst] == pytest.approx([4.0, 3.0, 0.5, 0.2, 0.1])
    first = report.worst[0]
    assert (first.instance_id, first.base_nll_sum, first.tuned_nll_sum) == ("row-001", 100, 104)
    assert (report.rows.better, report.rows.worse) == (2, 5)


def test_classes_are_compared_over_their_own_tokens(make_score: Make) -> None:
    def scores(added: float, context: float) -> list[ExampleScore]:
        rows = []
        for index in range(10):
            noise = index % 2 / 10
            classes = {"added": (added + noise, 4), "context": (context, 6), "none": (0.0, 0)}
            rows.append(
                make_score(
                    f"{index}", added + context + noise, 10, group=f"{index}", nll_by_class=classes
                )
            )
        return rows

    table = compare(scores(8.0, 3.0), scores(4.0, 3.0), iterations=9).slices["token_class"]
    assert table["added"].effect.value == pytest.approx(-1.0)
    assert table["added"].effect.ci == pytest.approx((-1.0, -1.0))
    assert (table["context"].effect.value, table["context"].effect.tokens) == (0, 60)
    assert table["none"].effect.value is None
    without = [replace(row, nll_by_class={}) for row in scores(8.0, 3.0)]
    assert "token_class" not in compare(without, scores(4.0, 3.0), iterations=9).slices


def test_one_cluster_has_an_effect_and_no_verdict(pair: Callable[..., Pair]) -> None:
    report = compare(*pair([-1.0] * 5, ["same"] * 5), iterations=9)
    assert report.effect.value == pytest.approx(-0.1)
    assert (report.effect.ci, report.effect_bootstrap.ci) == (None, None)
    assert "one cluster" in str(report.effect.reason)
    assert report.minimum_detectable_effect is None
    assert report.sign_flip.p_value == 1
    assert report.verdict == "no difference shown"


def test_the_first_differing_row_is_named(noisy: Pair) -> None:
    base, tuned = noisy
    changed = [
        replace(row, tokens=row.tokens + 1) if i == 7 else row for i, row in enumerate(tuned)
    ]
    with pytest.raises(IntegrityError, match=r"row-07.* response tokens in base"):
        compare(base, changed)
    with pytest.raises(IntegrityError, match=r"tuned has no score of base's row 'row-04'"):
        compare(base, [row for row in tuned if row.instance_id not in ("row-04", "row-50")])
    with pytest.raises(IntegrityError, match=r"base has no score of tuned's row 'row-04'"):
        compare([row for row in base if row.instance_id != "row-04"], tuned)
    with pytest.raises(IntegrityError, match=r"tuned has no score of base's row 'row-59'"):
        compare(base, tuned[:-1])
    with pytest.raises(IntegrityError, match="row-09"):
        compare(base, [replace(r, sha256="f00") if i == 9 else r for i, r in enumerate(tuned)])


def test_classes_that_differ_are_refused(noisy: Pair) -> None:
    base, tuned = noisy
    for name, part in (("added", (1.0, 1)), ("removed", (1.0, 1))):
        classes = {**tuned[3].nll_by_class, name: part}
        other = [*tuned[:3], replace(tuned[3], nll_by_class=classes), *tuned[4:]]
        with pytest.raises(IntegrityError, match=rf"row-03.* tokens of class '{name}'"):
            compare(base, other, iterations=9)


def test_rows_repeated_in_both_are_paired(pair: Callable[..., Pair]) -> None:
    base, tuned = pair([-1.0, -2.0, -1.5])
    report = compare([*base, base[0]], [tuned[0], *tuned], iterations=9)
    assert report.effect.n == 4
    assert report.effect.value == pytest.approx(-5.5 / 40)


def test_every_output_is_strict_json(
    noisy: Pair, pair: Callable[..., Pair], strict_json: Callable[[Any], Any]
) -> None:
    seen = strict_json(compare(*noisy, iterations=99))
    assert seen["effect"]["ci_method"].startswith("clustered t")
    assert len(seen["worst"]) == 5
    huge = strict_json(compare(*pair([9000.0, 9000.0], tokens=1), iterations=9))
    assert huge["perplexity_ratio"]["value"] is None
    assert "overflow" in huge["perplexity_ratio"]["reason"]


def test_the_interval_keeps_its_level_when_nothing_changed(pair: Callable[..., Pair]) -> None:
    stream = np.random.default_rng(8)
    groups = [index % 12 for index in range(60)]
    claimed = 0
    for _ in range(200):
        shared = stream.normal(0, 1, 12)
        differences = [shared[group] + stream.normal(0, 0.5) for group in groups]
        claimed += compare(*pair(differences, groups), iterations=1).verdict != (
            "no difference shown"
        )
    assert claimed / 200 < 0.1


def test_unusable_input_is_refused(pair: Callable[..., Pair]) -> None:
    base, tuned = pair([-1.0, 1.0])
    with pytest.raises(UsageError, match="no scores"):
        compare([], [])
    with pytest.raises(DataError, match="row-001"):
        compare(base, [tuned[0], replace(tuned[1], nll_sum=math.nan)])
    with pytest.raises(UsageError, match="cluster"):
        compare(base, tuned, cluster_by="file")
