"""The loss against plain transformers: the same numbers and gradients, whatever the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from swe_scaffold.engine import loss
from swe_scaffold.engine.batches import make_batch
from swe_scaffold.engine.loss import token_nll
from swe_scaffold.types import TokenizedExample
from tests.engine.shapes import (
    MODELS,
    OWN_LOGITS,
    VOCABULARY,
    gradients,
    make_model,
    make_rows,
    plain_nll,
    with_adapter,
)

LENGTHS = (13, 5, 29, 2, 17)


def batch_of(rows: list[TokenizedExample], pad_id: int = 0) -> Any:
    return make_batch(rows, pad_id=pad_id, device="cpu")


def assert_close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-6) -> None:
    assert found.dtype == torch.float32
    assert found.shape == wanted.shape
    scale = wanted.abs().clamp(min=1.0)
    assert float(((found.detach() - wanted).abs() / scale).max()) <= tolerance


@pytest.mark.parametrize("name", MODELS)
def test_the_nll_is_that_of_plain_transformers(name: str) -> None:
    model, rows = make_model(name), make_rows(LENGTHS)
    with torch.no_grad():
        wanted = torch.cat([plain_nll(model, row) for row in rows])
        assert_close(token_nll(model, batch_of(rows)), wanted, 2e-6)
        for row in rows:
            assert_close(token_nll(model, batch_of([row])), plain_nll(model, row))


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_plain_autograd(name: str) -> None:
    model, rows = with_adapter(make_model(name)), make_rows(LENGTHS)
    # Every token weighs differently, so that no error can cancel out.
    weights = torch.linspace(0.5, 2.0, sum(row.targets for row in rows))
    (torch.cat([plain_nll(model, row) for row in rows]) * weights).sum().backward()
    wanted = gradients(model)
    (token_nll(model, batch_of(rows)) * weights).sum().backward()
    found = gradients(model)
    assert found.keys() == wanted.keys()
    assert len(found) >= 8
    for key, gradient in wanted.items():
        assert float(gradient.norm()) > 0, key
        assert float((found[key] - gradient).norm() / gradient.norm()) <= 1e-5, key


@pytest.mark.parametrize("name", MODELS)
def test_full_logits_exist_only_where_the_model_changes_them(name: str) -> None:
    model, rows = make_model(name), make_rows([40] * 4)
    seen: list[int] = []
    model.get_output_embeddings().register_forward_hook(
        lambda _, arguments, __: seen.append(arguments[0].shape[:-1].numel())
    )
    token_nll(model, batch_of(rows))
    positions = 4 * 40
    assert (max(seen) == positions) == (name in OWN_LOGITS)


@pytest.mark.parametrize("rows_per_chunk", [1, 3, 7, 10_000])
def test_chunks_of_the_head_change_nothing(
    monkeypatch: pytest.MonkeyPatch, rows_per_chunk: int
) -> None:
    model, rows = with_adapter(make_model()), make_rows(LENGTHS)
    whole = token_nll(model, batch_of(rows))
    whole.sum().backward()
    wanted = gradients(model)
    monkeypatch.setattr(loss, "CPU_CHUNK_ELEMENTS", rows_per_chunk * VOCABULARY + 5)
    parts = token_nll(model, batch_of(rows))
    parts.sum().backward()
    assert_close(parts, whole.detach())
    for key, gradient in gradients(model).items():
        assert float((gradient - wanted[key]).norm() / wanted[key].norm()) <= 1e-5, key


@pytest.mark.parametrize("name", ["qwen2-tied", "phi-head-with-bias"])
@pytest.mark.parametrize("tile", [(1, 1), (3, 7), (10_000, 60), (2, VOCABULARY), (512, 4096)])
def test_tiles_of_the_head_change_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, tile: tuple[int, int]
) -> None:
    model, rows = make_model(name), make_rows(LENGTHS)
    wanted = torch.cat([plain_nll(model, row) for row in rows])
    monkeypatch.setattr(loss, "CPU_TILE", tile)
    assert_close(token_nll(model, batch_of(rows)), wanted)


def test_a_vocabulary_larger_than_a_chunk_goes_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = with_adapter(make_model()), make_rows(LENGTHS)
    wanted = token_nll(model, batch_of(rows)).detach()
    monkeypatch.setattr(loss, "CPU_CHUNK_ELEMENTS", 1)
    assert_close(token_nll(model, batch_of(rows)), wanted)


def test_padding_tokens_never_matter() -> None:
    model, rows = make_model(), make_rows(LENGTHS)
    found = [token_nll(model, batch_of(rows, pad_id)) for pad_id in (0, 7, VOCABULARY - 1)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_row_does_not_see_the_others() -> None:
    model = make_model("mistral-window")
    one, *others = make_rows(LENGTHS)
    with torch.no_grad():
        alone = token_nll(model, batch_of([one]))
        for company in (others, make_rows(LENGTHS[1:], seed=9), [one, one]):
            for place in (0, len(company)):
                rows = [*company[:place], one, *company[place:]]
                batch = batch_of(rows)
                start = sum(batch.counts[:place])
                found = token_nll(model, batch)[start : start + len(alone)]
                assert_close(found, alone, 2e-6)


def test_asking_a_model_for_its_head_disturbs_nothing() -> None:
    model = with_adapter(make_model(), dropout=0.5).train()
    batch = batch_of(make_rows(LENGTHS))
    torch.manual_seed(5)
    first = token_nll(model, batch)
    assert all(module.training for module in model.modules())
    torch.manual_seed(5)
    assert torch.equal(token_nll(model, batch), first)


@pytest.mark.parametrize("rows_per_chunk", [1, 7, 10_000])
@pytest.mark.parametrize("name", ["qwen2-tied", "qwen2-untied", "phi-head-with-bias"])
def test_a_trainable_head_gets_its_gradient(
    monkeypatch: pytest.MonkeyPatch, name: str, rows_per_chunk: int
) -> None:
    model, rows = make_model(name).requires_grad_(True), make_rows(LENGTHS)
    scales = torch.linspace(0.5, 2.0, sum(sum(row.loss_mask[1:]) for row in rows))
    (torch.cat([plain_nll(model, row) for row in rows]) * scales).sum().backward()
    wanted = gradients(model)
    monkeypatch.setattr(loss, "CPU_CHUNK_ELEMENTS", rows_per_chunk * VOCABULARY)
    (token_nll(model, batch_of(rows)) * scales).sum().backward()
    for key, gradient in gradients(model).items():
        assert float((gradient - wanted[key]).norm() / wanted[key].norm()) <= 1e-5, key


def test_a_loss_scale_beyond_float16_does_not_overflow() -> None:
    hidden = torch.randn(6, 16).mul(0.1).half().requires_grad_(True)
    weight = torch.randn(VOCABULARY, 16).mul(0.02).half()
    nll = loss._SelectedNll.apply(hidden, weight, None, torch.arange(6))
    (nll.sum() * 2.0**17).backward()
    assert bool(torch.isfinite(hidden.grad).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_a_float32_softmax(dtype: torch.dtype) -> None:
    model, rows = make_model().to(dtype), make_rows(LENGTHS)
    with torch.no_grad():
        wanted = torch.cat([plain_nll(model, row) for row in rows])
        found = token_nll(model, batch_of(rows))
    assert found.dtype == torch.float32
    assert float((found - wanted).abs().max()) < 0.2
    assert not torch.equal(found, found.to(dtype).float())
