"""Causal attention of one document as matrix products over groups of heads: for CPUs.

Query heads that share keys and values are folded into the rows of one product per block of
queries, each against the keys up to its end, so that nothing above the diagonal is computed but
within a block. The weights of short documents are kept for the backward pass, those of long ones
made again, so that memory does not grow with the square of the tokens.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from swe_scaffold.engine.products import may_use_bfloat16

BLOCK = 128
# Making the weights again costs a fifth of the attention; keeping them, at this length, as much
# memory as the rest of a layer.
KEPT = 2048
_softmax = torch.ops.aten._softmax.out
_softmax_backward = torch.ops.aten._softmax_backward_data.out


class GroupedAttention(torch.autograd.Function):
    """Causal attention, with its gradient.

    Takes queries (heads, tokens, size), keys and values (key heads, tokens, size) and the factor on
    the scores; gives (tokens, heads, size). Scores and softmax are float32, whatever the dtype of
    the queries, as large scores in bfloat16 are off by whole units; gradients of keys and values
    are summed in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_HTD: torch.Tensor,
        key_KTD: torch.Tensor,
        value_KTD: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Return the attention's output."""
        heads, tokens, size = query_HTD.shape
        keeps, kept = any(ctx.needs_input_grad) and tokens <= KEPT, []
        folds = _Folds(query_HTD, key_KTD, value_KTD, scaling)
        out_THD = torch.empty(tokens, heads, size, dtype=query_HTD.dtype, device=query_HTD.device)
        for start, end in folds.blocks():
            weights_KRE = folds.weights(folds.queries(start, end), start, end, keeps=keeps)
            found_KRD = torch.bmm(weights_KRE, folds.value_KTD[:, :end])
            out_THD[start:end] = folds.unfold(found_KRD, end - start).transpose(0, 1)
            if keeps:
                kept.append(weights_KRE)
        ctx.save_for_backward(query_HTD, key_KTD, value_KTD, *kept)
        ctx.scaling = scaling
        return out_THD

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient_THD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        """Return the gradients of queries, keys and values."""
        query_HTD, key_KTD, value_KTD, *kept = ctx.saved_tensors
        folds = _Folds(query_HTD, key_KTD, value_KTD, ctx.scaling)
        of_query_HTD = torch.empty_like(query_HTD, memory_format=torch.contiguous_format)
        of_key_KTD = torch.zeros(key_KTD.shape, dtype=torch.float32, device=key_KTD.device)
        of_value_KTD = torch.zeros_like(of_key_KTD)
        desk = _Desk(folds, query_HTD.dtype)
        for number, (start, end) in enumerate(folds.blocks()):
            query_KRD = folds.queries(start, end)
            weights_KRE = kept[number] if kept else folds.weights(query_KRD, start, end)
            incoming_KRD = folds.fold(gradient_THD[start:end].transpose(0, 1))
            of_value_KTD[:, :end] += torch.bmm(weights_KRE.transpose(1, 2), incoming_KRD)
            of_scores_KRE = desk.room(start, end)
            torch.bmm(incoming_KRD, folds.value_KTD[:, :end].transpose(1, 2), out=of_scores_KRE)
            _softmax_backward(
                of_scores_KRE, weights_KRE, -1, weights_KRE.dtype, grad_input=of_scores_KRE
            )
            of_key_KTD[:, :end] += torch.bmm(of_scores_KRE.transpose(1, 2), query_KRD)
            of_block_KRD = torch.bmm(of_scores_KRE, folds.key_KTD[:, :end]).mul_(ctx.scaling)
            of_query_HTD[:, start:end] = folds.unfold(of_block_KRD, end - start)
        of_key_KTD = of_key_KTD.mul_(ctx.scaling).to(key_KTD.dtype)
        return of_query_HTD, of_key_KTD, of_value_KTD.to(value_KTD.dtype), None


class _Folds:
    """Heads that share keys as rows: (heads, tokens, size) to (key heads, group * tokens, size)."""

    def __init__(
        self,
        query_HTD: torch.Tensor,
        key_KTD: torch.Tensor,
        value_KTD: torch.Tensor,
        scaling: float,
    ) -> None:
        self.key_KTD, self.value_KTD = key_KTD.contiguous(), value_KTD.contiguous()
        # A power of two leaves a bfloat16 what it is; another factor has to wait for the product.
        early = math.frexp(scaling)[0] == 0.5
        self._query_HTD, self._scaling = query_HTD, 1.0 if early else scaling
        self._exact_key_KDT = self.key_KTD.float().transpose(1, 2) * (scaling if early else 1.0)
        self.tokens, self._size = query_HTD.shape[1:]
        self.key_heads = key_KTD.shape[0]
        self.group = query_HTD.shape[0] // self.key_heads
        self._above = torch.full((BLOCK, BLOCK), float("-inf"), device=query_HTD.device).triu_(1)
        self._scores, self._weights = _Desk(self, torch.float32), _Desk(self, query_HTD.dtype)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the bounds of the blocks of queries."""
        for start in range(0, self.tokens, BLOCK):
            yield start, min(self.tokens, start + BLOCK)

    def fold(self, part_HBD: torch.Tensor) -> torch.Tensor:
        """Put the heads of a group one below the other."""
        return part_HBD.reshape(self.key_heads, -1, self._size)

    def unfold(self, part_KRD: torch.Tensor, tokens: int) -> torch.Tensor:
        """Undo `fold`."""
        return part_KRD.view(-1, tokens, self._size)

    def queries(self, start: int, end: int) -> torch.Tensor:
        """Return a block's queries, folded."""
        return self.fold(self._query_HTD[:, start:end])

    def weights(
        self, query_KRD: torch.Tensor, start: int, end: int, *, keeps: bool = False
    ) -> torch.Tensor:
        """Return the softmax over the keys up to a block's end; the next call has its memory.

        With `keeps` it stays as it is.
        """
        scores_KRE = self._scores.room(start, end)
        # The very products: these queries and keys fit into bfloat16.
        low = query_KRD.dtype == torch.bfloat16
        with may_use_bfloat16() if low else contextlib.nullcontext():
            torch.bmm(query_KRD.float(), self._exact_key_KDT[..., :end], out=scores_KRE)
        if self._scaling != 1.0:
            scores_KRE.mul_(self._scaling)
        width = end - start
        diagonal = scores_KRE.view(self.key_heads, -1, width, end)[..., start:]
        diagonal.add_(self._above[:width, :width])
        _softmax(scores_KRE, -1, False, out=scores_KRE)
        if keeps:
            return scores_KRE.to(query_KRD.dtype, copy=True)
        if query_KRD.dtype == torch.float32:
            return scores_KRE
        return self._weights.room(start, end).copy_(scores_KRE)


class _Desk:
    """Memory for what each block needs but once: large tensors made anew cost page after page."""

    def __init__(self, folds: _Folds, dtype: torch.dtype) -> None:
        self._folds, self._dtype = folds, dtype
        self._memory: torch.Tensor | None = None

    def room(self, start: int, end: int) -> torch.Tensor:
        """Return a tensor (key heads, group * block, keys) with anything in it."""
        folds = self._folds
        if self._memory is None:
            most = folds.key_heads * folds.group * min(BLOCK, folds.tokens) * folds.tokens
            self._memory = torch.empty(most, dtype=self._dtype)
        rows = folds.group * (end - start)
        part = self._memory[: folds.key_heads * rows * end]
        return part.view(folds.key_heads, rows, end)
