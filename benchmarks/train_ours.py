"""Our side: the command `train`, watched from outside.

python -c "import train_ours; train_ours.main()" ours MODEL ROWS [OPTION=VALUE ...] FOLDER

Options: `steps`, `rows_per_step`, `epochs`, `length`, `clip`, `init`, and any key of the
configuration. The clock is read where the loop begins and where it says that a step has ended, as
the peers' callbacks do.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import train_files as files

# AdamW's first moment after one step is this part of the gradient.
FIRST_MOMENT = 0.1


def train(model: Path, rows: Path, out: Path, options: Mapping[str, str]) -> None:
    """Run `swe-scaffold train`, its cache empty, and write down what it took."""
    os.environ["SWE_SCAFFOLD_CACHE"] = str(out / "cache")
    from swe_scaffold.cli import main as command

    run = out / "run"
    clock = files.Clock(options["device"])
    _watch(clock)
    code = command(
        ["train", str(rows), "--output", str(run), "--offline", *settings(model, options)]
    )
    if code:
        sys.exit(code)
    losses = [line["loss"] for line in _lines(run / "metrics.jsonl") if "loss" in line]
    more = {}
    if options.get("device") == "cuda":
        timing = _lines(run / "timing.jsonl")
        more["device_bytes"] = float(max(line["peak_memory_bytes"] for line in timing))
    files.write_results(out, clock, losses, **more)


def settings(model: Path, options: Mapping[str, str]) -> list[str]:
    """Return the options of the command: the common recipe, then what the caller set."""
    clip = float(options.get("clip", "1.0"))
    keys = {
        "training.model_name": str(model),
        "training.learning_rate": "2e-4",
        "training.num_train_epochs": options.get("epochs", "1"),
        "training.per_device_train_batch_size": "1",
        "training.gradient_accumulation_steps": options["rows_per_step"],
        "training.warmup_ratio": "0",
        "training.weight_decay": "0",
        "training.lr_scheduler_type": "constant",
        "training.eval_strategy": "no",
        "training.save_strategy": "no",
        "training.max_grad_norm": str(clip) if clip else "null",
        "training.max_length": options["length"],
        "training.seed": "42",
        "training.include_failures": "true",
        "training.lora.r": "8",
        "training.lora.alpha": "16",
        "training.lora.dropout": "0",
        "training.lora.target_modules": '["q_proj", "k_proj", "v_proj", "o_proj"]',
        **{key: value for key, value in options.items() if "." in key},
    }
    return [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]


def _watch(clock: files.Clock) -> None:
    """Have the loop of the command read a clock."""
    from swe_scaffold.engine import loop

    unwatched = loop.run

    def watched(taken: Any, rows: Any, order: Any, after_step: Any) -> None:
        def ended(metrics: Any) -> None:
            clock.step()
            after_step(metrics)

        clock.begin()
        unwatched(taken, rows, order, ended)

    loop.run = watched


def _lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def export_step(run: Path, out: Path) -> None:
    """Write, of a run without clipping, the gradient of step 1 and where it began: `init`.

    The gradient is the first moment in the checkpoint, scaled. Matrix A is still as it was drawn,
    as its gradient is zero where B is zero.
    """
    import numpy as np
    from safetensors.numpy import load_file, save_file

    checkpoint = run / "checkpoints" / "step-1"
    moments = load_file(checkpoint / "optimizer.safetensors")
    firsts = ((name, value) for name, value in moments.items() if name.endswith(".exp_avg"))
    gradient = {name: value / FIRST_MOMENT for name, value in files.adapter(firsts).items()}
    save_file(gradient, out / "gradient.safetensors")
    after = files.adapter(iter(load_file(checkpoint / "adapter_model.safetensors").items()))
    before = {name: np.zeros_like(t) if name.endswith("B") else t for name, t in after.items()}
    save_file(before, out / "init.safetensors")


def export_adapter(run: Path, out: Path) -> None:
    """Write the adapter of a finished run under plain names."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(run / "adapter_model.safetensors")
    save_file(files.adapter(iter(tensors.items())), out / "adapter.safetensors")


def main() -> None:
    """Run what the command line names."""
    _, model, rows, out, options = files.given()
    train(model, rows, out, options)
