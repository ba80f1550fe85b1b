"""Score predictions against tasks: by their patches alone, and by tests where that is asked.

- `__init__.py`: the story: read, score each, write, sum up, compare.
- `reading.py`: predictions and tasks, every row accounted for.
- `files_before.py`: the files of a task, from clones or a folder.
- `patches.py`: one prediction against its gold patch.
- `summary.py`: means over tasks with intervals, differences of two files.
- `expressions.py`, `keeping.py`: predictions worth training on.
- `harness.py`: SWE-bench's own harness, which runs the tests: handing over, and its reports.
- `execution.py`: tests run here, in the sandbox, with `rooms` (one worker's turn), `testbed` (one
  run), `verdicts` (what runs mean), `interpreter`, `named_tests`, `kept` (from one command to the
  next), and `executed`, its report in the harness's form.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from swe_scaffold.errors import DataError, ScaffoldError, UsageError
from swe_scaffold.files import require_different, require_writable, write_json
from swe_scaffold.jsonl import LineWriter, WrittenFile, encode_row
from swe_scaffold.manifest import SCHEMA, provenance
from swe_scaffold.metrics.clustered import Settings
from swe_scaffold.scoring.executed import (
    executed_path,
    is_resolved,
    run_tests,
    summarise_runs,
)
from swe_scaffold.scoring.execution import Executed, Execution
from swe_scaffold.scoring.expressions import Filter
from swe_scaffold.scoring.files_before import ClonedTrees, FolderTrees, Trees
from swe_scaffold.scoring.harness import (
    Resolved,
    compare_reports,
    hand_over,
    read_report,
    resolved_rates,
)
from swe_scaffold.scoring.keeping import kept_row
from swe_scaffold.scoring.named_tests import read_named_tests
from swe_scaffold.scoring.patches import FIELDS, LISTS, PatchScorer
from swe_scaffold.scoring.reading import (
    Prediction,
    PredictionFile,
    TaskFile,
    read_predictions,
    read_tasks,
)
from swe_scaffold.scoring.summary import (
    by_repository,
    by_task,
    compare_tasks,
    reasons,
    summarise,
)
from swe_scaffold.sources.outcomes import Outcomes, read_outcomes
from swe_scaffold.terminal import Reporter

__all__ = ["FILTER_FIELDS", "Execution", "Keep", "Options", "Scoring", "score_predictions"]

FILTER_FIELDS = tuple(name for name in FIELDS if name not in LISTS)

_STEM = re.compile(r"(?:\.scored)?\.(?:jsonl|ndjson|json|csv|tsv|parquet)(?:\.gz)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Keep:
    """Which predictions become rows for `build`, and where."""

    expression: str
    rows: Path


@dataclass(frozen=True, slots=True)
class Options:
    """How predictions are scored.

    Attributes:
        repos: Folder of clones, or bare mirrors, of the tasks' repositories.
        files: Folder of `INSTANCE_ID/path` instead.
        resolved: Evaluation reports, as SWE-bench's harness writes them.
        harness: Name of a run: hand the predictions over to SWE-bench's harness first, and take
            its report as one more.
        execution: How tests are run here first, whose report is one more.
        against: Another file of predictions to compare with.
        against_resolved: Evaluation reports on that file.
        keep: Write predictions that pass a filter as tasks.
        split: Of the tasks' source.
        output: The scored predictions; their summary stands beside them.
        settings: What all intervals share.
    """

    repos: Path | None = None
    files: Path | None = None
    resolved: Sequence[Path] = ()
    harness: str | None = None
    execution: Execution | None = None
    against: Path | None = None
    against_resolved: Sequence[Path] = ()
    keep: Keep | None = None
    split: str | None = None
    output: Path | None = None
    settings: Settings = field(default_factory=Settings)

    def trees(self) -> Trees | None:
        """Return where files are read from.

        Raises:
            UsageError: Two places are named, or one that is no folder.
        """
        if self.repos is not None and self.files is not None:
            raise UsageError("--repos and --files are two sources of the same files: name one")
        folder = self.repos or self.files
        if folder is not None and not folder.is_dir():
            option = "--repos" if folder is self.repos else "--files"
            raise UsageError(f"{option}: there is no such folder", where=str(folder))
        if self.repos is not None:
            return ClonedTrees(self.repos)
        return None if self.files is None else FolderTrees(self.files)


@dataclass(frozen=True, slots=True)
class Scoring:
    """The summary (strict JSON) and the files that were written; one more where tests were run."""

    report: dict[str, Any]
    scored: Path
    summary: Path
    executed: Path | None = None


def score_predictions(
    predictions: Path,
    tasks: str,
    options: Options | None = None,
    *,
    offline: bool = False,
    reporter: Reporter | None = None,
) -> Scoring:
    """Score a file of predictions and write `STEM.scored.jsonl` and `STEM.score.json`.

    Where tests are run, their report is `STEM.executed.json`, the runs `STEM.executed.jsonl`.

    Args:
        predictions: As SWE-bench's harness takes them.
        tasks: Any source of tasks with gold patches.
        options: See there.
        offline: Never ask the network.
        reporter: Where messages and progress go.

    Raises:
        DataError: Predictions, tasks or reports cannot be read, or have nothing in common.
        UsageError: Options or the filter do not fit.
        EnvironmentFailure: The disk says no, or git or a sandbox is missing where it is needed.
    """
    options = options or Options()
    reporter = reporter or Reporter(-1)
    trees = options.trees()
    keep = Filter(options.keep.expression, FILTER_FIELDS) if options.keep else None
    scored, summary = output_paths(predictions, options.output)
    _check_outputs(predictions, tasks, options, [scored, summary])
    if options.against_resolved and options.against is None:
        raise UsageError("--against-resolved goes with --against")
    task_file = read_tasks(tasks, split=options.split, offline=offline)
    options = _through_the_harness(predictions, tasks, options, reporter)
    file = read_predictions(predictions, task_file.tasks)
    executed = None
    if options.execution is not None:
        path = executed_path(summary)
        named = read_named_tests(tasks, split=options.split, offline=offline)
        material = (file, task_file, named)
        executed = run_tests(material, options.execution, options.repos, path, reporter)
        options = replace(options, resolved=(*options.resolved, path))
    outcomes = _outcomes(options.resolved)
    work = _Work(task_file, PatchScorer(trees), outcomes, reporter, executed)
    other = read_predictions(options.against, task_file.tasks) if options.against else None
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(LineWriter(scored))
        sink = stack.enter_context(LineWriter(options.keep.rows)) if options.keep else None
        kept: Counter[str] = Counter()
        rows = []
        for prediction, row in work.rows(file):
            lines.write(encode_row(row, f"{scored}: {row['instance_id']}"))
            rows.append(row)
            if keep is not None and sink is not None and keep(row):
                kept["empty" if row["empty"] else "written"] += 1
                if not row["empty"]:
                    task = task_file.tasks[prediction.instance_id]
                    sink.write(encode_row(kept_row(task, prediction, row["resolved"]), "--rows"))
    report = _report(work, file, rows, options)
    report["scored"] = _written(scored, lines.written)
    if executed is not None:
        report["execution"] = {
            "path": str(options.resolved[-1]),
            **summarise_runs(executed, rows, options.settings),
        }
    if options.keep and sink is not None:
        report["kept"] = {
            "expression": options.keep.expression,
            "passed": sum(kept.values()),
            "empty": kept["empty"],
            **_written(options.keep.rows, sink.written),
        }
    if other is not None:
        report["against"] = _against(work, rows, other, options)
    write_json(summary, report)
    return Scoring(report, scored, summary, options.resolved[-1] if executed else None)


def _through_the_harness(
    predictions: Path, tasks: str, options: Options, reporter: Reporter
) -> Options:
    """Let SWE-bench's harness run the tests, where that is asked, and add its report."""
    if options.harness is None:
        return options
    reporter.say("handing over to SWE-bench's harness, which may take hours")
    report = hand_over(
        predictions,
        tasks,
        run_id=options.harness,
        report_dir=(options.output or predictions).parent / "harness",
        split=options.split or "test",
    )
    return replace(options, resolved=(*options.resolved, report))


def _outcomes(reports: Sequence[Path]) -> Outcomes:
    return read_outcomes(reports) if reports else Outcomes()


def _read_reports(paths: Sequence[Path]) -> list[Resolved]:
    """Read the reports of SWE-bench's harness; others that tell what is resolved have no lists."""
    found = []
    for path in paths:
        with contextlib.suppress(DataError):
            found.append(read_report(path))
    return found


def _rates(reports: Sequence[Resolved], settings: Settings) -> list[dict[str, Any]]:
    """Return the ledger and the resolved rates of each report."""
    return [
        {"path": report.path, "ledger": report.ledger(), **asdict(resolved_rates(report, settings))}
        for report in reports
    ]


def output_paths(predictions: Path, output: Path | None) -> tuple[Path, Path]:
    """Return where scores and summary go: beside the predictions, unless an output is named."""
    stem = _STEM.sub("", (output or predictions).name)
    folder = (output or predictions).parent
    return output or folder / f"{stem}.scored.jsonl", folder / f"{stem}.score.json"


def _check_outputs(
    predictions: Path, tasks: str, options: Options, outputs: Sequence[Path]
) -> None:
    given = [predictions, Path(tasks), *options.resolved, *options.against_resolved]
    given += [options.against] if options.against else []
    written = [*outputs, *([options.keep.rows] if options.keep else [])]
    if options.execution is not None:
        written += [(made := executed_path(outputs[1])), made.with_suffix(".jsonl")]
    if len({path.absolute() for path in written}) < len(written):
        raise UsageError("two outputs have one name", where=str(written[-1]))
    for path in written:
        require_different(path, given)
        require_writable(path.parent)


class _Work:
    """Predictions of one file or the other, scored in order."""

    def __init__(
        self,
        tasks: TaskFile,
        scorer: PatchScorer,
        outcomes: Outcomes,
        reporter: Reporter,
        executed: Executed | None = None,
    ) -> None:
        self.tasks, self.outcomes = tasks, outcomes
        self._scorer, self._reporter, self._executed = scorer, reporter, executed

    def rows(self, file: PredictionFile) -> Iterator[tuple[Prediction, dict[str, Any]]]:
        samples = Counter(prediction.instance_id for prediction in file.predictions)
        with self._reporter.progress("scoring", len(file.predictions), unit="patches") as track:
            for prediction in file.predictions:
                name = prediction.instance_id
                resolved = self._resolved(prediction, alone=samples[name] == 1)
                yield prediction, self._scorer.score(self.tasks.tasks[name], prediction, resolved)
                track.advance()

    def empty_rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Score tasks without a prediction as an empty one, which resolves nothing."""
        resolved = False if self.outcomes.resolved else None
        return [self._scorer.score(self.tasks.tasks[name], None, resolved) for name in names]

    def about(self, outcomes: Outcomes) -> _Work:
        """Return the same for predictions that other reports are about."""
        return _Work(self.tasks, self._scorer, outcomes, self._reporter)

    def _resolved(self, prediction: Prediction, *, alone: bool) -> bool | None:
        name = prediction.instance_id
        if self._executed is not None:
            return is_resolved(self._executed.verdicts[name, prediction.sample])
        # A report speaks of one attempt; with several samples nobody knows which.
        return self.outcomes.resolved.get(name, (None, ""))[0] if alone else None


def _report(
    work: _Work, file: PredictionFile, rows: Sequence[Mapping[str, Any]], options: Options
) -> dict[str, Any]:
    predicted = {row["instance_id"] for row in rows}
    missing = [name for name in work.tasks.tasks if name not in predicted]
    everything = by_task([*rows, *work.empty_rows(missing)])
    settings = options.settings
    report = {
        "schema": SCHEMA,
        "kind": "score",
        **provenance(),
        "predictions": _prediction_ledger(file),
        "tasks": {
            "name": work.tasks.name,
            "inputs": [asdict(read) for read in work.tasks.inputs],
            "rows": sum(read.rows for read in work.tasks.inputs),
            "left_out": dict(work.tasks.left_out),
            "tasks": len(work.tasks.tasks),
            "predicted": len(predicted),
            "missing": len(missing),
            "missing_ids": missing,
        },
        "settings": {
            **asdict(settings),
            "files_from": "repos" if options.repos else "files" if options.files else None,
            "resolved_from": [str(path) for path in options.resolved],
        },
        "harness": _rates(_read_reports(options.resolved), settings),
        "resolved_unknown": sum(row["resolved"] is None for row in rows),
        "reasons": reasons(rows),
        "all_tasks": summarise(everything, settings),
        "predicted_tasks": summarise(by_task(rows), settings) if missing else None,
        "by_repository": by_repository(everything, settings),
    }
    _check_identities(report)
    return report


def _prediction_ledger(file: PredictionFile) -> dict[str, Any]:
    refused = Counter(row.reason for row in file.refused)
    models = Counter(prediction.model for prediction in file.predictions)
    return {
        **asdict(file.input),
        "scored": len(file.predictions),
        "refused": dict(sorted(refused.items())),
        "refused_rows": [asdict(row) for row in file.refused],
        "models": dict(sorted(models.items())),
    }


def _check_identities(report: Mapping[str, Any]) -> None:
    """Make sure that every row and every task has one fate."""
    rows, tasks = report["predictions"], report["tasks"]
    whole = rows["rows"] == rows["scored"] + sum(rows["refused"].values())
    whole &= tasks["rows"] == tasks["tasks"] + sum(tasks["left_out"].values())
    if not whole or tasks["tasks"] != tasks["predicted"] + tasks["missing"]:
        raise ScaffoldError("rows do not add up: this is our fault, please report it")


def _against(
    work: _Work, rows: Sequence[Mapping[str, Any]], other: PredictionFile, options: Options
) -> dict[str, Any]:
    """Compare with another file over the tasks for which both have a prediction."""
    theirs = work.about(_outcomes(options.against_resolved))
    others = [row for _, row in theirs.rows(other)]
    reports = _read_reports(options.against_resolved)
    pairs = product(reports, _read_reports(options.resolved))
    return {
        "predictions": _prediction_ledger(other),
        "harness": _rates(reports, options.settings),
        "reports": [
            {"first": a.path, "second": b.path, **asdict(compare_reports(a, b, options.settings))}
            for a, b in pairs
        ],
        **compare_tasks(by_task(rows), by_task(others), options.settings),
    }


def _written(path: Path, written: WrittenFile) -> dict[str, Any]:
    return {"path": str(path), "rows": written.rows, "sha256": written.sha256}
