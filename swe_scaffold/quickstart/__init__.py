"""The embedded default, end to end: tasks from Python's own library, a tiny model made on the spot.

- `__init__.py`: the story: halve, make the model, synthesise, build, audit, train, evaluate.
- `corpus.py`: two halves of a Python tree, and what the model reads of the first.
- `tiny_model.py`: tokenizer and tiny-qwen2, cached by sources and recipe.
"""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.audit import AuditReport, audit_files
from swe_scaffold.config import (
    DatasetConfig,
    EvaluationConfig,
    LoRAConfig,
    SpeedrunConfig,
    TrainingConfig,
    dump_config,
)
from swe_scaffold.dataset import BuildResult, build_dataset
from swe_scaffold.errors import CheckFailed
from swe_scaffold.evaluation import Evaluation, evaluate_model
from swe_scaffold.files import require_writable, write_json
from swe_scaffold.jsonl import write_jsonl
from swe_scaffold.quickstart.corpus import RECIPE, halves, read_corpus
from swe_scaffold.quickstart.tiny_model import TinyRecipe, tiny_model
from swe_scaffold.synthesis import synthesize
from swe_scaffold.terminal import Reporter
from swe_scaffold.training import TrainingResult, train_lora_model

TASKS = 440
STEPS = 60
SEED = 42


@dataclass(frozen=True, slots=True)
class QuickstartResult:
    """What was made, and how long each part took."""

    folder: Path
    model: Path
    tasks: Path
    config: Path
    build: BuildResult
    audit: AuditReport
    training: TrainingResult
    evaluation: Evaluation
    seconds: dict[str, float]
    packages: tuple[int, int]


def quickstart(
    folder: Path,
    *,
    reporter: Reporter,
    tree: Path | None = None,
    count: int = TASKS,
    steps: int = STEPS,
    recipe: TinyRecipe | None = None,
) -> QuickstartResult:
    """Run the whole pipeline below `folder`; an earlier quickstart there is replaced.

    Args:
        folder: Where everything goes.
        reporter: Gets messages and progress.
        tree: Python packages to work on; default the standard library.
        count: Tasks to make.
        steps: Optimizer steps of the adapter.
        recipe: Of the tiny model.

    Raises:
        CheckFailed: The audit found an error.
        EnvironmentFailure: The folder cannot be written.
    """
    require_writable(folder)
    clock = _Clock(reporter)
    root = tree or Path(sysconfig.get_paths()["stdlib"])
    with clock.part("model", "a tiny model, made from one half of the packages"):
        first, second = halves(root)
        corpus = read_corpus(root, first, seed=SEED)
        model = tiny_model(folder / "models", corpus, reporter, recipe=recipe)
    with clock.part("tasks", "tasks from the other half"):
        made = synthesize(root, count=count, seed=SEED, include=second, recipe=RECIPE)
        tasks = folder / "tasks.jsonl"
        write_jsonl(tasks, made.tasks)
    config = quickstart_config(folder, model, tasks, steps=steps)
    config_path = folder / "config.json"
    write_json(config_path, dump_config(config))
    data = folder / "data" / "quickstart.jsonl"
    with clock.part("build", "dev rows and a hold-out of whole packages"):
        built = build_dataset(
            config.dataset,
            output=data,
            emit_test=True,
            force_skipped_report=True,
            offline=True,
            reporter=reporter,
            resolved_config=dump_config(config),
        )
    with clock.part("audit", "the ledger, leaks, masks"):
        training = config.training
        audit = audit_files(
            [data],
            model=str(model),
            offline=True,
            max_length=training.max_length,
            min_prompt_tokens=training.min_prompt_tokens,
        )
        if audit.verdict == "failed":
            raise CheckFailed(
                "the audit found errors", where=str(data), hint=f"swe-scaffold audit {data}"
            )
    with clock.part("train", "a LoRA adapter"):
        trained = train_lora_model(config, data, overwrite=True, offline=True, reporter=reporter)
    with clock.part("evaluate", "base against tuned on unseen packages, and the control"):
        evaluation = evaluate_model(
            trained.folder,
            data.with_name("quickstart.test.jsonl"),
            config=config.evaluation,
            compare_base=True,
            shuffled_control=True,
            offline=True,
            reporter=reporter,
        )
    return QuickstartResult(
        folder=folder,
        model=model,
        tasks=tasks,
        config=config_path,
        build=built,
        audit=audit,
        training=trained,
        evaluation=evaluation,
        seconds=clock.seconds,
        packages=(len(corpus.packages), len(made.counts["kept_by_repo"])),
    )


def quickstart_config(folder: Path, model: Path, tasks: Path, *, steps: int) -> SpeedrunConfig:
    """Return the quickstart's own configuration; a tiny model wants another recipe."""
    return SpeedrunConfig(
        dataset=DatasetConfig(
            dataset=str(tasks), dev_split=0.8, split_by="repo", max_examples=None, seed=SEED
        ),
        training=TrainingConfig(
            model_name=str(model),
            output_dir=str(folder / "run"),
            learning_rate=4e-3,
            max_steps=steps,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=1,
            warmup_ratio=0.05,
            eval_steps=20,
            save_steps=30,
            max_length=768,
            min_prompt_tokens=64,
            lora=LoRAConfig(r=8, alpha=16, dropout=0.05, target_modules="all-linear"),
        ),
        evaluation=EvaluationConfig(),
    )


class _Clock:
    """Seconds of each part, and a line when it begins."""

    def __init__(self, reporter: Reporter) -> None:
        self.seconds: dict[str, float] = {}
        self._reporter = reporter

    @contextmanager
    def part(self, name: str, title: str) -> Iterator[None]:
        self._reporter.say(f"{name}: {title}")
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)


def result_value(result: QuickstartResult) -> dict[str, Any]:
    """Return the result as JSON values."""
    return {
        "folder": str(result.folder),
        "model": str(result.model),
        "tasks": str(result.tasks),
        "config": str(result.config),
        "build": result.build.to_dict(),
        "audit": result.audit.to_dict(),
        "evaluation": result.evaluation.report,
        "training": {
            "folder": str(result.training.folder),
            "steps": result.training.steps,
            "train_loss": result.training.train_loss,
            "eval_nll": result.training.eval_nll,
            "counts": dict(result.training.counts),
        },
        "seconds": result.seconds,
        "packages": {"model": result.packages[0], "tasks": result.packages[1]},
    }
