"""Float32 masters and the copies that compute: sums, steps, what is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from swe_scaffold.engine.adapter import adapter_tensors
from swe_scaffold.engine.checkpoint import open_checkpoint, restore, save_checkpoint
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.loop import Loop
from swe_scaffold.engine.masters import Masters
from tests.engine.shapes import make_cut, make_model, make_rows, make_settings, with_adapter

BFLOAT16 = Device("cpu", torch.bfloat16)
ROWS = make_rows((13, 5, 29, 17))
SETTINGS = make_settings(learning_rate=1e-5, max_grad_norm=1.0)


def make_loop() -> Loop:
    model = with_adapter(make_model().to(torch.bfloat16), dropout=0.2)
    return Loop(model, SETTINGS, BFLOAT16, make_cut(model, tokens=30))


def copies(loop: Loop) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in loop.model.named_parameters() if p.requires_grad}


def test_many_small_gradients_are_summed_in_float32() -> None:
    """In bfloat16 a thousandth added to one is lost."""
    layer = torch.nn.Linear(1, 1, bias=False)
    masters = Masters(layer, torch.bfloat16)
    for gradient in (1.0, *[0.001] * 100):
        (layer.weight * gradient).sum().backward()
        assert layer.weight.grad is None
    master = masters.parameters["weight"]
    assert master.grad is not None
    assert master.grad.dtype == torch.float32
    assert float(master.grad) == pytest.approx(1.1, rel=1e-3)


def test_steps_too_small_for_bfloat16_are_kept() -> None:
    loop = make_loop()
    before, held = copies(loop), {n: p.detach().clone() for n, p in loop.parameters.items()}
    for _ in range(2):
        loop.take(ROWS)
    assert all(not torch.equal(held[name], p) for name, p in loop.parameters.items())
    after = copies(loop)
    # Most copies look as before; each is its master, rounded.
    assert any(torch.equal(before[name], after[name]) for name in before)
    for name, master in loop.parameters.items():
        assert torch.equal(after[name], master.to(torch.bfloat16))


def test_what_is_saved_are_the_masters_and_a_restored_loop_goes_on_alike(tmp_path: Path) -> None:
    loop = make_loop()
    loop.take(ROWS)
    path = save_checkpoint(tmp_path, loop, fingerprint={}, state={})
    with loop.masters.in_model():
        saved = adapter_tensors(loop.model)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    again = make_loop()
    restore(again, open_checkpoint(path))
    assert again.take(ROWS).loss == loop.take(ROWS).loss
    for name, master in loop.parameters.items():
        assert torch.equal(again.parameters[name], master)


def test_the_copies_come_back_whatever_happens() -> None:
    loop = make_loop()
    before = copies(loop)

    def fail() -> None:
        with loop.masters.in_model():
            assert all(p.dtype == torch.float32 for p in copies(loop).values())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    after = copies(loop)
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_float32_needs_no_copies() -> None:
    model = with_adapter(make_model())
    masters = Masters(model, torch.float32)
    own = dict(model.named_parameters())
    assert all(own[name] is parameter for name, parameter in masters.parameters.items())
