"""Dropout that belongs to rows: its share, scale and gradient, and what its masks depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from swe_scaffold.engine.dropout import DropoutPlan, DroppedRow, RowDropout, row_key
from swe_scaffold.errors import ConfigError
from tests.engine.shapes import make_rows

SIZE = 24
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def masks(
    lengths: list[int], keys: list[bytes], *, share: float = 0.3, number: int = 0, gap: int = 0
) -> list[torch.Tensor]:
    """What each row's ones become, `gap` tokens of padding after each."""
    plan = DropoutPlan()
    module = RowDropout(share, number, plan).train()
    starts = [sum(lengths[:row]) + gap * row for row in range(len(lengths))]
    held = [DroppedRow(*row) for row in zip(starts, lengths, keys, strict=True)]
    tokens = sum(lengths) + gap * len(lengths)
    plan.announce(held, tokens)
    out = module(torch.ones(1, tokens, SIZE))[0]
    return [out[start : start + length] for start, length in zip(starts, lengths, strict=True)]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_share_and_the_scale(share: float) -> None:
    (out,) = masks([4000], [b"k"], share=share)
    dropped = float((out == 0).float().mean())
    assert dropped == pytest.approx(share, abs=4 * (share * (1 - share) / out.numel()) ** 0.5)
    kept = out[out != 0]
    assert torch.equal(kept, kept[:1].expand(len(kept)))
    assert float(kept[0]) == pytest.approx(1 / (1 - share), rel=1e-3)


def test_a_rows_mask_is_its_own_in_any_company() -> None:
    alone = masks([7], [b"a"])[0]
    assert torch.equal(masks([7, 5], [b"a", b"b"])[0], alone)
    assert torch.equal(masks([5, 7], [b"b", b"a"])[1], alone)
    assert torch.equal(masks([5, 7, 9], [b"b", b"a", b"c"], gap=4)[1], alone)


def test_masks_differ_between_rows_modules_steps_and_seeds() -> None:
    row, other = make_rows((9, 9))
    keys = {
        row_key(row, seed=1, step=1),
        row_key(row, seed=1, step=2),
        row_key(row, seed=2, step=1),
        row_key(other, seed=1, step=1),
        row_key(replace(row, instance_id="another"), seed=1, step=1),
    }
    assert len(keys) == 5
    assert row_key(row, seed=1, step=1) in keys
    drawn = [masks([9], [key])[0] for key in sorted(keys)]
    drawn.append(masks([9], [min(keys)], number=1)[0])
    for index, one in enumerate(drawn):
        assert not any(torch.equal(one, two) for two in drawn[index + 1 :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_is_the_mask(dtype: torch.dtype) -> None:
    plan = DropoutPlan()
    module = RowDropout(0.4, 0, plan).train()
    plan.announce([DroppedRow(0, 6, b"k")], 6)
    hidden = torch.randn(1, 6, SIZE, dtype=dtype, requires_grad=True)
    out = module(hidden)
    gradient = torch.randn(1, 6, SIZE).to(dtype)
    out.backward(gradient)
    kept = out != 0
    assert hidden.grad is not None
    scale = float(1 / (1 - round(0.4 * 65536) / 65536))
    assert torch.equal(out, torch.where(kept, hidden.detach() * scale, 0))
    assert torch.equal(hidden.grad, torch.where(kept, gradient * scale, 0))


def test_scores_are_without_it() -> None:
    hidden = torch.randn(1, 6, SIZE)
    assert RowDropout(0.4, 0, DropoutPlan()).eval()(hidden) is hidden


def test_other_tokens_than_the_rows_have_are_an_error() -> None:
    plan = DropoutPlan()
    plan.announce([DroppedRow(0, 6, b"k")], 6)
    with pytest.raises(ConfigError, match="sees other tokens") as error:
        RowDropout(0.4, 0, plan).train()(torch.ones(1, 5, SIZE))
    assert error.value.where == "training.lora.dropout"
