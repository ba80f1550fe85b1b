"""Measurements before a run: its passes as it will take them, and the base's own first tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.engine import loop as loop_module
from swe_scaffold.engine import probe
from swe_scaffold.engine.batches import RowOrder
from swe_scaffold.engine.devices import Device, memory_limit_bytes, peak_memory_bytes
from swe_scaffold.engine.loop import Loop, LoopSettings
from swe_scaffold.engine.passes import MicroBatches
from tests.engine.shapes import MODELS, make_cut, make_model, make_rows, with_adapter

CPU = Device("cpu", torch.float32)
ROWS = make_rows((13, 5, 29, 2, 17, 21, 8, 11, 40, 3, 3, 26))


def make_loop(tokens: int = 64) -> Loop:
    settings = LoopSettings(
        steps=4,
        learning_rate=0.01,
        scheduler="constant",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=0,
        pad_id=0,
    )
    model = with_adapter(make_model())
    return Loop(model, settings, CPU, make_cut(model, tokens=tokens))


def refuse(monkeypatch: pytest.MonkeyPatch, most_tokens: int) -> None:
    """Let passes of more padded tokens run out of memory."""
    healthy = loop_module.token_nll

    def token_nll(model: Any, batch: Any) -> torch.Tensor:
        if batch.input_ids.numel() > most_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return healthy(model, batch)

    monkeypatch.setattr(loop_module, "token_nll", token_nll)


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=20),
    rows_per_step=st.integers(1, 6),
    tokens=st.integers(1, 90),
    packs=st.booleans(),
    steps=st.integers(1, 12),
)
def test_the_shape_is_that_of_the_passes_a_run_takes(
    lengths: list[int], rows_per_step: int, tokens: int, packs: bool, steps: int
) -> None:
    rows = make_rows(tuple(lengths))
    cut = MicroBatches(None, tokens, None if packs else "asked for")
    order = RowOrder(len(rows), rows_per_step, seed=3)
    shape = probe.run_shape(order, [len(row.input_ids) for row in rows], steps=steps, cut=cut)
    taken = [
        (step, place, part)
        for step in range(steps)
        for place, part in enumerate(cut.of([rows[i] for i in order.at(step)]))
    ]
    wanted = [
        (step, place, len(part), max(sizes), sum(sizes) if packs else len(sizes) * max(sizes))
        for step, place, part in taken
        for sizes in [[len(row.input_ids) for row in part]]
    ]
    columns = (shape.step, shape.place, shape.rows, shape.longest, shape.tokens)
    assert [tuple(map(int, line)) for line in zip(*columns, strict=True)] == wanted
    largest = shape.largest()
    assert int(shape.tokens[largest[0]]) == max(size for *_, size in wanted)
    assert max(int(shape.longest[n]) for n in largest) == max(line[3] for line in wanted)
    for number in largest:
        found = probe.pass_rows(rows, order, shape, number, cut=cut)
        assert found == taken[number][2]


def test_a_pass_that_fits_is_run_and_measured() -> None:
    found = probe.probe_memory(make_loop(), ROWS[:2])
    assert found.fits
    assert found.fitting is not None
    assert (found.fitting.rows, found.fitting.longest) == (2, len(ROWS[0].input_ids))
    assert found.needed_bytes == found.fitting.peak_bytes <= peak_memory_bytes(CPU)
    assert found.fitting.seconds > 0
    assert not found.foreseen


def test_a_pass_that_does_not_fit_is_halved_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows((40, 40, 40, 40))
    for most, fitting in ((80, (2, 40)), (40, (1, 40)), (20, (1, 20)), (8, None)):
        with monkeypatch.context() as patch:
            refuse(patch, most)
            found = probe.probe_memory(make_loop(160), rows)
        assert (found.fits, found.needed_bytes, found.rows, found.longest) == (False, None, 4, 40)
        assert found.tokens == 160
        cost = found.fitting
        assert (cost and (cost.rows, cost.longest)) == fitting


def test_a_machine_too_small_is_foreseen_before_the_whole_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    peaks = iter((1000, 1400, 99, 99, 99))
    monkeypatch.setattr(probe, "memory_limit_bytes", lambda device: 2000)

    def measured(loop: Loop, rows: Sequence[Any]) -> probe.PassCost:
        longest = max(len(row.input_ids) for row in rows)
        sizes.append(len(rows) * longest)
        return probe.PassCost(len(rows), longest, len(rows) * longest, 1.0, next(peaks))

    monkeypatch.setattr(probe, "measure_pass", measured)
    found = probe.probe_memory(make_loop(), make_rows((160,)))
    # 1,000 bytes at 40 tokens and 1,400 at 80: 10 a token, 2,200 at 160.
    assert (found.fits, found.foreseen, found.needed_bytes) == (False, True, 2200)
    assert sizes == [40, 80, 20, 40, 80]
    assert found.fitting is not None
    assert found.fitting.longest == 80


def test_the_limit_is_beyond_what_this_process_holds() -> None:
    assert peak_memory_bytes(CPU) < memory_limit_bytes(CPU) < 1 << 50


@pytest.mark.parametrize("name", sorted(MODELS))
def test_first_tokens_are_those_of_the_full_logits(name: str) -> None:
    model = make_model(name).eval()
    found = list(probe.likeliest_first(model, ROWS, device=CPU, most=3))
    for row, likeliest in zip(ROWS, found, strict=True):
        place = int(row.target_positions[0])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.input_ids.tolist()])).logits[0, place - 1]
        values, tokens = logits.double().softmax(-1).topk(3)
        assert [token for token, _ in likeliest] == tokens.tolist()
        np.testing.assert_allclose([p for _, p in likeliest], values.numpy(), rtol=1e-5)


def test_first_tokens_of_the_base_below_a_trained_adapter() -> None:
    base = list(probe.likeliest_first(make_model(), ROWS, device=CPU, most=2))
    loop = make_loop()
    for _ in range(3):
        loop.take(ROWS)
    options: dict[str, Any] = {"device": CPU, "most": 2}
    assert list(probe.likeliest_first(loop.model, ROWS, without_adapter=True, **options)) == base
    assert list(probe.likeliest_first(loop.model, ROWS, **options)) != base


def test_rows_of_the_head_that_are_equal_are_told() -> None:
    model = make_model()
    head = model.get_output_embeddings()
    assert probe.head_twins(model, 2) == (0, False)
    with torch.no_grad():
        head.weight[[5, 6, 2]] = head.weight[2].clone()
    assert probe.head_twins(model, 2) == (2, False)
    with torch.no_grad():
        head.weight[[0, 5, 6]] = 1.0
        head.weight[2] = 0.0
    assert probe.head_twins(model, 2) == (0, True)
