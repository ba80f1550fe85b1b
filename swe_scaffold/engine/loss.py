"""The one true loss: negative log-likelihood per supervised token, and nothing computed beside it.

The head runs only where a target is, in chunks, with a float32 softmax. Which tokens are targets is
decided by rendering.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from swe_scaffold.engine.batches import Batch

# Logits at once: on a GPU as many as keep it busy, on a CPU as few as a product is fast with.
CHUNK_ELEMENTS, CPU_CHUNK_ELEMENTS = 1 << 26, 1 << 24
# Rows and columns of the head's output at once where no gradient is made: 8 MiB of float32.
CPU_TILE = (512, 4096)
_PROBE_TOKENS = 8
_PLAIN_HEADS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def token_nll(model: Any, batch: Batch) -> torch.Tensor:
    """Return the NLL in nats of every target of a batch, shape (targets,), float32.

    Targets come row by row, in token order. The logit of a target stands one position before it.

    Args:
        model: A causal language model, or a PEFT model around one.
        batch: Right-padded rows, where causal attention lets no token see padding, which comes
            later; or a stream, within `attention.within_documents`.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    if causal not in _PLAIN_HEADS:
        _PLAIN_HEADS[causal] = _has_plain_head(causal, batch.input_ids[:1, :_PROBE_TOKENS])
    if not _PLAIN_HEADS[causal]:
        logits_BTV = causal(input_ids=batch.input_ids, use_cache=False, **batch.stream).logits
        logits_NV = logits_BTV[batch.where]
        return functional.cross_entropy(logits_NV.float(), batch.targets, reduction="none")
    body = causal.base_model(input_ids=batch.input_ids, use_cache=False, **batch.stream)
    hidden_NH = body.last_hidden_state[batch.where]
    head = causal.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return functional.cross_entropy(head(hidden_NH).float(), batch.targets, reduction="none")
    if not torch.is_grad_enabled() or not (hidden_NH.requires_grad or head.weight.requires_grad):
        return _tiled_nll(hidden_NH, head.weight, head.bias, batch.targets)
    way = _TrainedHeadNll if head.weight.requires_grad else _SelectedNll
    nll: torch.Tensor = way.apply(hidden_NH, head.weight, head.bias, batch.targets)
    return nll


def _has_plain_head(causal: Any, ids: torch.Tensor) -> bool:
    """Whether the logits are the head's output on the last hidden states and nothing else.

    Soft-capping, scaling or a transform before the head go by many names: the model itself is
    asked, on a few tokens, without dropout and thus without touching a random state.
    """
    body, head = causal.base_model, causal.get_output_embeddings()
    if head is None or body is causal:
        return False
    training = causal.training
    causal.eval()
    try:
        with torch.no_grad():
            logits = causal(input_ids=ids, use_cache=False).logits
            hidden = getattr(body(input_ids=ids, use_cache=False), "last_hidden_state", None)
            if hidden is None or hidden.shape[-1] != head.weight.shape[-1]:
                return False
            # Not one bit apart: both ways are the same operations on the same numbers.
            return torch.equal(head(hidden).float(), logits.float())
    finally:
        causal.train(training)


def _tiled_nll(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    targets_N: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy through a head, no more than one tile of logits at a time.

    logsumexp over the vocabulary is the logsumexp of the tiles' own. On a CPU a tile that stays in
    the cache is read there by the softmax, instead of twice from memory.
    """
    columns = CPU_TILE[1] if hidden_NH.device.type == "cpu" else weight_VH.shape[0]
    rows = CPU_TILE[0] if hidden_NH.device.type == "cpu" else max(1, CHUNK_ELEMENTS // columns)
    nll_N = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_NH.device)
    for start in range(0, len(targets_N), rows):
        part = slice(start, start + rows)
        targets_C1 = targets_N[part, None]
        totals, chosen_C1 = [], torch.zeros_like(targets_C1, dtype=torch.float32)
        for first in range(0, weight_VH.shape[0], columns):
            tile = slice(first, first + columns)
            bias = None if bias_V is None else bias_V[tile]
            logits_CW = functional.linear(hidden_NH[part], weight_VH[tile], bias).float()
            totals.append(torch.logsumexp(logits_CW, -1))
            within_C1 = targets_C1 - first
            here_C1 = (within_C1 >= 0) & (within_C1 < logits_CW.shape[1])
            target_C1 = logits_CW.gather(1, within_C1.clamp(0, logits_CW.shape[1] - 1))
            chosen_C1 = torch.where(here_C1, target_C1, chosen_C1)
        nll_N[part] = torch.logsumexp(torch.stack(totals), 0) - chosen_C1.squeeze(1)
    return nll_N


class _SelectedNll(torch.autograd.Function):
    """Cross-entropy through a frozen head; its gradient is made in the forward pass, by chunks.

    d nll_i / d hidden_i = (softmax(logits_i) - onehot(target_i)) @ weight, so that full logits
    never exist and the backward pass is one multiplication.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_N: torch.Tensor,
    ) -> torch.Tensor:
        nll_N = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_NH.device)
        gradient_NH = torch.empty_like(hidden_NH)
        for part in _chunks(targets_N, weight_VH):
            log_CV = _log_softmax(hidden_NH[part], weight_VH, bias_V)
            nll_N[part] = -log_CV.gather(1, targets_N[part, None]).squeeze(1)
            gradient_NH[part] = _error(log_CV, targets_N[part]).to(weight_VH.dtype) @ weight_VH
        ctx.save_for_backward(gradient_NH)
        return nll_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale_N: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient_NH,) = ctx.saved_tensors
        # In float32: a loss scale may be beyond what float16 holds.
        scaled_NH = gradient_NH.float() * scale_N[:, None]
        return scaled_NH.to(gradient_NH.dtype), None, None, None


class _TrainedHeadNll(torch.autograd.Function):
    """Cross-entropy through a head that is trained too; logits are made again for the gradient.

    What a weight's gradient is scaled by is known in the backward pass only.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_N: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N)
        return _tiled_nll(hidden_NH, weight_VH, bias_V, targets_N)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, scale_N: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, None]:
        hidden_NH, weight_VH, bias_V, targets_N = ctx.saved_tensors
        of_hidden_NH = torch.empty_like(hidden_NH)
        of_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32)
        of_bias_V = None if bias_V is None else torch.zeros_like(bias_V, dtype=torch.float32)
        for part in _chunks(targets_N, weight_VH):
            log_CV = _log_softmax(hidden_NH[part], weight_VH, bias_V)
            error_CV = _error(log_CV, targets_N[part]).mul_(scale_N[part, None])
            if of_bias_V is not None:
                of_bias_V += error_CV.sum(0)
            low_CV = error_CV.to(weight_VH.dtype)
            of_hidden_NH[part] = low_CV @ weight_VH
            of_weight_VH += low_CV.t() @ hidden_NH[part]
        of_bias = None if of_bias_V is None or bias_V is None else of_bias_V.to(bias_V.dtype)
        return of_hidden_NH, of_weight_VH.to(weight_VH.dtype), of_bias, None


def _chunks(targets_N: torch.Tensor, weight_VH: torch.Tensor) -> Iterator[slice]:
    elements = CPU_CHUNK_ELEMENTS if targets_N.device.type == "cpu" else CHUNK_ELEMENTS
    rows = max(1, elements // weight_VH.shape[0])
    for start in range(0, len(targets_N), rows):
        yield slice(start, start + rows)


def _log_softmax(
    hidden_CH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None
) -> torch.Tensor:
    logits_CV = functional.linear(hidden_CH, weight_VH, bias_V)
    return torch.log_softmax(logits_CV, -1, dtype=torch.float32)


def _error(log_CV: torch.Tensor, targets_C: torch.Tensor) -> torch.Tensor:
    """Return softmax - onehot, in place of the log-softmax."""
    minus_one_C1 = torch.full_like(targets_C[:, None], -1, dtype=torch.float32)
    return log_CV.exp_().scatter_add_(1, targets_C[:, None], minus_one_C1)
