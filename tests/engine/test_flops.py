"""The work of a step, against what a profiler counts of the very products."""

from __future__ import annotations

import re

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
    model = make_model(name)
    model.set_attn_implementation("eager")
    model = with_adapter(model) if trained == "adapter" else model.requires_grad_(True)
    rows = make_rows((40, 40))
    batch = make_batch(rows, pad_id=0, device="cpu")
    token_nll(model, batch)  # what a model is asked but once
    with FlopCounterMode(display=False) as counter:
        token_nll(model, batch).sum().backward()
    work = StepWork.of(model)
    # The counter takes attention's square whole, we take the half below the diagonal.
    expected = work.flops(rows) + work.per_square * sum(row.length**2 for row in rows)
    if trained == "adapter":
        # The input of the first layer needs no gradient.
        first = [
            module.in_features * module.out_features
            for name, module in model.named_modules()
            if re.search(r"layers\.0\.self_attn\.[qkv]_proj\.(base_layer|lora_A\.)", name)
            and isinstance(module, torch.nn.Linear)
        ]
        assert len(first) == 6
        expected -= 2 * sum(first) * sum(row.length for row in rows)
    else:
        # A trained head makes its logits again.
        head = model.get_output_embeddings().weight.numel()
        expected += 2 * head * sum(len(row.target_positions) for row in rows)
    assert counter.get_total_flops() == expected


def test_rows_add_up_and_targets_count() -> None:
    work = StepWork(per_token=10.0, per_square=1.0, per_target=100.0)
    rows = make_rows((8, 5))
    targets = sum(sum(row.loss_mask[1:]) for row in rows)
    assert work.flops(rows) == 130 + 64 + 25 + 100 * targets


def test_a_large_product_is_measured() -> None:
    assert 1e8 < measure_gemm(Device("cpu", torch.float32)) < 1e16
