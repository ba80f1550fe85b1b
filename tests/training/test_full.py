"""Every weight trained: the folder, its score, going on, and what the optimizer's weights are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swe_scaffold.errors import Stopped
from swe_scaffold.evaluation import evaluate_model
from swe_scaffold.training import run as story
from swe_scaffold.training.preflight import preflight
from tests.tiny_runs import evaluations, make_config, read_json, steps, train

WEIGHTS = "model.safetensors"


def full(model: Path, folder: Path, **options: Any) -> Any:
    return make_config(model, folder, finetuning="full", learning_rate=1e-3, **options)


@pytest.fixture(scope="module")
def done(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "run"
    train(full(model, folder), data)
    return folder


def test_every_weight_moves_and_the_loss_falls(model: Path, done: Path) -> None:
    before, after = load_file(model / WEIGHTS), load_file(done / WEIGHTS)
    assert set(before) == set(after)
    assert not [name for name, tensor in after.items() if torch.equal(tensor, before[name])]
    assert steps(done)[-1]["loss"] < steps(done)[0]["loss"]
    assert not (done / "adapter_model.safetensors").exists()
    assert read_json(done / "manifest.json")["kind"] == "model"


def test_packing_changes_nothing_but_rounding(
    model: Path, data: Path, done: Path, tmp_path: Path
) -> None:
    train(full(model, tmp_path / "run", tokens_per_micro_batch=1), data)
    one, other = load_file(done / WEIGHTS), load_file(tmp_path / "run" / WEIGHTS)
    start = load_file(model / WEIGHTS)
    moved = sum(float((one[name] - start[name]).norm()) ** 2 for name in one)
    apart = sum(float((one[name] - other[name]).norm()) ** 2 for name in one)
    assert apart <= 1e-6 * moved


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_going_on_is_bit_identical(model: Path, data: Path, tmp_path: Path, dtype: str) -> None:
    options = {"dtype": dtype, "save_steps": 2, "lora": {"dropout": 0.3}}
    train(full(model, tmp_path / "whole", **options), data)
    config = full(model, tmp_path / "halves", **options)

    real = story.Run._after_step

    def stopping(run: Any) -> None:
        if run.loop.step == 4:
            run.stop.signal_number = 15
        real(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story.Run, "_after_step", stopping)
        with pytest.raises(Stopped):
            train(config, data)
    train(config, data, resume=True)
    for name in (WEIGHTS, "metrics.jsonl", "trained_rows.json"):
        whole, halves = (tmp_path / place / name for place in ("whole", "halves"))
        assert whole.read_bytes() == halves.read_bytes(), name
    saved = load_file(tmp_path / "whole" / WEIGHTS)
    assert {str(tensor.dtype) for tensor in saved.values()} == {f"torch.{dtype}"}
    kept = load_file(tmp_path / "whole" / "checkpoints" / "step-6" / WEIGHTS)
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_last_score_is_that_of_the_saved_model(
    model: Path, data: Path, tmp_path: Path, dtype: str
) -> None:
    folder = tmp_path / "run"
    config = full(model, folder, dtype=dtype)
    config.evaluation.dtype = dtype  # type: ignore[assignment]
    train(config, data)
    last = evaluations(folder)[-1]["eval_nll"]
    assert last < evaluations(folder)[0]["eval_nll"]
    held_out = data.with_name(f"{data.stem}.test.jsonl")
    found = evaluate_model(folder, held_out, config=config.evaluation, offline=True)
    assert found.report["unseen"]["nll"]["value"] == pytest.approx(last, rel=1e-6)


def test_a_dry_run_asks_the_base_before_it_changes_it(
    model: Path, data: Path, tmp_path: Path
) -> None:
    lora = preflight(make_config(model, tmp_path / "a"), data)
    found = preflight(full(model, tmp_path / "b"), data)
    assert found.starts.summary == lora.starts.summary
    assert {decision.key: decision.value for decision in found.decisions}["finetuning"] == "full"
