"""Batches and the order of rows: nothing lost, nothing scored that is not predicted."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.engine.batches import RowOrder, make_batch, make_stream, micro_batches
from swe_scaffold.types import SpeedrunLabel, TokenizedExample

PAD = 0


def row(ids: list[int], mask: list[bool], name: str = "r") -> TokenizedExample:
    arrays = np.array(ids, np.int32), np.array(mask, np.bool_)
    return TokenizedExample(name, *arrays, "", "", SpeedrunLabel.SUCCESS, 0)


def test_a_batch_points_at_the_logits_of_its_targets() -> None:
    batch = make_batch(
        [row([5, 6, 7], [False, True, True]), row([8, 9], [False, True])],
        pad_id=PAD,
        device="cpu",
    )
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, PAD]]
    places = [part.tolist() for part in batch.where]
    assert places == [[0, 0, 1], [0, 1, 0]]
    assert batch.targets.tolist() == [6, 7, 9]
    assert batch.counts == (2, 1)


def test_the_first_token_is_never_scored() -> None:
    batch = make_batch([row([5, 6], [True, True])], pad_id=PAD, device="cpu")
    assert batch.targets.tolist() == [6]
    assert batch.counts == (1,)


rows_drawn = st.lists(
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=2, max_size=12),
    min_size=1,
    max_size=9,
)


@given(drawn=rows_drawn)
def test_every_target_is_there_once_and_in_order(drawn: list[list[tuple[int, bool]]]) -> None:
    rows = [row([t for t, _ in pairs], [m for _, m in pairs]) for pairs in drawn]
    batch = make_batch(rows, pad_id=PAD, device="cpu")
    wanted = [token for pairs in drawn for token, target in pairs[1:] if target]
    assert batch.targets.tolist() == wanted
    following = (batch.where[0], batch.where[1] + 1)
    assert torch.equal(batch.input_ids[following], batch.targets)
    assert list(batch.counts) == [sum(m for _, m in pairs[1:]) for pairs in drawn]


@given(drawn=rows_drawn)
def test_a_stream_holds_the_targets_of_a_batch_without_its_padding(
    drawn: list[list[tuple[int, bool]]],
) -> None:
    rows = [row([t for t, _ in pairs], [m for _, m in pairs]) for pairs in drawn]
    batch, stream = (
        make_batch(rows, pad_id=PAD, device="cpu"),
        make_stream(rows, device="cpu"),
    )
    assert stream.input_ids.tolist() == [[token for one in rows for token in one.input_ids]]
    assert torch.equal(stream.targets, batch.targets)
    assert stream.counts == batch.counts
    following = (stream.where[0], stream.where[1] + 1)
    assert torch.equal(stream.input_ids[following], stream.targets)
    lengths = [len(pairs) for pairs in drawn]
    assert stream.stream["documents"] == tuple(lengths)
    positions = stream.stream["position_ids"][0]
    assert positions.tolist() == [place for length in lengths for place in range(length)]
    assert torch.equal(positions[stream.where[1]], batch.where[1])


@given(rows=st.integers(1, 40), per_step=st.integers(1, 50), seed=st.integers(0, 5))
def test_each_epoch_has_every_row_once(rows: int, per_step: int, seed: int) -> None:
    order = RowOrder(rows, per_step, seed)
    for epoch in range(2):
        first = epoch * order.steps_per_epoch
        taken = [order.at(first + step) for step in range(order.steps_per_epoch)]
        assert sorted(index for part in taken for index in part) == list(range(rows))
        assert all(len(part) == per_step for part in taken[:-1])


def test_the_order_is_a_function_of_seed_and_step() -> None:
    order = RowOrder(50, 8, 3)
    assert order.at(4) == RowOrder(50, 8, 3).at(4)
    assert order.at(0) != RowOrder(50, 8, 4).at(0)
    assert order.at(0) != order.at(order.steps_per_epoch)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), tokens=st.integers(1, 120))
def test_micro_batches_hold_every_row_within_the_budget(lengths: list[int], tokens: int) -> None:
    cut = micro_batches(lengths, tokens=tokens)
    assert sorted(row for part in cut for row in part) == list(range(len(lengths)))
    sizes = [sum(lengths[row] for row in part) for part in cut]
    assert all(size <= tokens or len(part) == 1 for size, part in zip(sizes, cut, strict=True))
    # No two could have been one.
    smallest = sorted(sizes)[:2]
    assert len(cut) == 1 or sum(smallest) > tokens


def test_a_row_goes_where_it_fills_most() -> None:
    assert micro_batches([5, 6, 3, 4, 9], tokens=10) == ((4,), (1, 3), (0, 2))
