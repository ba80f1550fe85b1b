"""Lengths: plain distributions, and what each way to deal with long rows costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.quality.length import POLICIES, count_cut, measure

masks = st.lists(st.lists(st.integers(0, 1), max_size=30).map(bytes), max_size=10)


def pair(prompt: int, answer: int) -> bytes:
    return b"\0" * prompt + b"\1" * answer


def test_measure_counts_exactly() -> None:
    lengths = measure(range(1, 101))
    assert (lengths.count, lengths.total, lengths.mean) == (100, 5050, 50.5)
    assert (lengths.minimum, lengths.p50, lengths.p90, lengths.p99, lengths.maximum) == (
        *(1, 50, 90, 99),
        100,
    )
    assert measure([]).count == 0
    assert measure([7]).p99 == 7


def test_tail_cutting_takes_the_answer_first() -> None:
    cost = count_cut("tail", [pair(10, 4), pair(10, 2), pair(12, 5), pair(3, 3)], 12)
    assert (cost.rows, cost.answers_cut, cost.answers_lost) == (4, 1, 1)
    assert (cost.targets, cost.targets_lost) == (14, 2 + 5)
    assert cost.share_lost == pytest.approx(7 / 14)


def test_dropping_loses_whole_rows() -> None:
    cost = count_cut("drop", [pair(10, 4), pair(10, 2)], 12)
    assert (cost.answers_cut, cost.answers_lost, cost.targets_lost) == (0, 1, 4)


@pytest.mark.parametrize(
    ("prompt", "answer", "limit", "kept"),
    [
        pytest.param(100, 10, 50, 10, id="a short answer stays, the prompt is cut"),
        pytest.param(10, 100, 50, 40, id="a short prompt stays, the answer is cut"),
        pytest.param(100, 100, 50, 25, id="both are cut in proportion"),
        pytest.param(100, 300, 80, 60, id="in proportion to their lengths"),
        pytest.param(5, 5, 50, 5, id="what fits stays"),
    ],
)
def test_ratio_cutting(prompt: int, answer: int, limit: int, kept: int) -> None:
    cost = count_cut("ratio", [pair(prompt, answer)], limit)
    assert cost.targets - cost.targets_lost == kept


def test_ratio_cutting_goes_turn_by_turn() -> None:
    chat = pair(10, 10) + pair(10, 10) + pair(10, 10)
    # the first turn leaves 25 - 20 = 5 tokens: the second keeps 2 of its 10 targets and the rest of
    # the room for its prompt
    cost = count_cut("ratio", [chat], 25)
    assert cost.targets - cost.targets_lost == 10 + 2
    assert (cost.answers_cut, cost.answers_lost) == (1, 0)


@given(masks, st.integers(1, 40), st.sampled_from(sorted(POLICIES)))
def test_costs_add_up(rows: list[bytes], limit: int, policy: str) -> None:
    cost = count_cut(policy, rows, limit)
    assert cost.rows == len(rows)
    assert cost.targets == sum(map(sum, rows))
    assert 0 <= cost.targets_lost <= cost.targets
    assert (cost.targets_lost == 0) == (cost.answers_cut == cost.answers_lost == 0)
    assert cost.answers_cut + cost.answers_lost <= sum(1 for row in rows if len(row) > limit)
    long_enough = max(map(len, rows), default=1) or 1
    assert count_cut(policy, rows, long_enough).targets_lost == 0
