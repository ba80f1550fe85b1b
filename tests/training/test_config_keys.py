"""Every key of the training configuration does what it says: one proof each, and none missing."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from swe_scaffold.config import TrainingConfig, describe_config
from swe_scaffold.engine import loop as loop_module
from swe_scaffold.errors import ConfigError, MissingExtra
from swe_scaffold.training import TrainingResult, plan_steps
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_runs import (
    FAILURE,
    Listener,
    checkpoints,
    evaluations,
    example,
    examples,
    left_behind,
    make_config,
    read_json,
    renamed,
    steps,
    train,
    write_rows,
)

pytestmark = pytest.mark.slow


@dataclass
class Kit:
    """What a proof works with."""

    model: Path
    data: Path
    place: Path
    patch: pytest.MonkeyPatch

    def run(self, name: str = "run", /, **training: Any) -> Path:
        self.result: TrainingResult
        options = {"reporter": training.pop("reporter", None)}
        data = training.pop("rows", self.data)
        model = training.pop("base", self.model)
        self.result = train(make_config(model, self.place / name, **training), data, **options)
        return self.place / name


@pytest.fixture
def kit(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    return Kit(model, data, tmp_path, monkeypatch)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = load_file(path)
    return found


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return tensors(folder / "adapter_model.safetensors")


def rates(folder: Path) -> list[float]:
    return [line["lr"] for line in steps(folder)]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in steps(folder)]


def model_name(kit: Kit) -> None:
    other = tiny_model(kit.place, tiny_tokenizer(kit.place), seed=5, hidden=16)
    first, second = kit.run("a"), kit.run("b", base=other)
    assert read_json(second / "adapter_config.json")["base_model_name_or_path"] == other.name
    assert losses(first) != losses(second)


def output_dir(kit: Kit) -> None:
    folder = kit.run("deep/er/run", max_steps=1)
    assert (folder / "adapter_model.safetensors").is_file()
    assert kit.result.folder == folder


def learning_rate(kit: Kit) -> None:
    schedule: dict[str, Any] = {"lr_scheduler_type": "constant", "max_steps": 2}
    slow = kit.run("slow", learning_rate=1e-9, **schedule)
    fast = kit.run("fast", learning_rate=0.01, **schedule)
    assert rates(slow) == [1e-9] * 2
    assert rates(fast) == [0.01] * 2
    moved = [
        max(float(t.abs().max()) for name, t in adapter(folder).items() if "lora_B" in name)
        for folder in (slow, fast)
    ]
    assert moved[0] < 1e-8
    assert 0.005 < moved[1] < 0.05


def num_train_epochs(kit: Kit) -> None:
    kit.run("a", num_train_epochs=1.5, max_steps=None)
    assert kit.result.steps == math.ceil(1.5 * 3)
    wanted = {(1.0, 12): 3, (0.1, 12): 1, (1.1, 40): 11, (2.0, 13): 8, (0.7, 400): 70}
    for (epochs, rows), planned in wanted.items():
        training = TrainingConfig(
            num_train_epochs=epochs, per_device_train_batch_size=2, gradient_accumulation_steps=2
        )
        assert plan_steps(training, rows) == planned, (epochs, rows)


def max_steps(kit: Kit) -> None:
    assert len(steps(kit.run("a", max_steps=5, num_train_epochs=1.0))) == 5
    assert kit.result.steps == 5
    assert kit.result.epochs == pytest.approx(5 / 3, abs=1e-4)


def passes_of(kit: Kit, **training: Any) -> list[tuple[int, int]]:
    """Rows and tokens of every pass of a run of one step."""
    sizes: list[tuple[int, int]] = []
    real = loop_module.Loop._backward

    def backward(loop: Any, rows: Any, *options: Any) -> Any:
        sizes.append((len(rows), sum(len(row.input_ids) for row in rows)))
        return real(loop, rows, *options)

    with kit.patch.context() as patch:
        patch.setattr(loop_module.Loop, "_backward", backward)
        name = "-".join(map(str, training.values()))
        kit.run(name, max_steps=1, eval_strategy="no", **training)
    return sizes


def rows_of(kit: Kit, **training: Any) -> int:
    return sum(rows for rows, _ in passes_of(kit, tokens_per_micro_batch=100_000, **training))


def per_device_train_batch_size(kit: Kit) -> None:
    assert rows_of(kit, per_device_train_batch_size=2) == 4
    assert rows_of(kit, per_device_train_batch_size=3) == 6
    assert rows_of(kit, per_device_train_batch_size=50) == 12


def gradient_accumulation_steps(kit: Kit) -> None:
    assert rows_of(kit, gradient_accumulation_steps=1) == 2
    assert rows_of(kit, gradient_accumulation_steps=3) == 6
    runs = [
        kit.run(
            f"{size}x{count}",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=count,
            lora={"dropout": 0.0},
        )
        for size, count in ((1, 8), (2, 4), (8, 1))
    ]
    first, start = adapter(runs[0]), adapter(kit.run("start", max_steps=1, warmup_ratio=0.5))
    moved = math.sqrt(sum(float((first[name] - start[name]).norm()) ** 2 for name in first))
    for other in runs[1:]:
        assert losses(other) == pytest.approx(losses(runs[0]), rel=2e-6)
        distance = [float((first[n] - t).norm()) ** 2 for n, t in adapter(other).items()]
        assert math.sqrt(sum(distance)) <= 1e-3 * moved


def tokens_per_micro_batch(kit: Kit) -> None:
    whole, longest = passes_of(kit, tokens_per_micro_batch=100_000)[0], 0
    assert whole[0] == 4
    alone = passes_of(kit, tokens_per_micro_batch=1)
    assert [rows for rows, _ in alone] == [1, 1, 1, 1]
    assert sum(tokens for _, tokens in alone) == whole[1]
    longest = max(tokens for _, tokens in alone)
    pairs = passes_of(kit, tokens_per_micro_batch=2 * longest)
    assert 2 <= len(pairs) < 4
    assert max(tokens for _, tokens in pairs) <= 2 * longest
    assert passes_of(kit, tokens_per_micro_batch="auto") == [whole]


def activation_checkpointing(kit: Kit) -> None:
    """Layers run again for the gradient, and not a bit changes."""
    from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

    calls: list[bool] = []
    real = Qwen2MLP.forward

    def forward(mlp: Any, hidden: Any) -> Any:
        calls.append(torch.is_grad_enabled())
        return real(mlp, hidden)

    runs, counts = [], []
    for on in (False, True, "auto"):
        with kit.patch.context() as patch:
            patch.setattr(Qwen2MLP, "forward", forward)
            name = f"checkpointing-{on}"
            runs.append(kit.run(name, activation_checkpointing=on, eval_strategy="no"))
        counts.append(sum(calls))
        calls.clear()
    assert counts[1] > 1.5 * counts[0]
    assert counts[2] == counts[0]
    for other in runs[1:]:
        assert losses(other) == losses(runs[0])
        for tensor_name, tensor in adapter(runs[0]).items():
            assert torch.equal(adapter(other)[tensor_name], tensor)


def measure_mfu(kit: Kit) -> None:
    plain = kit.run("plain")
    assert kit.result.speed["mfu"] is None
    folder = kit.run("measured", measure_mfu=True)
    speed = kit.result.speed
    timing = [
        json.loads(line) for line in (folder / "timing.jsonl").read_text("utf-8").splitlines()
    ]
    assert all(0 < line["mfu"] < 1 for line in timing)
    assert 0 < speed["mfu"] < 1
    assert speed["gemm_flops"] > 1e9
    assert speed["steps"] == len(timing) == 6
    rate = sum(line["tokens"] for line in steps(folder)) / sum(t["wall_seconds"] for t in timing)
    assert speed["tokens_per_second"] == pytest.approx(rate, rel=0.05)
    assert timing[0]["since_start_seconds"] == pytest.approx(speed["first_step_seconds"])
    assert left_behind(folder) == left_behind(plain)


def warmup_ratio(kit: Kit) -> None:
    options: dict[str, Any] = {"lr_scheduler_type": "constant_with_warmup", "max_steps": 10}
    found = rates(kit.run("a", warmup_ratio=0.4, learning_rate=0.04, **options))
    assert found == pytest.approx([0.0, 0.01, 0.02, 0.03, *[0.04] * 6], abs=1e-12)
    assert rates(kit.run("b", warmup_ratio=0.0, **options)) == [0.02] * 10
    # 0.07 * 100 is 7.000000000000001 in binary: seven steps, not eight.
    long = {**options, "max_steps": 100, "save_strategy": "no", "eval_strategy": "no"}
    small = write_rows(kit.place / "two.jsonl", examples(0, 2))
    risen = rates(kit.run("c", warmup_ratio=0.07, rows=small, **long))
    assert risen.index(0.02) == 7


def weight_decay(kit: Kit) -> None:
    options: dict[str, Any] = {
        "lr_scheduler_type": "constant",
        "max_steps": 1,
        "learning_rate": 0.1,
    }
    free = adapter(kit.run("a", weight_decay=0.0, **options))
    shrunk = adapter(kit.run("b", weight_decay=0.5, **options))
    for name, tensor in free.items():
        if "lora_A" in name:  # B is zero: A has no gradient in the first step
            torch.testing.assert_close(shrunk[name], tensor * (1 - 0.1 * 0.5))
        else:
            torch.testing.assert_close(shrunk[name], tensor)


def lr_scheduler_type(kit: Kit) -> None:
    from transformers import get_scheduler

    for name in ("linear", "cosine", "constant", "constant_with_warmup"):
        found = rates(kit.run(name, lr_scheduler_type=name, eval_strategy="no", save_strategy="no"))
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.AdamW([parameter], lr=0.02)
        schedule = get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=6)
        for rate in found:
            assert rate == schedule.get_last_lr()[0], name
            optimizer.step()
            schedule.step()


def logging_steps(kit: Kit) -> None:
    for every, wanted in ((2, [2, 4, 6]), (4, [4]), (1, [1, 2, 3, 4, 5, 6])):
        listener = Listener()
        folder = kit.run(str(every), logging_steps=every, reporter=listener)
        said = [line for line in listener.lines if "loss" in line]
        assert [int(line.split("/")[0].removeprefix("step ")) for line in said] == wanted
        assert len(steps(folder)) == 6
        window = steps(folder)[wanted[0] - every : wanted[0]]
        nll = sum(line["loss"] * line["targets"] for line in window)
        mean = nll / sum(line["targets"] for line in window)
        assert f"loss {mean:.4f}" in said[0]


def evaluated(kit: Kit, name: str, **training: Any) -> list[int]:
    return [line["step"] for line in evaluations(kit.run(name, **training))]


def eval_strategy(kit: Kit) -> None:
    assert evaluated(kit, "no", eval_strategy="no") == []
    assert kit.result.eval_nll is None
    assert evaluated(kit, "steps", eval_strategy="steps", eval_steps=4) == [0, 4, 6]
    assert evaluated(kit, "epoch", eval_strategy="epoch", max_steps=8) == [0, 3, 6, 8]


def eval_steps(kit: Kit) -> None:
    assert evaluated(kit, "2", eval_steps=2) == [0, 2, 4, 6]
    assert evaluated(kit, "100", eval_steps=100) == [0, 6]


def save_strategy(kit: Kit) -> None:
    assert checkpoints(kit.run("no", save_strategy="no")) == [6]
    assert checkpoints(kit.run("steps", save_strategy="steps", save_steps=2)) == [2, 4, 6]
    assert checkpoints(kit.run("epoch", save_strategy="epoch", max_steps=7)) == [3, 6, 7]


def save_steps(kit: Kit) -> None:
    assert checkpoints(kit.run("1", save_steps=1)) == [1, 2, 3, 4, 5, 6]
    assert checkpoints(kit.run("4", save_steps=4)) == [4, 6]


def save_total_limit(kit: Kit) -> None:
    assert checkpoints(kit.run("1", save_steps=1, save_total_limit=1)) == [6]
    assert checkpoints(kit.run("2", save_steps=1, save_total_limit=2)) == [5, 6]
    assert checkpoints(kit.run("all", save_steps=1, save_total_limit=None)) == list(range(1, 7))


def max_grad_norm(kit: Kit) -> None:
    for limit in (1e-3, None):
        folder = kit.run(str(limit), max_grad_norm=limit, max_steps=1)
        moments = tensors(folder / "checkpoints" / "step-1" / "optimizer.safetensors")
        first = [t.flatten() for name, t in moments.items() if name.endswith("exp_avg")]
        # After one step, AdamW's first moment is a tenth of the gradient.
        applied = 10 * float(torch.cat(first).norm())
        norm = steps(folder)[0]["grad_norm"]
        assert norm > 1e-2
        assert applied == pytest.approx(limit or norm, rel=1e-3)


def dtype(kit: Kit) -> None:
    full = kit.run("auto", dtype="auto")
    assert read_json(full / "manifest.json")["fingerprint"]["device"] == "cpu/float32"
    assert left_behind(kit.run("float32", dtype="float32")) == left_behind(full)
    for name in ("bfloat16", "float16"):
        folder = kit.run(name, dtype=name)
        assert read_json(folder / "manifest.json")["fingerprint"]["device"] == f"cpu/{name}"
        assert losses(folder) == pytest.approx(losses(full), rel=0.02)
        assert losses(folder) != losses(full)
        assert {tensor.dtype for tensor in adapter(folder).values()} == {torch.float32}
        assert all(line["grad_norm"] for line in steps(folder))


def wordy(kit: Kit) -> Path:
    """Rows of which every other one has a prompt of twenty lines."""
    lines = "\n".join(f"line {number} of a long story" for number in range(20))
    rows = [
        renamed(example(number), prompt=f"{lines}\nissue {number}") if number % 2 else row
        for number, row in enumerate(examples(0, 12))
    ]
    return write_rows(kit.place / "wordy.jsonl", rows)


def max_length(kit: Kit) -> None:
    options: dict[str, Any] = {"rows": wordy(kit), "eval_strategy": "no", "max_steps": 3}
    whole = kit.run("1000", max_length=1000, **options)
    assert kit.result.counts["prompts_shortened"] == 0
    targets = kit.result.counts["target_tokens"]
    short = kit.run("128", max_length=128, **options)
    counts = kit.result.counts
    assert (counts["trained"], counts["prompts_shortened"]) == (12, 6)
    assert counts["tokens"] <= 12 * 128
    assert counts["target_tokens"] == targets
    assert sum(line["tokens"] for line in steps(short)) == counts["tokens"]
    assert sum(line["tokens"] for line in steps(whole)) > 2 * counts["tokens"]


def min_prompt_tokens(kit: Kit) -> None:
    options: dict[str, Any] = {"rows": wordy(kit), "eval_strategy": "no", "max_steps": 1}
    kit.run("8", max_length=128, min_prompt_tokens=8, **options)
    assert kit.result.counts["skipped"] == {}
    folder = kit.run("120", max_length=128, min_prompt_tokens=120, **options)
    counts = kit.result.counts
    assert (counts["trained"], counts["prompts_shortened"]) == (6, 0)
    assert counts["skipped"] == {"over_length": 6}
    assert (folder / "skipped.jsonl").read_text("utf-8").count('"over_length"') == 6


def seed(kit: Kit) -> None:
    first, again, other = (
        kit.run(name, seed=value) for name, value in (("a", 1), ("b", 1), ("c", 2))
    )
    assert left_behind(first) == left_behind(again)
    assert losses(first) != losses(other)
    assert [line["tokens"] for line in steps(first)] != [line["tokens"] for line in steps(other)]
    name = next(name for name in adapter(first) if "lora_A" in name)
    assert not torch.equal(adapter(first)[name], adapter(other)[name])
    # One row has one order: what is left to differ is what dropout draws from.
    options: dict[str, Any] = {"rows": write_rows(kit.place / "one.jsonl", examples(0, 1))}
    options |= {"eval_strategy": "no", "max_steps": 1}
    first_loss, _, same = (
        losses(kit.run(f"one-{name}", seed=value, lora={"dropout": 0.5, "r": 2}, **options))
        for name, value in (("a", 1), ("b", 2), ("c", 1))
    )
    # Adapters begin with B zero, so that dropout shows in the gradient first.
    assert first_loss == same
    norms = [steps(kit.place / f"one-{name}")[0]["grad_norm"] for name in "abc"]
    assert norms[0] == norms[2] != norms[1]


class Diary:
    """A tracker that keeps what it is told."""

    requires_logging_directory = False
    kept: list[Any]

    def __init__(self, project: str) -> None:
        Diary.kept = []

    def start(self) -> None: ...

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        Diary.kept.append(values)

    def log(self, values: dict[str, Any], step: int) -> None:
        Diary.kept.append((step, values))

    def finish(self) -> None:
        Diary.kept.append("finished")


def report_to(kit: Kit) -> None:
    from accelerate import tracking

    kit.patch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "diary", Diary)
    folder = kit.run("run", report_to=["diary"])
    config, *told, end = Diary.kept
    assert config["training.lora.r"] == 4
    assert end == "finished"
    wanted = [
        (line["step"], {key: line[key] for key in ("loss", "lr", "grad_norm")})
        for line in steps(folder)
    ]
    assert [entry for entry in told if "loss" in entry[1]] == wanted
    assert [step for step, values in told if "eval_nll" in values] == [0, 3, 6]
    with pytest.raises(ConfigError, match="is not a tracker"):
        kit.run("other", report_to=["nobody"])
    assert not (kit.place / "other").exists()


def include_failures(kit: Kit) -> None:
    rows = [*examples(0, 8), *(example(number, label=FAILURE) for number in range(8, 12))]
    data = write_rows(kit.place / "mixed.jsonl", rows)
    options: dict[str, Any] = {"rows": data, "eval_strategy": "no", "max_steps": 1}
    folder = kit.run("without", **options)
    assert kit.result.counts["trained"] == 8
    assert kit.result.counts["skipped"] == {"failure_label": 4}
    assert [row[0] for row in read_json(folder / "trained_rows.json")] == [
        f"row-{number:02d}" for number in range(8)
    ]
    kit.run("with", include_failures=True, **options)
    assert kit.result.counts["trained"] == 12
    assert kit.result.counts["skipped"] == {}


def load_best(kit: Kit) -> None:
    options: dict[str, Any] = {
        "learning_rate": 3.0,
        "seed": 3,
        "lr_scheduler_type": "constant",
        "eval_steps": 1,
        "save_strategy": "no",
        "save_total_limit": 1,
    }
    listener = Listener()
    folder = kit.run("best", load_best=True, reporter=listener, **options)
    scored = {line["step"]: line["eval_nll"] for line in evaluations(folder) if line["step"]}
    best = min(scored, key=lambda step: scored[step])
    assert best < 6
    assert (kit.result.best_step, kit.result.eval_nll) == (best, scored[best])
    assert checkpoints(folder) == [best, 6]
    kept = folder / "checkpoints" / f"step-{best}" / "adapter_model.safetensors"
    assert (folder / "adapter_model.safetensors").read_bytes() == kept.read_bytes()
    assert f"ending with step {best}" in listener.text
    last = kit.run("last", **options)
    assert kit.result.best_step is None
    assert kit.result.eval_nll == scored[6]
    final = last / "checkpoints" / "step-6" / "adapter_model.safetensors"
    assert (last / "adapter_model.safetensors").read_bytes() == final.read_bytes()
    worse = kit.run("worse", load_best=True, **{**options, "learning_rate": 30.0, "max_steps": 2})
    before, *after = [line["eval_nll"] for line in evaluations(worse)]
    assert min(after) > before
    assert kit.result.best_step == 1 + after.index(min(after))
    alone = write_rows(kit.place / "alone.jsonl", examples(0, 12))
    with pytest.raises(ConfigError, match="needs held-out rows"):
        train(
            make_config(
                kit.model, kit.place / "none", {"dataset": {"dev_split": 1.0}}, load_best=True
            ),
            alone,
        )


def finetuning(kit: Kit) -> None:
    one = kit.run("lora", finetuning="lora", max_steps=1)
    folder = kit.run("full", finetuning="full", max_steps=1)
    assert not (one / "model.safetensors").exists()
    assert not (folder / "adapter_model.safetensors").exists()
    assert set(tensors(folder / "model.safetensors")) == set(
        tensors(kit.model / "model.safetensors")
    )


def quantization(kit: Kit) -> None:
    """What is computed then is shown in `test_quantized`, where the package is there."""
    kit.patch.setitem(sys.modules, "bitsandbytes", None)
    kit.run("none", quantization="none", max_steps=1)
    with pytest.raises(MissingExtra):
        kit.run("nf4", quantization="nf4")


def lora_r(kit: Kit) -> None:
    found = adapter(kit.run("run", lora={"r": 3}, max_steps=1))
    assert {t.shape[0] for name, t in found.items() if "lora_A" in name} == {3}
    assert {t.shape[1] for name, t in found.items() if "lora_B" in name} == {3}


def lora_alpha(kit: Kit) -> None:
    weak, strong = (kit.run(f"{alpha}", lora={"alpha": alpha, "dropout": 0.0}) for alpha in (1, 64))
    assert read_json(strong / "adapter_config.json")["lora_alpha"] == 64
    first, second = steps(weak)[0], steps(strong)[0]
    # B is zero at first: the same loss, and a gradient that grows with alpha / r.
    assert first["loss"] == second["loss"]
    assert second["grad_norm"] == pytest.approx(64 * first["grad_norm"], rel=1e-3)


def lora_dropout(kit: Kit) -> None:
    without, with_it = (kit.run(f"{p}", lora={"dropout": p}) for p in (0.0, 0.5))
    assert losses(without)[-1] != losses(with_it)[-1]
    assert evaluations(without)[0] == evaluations(with_it)[0]
    assert read_json(with_it / "adapter_config.json")["lora_dropout"] == 0.5


def lora_target_modules(kit: Kit) -> None:
    some = adapter(kit.run("some", lora={"target_modules": ["v_proj", "o_proj"]}, max_steps=1))
    assert {name.split(".")[-3] for name in some} == {"v_proj", "o_proj"}
    every = adapter(kit.run("all", lora={"target_modules": "all-linear"}, max_steps=1))
    names = {name.split(".")[-3] for name in every}
    assert names == {f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")}
    with pytest.raises(ConfigError, match="q_prj") as error:
        kit.run("typo", lora={"target_modules": ["v_proj", "q_prj"]})
    assert "v_proj" in error.value.hint
    assert not list((kit.place / "typo").glob("run.json"))


def lora_use_rslora(kit: Kit) -> None:
    plain, scaled = (
        kit.run(f"{on}", lora={"use_rslora": on, "dropout": 0.0}) for on in (False, True)
    )
    assert read_json(scaled / "adapter_config.json")["use_rslora"] is True
    first, second = steps(plain)[0], steps(scaled)[0]
    # B is zero at first: the same loss, and a gradient that grows by √r, which is 2.
    assert first["loss"] == second["loss"]
    assert second["grad_norm"] == pytest.approx(2 * first["grad_norm"], rel=1e-3)


def lora_use_dora(kit: Kit) -> None:
    plain, dora = (kit.run(f"{on}", lora={"use_dora": on, "dropout": 0.0}) for on in (False, True))
    assert read_json(dora / "adapter_config.json")["use_dora"] is True
    lengths = {name: t for name, t in adapter(dora).items() if "lora_magnitude_vector" in name}
    assert len(lengths) == len(adapter(plain)) / 2
    weights = tensors(kit.model / "model.safetensors")
    for name, length in lengths.items():
        weight = weights[name.removeprefix("base_model.model.").rpartition(".")[0] + ".weight"]
        assert not torch.equal(length, torch.linalg.norm(weight, dim=1))
    assert steps(plain)[0]["loss"] == steps(dora)[0]["loss"]
    assert losses(plain)[-1] != losses(dora)[-1]


PROOFS: dict[str, Callable[[Kit], None]] = {
    **{
        f"training.{proof.__name__}": proof
        for proof in (
            *(model_name, output_dir, learning_rate, num_train_epochs, max_steps),
            *(per_device_train_batch_size, gradient_accumulation_steps, warmup_ratio),
            *(tokens_per_micro_batch, activation_checkpointing, measure_mfu),
            *(weight_decay, lr_scheduler_type, logging_steps, eval_strategy, eval_steps),
            *(save_strategy, save_steps, save_total_limit, max_grad_norm, dtype, finetuning),
            quantization,
            max_length,
            *(min_prompt_tokens, seed, report_to, include_failures, load_best),
        )
    },
    "training.lora.r": lora_r,
    "training.lora.alpha": lora_alpha,
    "training.lora.dropout": lora_dropout,
    "training.lora.target_modules": lora_target_modules,
    "training.lora.use_rslora": lora_use_rslora,
    "training.lora.use_dora": lora_use_dora,
}


@pytest.mark.parametrize("key", PROOFS)
def test_the_key_does_what_it_says(kit: Kit, key: str) -> None:
    PROOFS[key](kit)


def test_no_key_is_left_unproven() -> None:
    keys = {key for key, *_ in describe_config() if key.startswith("training.")}
    assert keys == set(PROOFS)
