"""The work of a step in floating-point operations, and how fast this device multiplies.

Work is what exact training needs (Chowdhery et al. 2022, appendix B, with a frozen base): products
of a frozen matrix twice (its output, the gradient of its input), of a trained one three times, as
the two products of causal attention, the head at targets alone. What is computed again to save
memory is not counted; that the first layer's frozen products need no gradient of their input is not
taken off.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.products import fast_float32
from swe_scaffold.types import TokenizedExample

_SECONDS = 1.0
_CPU_SIZE, _SIZE = 2048, 8192


@dataclass(frozen=True, slots=True)
class StepWork:
    """Operations per token, per squared token of a row, and per target."""

    per_token: float
    per_square: float
    per_target: float

    @classmethod
    def of(cls, model: Any) -> StepWork:
        """Count a causal language model, or a PEFT model around one."""
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        head = causal.get_output_embeddings()
        per_token = sum(
            # Not the weight's own size: in 4 bits two numbers share a byte.
            (6 if module.weight.requires_grad else 4) * module.in_features * module.out_features
            for module in causal.modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        )
        config = causal.config.get_text_config()
        heads = getattr(config, "num_attention_heads", 0)
        size = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
        # Scores and their sums over values, 2 operations each, half of the square, three times.
        per_square = 3.0 * 2 * config.num_hidden_layers * heads * size
        of_head = 0 if head is None else head.weight.numel()
        trained = head is not None and head.weight.requires_grad
        return cls(float(per_token), per_square, (6.0 if trained else 4.0) * of_head)

    def flops(self, rows: Sequence[TokenizedExample]) -> float:
        """Return the operations of one step over rows."""
        lengths = [row.length for row in rows]
        return (
            self.per_token * sum(lengths)
            + self.per_square * sum(length**2 for length in lengths)
            + self.per_target * sum(len(row.target_positions) for row in rows)
        )


def measure_gemm(device: Device) -> float:
    """Return the operations a second of a large square product, the fastest of one second's."""
    size = _CPU_SIZE if device.name == "cpu" else _SIZE
    left = torch.randn(size, size, device=device.name).to(device.dtype)
    fastest, begin = float("inf"), time.perf_counter()
    with fast_float32():
        while time.perf_counter() - begin < _SECONDS or fastest == float("inf"):
            _wait(device)
            start = time.perf_counter()
            left @ left
            _wait(device)
            fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest


def _wait(device: Device) -> None:
    if device.name.startswith("cuda"):
        torch.cuda.synchronize(device.name)
    elif device.name == "mps":
        torch.mps.synchronize()
