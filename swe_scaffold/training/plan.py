"""What follows from a configuration alone: steps, and what a resumed run must share."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.config import SpeedrunConfig, TrainingConfig, dump_config

if TYPE_CHECKING:
    from swe_scaffold.engine.model import BaseModel
    from swe_scaffold.training.data import RunData

# These change what is shown or kept, never the weights; the base has a hash of its own.
_FREE_KEYS = (
    *("output_dir", "report_to", "logging_steps", "save_total_limit", "model_name"),
    "measure_mfu",
)


def plan_steps(training: TrainingConfig, rows: int) -> int:
    """Return the number of optimizer steps: max_steps, else epochs over the rows."""
    if training.max_steps is not None:
        return training.max_steps
    per_epoch = math.ceil(rows / rows_per_step(training))
    return max(1, round_up(training.num_train_epochs * per_epoch))


def rows_per_step(training: TrainingConfig) -> int:
    """Return the effective batch: rows whose tokens one optimizer step averages over."""
    return training.per_device_train_batch_size * training.gradient_accumulation_steps


def evaluation_steps(training: TrainingConfig, steps: int, per_epoch: int) -> list[int]:
    """Return the steps after which the hold-out is scored: 0 is the base, the last always is."""
    if training.eval_strategy == "no":
        return []
    every = training.eval_steps if training.eval_strategy == "steps" else per_epoch
    return sorted({*range(0, steps + 1, every), steps})


def round_up(value: float) -> int:
    """Round up, where 0.07 * 100 is 7 and not the 7.000000000000001 of binary fractions."""
    return math.ceil(round(value, 9))


def binding(config: SpeedrunConfig) -> Iterator[tuple[str, str]]:
    """Yield the keys of the configuration that a resumed run must share."""
    for key, value in dump_config(config)["training"].items():
        if key not in _FREE_KEYS:
            inner = value if isinstance(value, dict) else {"": value}
            for name, item in inner.items():
                path = f"training.{key}.{name}".rstrip(".")
                yield path, json.dumps(item, sort_keys=True, allow_nan=False)


def base_entry(base: BaseModel, folder: Path) -> dict[str, Any]:
    """Return how a manifest names the base: hub id or folder name, hash, and where it lay."""
    entry: dict[str, Any] = {
        "name": base.public_name,
        "sha256": base.sha256,
        "local": base.is_local,
    }
    if base.is_local:
        # Relative to the run folder, so that the two can be moved together.
        entry["path"] = os.path.relpath(base.folder.resolve(), folder.resolve())
    return entry


def data_entries(data: RunData, folder: Path) -> dict[str, Any]:
    """Return how a manifest names the training file and its hold-out, and where they lay."""
    return {
        key: {
            "name": path.name,
            "sha256": sha256,
            "path": os.path.relpath(path.resolve(), folder.resolve()),
        }
        for key, path, sha256 in (
            ("data", data.path, data.data_sha256),
            ("holdout", data.holdout_path, data.holdout_sha256),
        )
        if path is not None
    }
