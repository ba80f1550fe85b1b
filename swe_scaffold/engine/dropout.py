"""Dropout whose masks belong to rows: a function of the seed, the step, the row and the module.

So a row is trained with the same masks in any company, order, packing and number of processes, and
again after a run was interrupted or a layer computed anew. Masks are drawn from 16 random bits an
element: the share dropped is the nearest multiple of 1/65536, and the scale is that share's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from swe_scaffold.errors import ConfigError
from swe_scaffold.types import TokenizedExample

_LEVELS = 1 << 16
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """Where a row lies among the tokens of a pass, and what its masks are drawn from."""

    start: int
    length: int
    key: bytes


def row_key(row: TokenizedExample, *, seed: int, step: int) -> bytes:
    """Return what a row's masks are drawn from in an optimizer step (0-based)."""
    ids = row.input_ids.astype("<i4", copy=False).tobytes()
    about = f"{seed} {step} {row.instance_id}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(about + b"\0" + ids, digest_size=16).digest()


class RowDropout(torch.nn.Module):
    """Stands in for the dropout of an adapter; `rows` of the shared plan say what a pass holds.

    Raises:
        ConfigError: In a pass whose tokens do not come as the plan says.
    """

    def __init__(self, share: float, number: int, plan: DropoutPlan) -> None:
        super().__init__()
        self._least = min(round(share * _LEVELS), _LEVELS - 1)
        self._number, self._plan = number, plan
        self._scale = _LEVELS / (_LEVELS - self._least)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return hidden states (..., tokens, size), a part of them zero and the rest scaled."""
        if not self.training:
            return hidden
        if hidden.shape[:-1].numel() != self._plan.tokens:
            raise ConfigError(
                "a module of this model sees other tokens than the rows have",
                where="training.lora.dropout",
                hint="set it to 0, or leave that module out of training.lora.target_modules",
            )
        dropped: torch.Tensor = _Drop.apply(hidden, self._mask(hidden), self._scale)
        return dropped

    def _mask(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return all ones (kept) or all zeros in integers as wide as the hidden states' floats."""
        size = hidden.shape[-1]
        integers = _INTEGERS[hidden.element_size()]
        mask = torch.zeros(self._plan.tokens, size, dtype=integers, device=hidden.device)
        generator = torch.Generator(hidden.device)
        for row in self._plan.rows:
            digest = hashlib.blake2b(
                row.key, salt=self._number.to_bytes(8, "little"), digest_size=8
            )
            generator.manual_seed(int.from_bytes(digest.digest(), "little"))
            words = -(-row.length * size // 4)
            drawn = torch.empty(words, dtype=torch.int64, device=hidden.device)
            drawn.random_(-(1 << 63), None, generator=generator)
            bits = drawn.view(torch.int16)[: row.length * size].view(row.length, size)
            kept = mask[row.start : row.start + row.length]
            torch.ge(bits, self._least - _LEVELS // 2, out=kept)
        return mask.neg_().view(hidden.shape)


class DropoutPlan:
    """Which rows the modules of a model see in the pass to come."""

    def __init__(self) -> None:
        self.rows: tuple[DroppedRow, ...] = ()
        self.tokens = 0

    def announce(self, rows: Sequence[DroppedRow], tokens: int) -> None:
        """Say what the next pass holds: `tokens` in all, padding included."""
        self.rows, self.tokens = tuple(rows), tokens


def drop_by_rows(model: Any) -> DropoutPlan | None:
    """Give every adapter of a PEFT model this dropout in place of its own; None without dropout."""
    plan, number = DropoutPlan(), 0
    for module in model.modules():
        held = getattr(module, "lora_dropout", None)
        if isinstance(held, torch.nn.ModuleDict):
            for name, dropout in held.items():
                if isinstance(dropout, torch.nn.Dropout) and dropout.p > 0:
                    held[name] = RowDropout(dropout.p, number, plan)
                number += 1
    return plan if any(isinstance(module, RowDropout) for module in model.modules()) else None


class _Drop(torch.autograd.Function):
    """Keep the bits of what stays: an AND is far cheaper than a product with a mask."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return _masked(hidden, mask, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return _masked(gradient, mask, ctx.scale), None, None


def _masked(values: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    scaled = values * scale
    scaled.view(mask.dtype).bitwise_and_(mask)
    return scaled
