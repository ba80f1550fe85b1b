"""Scores: plain transformers' numbers at every batch size and order, and no trace left behind."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.scoring import score
from swe_scaffold.errors import OutOfMemory
from swe_scaffold.types import TokenizedExample
from tests.engine.shapes import make_model, make_rows, plain_nll, with_adapter

CPU = Device("cpu", torch.float32)
ROWS = make_rows((13, 5, 29, 2, 17, 21, 8, 11, 40, 3, 3, 26))


def scores(model: Any, rows: list[TokenizedExample], **options: Any) -> dict[str, np.ndarray]:
    options = {"batch_size": 8, **options}
    found = list(score(model, rows, pad_id=0, device=CPU, **options))
    assert sorted(row.index for row in found) == list(range(len(rows)))
    return {rows[row.index].instance_id: row.nll for row in found}


def corpus(found: dict[str, np.ndarray]) -> float:
    return float(sum(nll.astype(np.float64).sum() for nll in found.values()))


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, nll in wanted.items():
        np.testing.assert_allclose(found[name], nll, rtol=1e-6, atol=2e-6, err_msg=name)
    assert corpus(found) == pytest.approx(corpus(wanted), rel=1e-6)


@pytest.fixture(scope="module")
def model() -> Any:
    return with_adapter(make_model())


@pytest.fixture(scope="module")
def wanted(model: Any) -> dict[str, np.ndarray]:
    model.eval()
    with torch.no_grad():
        return {row.instance_id: plain_nll(model, row).numpy() for row in ROWS}


@pytest.mark.parametrize("batch_size", [1, 2, 8, 100])
def test_batch_size_and_order_change_nothing(
    model: Any, wanted: dict[str, np.ndarray], batch_size: int
) -> None:
    shuffled = random.Random(batch_size).sample(ROWS, len(ROWS))
    for rows in (ROWS, ROWS[::-1], shuffled):
        assert_same(scores(model, rows, batch_size=batch_size), wanted)


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


def test_totals_are_exact_sums(model: Any) -> None:
    for row in score(model, ROWS, batch_size=4, pad_id=0, device=CPU):
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
    arriving = score(model, ROWS, batch_size=2, pad_id=0, device=CPU, without_adapter=True)
    next(arriving)
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
        tried.append(len(arguments["input_ids"]))
        if tried[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    body = model.get_base_model().base_model
    body.register_forward_pre_hook(hook, with_kwargs=True)
    return tried


def test_out_of_memory_means_smaller_batches_and_the_same_numbers(
    wanted: dict[str, np.ndarray],
) -> None:
    model = with_adapter(make_model())
    tried = refuse_more_than(model, 3)
    assert_same(scores(model, ROWS, batch_size=8), wanted)
    assert tried[-4:] == [2, 2, 2, 2]
    assert tried.count(8) == 1


def test_a_row_that_does_not_fit_is_an_error() -> None:
    model = with_adapter(make_model())
    refuse_more_than(model, 0)
    with pytest.raises(OutOfMemory, match="scoring 1 rows, longest 40 tokens"):
        scores(model, ROWS, batch_size=8)


def test_nothing_to_score_yields_nothing(model: Any) -> None:
    assert list(score(model, [], batch_size=8, pad_id=0, device=CPU)) == []
