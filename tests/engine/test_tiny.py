"""tiny-qwen2: seeded, about a million parameters, and it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.loop import StepMetrics
from swe_scaffold.engine.model import load_base
from swe_scaffold.engine.tiny import (
    TinyRecipe,
    cut_windows,
    new_tiny_model,
    save_tiny_model,
    train_tiny_model,
)

SMALL = TinyRecipe(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    layers=1,
    context_length=64,
    window=16,
    windows_per_step=4,
    steps=40,
    learning_rate=0.02,
    warmup_steps=4,
)


def trained(recipe: TinyRecipe = SMALL) -> tuple[object, list[StepMetrics]]:
    model = new_tiny_model(recipe, end_id=1, pad_id=0)
    windows = cut_windows([[2 + n % 7 for n in range(500)]], recipe.window, seed=recipe.seed)
    lines: list[StepMetrics] = []
    train_tiny_model(model, windows, recipe, pad_id=0, after_step=lines.append)
    return model, lines


def test_the_default_is_about_a_million_parameters() -> None:
    model = new_tiny_model(TinyRecipe(), end_id=1, pad_id=0)
    assert 0.9e6 < sum(tensor.numel() for tensor in model.parameters()) < 1.3e6


def test_it_learns_and_the_same_recipe_gives_the_same_weights(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name in ("first", "second"):
        model, lines = trained()
        assert len(lines) == SMALL.steps
        assert lines[-1].loss < 0.3 * lines[0].loss
        assert lines[0].targets == SMALL.windows_per_step * (SMALL.window - 1)
        save_tiny_model(model, tmp_path / name)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1]
    assert capfd.readouterr() == ("", "")
    base = load_base(str(tmp_path / "first"), Device("cpu", torch.float32))
    assert base.vocab_size == SMALL.vocab_size
    assert base.context_length == SMALL.context_length


def test_another_seed_gives_other_weights() -> None:
    first, second = (
        new_tiny_model(TinyRecipe(seed=seed), end_id=1, pad_id=0).lm_head.weight for seed in (1, 2)
    )
    assert not torch.equal(first, second)


def test_windows_are_the_stream_without_its_tail() -> None:
    documents = [[1, 1, 1], [2, 2], [3, 3, 3, 3, 3]]
    windows = cut_windows(documents, 3, seed=0)
    assert [len(window) for window in windows] == [3, 3, 3]
    stream = [token for window in windows for token in window]
    assert {stream.count(token) <= len(documents[token - 1]) for token in (1, 2, 3)} == {True}
    assert windows == cut_windows(documents, 3, seed=0)
    orders = {str(cut_windows(documents, 3, seed=seed)) for seed in range(8)}
    assert len(orders) > 1
