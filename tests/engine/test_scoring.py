"""Scores: plain transformers' numbers at every batch size and order, and no trace left behind."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.engine import scoring
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.scoring import RowNll, packing_refusal, plan_passes, score
from swe_scaffold.errors import IntegrityError, OutOfMemory
from swe_scaffold.types import TokenizedExample
from tests.engine.shapes import (
    MODELS,
    long_rope,
    make_model,
    make_rows,
    plain_nll,
    with_adapter,
)

CPU = Device("cpu", torch.float32)
ROWS = make_rows((13, 5, 29, 2, 17, 21, 8, 11, 40, 3, 3, 26))


def plan(rows: list[TokenizedExample], tokens: int = 8192, most: int | None = None) -> Any:
    lengths = [len(row.input_ids) for row in rows]
    return plan_passes(lengths, tokens_per_pass=tokens, rows_per_pass=most)


def scored(
    model: Any,
    rows: list[TokenizedExample],
    *,
    tokens: int = 8192,
    most: int | None = None,
    **options: Any,
) -> Iterator[list[RowNll]]:
    passes = plan(rows, tokens, most)
    return score(model, rows, passes=passes, pad_id=0, device=CPU, **options)


def scores(model: Any, rows: list[TokenizedExample], **options: Any) -> dict[str, np.ndarray]:
    found = list(chain.from_iterable(scored(model, rows, **options)))
    assert sorted(row.index for row in found) == list(range(len(rows)))
    return {rows[row.index].instance_id: row.nll for row in found}


def corpus(found: dict[str, np.ndarray]) -> float:
    return float(sum(nll.astype(np.float64).sum() for nll in found.values()))


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, nll in wanted.items():
        np.testing.assert_allclose(found[name], nll, rtol=3e-6, atol=2e-6, err_msg=name)
    assert corpus(found) == pytest.approx(corpus(wanted), rel=1e-6)


@pytest.fixture(scope="module")
def model() -> Any:
    return with_adapter(make_model())


@pytest.fixture(scope="module")
def wanted(model: Any) -> dict[str, np.ndarray]:
    model.eval()
    with torch.no_grad():
        return {row.instance_id: plain_nll(model, row).numpy() for row in ROWS}


@pytest.mark.parametrize(("tokens", "most"), [(1, None), (8192, 2), (64, 8), (8192, None)])
def test_passes_and_order_change_nothing(
    model: Any, wanted: dict[str, np.ndarray], tokens: int, most: int | None
) -> None:
    shuffled = random.Random(tokens).sample(ROWS, len(ROWS))
    for rows in (ROWS, ROWS[::-1], shuffled):
        assert_same(scores(model, rows, tokens=tokens, most=most), wanted)


def test_scores_come_pass_by_pass_in_the_order_asked_for(
    model: Any, wanted: dict[str, np.ndarray]
) -> None:
    passes = [[4, 1], [7], [0, 11, 3]]
    found = list(score(model, ROWS, passes=passes, pad_id=0, device=CPU))
    assert [[row.index for row in part] for part in found] == passes
    for row in chain.from_iterable(found):
        name = ROWS[row.index].instance_id
        np.testing.assert_allclose(row.nll, wanted[name], rtol=1e-6, atol=2e-6)


def test_plain_transformers_with_a_padded_batch_agrees(
    model: Any, wanted: dict[str, np.ndarray]
) -> None:
    rows = ROWS[:8]
    longest = max(len(row.input_ids) for row in rows)
    ids = torch.tensor([[*row.input_ids, *[0] * (longest - len(row.input_ids))] for row in rows])
    seen = torch.tensor([[1] * len(r.input_ids) + [0] * (longest - len(r.input_ids)) for r in rows])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=seen).logits.float()
    losses = -logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    found = {}
    for line, row in enumerate(rows):
        mask = torch.tensor(row.loss_mask[1:])
        found[row.instance_id] = losses[line, : len(mask)][mask].numpy()
    assert_same(found, {name: wanted[name] for name in found})


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("packed", [None, False])
def test_every_architecture_gets_the_numbers_of_plain_transformers(
    name: str, packed: bool | None
) -> None:
    model = with_adapter(make_model(name))
    with torch.no_grad():
        alone = {row.instance_id: plain_nll(model, row).numpy() for row in ROWS}
    assert_same(scores(model, ROWS, packed=packed), alone)
    assert_same(scores(model, ROWS, packed=packed, tokens=60), alone)


def test_rows_in_one_stream_do_not_see_each_other(model: Any) -> None:
    before = scores(model, ROWS, packed=True)
    for place in (0, 8, len(ROWS) - 1):
        old = ROWS[place]
        new = replace(old, input_ids=3 + (old.input_ids + 7) % 50)
        after = scores(model, [*ROWS[:place], new, *ROWS[place + 1 :]], packed=True)
        assert not np.array_equal(after.pop(old.instance_id), before[old.instance_id])
        for name, nll in after.items():
            np.testing.assert_array_equal(nll, before[name])


def test_a_stream_holds_no_padding(model: Any) -> None:
    shapes: list[tuple[int, ...]] = []
    body = model.get_base_model().base_model
    handle = body.register_forward_pre_hook(
        lambda _, __, arguments: shapes.append(tuple(arguments["input_ids"].shape)),
        with_kwargs=True,
    )
    scores(model, ROWS, packed=True)
    scores(model, ROWS, packed=False)
    handle.remove()
    tokens, longest = sum(len(row.input_ids) for row in ROWS), 40
    assert shapes == [(1, tokens), (len(ROWS), longest)]


def test_on_a_cpu_a_pass_is_computed_in_parts_and_yielded_whole(
    model: Any, wanted: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = refuse_more_than(model, len(ROWS))
    monkeypatch.setattr(scoring, "CPU_TOKENS", 60)
    assert_same(scores(model, ROWS), wanted)
    assert tried == [1, 2, 1, 2, 3, 3]
    assert [len(part) for part in scored(model, ROWS)] == [len(ROWS)]


def test_a_pass_comes_out_the_same_in_any_company() -> None:
    """To the last bit, though the model's window is shorter than some of the other rows."""
    model = with_adapter(make_model("mistral-window-30"))
    passes = plan(ROWS, 60)
    whole = list(scored(model, ROWS, tokens=60))
    for part, found in zip(passes, whole, strict=True):
        alone = [ROWS[row] for row in part]
        (again,) = score(model, alone, passes=[range(len(alone))], pad_id=0, device=CPU)
        for one, other in zip(found, again, strict=True):
            np.testing.assert_array_equal(one.nll, other.nll)


@pytest.mark.parametrize("packed", [True, False])
def test_rows_with_a_long_neighbour_keep_their_positions(packed: bool) -> None:
    model = long_rope()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.mul_(6.0)
        alone = {row.instance_id: plain_nll(model, row).numpy() for row in ROWS}
        ids = torch.tensor([[*ROWS[0].input_ids, *[0] * 9], ROWS[2].input_ids[:22].tolist()])
        logits = model(input_ids=ids).logits[0, : len(ROWS[0].input_ids)]
        own = model(input_ids=torch.tensor([ROWS[0].input_ids.tolist()])).logits[0]
    assert not torch.allclose(logits, own, atol=1e-3)
    assert_same(scores(model, ROWS, packed=packed), alone)
    assert [len(part) for part in scored(model, ROWS, packed=packed)] == [len(ROWS)]


def test_what_cannot_be_packed_is_padded_and_says_why() -> None:
    model = with_adapter(make_model("mistral-window"))
    reason = packing_refusal(model, ROWS)
    assert reason == "its attention looks back 6 tokens, and a row has 40"
    with pytest.raises(IntegrityError, match="cannot travel as one stream: its attention looks"):
        scores(model, ROWS, packed=True)
    assert packing_refusal(with_adapter(make_model()), ROWS) is None


def test_totals_are_exact_sums(model: Any) -> None:
    for row in chain.from_iterable(scored(model, ROWS)):
        assert row.total == float(np.sum(row.nll, dtype=np.float64))


def test_without_the_adapter_the_base_is_scored(model: Any, wanted: dict[str, np.ndarray]) -> None:
    base = make_model()
    with torch.no_grad():
        plain = {row.instance_id: plain_nll(base, row).numpy() for row in ROWS}
    assert_same(scores(model, ROWS, without_adapter=True), plain)
    assert corpus(plain) != pytest.approx(corpus(wanted), rel=1e-3)
    assert_same(scores(model, ROWS), wanted)


def test_the_caller_keeps_gradients_and_adapter_while_scores_arrive(
    model: Any, wanted: dict[str, np.ndarray]
) -> None:
    arriving = scored(model, ROWS, most=2, without_adapter=True)
    own = model.get_base_model().config._attn_implementation
    next(arriving)
    assert model.get_base_model().config._attn_implementation == own == "sdpa"
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    # Abandoned half-way: the next user of the model finds it whole.
    del arriving
    assert_same(scores(model, ROWS), wanted)


def test_scoring_touches_no_random_state() -> None:
    model = with_adapter(make_model(), dropout=0.5).train()
    before = torch.get_rng_state()
    first = scores(model, ROWS)
    assert torch.equal(torch.get_rng_state(), before)
    assert corpus(first) == corpus(scores(model, ROWS))


def refuse_more_than(model: Any, rows: int) -> list[int]:
    """Make passes of more rows run out of memory; return the sizes that were tried."""
    tried: list[int] = []

    def hook(_: Any, __: Any, arguments: dict[str, Any]) -> None:
        tried.append(len(arguments.get("documents", arguments["input_ids"])))
        if tried[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    body = model.get_base_model().base_model
    body.register_forward_pre_hook(hook, with_kwargs=True)
    return tried


@pytest.mark.parametrize("packed", [True, False])
def test_out_of_memory_means_smaller_batches_and_the_same_numbers(
    wanted: dict[str, np.ndarray], packed: bool
) -> None:
    model = with_adapter(make_model())
    tried = refuse_more_than(model, 3)
    assert_same(scores(model, ROWS, most=8, packed=packed), wanted)
    assert tried[-10:] == [8, 4, 2, 2, 4, 2, 2, 4, 2, 2]
    assert len(list(scored(model, ROWS, most=8, packed=packed))) == 2


def test_a_row_that_does_not_fit_is_an_error() -> None:
    model = with_adapter(make_model())
    assert packing_refusal(model, ROWS) is None
    refuse_more_than(model, 0)
    with pytest.raises(OutOfMemory, match="scoring 1 rows, longest 40 tokens"):
        scores(model, ROWS)


def test_nothing_to_score_yields_nothing(model: Any) -> None:
    assert list(scored(model, [])) == []


@given(
    lengths=st.lists(st.integers(1, 40), max_size=30),
    tokens=st.integers(1, 150),
    most=st.none() | st.integers(1, 9),
)
def test_a_plan_holds_every_row_once_within_its_budget(
    lengths: list[int], tokens: int, most: int | None
) -> None:
    passes = plan_passes(lengths, tokens_per_pass=tokens, rows_per_pass=most)
    order = [row for part in passes for row in part]
    assert order == sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    for part, following in pairwise([*passes, ()]):
        assert len(part) == 1 or len(part) * lengths[part[0]] <= tokens
        assert most is None or len(part) <= most
        # A pass ends where the next row would not fit.
        full = (len(part) + 1) * lengths[part[0]] > tokens or len(part) == most
        assert full or not following
