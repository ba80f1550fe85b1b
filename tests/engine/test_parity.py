"""One step of the engine against plain transformers + peft, a row at a time: all of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from swe_scaffold.config import LoRAConfig
from swe_scaffold.engine.adapter import attach
from swe_scaffold.engine.attention import within_documents
from swe_scaffold.engine.batches import make_stream
from swe_scaffold.engine.budget import fit
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.dropout import DropoutPlan, DroppedRow, RowDropout, drop_by_rows, row_key
from swe_scaffold.engine.loop import Loop
from swe_scaffold.engine.loss import token_nll
from swe_scaffold.types import TokenizedExample
from tests.engine.shapes import (
    MODELS,
    gradients,
    long_rope,
    make_cut,
    make_model,
    make_rows,
    make_settings,
    with_adapter,
)

FLOAT32, BFLOAT16 = Device("cpu", torch.float32), Device("cpu", torch.bfloat16)
LENGTHS = (13, 5, 29, 2, 17, 21, 8, 11)
ROWS = make_rows(LENGTHS)
TARGETS = sum(len(row.target_positions) for row in ROWS)
SETTINGS = make_settings(seed=11)
CLOSE = 2e-5
PADDED = ("mistral-window", "gemma2-soft-capped")
PACKED = [name for name in MODELS if name not in PADDED]
HALF = ("qwen2-tied", "qwen2-untied", "llama", "mistral-window-30", "qwen3", "phi-head-with-bias")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def adapted(
    name: str, targets: Sequence[str] | str, dtype: torch.dtype, *, dropout: float = 0.0
) -> Any:
    """A model under an adapter with B away from zero; the same weights for every dtype."""
    wanted = list(targets) if not isinstance(targets, str) else targets
    if not isinstance(targets, str):
        own = {"phi": ["q_proj", "k_proj", "v_proj", "dense"], "bert": ["query", "key", "value"]}
        wanted = own.get(name.partition("-")[0], wanted)
    lora = LoRAConfig(r=3, alpha=6, dropout=dropout, target_modules=wanted)  # type: ignore[arg-type]
    model = attach(make_model(name).to(dtype), lora, seed=3)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, tensor in sorted(model.named_parameters()):
            if "lora_B" in key:
                tensor.normal_(std=0.2, generator=generator)
    return model


def plain(model: Any, *, autocast: bool = False) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """The NLL of every row, and the gradient of the mean over all targets."""
    rows: list[torch.Tensor] = []
    for row in ROWS:
        ids = torch.tensor(row.input_ids[None], dtype=torch.int64)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(input_ids=ids).logits[0, :-1].float()
        nll = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        nll = nll[torch.tensor(row.loss_mask[1:])]
        (nll.sum() / TARGETS).backward()
        rows.append(nll.detach())
    return rows, gradients(model)


def engine(
    model: Any, device: Device = FLOAT32, *, tokens: int = 64
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of a step over all rows, and the gradient that the optimizer saw."""
    loop = Loop(model, SETTINGS, device, make_cut(model, tokens=tokens, longest=29))
    loss = loop.take(ROWS).loss
    moments = {name: loop.optimizer.state[p]["exp_avg"] for name, p in loop.parameters.items()}
    # The first moment after one step from zero is a tenth of the gradient.
    return loss, {name: 10 * moment for name, moment in moments.items()}


def apart(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The relative distance of all gradients together."""
    assert set(found) == set(wanted)
    off = sum(float((found[name].float() - wanted[name].float()).norm()) ** 2 for name in wanted)
    return (off / sum(float(tensor.float().norm()) ** 2 for tensor in wanted.values())) ** 0.5


@pytest.mark.parametrize("targets", [ATTENTION, "all-linear"], ids=["attention", "all-linear"])
@pytest.mark.parametrize("name", PACKED)
def test_loss_and_every_gradient_in_float32(name: str, targets: Any) -> None:
    rows, wanted = plain(adapted(name, targets, torch.float32))
    model = adapted(name, targets, torch.float32)
    assert make_cut(model, longest=29).packs
    loss, found = engine(model)
    assert loss == pytest.approx(float(torch.cat(rows).double().mean()), rel=2e-6)
    assert set(found) == set(wanted)
    for key, gradient in wanted.items():
        assert float((found[key] - gradient).norm() / gradient.norm()) <= CLOSE, key


@pytest.mark.parametrize("name", HALF)
def test_bfloat16_is_no_further_off_than_peft_under_autocast(name: str) -> None:
    _, wanted = plain(adapted(name, ATTENTION, torch.float32))
    rows, peer = plain(adapted(name, ATTENTION, torch.bfloat16), autocast=True)
    loss, found = engine(adapted(name, ATTENTION, torch.bfloat16), BFLOAT16)
    # Two roundings of the same kind: neither is always the smaller one.
    assert apart(found, wanted) <= 1.5 * apart(peer, wanted)
    assert loss == pytest.approx(float(torch.cat(rows).double().mean()), rel=2e-2)


@pytest.mark.parametrize("name", PADDED)
def test_a_model_that_cannot_pack_is_padded_and_says_so(name: str) -> None:
    rows, wanted = plain(adapted(name, "all-linear", torch.float32))
    model = adapted(name, "all-linear", torch.float32)
    cut = make_cut(model, longest=29)
    assert not cut.packs
    assert cut.refusal
    loss, found = engine(model)
    assert loss == pytest.approx(float(torch.cat(rows).double().mean()), rel=2e-6)
    assert apart(found, wanted) <= CLOSE


def test_rows_that_would_move_others_go_alone() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(with_adapter(long_rope().requires_grad_(False)))
    rows, wanted = plain(models[0])
    cut = make_cut(models[1], longest=29)
    assert "change the positions of others" in str(cut.refusal)
    assert [len(part) for part in cut.of(ROWS)] == [1] * len(ROWS)
    loss, found = engine(models[1])
    assert loss == pytest.approx(float(torch.cat(rows).double().mean()), rel=2e-6)
    assert apart(found, wanted) <= CLOSE


def test_a_base_that_drops_attention_of_its_own_is_padded_and_resumes_alike() -> None:
    steps = []
    for _ in range(2):
        model = adapted("llama", "all-linear", torch.float32)
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.3
        cut = make_cut(model, longest=29)
        assert "asks for more while it trains: dropout" in str(cut.refusal)
        torch.manual_seed(len(steps))
        steps.append(Loop(model, SETTINGS, FLOAT32, cut).take(ROWS).loss)
    assert steps[0] == steps[1]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("flipped", [0, 2, 5])
def test_a_row_never_sees_another(flipped: int, checkpointing: bool, dropout: float) -> None:
    """Flip one row: every other row's loss is the same to the bit."""
    found = []
    for other in (False, True):
        rows = list(ROWS)
        if other:
            rows[flipped] = replace(rows[flipped], input_ids=rows[flipped].input_ids[::-1].copy())
        model = adapted("qwen2-tied", "all-linear", torch.float32, dropout=dropout)
        plan = drop_by_rows(model)
        model.train()
        if checkpointing:
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        batch = make_stream(rows, device="cpu")
        if plan:
            announce(plan, rows)
        with within_documents(model.get_base_model()):
            nll = token_nll(model, batch)
            nll.sum().backward()
        found.append(nll.detach().split(batch.counts))
    for index, (before, after) in enumerate(zip(*found, strict=True)):
        assert torch.equal(before, after) == (index != flipped), index


def announce(plan: DropoutPlan, rows: Sequence[TokenizedExample]) -> None:
    held, start = [], 0
    for row in rows:
        held.append(DroppedRow(start, row.length, row_key(row, seed=SETTINGS.seed, step=0)))
        start += row.length
    plan.announce(held, start)


class FixedDropout(torch.nn.Module):
    """What torch's dropout does, with masks that are given: one for each row, in turn."""

    def __init__(self, masks: list[torch.Tensor]) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.masks.pop(0)


def fix_dropout(model: Any) -> None:
    """Give a plain PEFT model the masks that the engine draws for these rows."""
    for module in model.modules():
        held = getattr(module, "lora_dropout", None)
        if isinstance(held, torch.nn.ModuleDict):
            for key, dropout in held.items():
                assert isinstance(dropout, RowDropout)
                masks = []
                for row in ROWS:
                    announce(dropout._plan, [row])
                    ones = torch.ones(1, row.length, module.in_features)
                    masks.append(dropout.train()(ones))
                held[key] = FixedDropout(masks)


@pytest.mark.parametrize("name", ["qwen2-untied", "llama"])
@pytest.mark.parametrize("tokens", [1, 64, 200])
def test_dropout_with_fixed_masks(name: str, tokens: int) -> None:
    reference = adapted(name, "all-linear", torch.float32, dropout=0.3)
    assert drop_by_rows(reference) is not None
    fix_dropout(reference)
    rows, wanted = plain(reference)
    model = adapted(name, "all-linear", torch.float32, dropout=0.3)
    loss, found = engine(model, tokens=tokens)
    assert loss == pytest.approx(float(torch.cat(rows).double().mean()), rel=2e-6)
    assert apart(found, wanted) <= CLOSE
    without, _ = engine(adapted(name, "all-linear", torch.float32), tokens=tokens)
    assert abs(without - loss) > 1e-3


def test_a_budget_that_was_chosen_gives_the_same_step() -> None:
    model = adapted("qwen2-tied", "all-linear", torch.float32)
    loop = Loop(model, SETTINGS, FLOAT32, make_cut(model))
    fit(loop, ROWS, rows_per_step=len(ROWS))
    other = adapted("qwen2-tied", "all-linear", torch.float32)
    assert loop.take(ROWS).loss == engine(other, tokens=1024)[0]
