"""The commands that need a model: train, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import APP, NoCache, Session, command
from swe_scaffold.cli.help import from_config
from swe_scaffold.cli.tables import counts, facts, level, number, place, table
from swe_scaffold.errors import UsageError
from swe_scaffold.files import write_text

if TYPE_CHECKING:
    from swe_scaffold.config import SpeedrunConfig
    from swe_scaffold.training import TrainingResult

Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Configuration (JSON); else the defaults.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a configuration key; repeatable."),
]
TrustTemplate = Annotated[
    bool, typer.Option("--trust-template", help="Accept a chat template that is not a known one.")
]


@command(
    APP,
    "train",
    examples=(
        "swe-scaffold train configs/speedrun.json data/processed/swe-speedrun.jsonl",
        "swe-scaffold train rows.jsonl --set training.learning_rate=1e-4",
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
    set_: Set = None,
    trust_template: TrustTemplate = False,
    no_cache: NoCache = False,
) -> None:
    """Fine-tune a LoRA adapter on the rows of a file.

    The hold-out is the file's sibling .test.jsonl, else a part of its rows. The run folder holds
    the adapter (a standard PEFT folder), checkpoints, metrics, the manifest and report.html. SIGINT
    and SIGTERM end the step, save a checkpoint and stop; --resume goes on bit-identically.
    """
    flags = {
        "training.output_dir": None if output is None else str(output),
        "training.max_steps": max_steps,
    }
    config, data = _config_and_data(paths, config)
    resolved = _load(session, config, set_, flags)
    from swe_scaffold.training import train_lora_model

    result = train_lora_model(
        resolved,
        data,
        resume=resume,
        overwrite=overwrite,
        allow_change=allow_change or (),
        offline=session.offline,
        trust_template=trust_template,
        cache=session.cache(off=no_cache),
        reporter=session.reporter,
    )
    from swe_scaffold.report import run_page

    write_text(result.folder / "report.html", run_page(result.folder))
    value = {**asdict(result), "folder": str(result.folder), "counts": dict(result.counts)}
    session.result(value, _training_text(result, data))


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
        ("adapter", result.folder),
        ("report", result.folder / "report.html"),
    ]
    holdout = data.with_name(f"{data.stem}.test.jsonl")
    unseen = place(holdout if holdout.is_file() else data)
    return (
        facts("run", rows)
        + f"\n\nnext: swe-scaffold evaluate {place(result.folder)} {unseen} --compare-base"
    )


@command(
    APP,
    "evaluate",
    examples=(
        "swe-scaffold evaluate artifacts/checkpoints/qwen-speedrun rows.test.jsonl --compare-base",
        "swe-scaffold evaluate Qwen/Qwen2.5-3B-Instruct rows.jsonl",
    ),
)
def evaluate(  # noqa: PLR0913 one parameter per option
    session: Session,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run folder, model folder or hub id.")
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Rows to score (JSONL).")],
    config: Config = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Base of an adapter, where its manifest names none."),
    ] = None,
    compare_base: Annotated[
        bool, typer.Option("--compare-base", help="Score the base too, and pair the two.")
    ] = False,
    shuffled_control: Annotated[
        bool,
        typer.Option("--shuffled-control", help="Score with another prompt of the same group too."),
    ] = False,
    tokens_per_batch: Annotated[
        int | None,
        from_config(
            "evaluation.tokens_per_batch",
            8192,
            "Most tokens of a pass; only speed and memory change.",
            metavar="N",
            min=1,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        from_config(
            "evaluation.batch_size", None, "Most rows of a pass, likewise.", metavar="N", min=1
        ),
    ] = None,
    cluster_by: Annotated[
        str | None,
        from_config(
            "evaluation.cluster_by", "group", "Unit of the intervals.", metavar="group|repo|row"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the results.",
            show_default="evaluation/ in the run folder, else artifacts/evaluation/",
        ),
    ] = None,
    set_: Set = None,
    trust_template: TrustTemplate = False,
    no_cache: NoCache = False,
) -> None:
    """Score a model: NLL, perplexity and bits per byte.

    Every number comes with its interval; rows that the adapter was trained on are reported apart.
    The results are written as evaluation.json and, row by row, scores.jsonl.
    """
    flags = {
        "evaluation.tokens_per_batch": tokens_per_batch,
        "evaluation.batch_size": batch_size,
        "evaluation.cluster_by": cluster_by,
    }
    resolved = _load(session, config, set_, flags, part="evaluation")
    from swe_scaffold.evaluation import evaluate_model

    result = evaluate_model(
        model,
        data,
        config=resolved.evaluation,
        base=base,
        compare_base=compare_base,
        shuffled_control=shuffled_control,
        output=output,
        offline=session.offline,
        trust_template=trust_template,
        cache=session.cache(off=no_cache),
        reporter=session.reporter,
    )
    text = evaluation_text(result.report)
    session.result(result.report, f"{text}\n\nwritten: {place(result.path)}/evaluation.json")


def _load(
    session: Session,
    config: Path | None,
    overrides: list[str] | None,
    flags: dict[str, Any],
    *,
    part: str = "training",
) -> SpeedrunConfig:
    from swe_scaffold.config import dump_config, load_config

    resolved = load_config(config, overrides=overrides or (), flags=flags)
    session.say_config({part: dump_config(resolved)[part]})
    return resolved


def evaluation_text(report: Mapping[str, Any]) -> str:
    """Return the report's table, its labels, its comparison and what to beware of."""
    data, model = report["data"], report["model"]
    part = report["unseen"] or report["trained"]
    rows = []
    for name in ("unseen", "trained", "base"):
        if report[name] is not None:
            rows += _summary_rows(name, report[name])
    unit = report["settings"]["cluster_by"]
    lines = [
        f"model: {place(model['name'])}  base: {place(model['base'])}  {model['dtype']} on "
        f"{model['device']}",
        f"rows: {data['rows']} = scored {data['scored']} + skipped "
        f"{sum(data['skipped'].values())} ({counts(data['skipped'])})",
        "",
        table(["rows", "metric", f"value [{level(part['nll'])} interval]", "n", "clusters"], rows),
        "",
        f"labels: {counts({name: label['count'] for name, label in part['labels'].items()})}",
        f"intervals: {part['nll']['ci_method']}, by {unit}",
    ]
    if report["comparison"]:
        lines += ["", *comparison_lines("tuned - base", report["comparison"])]
    lines += _control_lines(report["shuffled_prompts"])
    bewares = [part["nll"]["reason"]] if part["nll"]["reason"] else []
    return "\n".join([*lines, *(f"beware: {text}" for text in [*bewares, *report["notes"]])])


def _control_lines(control: Mapping[str, Any] | None) -> list[str]:
    if control is None:
        return []
    if control["comparison"] is None:
        return ["", f"own prompt - other prompt: not compared, {control['reason']}"]
    left_out = f"  rows left out: {control['left_out']}" if control["left_out"] else ""
    lines = comparison_lines("own prompt - other prompt", control["comparison"])
    return ["", *lines, *([left_out] if left_out else [])]


def _summary_rows(name: str, summary: Mapping[str, Any]) -> list[list[object]]:
    label = {"unseen": "unseen", "trained": "seen in training", "base": "base, same rows"}[name]
    rows = []
    for key, title in (
        ("nll", "NLL, nats per response token"),
        ("perplexity", "perplexity"),
        ("bits_per_byte", "bits per byte"),
    ):
        metric = summary[key]
        rows.append([label, title, number(metric), metric["n"], metric["clusters"]])
    return rows


def comparison_lines(title: str, comparison: Mapping[str, Any]) -> list[str]:
    """Return the paired difference in words and numbers."""
    effect, rows = comparison["effect"], comparison["rows"]
    return [
        f"{title}: {number(effect)} nats per token, {comparison['verdict']}",
        f"  rows better {rows['better']}, worse {rows['worse']}, equal {rows['equal']}; "
        f"perplexity ratio {number(comparison['perplexity_ratio'])}",
    ]
