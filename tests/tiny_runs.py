"""Small training runs: rows, their files, a configuration, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.config import SpeedrunConfig, check_config
from swe_scaffold.engine.loop import Loop, StepMetrics
from swe_scaffold.files import sha256_file
from swe_scaffold.jsonl import write_jsonl
from swe_scaffold.manifest import write_manifest
from swe_scaffold.rows import BuiltFiles, example_to_row, make_example
from swe_scaffold.terminal import Reporter
from swe_scaffold.training import TrainingResult, train_lora_model
from swe_scaffold.types import Example, Origin, SpeedrunLabel

WORDS = ("add", "function", "second", "argument", "negative", "returns", "wrong", "value")
FAILURE = SpeedrunLabel.FAILURE
# What a run must leave byte for byte, whatever interrupted it.
EXACT = ("adapter_model.safetensors", "adapter_config.json", "metrics.jsonl", "trained_rows.json")


def example(number: int, *, label: SpeedrunLabel = SpeedrunLabel.SUCCESS) -> Example:
    """A row unlike every other one; rows differ in length, four repositories take turns."""
    words = " ".join(WORDS[(number * k + k) % len(WORDS)] for k in range(3 + number % 5))
    return make_example(
        instance_id=f"row-{number:02d}",
        repo=f"owner/repo{number % 4}",
        prompt=f"The {words} is wrong, issue {number}.",
        response=f"- return first {number}\n+ return second {words}\n",
        response_source="change_summary",
        label=label,
        origin=Origin("made", number),
    )


def examples(first: int, last: int) -> list[Example]:
    return [example(number) for number in range(first, last)]


def write_rows(path: Path, rows: list[Example]) -> Path:
    write_jsonl(path, (example_to_row(row) for row in rows))
    return path


def write_split(path: Path, dev: list[Example], test: list[Example]) -> Path:
    """Write a dev file, its hold-out and the manifest that names both."""
    files = BuiltFiles.of(path)
    outputs = {}
    for file, rows in ((files.dev, dev), (files.test, test)):
        write_rows(file, rows)
        outputs[file.name] = {
            "size": file.stat().st_size,
            "sha256": sha256_file(file),
            "rows": len(rows),
        }
    write_manifest(files.manifest, {"kind": "dataset", "outputs": outputs})
    return path


def make_config(
    model: Path, output: Path, tree: Mapping[str, Any] | None = None, /, **training: Any
) -> SpeedrunConfig:
    """A configuration of six short steps over four rows each; `training` keys replace its own."""
    lora = {"r": 4, "alpha": 8, "dropout": 0.1, **training.pop("lora", {})}
    base = {
        "model_name": str(model),
        "output_dir": str(output),
        "learning_rate": 0.02,
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "warmup_ratio": 0.2,
        "eval_steps": 3,
        "save_steps": 2,
        "save_total_limit": None,
        "max_length": 128,
        "min_prompt_tokens": 8,
    }
    return check_config({**(tree or {}), "training": {**base, **training, "lora": lora}}, "test")


class Listener(Reporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.lines: list[str] = []

    def say(self, message: str, *, level: int = 0) -> None:
        self.lines.append(message)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def train(config: SpeedrunConfig, data: Path, **options: Any) -> TrainingResult:
    return train_lora_model(config, data, offline=True, **options)


@contextmanager
def signal_at(
    monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM
) -> Iterator[None]:
    """Send this process a signal in the middle of optimizer step `step`."""
    real = Loop.take

    def take(self: Loop, rows: Any) -> StepMetrics:
        if self.step + 1 == step:
            os.kill(os.getpid(), number)
        return real(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "take", take)
        yield


def left_behind(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in EXACT}


def left_over(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def steps(folder: Path) -> list[dict[str, Any]]:
    return [line for line in metrics(folder) if "loss" in line]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return [line for line in metrics(folder) if "eval_nll" in line]


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*"))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def flip_byte(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def copy_model(model: Path, to: Path) -> Path:
    shutil.copytree(model, to)
    return to


def renamed(row: Example, **fields: Any) -> Example:
    """The row with other fields and a hash that fits them."""
    changed = replace(row, **fields)
    return make_example(
        **{
            name: getattr(changed, name)
            for name in ("instance_id", "repo", "prompt", "response", "response_source", "label")
        },
        origin=Origin("made", 0),
        messages=changed.messages,
    )
