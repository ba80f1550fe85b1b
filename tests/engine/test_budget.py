"""Micro-batches that fit: what is counted, what is chosen, and what is said where nothing fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from swe_scaffold.engine import budget
from swe_scaffold.engine.devices import Device, memory_held_bytes
from swe_scaffold.engine.loop import Loop
from swe_scaffold.engine.loss import token_nll
from swe_scaffold.errors import OutOfMemory
from swe_scaffold.types import TokenizedExample
from tests.engine.shapes import make_cut, make_model, make_rows, make_settings, with_adapter

CPU = Device("cpu", torch.float32)
ROWS = make_rows((40, 33, 64, 100, 9, 12))
SETTINGS = make_settings()


def make_loop(name: str = "qwen2-tied", dropout: float = 0.0) -> Loop:
    model = with_adapter(make_model(name), dropout=dropout)
    return Loop(model, SETTINGS, CPU, make_cut(model, longest=100))


def leave(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """Let so many bytes be free beside what this process holds."""
    held = memory_held_bytes(CPU)
    monkeypatch.setattr(budget, "memory_held_bytes", lambda _: held)
    monkeypatch.setattr(
        budget, "memory_limit_bytes", lambda _, sharers: held + free / budget._SHARE
    )


def fit(
    loop: Loop, rows: list[TokenizedExample] = ROWS, *, rows_per_step: int = len(ROWS), **asked: Any
) -> budget.Budget:
    return budget.fit(loop, rows, rows_per_step=rows_per_step, **asked)


def need(loop: Loop, tokens: int, *, checkpointing: bool = False) -> int:
    longest = max(ROWS, key=lambda row: row.length)
    return budget._Need.of(loop, longest).bytes(tokens, checkpointing)


def test_a_cpu_packs_a_thousand_tokens() -> None:
    found = fit(loop := make_loop())
    assert (found.tokens, found.activation_checkpointing, found.refusal) == (1024, False, None)
    assert loop.cut.tokens == 1024
    assert 0 < found.needed_bytes < found.free_bytes


def test_a_row_longer_than_the_budget_goes_alone() -> None:
    loop = make_loop()
    assert fit(loop, tokens=50).tokens == 50
    assert [len(part) for part in loop.cut.of(ROWS)][:2] == [1, 1]
    rows = make_rows((1500, 7))
    assert fit(make_loop(), rows).tokens == 1500


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", ["qwen2-untied", "llama", "gemma2-soft-capped"])
def test_the_count_is_what_a_larger_pass_keeps(name: str, dropout: float) -> None:
    loop = make_loop(name, dropout)
    (row,) = make_rows((100,))
    own = {
        t.untyped_storage().data_ptr() for t in (*loop.model.parameters(), *loop.model.buffers())
    }
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with loop._training(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        nll = token_nll(loop.model, loop._batch([row]))
    assert nll.requires_grad
    counted = budget._Need.of(loop, row)._kept(100)
    assert counted == pytest.approx(sum(kept.values()), rel=0.15)


def test_too_little_memory_turns_checkpointing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop()
    whole, twice = need(loop, 100), need(loop, 100, checkpointing=True)
    assert twice < whole
    leave(monkeypatch, (whole + twice) / 2)
    found = fit(loop)
    assert found.activation_checkpointing
    assert found.tokens == 100
    assert loop.cut.causal.is_activation_checkpointing
    other = make_loop()
    assert loop.take(ROWS).loss == pytest.approx(other.take(ROWS).loss, rel=1e-6)


def test_nothing_fits_and_the_arithmetic_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop()
    leave(monkeypatch, need(loop, 100, checkpointing=True) / 2)
    with pytest.raises(OutOfMemory, match=r"activations .* GiB \+ .* are free") as error:
        fit(loop)
    assert error.value.exit_code == 7
    assert "with activation checkpointing" in error.value.message
    assert "training.max_length below 100" in error.value.hint


def test_what_was_asked_for_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop()
    assert fit(loop, checkpointing=True).activation_checkpointing
    whole, twice = need(make_loop(), 100), need(make_loop(), 100, checkpointing=True)
    leave(monkeypatch, (whole + twice) / 2)
    with pytest.raises(OutOfMemory) as error:
        fit(make_loop(), checkpointing=False)
    assert "let training.activation_checkpointing be auto" in error.value.hint
    leave(monkeypatch, need(make_loop(), 200))
    with pytest.raises(OutOfMemory) as error:
        fit(make_loop(), tokens=250, checkpointing=False)
    assert "lower training.tokens_per_micro_batch" in error.value.hint


def test_no_more_is_needed_than_a_step_has(monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, need(make_loop(), 200))
    found = fit(make_loop(), rows_per_step=2, tokens=1 << 40)
    assert (found.tokens, found.activation_checkpointing) == (1 << 40, False)
    assert found.needed_bytes == need(make_loop(), 100 + 64)
    assert fit(make_loop(), rows_per_step=2).tokens == budget.CPU_TRAINING_TOKENS
    padded = make_loop()
    padded.cut = replace(padded.cut, refusal="it is to be padded")
    # Two rows of 100 tokens, as the longest pads the other.
    assert fit(padded, rows_per_step=2, tokens=1 << 40).needed_bytes == need(padded, 200)
