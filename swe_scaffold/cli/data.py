"""The commands that make rows: tasks synthesize, build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from swe_scaffold.cli.app import APP, TASKS, Session, command
from swe_scaffold.cli.help import from_config
from swe_scaffold.cli.model import Config, Set
from swe_scaffold.cli.tables import counts, facts, place
from swe_scaffold.errors import UsageError
from swe_scaffold.files import require_writable
from swe_scaffold.terminal import show as visible

DEFAULT_OUTPUT = Path("data/processed/swe-speedrun.jsonl")


@command(
    TASKS,
    "synthesize",
    examples=("swe-scaffold tasks synthesize src/ --count 200 --output tasks.jsonl",),
)
def synthesize(
    session: Session,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder of Python packages and modules.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Tasks to write (JSONL).")],
    count: Annotated[int, typer.Option(metavar="N", min=1, help="Most tasks to make.")] = 300,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything drawn.")] = 42,
    context: Annotated[
        str,
        typer.Option(
            metavar="oracle|none", help="Whether prompts show the function that holds the bug."
        ),
    ] = "oracle",
    package: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this top-level package; repeatable."),
    ] = None,
) -> None:
    """Make bug-fix tasks from any Python tree by mutation.

    Functions are changed by seeded, syntax-aware operators; each task asks for the change back. The
    rows are SWE-bench-style, `build` reads them, and they say `validated: false`: no test was run.
    """
    if context not in {"oracle", "none"}:
        raise UsageError(f"must be oracle or none, got {context!r}", where="--context")
    require_writable(output.parent)
    from swe_scaffold.jsonl import write_jsonl
    from swe_scaffold.sources.synthetic import synthesize as make_tasks

    session.reporter.say(f"reading {visible(path)}")
    result = make_tasks(
        path,
        count=count,
        seed=seed,
        context="oracle" if context == "oracle" else "none",
        include=package,
    )
    written = write_jsonl(output, result.tasks)
    ledger = result.counts
    rows: list[tuple[str, object]] = [
        ("files read", f"{ledger['files_read']} of {ledger['files_seen']}"),
        ("functions", ledger["functions_seen"]),
        ("candidates", ledger["candidates"]),
        ("rejected", counts(ledger["rejected"])),
        ("kept", f"{ledger['kept']} of {ledger['requested']} asked for"),
        ("by operator", counts(ledger["kept_by_operator"])),
        ("packages", len(ledger["kept_by_repo"])),
        ("written", output),
    ]
    value = {"output": str(output), "sha256": written.sha256, "counts": ledger}
    text = facts("tasks", rows) + f"\n\nnext: swe-scaffold build --dataset {place(output)}"
    session.result(value, text)


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
    }
    unlimited = ["dataset.max_examples=null"] if limit == 0 else []
    from swe_scaffold.config import dump_config, load_config

    resolved = load_config(config, overrides=[*(set_ or ()), *unlimited], flags=flags)
    session.say_config({"dataset": dump_config(resolved)["dataset"]})
    from swe_scaffold.dataset import build_dataset

    result = build_dataset(
        resolved.dataset,
        output=output,
        sources=dataset,
        emit_test=emit_test,
        skipped_report=skipped_report,
        force_skipped_report=force_skipped_report,
        split_from=split_from,
        offline=session.offline,
        reporter=session.reporter,
        resolved_config=dump_config(resolved),
    )
    value = result.to_dict()
    session.result(value, _build_text(value))


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
