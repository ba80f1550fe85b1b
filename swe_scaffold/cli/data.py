"""The command that makes rows: build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import APP, NoCache, Session, command
from swe_scaffold.cli.help import from_config
from swe_scaffold.cli.options import Config, Set
from swe_scaffold.cli.tables import counts, facts, place
from swe_scaffold.errors import UsageError
from swe_scaffold.terminal import show as visible

if TYPE_CHECKING:
    from swe_scaffold.config import DatasetConfig
    from swe_scaffold.dataset import Executor

DEFAULT_OUTPUT = Path("data/processed/swe-speedrun.jsonl")


@command(
    APP,
    "build",
    examples=(
        "swe-scaffold build --dataset tasks.jsonl --emit-test",
        "swe-scaffold build --dataset owner/name --split test --limit 0",
    ),
)
def build(  # noqa: PLR0913 one parameter per option
    session: Session,
    dataset: Annotated[
        list[str] | None,
        from_config(
            "dataset.dataset",
            "SWE-bench/SWE-bench",
            "Hub id, file or folder; repeatable.",
            metavar="NAME",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="Dev rows to write (JSONL).")
    ] = DEFAULT_OUTPUT,
    limit: Annotated[
        int | None,
        from_config(
            "dataset.max_examples",
            500,
            "Most dev rows, the first in source order; 0 keeps all.",
            metavar="N",
            min=0,
        ),
    ] = None,
    min_patch_chars: Annotated[
        int | None,
        from_config(
            "dataset.min_patch_chars", None, "Skip patches shorter than this.", metavar="N", min=0
        ),
    ] = None,
    include_empty: Annotated[
        bool,
        from_config(
            "dataset.include_empty",
            False,
            "Keep rows without a response, labelled failure.",
            "--include-empty",
        ),
    ] = False,
    emit_test: Annotated[
        bool, typer.Option("--emit-test", help="Write the hold-out to <output stem>.test.jsonl.")
    ] = False,
    skipped_report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where skipped rows are listed.",
            show_default="<output stem>.skipped.jsonl",
        ),
    ] = None,
    force_skipped_report: Annotated[
        bool,
        typer.Option("--force-skipped-report", help="Write that list even when it is empty."),
    ] = False,
    split: Annotated[
        str | None,
        from_config(
            "dataset.split",
            None,
            "Split of a hub data set; else train, dev or the first.",
            metavar="NAME",
        ),
    ] = None,
    split_by: Annotated[
        str | None,
        from_config(
            "dataset.split_by", "auto", "How the hold-out is chosen.", metavar="auto|repo|row"
        ),
    ] = None,
    split_from: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Earlier manifest whose rows keep their sides."),
    ] = None,
    revision: Annotated[
        str | None,
        from_config("dataset.revision", None, "Revision of a hub data set.", metavar="NAME"),
    ] = None,
    on_bad_row: Annotated[
        str | None,
        from_config(
            "dataset.on_bad_row",
            "skip",
            "What to do with a row that cannot be read.",
            metavar="skip|stop",
        ),
    ] = None,
    report: Annotated[
        list[str] | None,
        from_config(
            "dataset.reports",
            [],
            "Evaluation reports or predictions that say what trajectories solved; repeatable.",
            metavar="FILE",
        ),
    ] = None,
    only_resolved: Annotated[
        bool,
        from_config(
            "dataset.quality.only_resolved",
            False,
            "Skip trajectories not known to have solved their task.",
            "--only-resolved",
        ),
    ] = False,
    only_submitted: Annotated[
        bool,
        from_config(
            "dataset.quality.only_submitted",
            False,
            "Skip trajectories not known to have submitted.",
            "--only-submitted",
        ),
    ] = False,
    max_per_instance: Annotated[
        int | None,
        from_config(
            "dataset.quality.max_per_instance",
            None,
            "Most rows of one instance_id, the first in source order.",
            metavar="N",
            min=1,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        from_config(
            "dataset.exclude",
            [],
            "Benchmark whose tasks must not be trained (source or index); repeatable.",
            metavar="NAME",
        ),
    ] = None,
    write_index: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the index of what is excluded: hashes, no text."),
    ] = None,
    context: Annotated[
        str | None,
        from_config(
            "dataset.context",
            "none",
            "Code that prompts of tasks get from clones.",
            metavar="none|oracle|bm25",
        ),
    ] = None,
    context_tokens: Annotated[
        int | None,
        from_config(
            "dataset.context_tokens", 4096, "Most tokens of that code.", metavar="N", min=1
        ),
    ] = None,
    repos: Annotated[
        Path | None,
        from_config("dataset.repos", None, "Folder of clones and mirrors.", metavar="FOLDER"),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="auto|jsonl|json|csv|parquet|arrow",
            help="Format of the files, where their content misleads.",
        ),
    ] = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Processes; the rows are the same with any number.",
            show_default="one per processor, where there is work for several",
        ),
    ] = None,
    executor: Annotated[
        str, typer.Option(metavar="process|ray", help="Where rows are made ready.")
    ] = "process",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Ray cluster, or auto.",
            show_default="with --executor ray, one started on this machine",
        ),
    ] = None,
    no_cache: NoCache = False,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Build dev and test rows; every source row is accounted for.

    Sources are SWE-bench-style tasks, chats, or prompt and response rows. Beside the rows come the
    list of what was skipped and why, and a manifest with the ledger, the split and all hashes.
    """
    flags: dict[str, Any] = {
        "dataset.dataset": dataset[0] if dataset else None,
        "dataset.max_examples": limit or None,
        "dataset.min_patch_chars": min_patch_chars,
        "dataset.include_empty": include_empty or None,
        "dataset.split": split,
        "dataset.split_by": split_by,
        "dataset.revision": revision,
        "dataset.on_bad_row": on_bad_row,
        "dataset.reports": report or None,
        "dataset.exclude": exclude or None,
        "dataset.context": context,
        "dataset.context_tokens": context_tokens,
        "dataset.repos": None if repos is None else str(repos),
        "dataset.quality.only_resolved": only_resolved or None,
        "dataset.quality.only_submitted": only_submitted or None,
        "dataset.quality.max_per_instance": max_per_instance,
    }
    unlimited = ["dataset.max_examples=null"] if limit == 0 else []
    from swe_scaffold.config import dump_config, load_config

    resolved = load_config(config, overrides=[*(set_ or ()), *unlimited], flags=flags)
    session.say_config({"dataset": dump_config(resolved)["dataset"]})
    _refuse_wrong_places(output, resolved.dataset)
    from swe_scaffold.dataset import build_dataset

    result = build_dataset(
        resolved.dataset,
        output=output,
        sources=dataset,
        emit_test=emit_test,
        skipped_report=skipped_report,
        force_skipped_report=force_skipped_report,
        split_from=split_from,
        write_index=write_index,
        format=format,
        executor=_executor(executor, jobs, address),
        cache=session.cache(off=no_cache),
        offline=session.offline,
        reporter=session.reporter,
        resolved_config=dump_config(resolved),
    )
    value = result.to_dict()
    session.result(value, _build_text(value))


def _refuse_wrong_places(output: Path, config: DatasetConfig) -> None:
    if not output.name:
        raise UsageError("names no file", where="--output", hint=f"as in {DEFAULT_OUTPUT}")
    if config.context != "none" and config.repos and not Path(config.repos).is_dir():
        hint = "name the folder that holds the clones; a repository may be missing in it"
        raise UsageError("not a folder", where=f"--repos {visible(config.repos)}", hint=hint)


def _executor(kind: str, jobs: int | None, address: str | None) -> Executor:
    from swe_scaffold.dataset import Executor

    if kind not in {"process", "ray"}:
        raise UsageError(f"must be process or ray, got {kind!r}", where="--executor")
    if address is not None and kind != "ray":
        raise UsageError("goes with --executor ray alone", where="--address")
    return Executor("ray" if kind == "ray" else "process", jobs, address or "")


def _build_text(value: Mapping[str, Any]) -> str:
    ledger = value["counts"]
    rows: list[tuple[str, object]] = [
        ("rows read", ledger["read"]),
        ("dev (training)", ledger["dev"]),
        ("test (hold-out)", ledger["test"]),
        ("skipped", f"{ledger['skipped']} ({counts(ledger['skipped_by_reason'])})"),
        ("beyond the limit", ledger["beyond_limit"]),
        ("labels", label_counts(ledger)),
        ("split", _split_text(value)),
    ]
    for kind in ("reports", "context"):
        if kind in ledger:
            rows.append((kind, counts(ledger[kind])))
    findings = {
        f"{stage['name']}: {name.replace('_', ' ')}": count
        for stage in ledger["stages"]
        for name, count in stage.get("findings", {}).items()
    }
    if findings:
        rows.append(("found", counts(findings)))
    lines = [facts("ledger", rows)]
    lines += [f"note: {visible(note, width=300)}" for note in value["notes"]]
    lines += ["", *(f"written: {place(path)}" for path in value["written"])]
    lines.append(f"next: swe-scaffold audit {place(value['output'])}")
    return "\n".join(lines)


def _split_text(value: Mapping[str, Any]) -> str:
    ledger, split = value["counts"], value["split"]
    sides = f"{ledger['dev_repos']} repositories in dev, {ledger['test_repos']} in test"
    held = len(split.get("held_out_repos", ()))
    return f"by {split['method']}: {sides}" + (f", {held} held out whole" if held else "")


def label_counts(ledger: Mapping[str, Any]) -> str:
    """Return the labels of both sides."""
    dev, test = counts(ledger["dev_labels"]), counts(ledger["test_labels"])
    return f"dev: {dev}; test: {test}"
