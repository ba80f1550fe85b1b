"""Grouped attention against float64, and beside torch's own in half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from swe_scaffold.engine.grouped import BLOCK, KEPT, GroupedAttention

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def draw(heads: int, keys: int, length: int, size: int, *, scale: float = 1.0) -> Tensors:
    """Queries, keys and values; large ones have keys far from zero, as Qwen2's biases make them."""
    generator = torch.Generator().manual_seed(heads * length + size)
    query = torch.randn(heads, length, size, generator=generator) * scale
    key = torch.randn(keys, length, size, generator=generator) * scale
    if scale > 1:
        key += 3 * scale * torch.randn(size, generator=generator)
    return query, key, torch.randn(keys, length, size, generator=generator)


def run(
    attend: Callable[..., torch.Tensor], tensors: Tensors, dtype: torch.dtype
) -> list[torch.Tensor]:
    """The output of an attention, and its gradients."""
    leaves = [tensor.to(dtype, copy=True).requires_grad_() for tensor in tensors]
    out = attend(*leaves)
    generator = torch.Generator().manual_seed(5)
    out.backward(torch.randn(out.shape, generator=generator).to(dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def ours(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = GroupedAttention.apply(query, key, value, query.shape[2] ** -0.5)
    return found


def torchs(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    found = functional.scaled_dot_product_attention(
        query[None], key[None], value[None], is_causal=True, enable_gqa=True
    )
    return found[0].transpose(0, 1)


def written_out(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    group = query.shape[0] // key.shape[0]
    keys, values = (part.repeat_interleave(group, 0) for part in (key, value))
    scores = torch.einsum("hqd,hkd->hqk", query, keys) * query.shape[2] ** -0.5
    above = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(above, float("-inf")).softmax(-1)
    return torch.einsum("hqk,hkd->qhd", weights, values)


def errors(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> list[float]:
    pairs = zip(found, wanted, strict=True)
    return [float((one.double() - other).norm() / other.norm()) for one, other in pairs]


LENGTHS = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 8]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("heads", "keys", "size"), [(4, 4, 4), (4, 2, 24), (8, 2, 64), (8, 1, 5)])
def test_values_and_gradients_in_float32(heads: int, keys: int, size: int, length: int) -> None:
    tensors = draw(heads, keys, length, size)
    wanted = run(written_out, tensors, torch.float64)
    # A single token attends to itself: the gradient of scores is zero.
    wanted, found = wanted[:: 3 if length == 1 else 1], run(ours, tensors, torch.float32)
    assert max(errors(found[:: 3 if length == 1 else 1], wanted)) < 2e-6


@pytest.mark.parametrize("scale", [1.0, 4.0, 8.0])
@pytest.mark.parametrize(("heads", "keys", "size"), [(8, 1, 64), (8, 2, 128)])
def test_bfloat16_is_as_good_as_torchs_own(heads: int, keys: int, size: int, scale: float) -> None:
    """Scores of hundreds would be off by whole units in bfloat16."""
    drawn = draw(heads, keys, 300, size, scale=scale)
    query, key, value = (tensor.bfloat16().float() for tensor in drawn)
    wanted = run(written_out, (query, key, value), torch.float64)
    mine, peer = (
        errors(run(way, (query, key, value), torch.bfloat16), wanted) for way in (ours, torchs)
    )
    for name, own, other in zip(("values", "query", "key", "value"), mine, peer, strict=True):
        assert own <= 1.6 * other, name


def test_weights_that_are_made_again_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from swe_scaffold.engine import grouped

    tensors = draw(4, 2, 2 * BLOCK + 3, 16)
    kept = run(ours, tensors, torch.float32)
    monkeypatch.setattr(grouped, "KEPT", 1)
    again = run(ours, tensors, torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))
    assert KEPT > 1


def test_what_is_kept_does_not_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    from swe_scaffold.engine import grouped

    monkeypatch.setattr(grouped, "KEPT", BLOCK)

    def saved(length: int) -> int:
        sizes: list[int] = []

        def keep(tensor: torch.Tensor) -> Any:
            sizes.append(tensor.numel())
            return tensor

        leaves = [tensor.requires_grad_() for tensor in draw(2, 1, length, 8)]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            ours(*leaves)
        return sum(sizes)

    assert saved(8 * BLOCK) == 8 * saved(BLOCK + BLOCK) // 2
