"""The command that makes a model: train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import APP, NoCache, Session, command
from swe_scaffold.cli.help import from_config
from swe_scaffold.cli.options import Config, Set, TrustTemplate, load_resolved
from swe_scaffold.cli.tables import counts, facts, place
from swe_scaffold.errors import UsageError
from swe_scaffold.files import write_text
from swe_scaffold.numbers import gibibytes

if TYPE_CHECKING:
    from swe_scaffold.config import SpeedrunConfig
    from swe_scaffold.training import TrainingResult


@command(
    APP,
    "train",
    examples=(
        "swe-scaffold train configs/speedrun.json data/processed/swe-speedrun.jsonl",
        "swe-scaffold train rows.jsonl --set training.learning_rate=1e-4",
        "swe-scaffold train configs/speedrun.json rows.jsonl --dry-run",
    ),
)
def train(  # noqa: PLR0913 one parameter per option
    session: Session,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[CONFIG] DATA", help="Configuration (JSON), and rows to train on (JSONL)."
        ),
    ],
    config: Config = None,
    output: Annotated[
        Path | None,
        from_config(
            "training.output_dir",
            "artifacts/checkpoints/qwen-speedrun",
            "Run folder.",
            metavar="FOLDER",
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        from_config("training.max_steps", None, "Optimizer steps.", metavar="N", min=1),
    ] = None,
    tokens_per_micro_batch: Annotated[
        str | None,
        from_config(
            "training.tokens_per_micro_batch",
            "auto",
            "Most tokens of a forward and backward pass.",
            metavar="auto|N",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in the folder.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the earlier run in the folder.")
    ] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="With --resume, let this key differ, on the record; repeatable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check and measure what the run would need; train and write nothing."
        ),
    ] = False,
    set_: Set = None,
    trust_template: TrustTemplate = False,
    no_cache: NoCache = False,
) -> int:
    """Fine-tune a LoRA adapter on the rows of a file.

    The hold-out is the file's sibling .test.jsonl, else a part of its rows. The run folder holds
    the adapter (a standard PEFT folder), checkpoints, metrics, the manifest and report.html. SIGINT
    and SIGTERM end the step, save a checkpoint and stop; --resume goes on bit-identically.
    --dry-run says what can be known before: first tokens under the base, what is trained, memory,
    time, every choice; exit code 7 where it does not fit, 9 where training would be pointless.
    """
    flags = {
        "training.output_dir": None if output is None else str(output),
        "training.max_steps": max_steps,
        "training.tokens_per_micro_batch": _number_or_word(tokens_per_micro_batch),
    }
    from swe_scaffold.engine.processes import launched, one_voice

    with one_voice():
        config, data = _config_and_data(paths, config)
        if dry_run and (resume or allow_change):
            raise UsageError("looks at a new run: it goes without --resume", where="--dry-run")
        resolved = load_resolved(session, config, set_, flags)
        leads = launched().leads
    from swe_scaffold.config import config_origins

    options: dict[str, Any] = {
        "overwrite": overwrite,
        "offline": session.offline,
        "trust_template": trust_template,
        "origins": config_origins(config, overrides=set_ or (), flags=flags),
        "cache": session.cache(off=no_cache),
        "reporter": session.reporter,
    }
    if dry_run:
        return _dry_run(session, resolved, data, options) if leads else 0
    from swe_scaffold.training import train_lora_model

    result = train_lora_model(
        resolved, data, resume=resume, allow_change=allow_change or (), **options
    )
    if not leads:
        return 0
    from swe_scaffold.report import run_page

    write_text(result.folder / "report.html", run_page(result.folder))
    value = {**asdict(result), "folder": str(result.folder), "counts": dict(result.counts)}
    session.result(value, _training_text(result, data))
    return 0


def _number_or_word(value: str | None) -> int | str | None:
    """Return a number where there is one; what else is allowed is the configuration's to say."""
    return int(value) if value is not None and value.isascii() and value.isdigit() else value


def _dry_run(
    session: Session, config: SpeedrunConfig, data: Path, options: Mapping[str, Any]
) -> int:
    from swe_scaffold.cli.preflight_text import preflight_text
    from swe_scaffold.training.preflight import preflight

    result = preflight(config, data, **options)
    session.result(result.as_dict(), preflight_text(result))
    return result.exit_code


def _config_and_data(paths: list[Path], config: Path | None) -> tuple[Path | None, Path]:
    """Return the configuration, which may be named in two ways, and the data."""
    if len(paths) == 2 and config is None:
        return paths[0], paths[1]
    if len(paths) == 1 and paths[0].suffix != ".json":
        return config, paths[0]
    raise UsageError(
        "takes one configuration and one file of rows",
        where="swe-scaffold train",
        hint="swe-scaffold train configs/speedrun.json rows.jsonl",
    )


def _speed(speed: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return how fast the steps were; nothing where none was left to take."""
    if not speed["steps"]:
        return []
    mfu = ""
    if speed["mfu"] is not None:
        of = f"{speed['gemm_flops'] / 1e9:,.0f} GFLOP/s"
        mfu = f", {100 * speed['mfu']:.0f} % of a large product's {of}"
    rates = (
        f"{speed['tokens_per_second']:,.0f} tokens/s, {speed['targets_per_second']:,.0f} of them"
    )
    return [
        ("speed", f"{rates} trained{mfu}"),
        ("first step", f"done {speed['first_step_seconds']:.1f} s after the process began"),
        ("peak memory", gibibytes(speed["peak_memory_bytes"])),
    ]


def _training_text(result: TrainingResult, data: Path) -> str:
    ledger = result.counts
    held = "not evaluated" if result.eval_nll is None else f"{result.eval_nll:.4f}"
    rows: list[tuple[str, object]] = [
        ("rows", ledger["rows"]),
        ("trained", ledger["trained"]),
        ("held out", ledger["held_out"]),
        ("skipped", counts(ledger["skipped"])),
        ("prompts shortened", ledger["prompts_shortened"]),
        ("optimizer steps", f"{result.steps} ({result.epochs} epochs)"),
        ("training loss", f"{result.train_loss:.4f} nats per response token"),
        ("hold-out NLL", held + (f" at step {result.best_step}" if result.best_step else "")),
        ("wall time", f"{result.wall_seconds:.0f} s"),
        *_speed(result.speed),
        ("adapter", result.folder),
        ("report", result.folder / "report.html"),
    ]
    holdout = data.with_name(f"{data.stem}.test.jsonl")
    unseen = place(holdout if holdout.is_file() else data)
    return (
        facts("run", rows)
        + f"\n\nnext: swe-scaffold evaluate {place(result.folder)} {unseen} --compare-base"
    )
