"""Nothing of the size tokens x vocabulary is ever made: by no step, and by no score."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from swe_scaffold.engine import loss
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.loop import Loop
from swe_scaffold.engine.scoring import score
from tests.engine.shapes import SIZES, make_cut, make_rows, make_settings, with_adapter

VOCABULARY, LENGTH = 20_000, 400
CPU = Device("cpu", torch.float32)


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out


def make() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**{**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": 1024})
    return Qwen2ForCausalLM(config).float().eval().requires_grad_(False)


@pytest.mark.parametrize("trained", ["adapter", "all"])
def test_no_full_logits(monkeypatch: pytest.MonkeyPatch, trained: str) -> None:
    chunk = 25 * VOCABULARY
    monkeypatch.setattr(loss, "CPU_CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(loss, "CPU_TILE", (64, 4096))
    model = make()
    model = with_adapter(model) if trained == "adapter" else model.requires_grad_(True)
    rows = make_rows((LENGTH, LENGTH))
    loop = Loop(model, make_settings(), CPU, make_cut(model, tokens=2 * LENGTH, longest=LENGTH))
    with Largest() as seen:
        loop.take(rows)
        for _ in score(model, rows, passes=[(0, 1)], pad_id=0, device=CPU):
            pass
    targets = sum(len(row.target_positions) for row in rows)
    weights = VOCABULARY * SIZES["hidden_size"]
    assert targets > 10 * chunk / VOCABULARY
    assert seen.elements <= max(chunk, weights) < targets * VOCABULARY
