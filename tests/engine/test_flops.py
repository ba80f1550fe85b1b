"""The work of a step, against what a profiler counts of the very products."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from swe_scaffold.engine.batches import make_batch
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.flops import StepWork, measure_gemm
from swe_scaffold.engine.loss import token_nll
from tests.engine.shapes import make_model, make_rows, with_adapter


@pytest.mark.parametrize("name", ["qwen2-tied", "llama"])
@pytest.mark.parametrize("trained", ["adapter", "all"])
def test_the_work_is_that_of_the_products(name: str, trained: str) -> None:
    """But for the first layer, whose input needs no gradient, and the square of short rows."""
    model = make_model(name)
    model = with_adapter(model) if trained == "adapter" else model.requires_grad_(True)
    rows = make_rows((40, 40))
    with FlopCounterMode(display=False) as counter:
        token_nll(model, make_batch(rows, pad_id=0, device="cpu")).sum().backward()
    work = StepWork.of(model)
    attention = work.per_square * sum(len(row.input_ids) ** 2 for row in rows)
    # The counter takes attention's square whole, we take the half below the diagonal; it does not
    # see what a custom function's chunks multiply twice.
    assert work.flops(rows) - attention == pytest.approx(counter.get_total_flops(), rel=0.25)


def test_rows_add_up_and_targets_count() -> None:
    work = StepWork(per_token=10.0, per_square=1.0, per_target=100.0)
    rows = make_rows((8, 5))
    targets = sum(sum(row.loss_mask[1:]) for row in rows)
    assert work.flops(rows) == 130 + 64 + 25 + 100 * targets


def test_a_large_product_is_measured() -> None:
    assert 1e8 < measure_gemm(Device("cpu", torch.float32)) < 1e16
