"""Optimizer steps: invariant to how rows are packed, equal to plain torch, never silently wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from swe_scaffold.engine import loop as loop_module
from swe_scaffold.engine.batches import RowOrder
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.loop import Loop, LoopSettings, StepMetrics, run
from swe_scaffold.errors import DivergedError, OutOfMemory
from tests.engine.shapes import make_cut, make_model, make_rows, with_adapter

CPU = Device("cpu", torch.float32)
LENGTHS = (13, 5, 29, 2, 17, 21, 8, 11)
ROWS = make_rows(LENGTHS)
SETTINGS = LoopSettings(
    steps=5,
    learning_rate=1e-3,
    scheduler="cosine",
    warmup_steps=2,
    weight_decay=0.1,
    max_grad_norm=1.0,
    seed=7,
    pad_id=0,
)


def make_loop(
    *,
    dropout: float = 0.0,
    device: Device = CPU,
    tokens: int = 64,
    packs: bool = True,
    **settings: Any,
) -> Loop:
    model = with_adapter(make_model().to(device.dtype), dropout=dropout)
    cut = make_cut(model, tokens=tokens, packs=packs)
    return Loop(model, replace(SETTINGS, **settings), device, cut)


def first_trained(loop: Loop) -> torch.Tensor:
    return next(tensor for tensor in loop.model.parameters() if tensor.requires_grad)


def weights(loop: Loop) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in loop.parameters.values()])


def trained(**settings: Any) -> tuple[list[StepMetrics], torch.Tensor]:
    loop = make_loop(**settings)
    lines: list[StepMetrics] = []
    run(loop, ROWS, RowOrder(len(ROWS), 8, 1), lines.append)
    return lines, weights(loop)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_packing_padding_and_accumulation_change_nothing_but_rounding(dropout: float) -> None:
    """With dropout too: the masks belong to the rows."""
    start = weights(make_loop())
    lines, wanted = trained(tokens=1, packs=False, dropout=dropout)
    moved = float((wanted - start).norm())
    for tokens, packs in ((30, True), (64, True), (200, True), (64, False), (240, False)):
        others, found = trained(tokens=tokens, packs=packs, dropout=dropout)
        assert [line.loss for line in others] == pytest.approx(
            [line.loss for line in lines], rel=2e-6
        )
        assert [line.grad_norm for line in others] == pytest.approx(
            [line.grad_norm for line in lines], rel=1e-4
        )
        assert float((found - wanted).norm()) <= 1e-4 * moved
        assert [line.targets for line in others] == [line.targets for line in lines]


def test_the_order_of_a_steps_rows_changes_no_bit() -> None:
    first, second = make_loop(dropout=0.2), make_loop(dropout=0.2)
    a, b = first.take(ROWS), second.take([*ROWS[3:], *ROWS[:3]])
    assert (a.loss, a.grad_norm) == (b.loss, b.grad_norm)
    assert torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_steps_are_those_of_plain_torch_and_transformers(scheduler: str) -> None:
    """AdamW, a scheduler stepped in the usual way, clipping, and the mean over target tokens."""
    from transformers import get_scheduler

    lines, found = trained(scheduler=scheduler)
    model = with_adapter(make_model())
    parameters = [tensor for tensor in model.parameters() if tensor.requires_grad]
    start = torch.cat([tensor.detach().flatten() for tensor in parameters])
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1)
    schedule = get_scheduler(scheduler, optimizer, num_warmup_steps=2, num_training_steps=5)
    for line in lines:
        assert line.lr == schedule.get_last_lr()[0]
        nll = torch.cat([_plain(model, row) for row in ROWS])
        optimizer.zero_grad()
        nll.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        assert line.loss == pytest.approx(nll.mean().item(), rel=2e-6)
        assert line.grad_norm == pytest.approx(norm.item(), rel=1e-4)
    wanted = torch.cat([tensor.detach().flatten() for tensor in parameters])
    assert float((found - wanted).norm()) <= 1e-4 * float((wanted - start).norm())


def _plain(model: Any, row: Any) -> torch.Tensor:
    ids = torch.tensor([row.input_ids.tolist()])
    logits = model(input_ids=ids).logits[0, :-1].float()
    nll = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    return nll[torch.tensor(row.loss_mask[1:])]


def test_the_loss_counts_tokens_and_not_rows() -> None:
    line = make_loop().take(ROWS)
    assert line.targets == sum(row.targets for row in ROWS)
    assert line.tokens == sum(LENGTHS)
    model = with_adapter(make_model())
    with torch.no_grad():
        total = math.fsum(float(_plain(model, row).double().sum()) for row in ROWS)
    assert line.loss == pytest.approx(total / line.targets, rel=1e-6)


def test_dropout_is_a_function_of_the_seed() -> None:
    first, again, other = (trained(dropout=0.3, seed=seed)[0] for seed in (7, 7, 8))
    assert [line.loss for line in first] == [line.loss for line in again]
    assert [line.loss for line in first] != [line.loss for line in other]


def test_weight_decay_shrinks_matrices_and_spares_vectors() -> None:
    rate, decay = 0.01, 0.5
    after = {}
    for wanted in (0.0, decay):
        model = make_model("qwen2-untied").requires_grad_(True)
        before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
        settings = replace(
            SETTINGS, weight_decay=wanted, learning_rate=rate, scheduler="constant", warmup_steps=0
        )
        Loop(model, settings, CPU, make_cut(model)).take(ROWS)
        after[wanted] = {name: tensor.detach() for name, tensor in model.named_parameters()}
    for name, start in before.items():
        shrunk = after[0.0][name] - after[decay][name]
        expected = rate * decay * start if start.ndim > 1 else torch.zeros_like(start)
        assert float((shrunk - expected).abs().max()) < 1e-6, name


@pytest.mark.parametrize("limit", [0.01, 1e6, None])
def test_gradients_are_scaled_down_to_the_limit(limit: float | None) -> None:
    loop = make_loop(max_grad_norm=limit)
    norm = loop.take(ROWS).grad_norm
    first_moments = [loop.optimizer.state[p]["exp_avg"] for p in loop.parameters.values()]
    applied = 10 * float(torch.cat([moment.flatten() for moment in first_moments]).norm())
    assert norm is not None
    assert applied == pytest.approx(min(norm, limit) if limit else norm, rel=1e-3)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The likelihood of row-4 is NaN."""
    healthy = loop_module.token_nll

    def sick(model: Any, batch: Any) -> torch.Tensor:
        parts = healthy(model, batch).split(batch.counts)
        rows = batch.input_ids[0].split(batch.stream["documents"])
        sick = [ids.tolist() == list(ROWS[4].input_ids) for ids in rows]
        return torch.cat(
            [part * (math.nan if s else 1) for part, s in zip(parts, sick, strict=True)]
        )

    monkeypatch.setattr(loop_module, "token_nll", sick)
    return


@pytest.mark.usefixtures("poisoned")
def test_a_loss_that_is_not_finite_names_step_and_row() -> None:
    loop = make_loop(tokens=70)
    loop.step = 2
    before = weights(loop)
    with pytest.raises(DivergedError, match=r"the loss is not finite at step 3; rows: row-4$") as e:
        loop.take(ROWS)
    assert e.value.exit_code == 6
    assert "checkpoint is intact" in e.value.hint
    assert torch.equal(weights(loop), before)
    assert loop.step == 2


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change() -> None:
    loop = make_loop()
    before = weights(loop)
    first_trained(loop).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(DivergedError, match=r"the gradient is not finite at step 1; rows: row-"):
        loop.take(ROWS)
    assert torch.equal(weights(loop), before)


def test_a_weight_that_is_not_finite_stops_the_run() -> None:
    loop = make_loop(learning_rate=1e37, scheduler="constant", warmup_steps=0)
    with pytest.raises(DivergedError, match=r"a weight is not finite at step 1"):
        loop.take(ROWS)


def test_many_rows_are_named_up_to_a_limit() -> None:
    loop = make_loop(learning_rate=1e37, scheduler="constant", warmup_steps=0)
    with pytest.raises(DivergedError, match=r"row-15 and 4 more"):
        loop.take(make_rows([9] * 20))


HALF = Device("cpu", torch.float16)


def test_float16_skips_a_step_that_overflows_and_says_so() -> None:
    loop = make_loop(device=HALF)
    before = weights(loop)
    hook = first_trained(loop).register_hook(lambda gradient: gradient * math.inf)
    line = loop.take(ROWS)
    assert line.grad_norm is None
    assert torch.equal(weights(loop), before)
    hook.remove()
    assert loop.take(ROWS).grad_norm is not None
    assert not torch.equal(weights(loop), before)


def test_float16_that_always_overflows_is_an_error() -> None:
    loop = make_loop(device=HALF, steps=40)
    first_trained(loop).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(DivergedError, match="the gradient is not finite"):
        run(loop, ROWS, RowOrder(len(ROWS), 8, 1), lambda _: None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_are_float32_on_a_base_of_any_dtype(dtype: torch.dtype) -> None:
    loop = make_loop(device=Device("cpu", dtype))
    full = make_loop().take(ROWS)
    assert {tensor.dtype for tensor in loop.parameters.values()} == {torch.float32}
    assert loop.take(ROWS).loss == pytest.approx(full.loss, rel=0.02)


def too_large(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB")


def test_a_pass_that_does_not_fit_says_how_large_it_was() -> None:
    loop = make_loop(tokens=70)
    loop.model.get_base_model().base_model.register_forward_pre_hook(too_large)
    wanted = r"out of memory in a micro-batch of 4 rows, longest 29 tokens"
    with pytest.raises(OutOfMemory, match=wanted) as error:
        loop.take(ROWS)
    assert error.value.exit_code == 7
    assert "tokens_per_micro_batch" in error.value.hint


def test_an_optimizer_that_does_not_fit_is_out_of_memory_too() -> None:
    loop = make_loop()
    loop.optimizer.register_step_pre_hook(too_large)
    with pytest.raises(OutOfMemory, match="the optimizer step"):
        loop.take(ROWS)


def test_the_cpu_allocator_is_understood() -> None:
    loop = make_loop()

    def refuse(*_: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 99 bytes")

    loop.model.get_base_model().base_model.register_forward_pre_hook(refuse)
    with pytest.raises(OutOfMemory):
        loop.take(ROWS)


def test_other_failures_stay_what_they_are() -> None:
    loop = make_loop()

    def fail(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    loop.model.get_base_model().base_model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="mat1"):
        loop.take(ROWS)
