"""The command that scores predictions: score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import APP, Session, command
from swe_scaffold.cli.options import keep_option
from swe_scaffold.cli.tables import counts, level, number, place, table
from swe_scaffold.errors import UsageError
from swe_scaffold.terminal import show as visible

if TYPE_CHECKING:
    from swe_scaffold.scoring import Execution

_TITLES = {
    "resolved": "resolved",
    "applies": "applies",
    "parses": "parses",
    "exact_match": "same as gold",
    "same_lines": "same lines as gold",
    "empty": "empty",
    "touches_tests": "touches tests",
    "only_tests": "only tests",
    "file_precision": "file precision",
    "file_recall": "file recall",
    "file_f1": "file F1",
    "hunk_precision": "hunk precision",
    "hunk_recall": "hunk recall",
    "hunk_f1": "hunk F1",
    "function_precision": "function precision",
    "function_recall": "function recall",
    "function_f1": "function F1",
    "similarity": "similarity",
    "size_ratio": "lines per gold line",
}
_BY_REPOSITORY = ("resolved", "applies", "parses", "file_recall", "hunk_recall", "similarity")
_SHOWN_IDS = 5
_OF_EXECUTE = {
    "project": "--project",
    "tree": "--tree",
    "environment": "--environment",
    "sandbox": "--sandbox",
    "seconds": "--execute-timeout",
    "memory_bytes": "--execute-memory",
    "jobs": "--jobs",
}


@command(
    APP,
    "score",
    examples=(
        "swe-scaffold score predictions.jsonl SWE-bench/SWE-bench_Lite --repos clones/",
        "swe-scaffold score new.jsonl tasks.jsonl --against old.jsonl",
        "swe-scaffold score preds.json tasks.jsonl --keep 'file_recall == 1' --rows kept.jsonl",
        "swe-scaffold score preds.jsonl mined.jsonl --repos clones/ --execute 'python -m pytest'",
    ),
)
def score(  # noqa: PLR0913 one parameter per option
    session: Session,
    predictions: Annotated[
        Path,
        typer.Argument(metavar="PREDICTIONS", help="Predictions as SWE-bench takes them."),
    ],
    tasks: Annotated[
        str, typer.Argument(metavar="TASKS", help="Their tasks: file, folder or hub id.")
    ],
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split of the tasks' source.")
    ] = None,
    repos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Clones of the tasks' repositories, to see whether patches apply."
        ),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Files before the change instead: DIR/INSTANCE_ID/path."),
    ] = None,
    resolved: Annotated[
        list[Path] | None,
        typer.Option(metavar="REPORT", help="Report of an evaluation with tests; repeatable."),
    ] = None,
    harness: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Run SWE-bench's own tests first, under this name (needs Docker and swebench).",
        ),
    ] = None,
    execute: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Run the tasks' tests on the predictions first, by this command (pytest), in a "
            "sandbox without network.",
        ),
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="With --execute: the project that synthetic tasks were made in."
        ),
    ] = None,
    tree: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --project: the folder in it that they were made from.",
            show_default="the project",
        ),
    ] = None,
    environment: Annotated[
        Path | None,
        typer.Option(
            metavar="VENV",
            help="With --execute: the environment whose Python runs the tests.",
            show_default="this program's own",
        ),
    ] = None,
    sandbox: Annotated[
        str, typer.Option(metavar="WAY", help="With --execute: auto, bwrap or landlock.")
    ] = "auto",
    execute_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Most time of one run of the tests.")
    ] = 300.0,
    execute_memory: Annotated[
        int,
        typer.Option(metavar="GIB", min=1, help="Most address space of a process of the tests."),
    ] = 8,
    jobs: Annotated[
        int, typer.Option(metavar="N", min=1, help="With --execute: runs at a time.")
    ] = 1,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Other predictions, compared task by task."),
    ] = None,
    against_resolved: Annotated[
        list[Path] | None,
        typer.Option(metavar="REPORT", help="Report on the other predictions; repeatable."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR", help="Write predictions that pass as tasks; fields as in the output."
        ),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where --keep writes (JSONL), for build.")
    ] = None,
    cluster_by: Annotated[
        str, typer.Option(metavar="UNIT", help="Independent unit: group, repo or row.")
    ] = "group",
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Scored predictions (JSONL); the summary stands beside them.",
            show_default="PREDICTIONS' name, .scored.jsonl",
        ),
    ] = None,
) -> None:
    """Score patches: do they parse, apply, hit the places of the gold patch, and pass the tests?

    Means are over all tasks, those without a prediction scored as an empty one, with intervals by
    repository. Every prediction is scored or refused with a reason. Nothing of a clone is run but
    with --execute, and then in a sandbox alone.
    """
    from swe_scaffold.metrics.clustered import Settings
    from swe_scaffold.scoring import Options, score_predictions

    result = score_predictions(
        predictions,
        tasks,
        Options(
            repos=repos,
            files=files,
            resolved=tuple(resolved or ()),
            harness=harness,
            execution=_execution(
                session,
                execute,
                project=project,
                tree=tree,
                environment=environment,
                sandbox=sandbox,
                seconds=execute_timeout,
                memory_bytes=execute_memory << 30,
                jobs=jobs,
            ),
            against=against,
            against_resolved=tuple(against_resolved or ()),
            keep=keep_option(keep, rows, example="applies and file_recall == 1"),
            split=split,
            output=output,
            settings=Settings(cluster_by=cluster_by),
        ),
        offline=session.offline,
        reporter=session.reporter,
    )
    text = "\n".join(_lines(result.report))
    written = f"written: {place(result.scored)}, {place(result.summary)}"
    if result.executed is not None:
        written += f", {place(result.executed)}"
    session.result(result.report, f"{text}\n\n{written}")


def _execution(session: Session, command: str | None, **settings: Any) -> Execution | None:
    from swe_scaffold.scoring import Execution

    made = Execution(command or "", cache=session.cache(off=False), **settings)
    if command is not None:
        return made
    without = Execution("")
    for name, option in _OF_EXECUTE.items():
        if settings[name] != getattr(without, name):
            raise UsageError(f"{option} goes with --execute")
    return None


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    predictions, tasks = report["predictions"], report["tasks"]
    yield f"models: {counts(predictions['models'])}"
    yield _ledger(predictions)
    yield (
        f"tasks: {tasks['tasks']} = predicted {tasks['predicted']} + missing {tasks['missing']}"
        f"{_some(tasks['missing_ids'])}"
    )
    if tasks["left_out"]:
        yield f"rows of tasks left out: {counts(tasks['left_out'])}"
    yield ""
    yield _metrics(report)
    every = report["all_tasks"]
    yield ""
    yield (
        f"intervals by {report['settings']['cluster_by']}: of shares "
        f"{every['parses']['metric']['ci_method']}; of means "
        f"{every['file_recall']['metric']['ci_method']}"
    )
    if "execution" in report:
        yield from _executed(report["execution"])
    yield from _harness(report["harness"])
    yield from _because(report)
    yield ""
    yield _repositories(report["by_repository"])
    if "against" in report:
        yield from ("", *_comparison(report["against"]))
    if "kept" in report:
        yield from ("", *_kept(report["kept"]))


def _ledger(predictions: Mapping[str, Any]) -> str:
    refused = predictions["refused"]
    told = f" ({counts(refused)})" if refused else ""
    return (
        f"predictions: {predictions['rows']} rows = scored {predictions['scored']} + "
        f"refused {sum(refused.values())}{told}"
    )


def _harness(reports: list[Mapping[str, Any]]) -> Iterator[str]:
    """Tell what reports of SWE-bench's harness say of resolved tasks."""
    for report in reports:
        yield f"report {place(report['path'])}: {counts(report['ledger'])}"
        for key, title in (("of_all", "of all tasks"), ("of_submitted", "of those submitted")):
            plain, clustered = report[key], report[f"{key}_clustered"]
            yield (
                f"  resolved {title}: {number(clustered)} by repository; "
                f"{number(plain)} if tasks were independent (Wilson)"
            )


def _executed(execution: Mapping[str, Any]) -> Iterator[str]:
    """Tell what running the tests showed."""
    tasks, fates = execution["tasks"], execution["fates"]
    yield ""
    yield f"tests run in {execution['sandbox']['backend']}, without network"
    yield f"tasks checked against their gold patches: {sum(tasks.values())} = {counts(tasks)}"
    errors = list(execution["errors"].items())
    yield from (
        f"  {visible(name, width=80)}: {visible(told)}" for name, told in errors[:_SHOWN_IDS]
    )
    if len(errors) > _SHOWN_IDS:
        yield f"  and {len(errors) - _SHOWN_IDS} more"
    if execution["tests_left_out"]:
        left_out = execution["tests_left_out"]
        yield f"tests left out, which fail with the gold patch here: {left_out}"
    if execution["files_left_out"]:
        yield f"files that tasks lack here (over 32 MiB, say): {execution['files_left_out']}"
    yield f"predictions: {sum(fates.values())} = {counts(fates)}"
    if execution["reasons"]:
        yield f"because: {counts(execution['reasons'])}"
    yield (
        f"resolved of tasks that can be judged here: {number(execution['of_judged_clustered'])} "
        f"by repository; {number(execution['of_judged'])} if tasks were independent (Wilson)"
    )
    yield ""


def _some(names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN_IDS} more" if len(names) > _SHOWN_IDS else ""
    return f" ({', '.join(names[:_SHOWN_IDS])}{more}), scored as empty"


def _metrics(report: Mapping[str, Any]) -> str:
    """Return the table of metrics; those that no task has a value of are left out."""
    every, predicted = report["all_tasks"], report["predicted_tasks"]
    title = f"all tasks [{level(every['parses']['metric'])} interval]"
    lines = []
    for name, label in _TITLES.items():
        metric = every[name]["metric"]
        if not metric["n"]:
            continue
        cells = [label, number(metric), metric["n"], metric["clusters"]]
        cells += [] if predicted is None else [number(predicted[name]["metric"])]
        lines.append(cells)
    headers = ["metric", title, "n", "clusters"]
    return table([*headers, *([] if predicted is None else ["predicted tasks only"])], lines)


def _because(report: Mapping[str, Any]) -> Iterator[str]:
    reasons = report["reasons"]
    for name, title in (
        ("problem", "problems"),
        ("applies_reason", "does not apply, or unknown"),
        ("functions_by", "functions by"),
        ("similarity_reason", "no similarity"),
    ):
        if reasons[name]:
            yield f"{title}: {counts(reasons[name])}"
    unknown = report["resolved_unknown"]
    if report["settings"]["resolved_from"] and unknown:
        yield f"beware: of {unknown} predictions the reports do not say whether they resolve"
    if reason := report["all_tasks"]["parses"]["metric"]["reason"]:
        yield f"beware: {reason}"


def _repositories(repositories: Mapping[str, Any]) -> str:
    names = [
        name for name in _BY_REPOSITORY if any(part[name]["n"] for part in repositories.values())
    ]
    lines = [
        [repo, part["parses"]["n"], *(_value(part[name]) for name in names)]
        for repo, part in repositories.items()
    ]
    return table(["repository", "tasks", *(_TITLES[name] for name in names)], lines)


def _value(metric: Mapping[str, Any]) -> str:
    return "none" if metric["value"] is None else f"{metric['value']:.3f}"


def _comparison(against: Mapping[str, Any]) -> Iterator[str]:
    yield f"against {place(against['predictions']['path'])}, over {against['tasks']} tasks of both"
    yield _ledger(against["predictions"])
    lines = []
    for name, difference in against["metrics"].items():
        effect = difference["effect"]
        if not effect["n"]:
            continue
        p = difference["p_value"]
        sides = [difference[side] for side in ("higher", "lower", "equal")]
        ps = [p, difference["p_holm"], difference["mcnemar"]]
        told = ["" if value is None else f"{value:.3g}" for value in ps]
        lines.append([_TITLES[name], number(effect), *sides, *told])
    headers = ["metric", "difference", "higher", "lower", "equal", "p", "p (Holm)", "McNemar"]
    yield table(headers, lines)
    yield "p: clustered t test; Holm: adjusted for all metrics; McNemar takes tasks for independent"
    yield from _harness(against["harness"])
    for pair in against["reports"]:
        test = pair["test"]
        yield (
            f"resolved, {place(pair['second'])} - {place(pair['first'])}: "
            f"{number(test['difference'])} over {pair['common']} tasks; only the first "
            f"{test['only_first']}, only the second {test['only_second']}; McNemar p "
            f"{test['p_value']:.3g}"
        )


def _kept(kept: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"kept: {kept['passed']} pass = written {kept['rows']} + empty {kept['empty']}, "
        f"to {place(kept['path'])}"
    )
    yield (
        "beware: rows about tasks of a benchmark spoil it for whatever is trained on them; "
        "build --exclude BENCHMARK leaves them out"
    )
    yield f"next: swe-scaffold build --dataset {place(kept['path'])}"
