"""A run folder as training and evaluation leave it, made by hand; `metrics` makes its numbers."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from swe_scaffold.metrics.comparison import compare
from swe_scaffold.metrics.likelihood import summarise
from swe_scaffold.types import ExampleScore, SpeedrunLabel

DATA_SHA256 = "5d41402abc4b2a76b9719d911017c592" * 2
GROUPS = (
    *("argparse", "asyncio", "collections", "concurrent", "configparser", "ctypes", "datetime"),
    *("email", "html", "importlib", "json", "logging", "multiprocessing", "unittest"),
)
HEIGHTS = {"header": 1.1, "context": 2.4, "removed": 1.9, "added": 2.9, "end": 0.3}
SETTINGS = {
    "tokens_per_batch": 8192,
    "batch_size": None,
    "dtype": "auto",
    "cluster_by": "group",
    "iterations": 199,
    "alpha": 0.05,
    "seed": 0,
}
_GAIN = {"header": 1.6, "context": 0.8, "removed": 1.2, "added": 0.35, "end": 1.5}
STATISTICS = {key: SETTINGS[key] for key in ("cluster_by", "iterations", "alpha", "seed")}


def scores(
    rows: int = 84, *, groups: Sequence[str] = GROUPS, seed: int = 1
) -> tuple[ExampleScore, ...]:
    """Scores of a base model: log-normal lengths, groups that differ, five classes of token."""
    draw = random.Random(seed)
    level = {name: draw.gauss(0, 0.12) for name in groups}
    made = []
    for index in range(rows):
        group = groups[index % len(groups)]
        by_class = {}
        for name, height in HEIGHTS.items():
            tokens = 1 if name == "end" else max(2, round(draw.lognormvariate(2.6, 0.6)))
            nll = tokens * max(0.02, height + level[group] + draw.gauss(0, 0.25))
            by_class[name] = (nll, tokens)
        tokens = sum(many for _, many in by_class.values())
        made.append(
            ExampleScore(
                instance_id=f"{group}__bug-{index:03d}",
                repo=group,
                group=group,
                label=SpeedrunLabel.FAILURE if index % 12 == 5 else SpeedrunLabel.SUCCESS,
                nll_sum=math.fsum(nll for nll, _ in by_class.values()),
                tokens=tokens,
                bytes=round(2.9 * tokens),
                prompt_tokens=max(20, round(draw.lognormvariate(5.2, 0.5))),
                sha256=f"{index:064x}",
                nll_by_class=by_class,
            )
        )
    return tuple(made)


def moved(
    base: Sequence[ExampleScore], by: float, *, noise: float = 0.1, seed: int = 2
) -> tuple[ExampleScore, ...]:
    """The same rows under another model, each class of token moved by about exp(`by`)."""
    draw = random.Random(seed)
    made = []
    for row in base:
        by_class = {
            name: (nll * math.exp(_GAIN[name] * by + draw.gauss(0, noise)), many)
            for name, (nll, many) in row.nll_by_class.items()
        }
        total = math.fsum(nll for nll, _ in by_class.values())
        made.append(replace(row, nll_by_class=by_class, nll_sum=total))
    return tuple(made)


def evaluation(
    base: Sequence[ExampleScore] | None = None,
    tuned: Sequence[ExampleScore] | None = None,
    *,
    control: bool = True,
    seen: bool = False,
) -> dict[str, Any]:
    """A report with the keys that `evaluate` writes; `seen` makes all rows trained ones."""
    base = scores() if base is None else base
    tuned = moved(base, -0.6) if tuned is None else tuned
    own = [replace(row, nll_by_class={}) for row in tuned]
    other = moved(tuned, 0.12, noise=0.15, seed=5)
    part = asdict(summarise(tuned, **STATISTICS))
    return {
        "schema": 1,
        "kind": "evaluation",
        "tool": "swe-speedrun-scaffold",
        "version": "0.1.0",
        "git_revision": "0" * 40,
        "python": "3.11.9",
        "platform": "linux-x86_64",
        "packages": {"numpy": "2.4.6", "torch": "2.13.0"},
        "environment": {"OMP_NUM_THREADS": "2"},
        "model": {
            "name": "artifacts/run",
            "adapter_sha256": "e" * 64,
            "base": "tiny-qwen2",
            "base_sha256": "b" * 64,
            "device": "cpu",
            "dtype": "float32",
        },
        "data": {
            "path": "data/quickstart.test.jsonl",
            "sha256": DATA_SHA256,
            "rows": len(tuned) + 3,
            "scored": len(tuned),
            "skipped": {"empty_response": 1, "over_length": 2},
            "prompts_shortened": 4,
            "max_length": 512,
        },
        "settings": dict(SETTINGS),
        "rows_seen_in_training": len(tuned) if seen else 0,
        "rows_unseen": 0 if seen else len(tuned),
        "unseen": None if seen else part,
        "trained": part if seen else None,
        "base": asdict(summarise(base, **STATISTICS)),
        "comparison": asdict(compare(base, tuned, **STATISTICS)),
        "compared_rows": "trained" if seen else "unseen",
        "shuffled_prompts": {
            "comparison": asdict(
                compare([replace(row, nll_by_class={}) for row in other], own, **STATISTICS)
            ),
            "left_out": 2,
            "note": "tuned = own prompt, base = another row's prompt of the same group",
        }
        if control
        else None,
    }


def metrics(steps: int = 120, *, every: int = 20) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl: a loss that falls with noise, a hold-out number now and then."""
    draw = random.Random(3)
    lines: list[dict[str, Any]] = [{"step": 0, "eval_nll": 2.31, "eval_tokens": 4410}]
    for step in range(1, steps + 1):
        settled = 1.25 + 1.05 * math.exp(-step / (steps / 5))
        rise, fall = step / (0.05 * steps), 0.5 + 0.5 * math.cos(math.pi * step / steps)
        lines.append(
            {
                "step": step,
                "loss": settled + draw.gauss(0, 0.11),
                "lr": 4e-3 * min(rise, 1.0) * fall,
                "grad_norm": abs(draw.gauss(0.8, 0.2)),
                "targets": draw.randrange(300, 900),
                "tokens": draw.randrange(2400, 5200),
            }
        )
        if step % every == 0:
            lines.append({"step": step, "eval_nll": settled + 0.31, "eval_tokens": 4410})
    return lines


def manifest() -> dict[str, Any]:
    """The manifest of a finished run."""
    return {
        "schema": 1,
        "kind": "adapter",
        "tool": "swe-speedrun-scaffold",
        "version": "0.1.0",
        "git_revision": "0" * 40,
        "python": "3.11.9",
        "platform": "linux-x86_64",
        "packages": {"numpy": "2.4.6", "torch": "2.13.0"},
        "environment": {},
        "base_name": "tiny-qwen2",
        "base": {"name": "tiny-qwen2", "sha256": "b" * 64, "local": True, "path": "../tiny-qwen2"},
        "config": {
            "dataset": {"dev_split": 0.9, "min_patch_chars": None, "include_empty": False},
            "training": {
                "model_name": "artifacts/tiny-qwen2",
                "learning_rate": 0.004,
                "max_steps": 120,
                "warmup_ratio": 0.05,
                "max_length": 512,
                "report_to": [],
                "lora": {"r": 8, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"},
            },
            "evaluation": dict(SETTINGS),
        },
        "fingerprint": {"data": "c" * 64, "holdout": "d" * 64, "device": "cpu/float32"},
        "counts": {
            "rows": 400,
            "trained": 307,
            "held_out": 84,
            "skipped": {"empty_response": 2, "failure_label": 6, "over_length": 1},
            "prompts_shortened": 11,
            "target_tokens": 18822,
            "tokens": 97310,
            "proof": {"rows": 391, "identical": 391, "boundary_merges": 0, "spelt_controls": 0},
        },
        "result": {
            "steps": 120,
            "epochs": 6.2,
            "train_loss": 1.42,
            "eval_nll": 1.57,
            "best_step": 100,
        },
        "notes": ["hold-out: quickstart.test.jsonl, 84 rows, as the manifest names it"],
        "finished": "2026-01-02T03:04:05Z",
        "wall_seconds": 91.2,
        "files": {"adapter_model.safetensors": {"size": 12345, "sha256": "e" * 64}},
    }


def write_run(
    folder: Path,
    *,
    report: dict[str, Any] | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Write a finished and evaluated run; `change` may alter the manifest before."""
    folder.mkdir(parents=True, exist_ok=True)
    content = manifest()
    if change is not None:
        change(content)
    lines = "".join(json.dumps(line) + "\n" for line in metrics())
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    write_evaluation(folder, evaluation() if report is None else report)
    return folder


def write_evaluation(folder: Path, report: dict[str, Any], *, age: int = 0) -> Path:
    """Write evaluation.json and scores.jsonl where `evaluate` puts them; `age` in seconds."""
    place = folder / "evaluation" / str(report["data"]["sha256"])[:16]
    place.mkdir(parents=True, exist_ok=True)
    path = place / "evaluation.json"
    path.write_text(json.dumps(report, allow_nan=False), encoding="utf-8")
    rows = "".join(
        json.dumps({**asdict(row), "seen_in_training": False}) + "\n" for row in scores()
    )
    (place / "scores.jsonl").write_text(rows, encoding="utf-8")
    os.utime(path, (2_000_000_000 - age, 2_000_000_000 - age))
    return place
