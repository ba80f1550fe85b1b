"""The command tasks synthesize."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import TASKS, Session, command
from swe_scaffold.cli.tables import counts, facts, place
from swe_scaffold.errors import UsageError
from swe_scaffold.files import require_writable
from swe_scaffold.terminal import show as visible

if TYPE_CHECKING:
    from swe_scaffold.synthesis.validation import Baseline, Checker

GIB = 1 << 30


@command(
    TASKS,
    "synthesize",
    examples=(
        "swe-scaffold tasks synthesize src/ --count 200 --output tasks.jsonl",
        "swe-scaffold tasks synthesize src/ --output t.jsonl --validate-in . --validate pytest",
    ),
)
def synthesize(  # noqa: PLR0913 one parameter per option
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
            metavar="oracle|none", help="Whether prompts show the functions that hold the bug."
        ),
    ] = "oracle",
    package: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this top-level package; repeatable."),
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this kind of mutation; repeatable. A name that is none lists them all.",
        ),
    ] = None,
    functions_per_task: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Functions of one file that each task breaks."),
    ] = 1,
    max_per_file: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Most tasks from one file; 0 sets no limit.",
            show_default="a tenth of --count, at least 5",
        ),
    ] = None,
    max_per_operator: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Most mutations of one kind; 0 sets no limit.",
            show_default="a quarter of all, at least 5",
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Processes; the tasks do not depend on it."),
    ] = 1,
    validate: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Keep only mutants that this command, which runs the tests, finds. It runs that "
            "tree's code as you, with your network.",
        ),
    ] = None,
    validate_in: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Project to copy and run the command in; it holds PATH.",
            show_default="PATH",
        ),
    ] = None,
    validate_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Most time of one run of the tests.")
    ] = 300.0,
    validate_memory: Annotated[
        int,
        typer.Option(
            metavar="GIB", min=0, help="Most address space of a test process; 0 sets no limit."
        ),
    ] = 8,
) -> None:
    """Make bug-fix tasks from any Python tree by mutation.

    Functions are changed by seeded, syntax-aware operators; each task asks for the change back. The
    rows are SWE-bench-style and `build` reads them. They say `validated: false`, as no test was
    run, unless --validate found tests that the change breaks: those rows name them and quote one.
    """
    if context not in {"oracle", "none"}:
        raise UsageError(f"must be oracle or none, got {context!r}", where="--context")
    require_writable(output.parent)
    from swe_scaffold.jsonl import write_jsonl
    from swe_scaffold.synthesis import Recipe
    from swe_scaffold.synthesis import synthesize as make_tasks
    from swe_scaffold.synthesis.operators import OPERATORS

    recipe = Recipe(
        operators=operator or tuple(OPERATORS),
        context="oracle" if context == "oracle" else "none",
        functions_per_task=functions_per_task,
        max_per_file=max_per_file,
        max_per_operator=max_per_operator,
    )
    memory = validate_memory * GIB or None
    with contextlib.ExitStack() as stack:
        checker = baseline = None
        if validate is not None:
            project = validate_in or path
            settings = (validate, path, project, validate_timeout, memory)
            checker, baseline = stack.enter_context(_validation(session, settings, jobs))
        session.reporter.say(f"reading {visible(path)}")
        result = make_tasks(
            path,
            count=count,
            seed=seed,
            include=package,
            recipe=recipe,
            jobs=jobs,
            check=checker,
        )
    written = write_jsonl(output, result.tasks)
    value: dict[str, Any] = {
        "output": str(output),
        "sha256": written.sha256,
        "counts": result.counts,
        "validation": None if baseline is None else _tests(baseline),
    }
    session.result(value, _text(value))


def _validation(
    session: Session, settings: tuple[str, Path, Path, float, int | None], jobs: int
) -> contextlib.AbstractContextManager[tuple[Checker, Baseline]]:
    from swe_scaffold.synthesis.validation import open_checker, read_command
    from swe_scaffold.synthesis.workplace import Trial

    text, tree, project, seconds, memory = settings
    trial = Trial(read_command(text, project), tree, project, seconds, memory)
    return open_checker(trial, jobs=jobs, reporter=session.reporter)


def _tests(baseline: Baseline) -> dict[str, Any]:
    return {
        "by": baseline.validation,
        "tests_passing": len(baseline.passed),
        "tests_failing": baseline.failing,
        "tests_unstable": baseline.unstable,
    }


def _text(value: Mapping[str, Any]) -> str:
    ledger, tests, output = value["counts"], value["validation"], value["output"]
    rows: list[tuple[str, object]] = [
        ("files read", f"{ledger['files_read']} of {ledger['files_seen']}"),
        ("functions", ledger["functions_seen"]),
        ("candidates", ledger["candidates"]),
        ("rejected", counts(ledger["rejected"])),
        ("kept", f"{ledger['kept']} of {ledger['requested']} asked for"),
        ("by operator", counts(ledger["kept_by_operator"])),
        ("packages", len(ledger["kept_by_repo"])),
    ]
    if tests is not None:
        by = "single tests" if tests["by"] == "tests" else "the exit code alone"
        found = f"{tests['tests_passing']} pass, {tests['tests_failing']} fail"
        unchanged = f" ({found}, {tests['tests_unstable']} unstable before any change)"
        runs = f"{ledger['validation_runs']} runs, judged by {by}"
        rows.append(("validated", runs + (unchanged if tests["by"] == "tests" else "")))
    rows.append(("written", output))
    return facts("tasks", rows) + f"\n\nnext: swe-scaffold build --dataset {place(output)}"
