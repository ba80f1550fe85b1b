"""What runs of tests showed, as a report in the form of SWE-bench's harness, and as rates.

A harness's report has one fate for each task: here that of its first sample. What became of every
sample, and of every task's own gold patch, is told beside the lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swe_scaffold.errors import ScaffoldError
from swe_scaffold.files import folder_lock, write_json
from swe_scaffold.manifest import SCHEMA, provenance
from swe_scaffold.metrics.clustered import Settings
from swe_scaffold.metrics.shares import clustered_share, wilson_share
from swe_scaffold.scoring.execution import Executed, Execution, execute
from swe_scaffold.scoring.named_tests import NamedTests
from swe_scaffold.scoring.reading import PredictionFile, TaskFile
from swe_scaffold.scoring.verdicts import Check, Verdict
from swe_scaffold.terminal import Reporter

_HARNESS_SCHEMA = 2
_LISTS = {
    "resolved": "resolved_ids",
    "unresolved": "unresolved_ids",
    "error": "error_ids",
    "empty": "empty_patch_ids",
    "not_applied": "no_apply",
}


def executed_path(summary: Path) -> Path:
    """Return where the report stands, beside a summary; what is kept of the runs stands there, too.

    The latter has the suffix .jsonl.
    """
    return summary.with_name(f"{summary.name.removesuffix('.score.json')}.executed.json")


def run_tests(
    material: tuple[PredictionFile, TaskFile, Mapping[str, NamedTests]],
    options: Execution,
    repos: Path | None,
    output: Path,
    reporter: Reporter,
) -> Executed:
    """Run the tests of tasks on predictions and write the report.

    Raises:
        UsageError: Options do not fit, or there is no Python with pytest.
        DataError: The project cannot be copied.
        EnvironmentFailure: No sandbox works here, or the disk says no.
        LockedError: Another run writes the same report.
    """
    file, tasks, named = material
    with folder_lock(output.parent, name=f".{output.stem}.lock"):
        executed = execute(
            file.predictions,
            tasks.tasks,
            named,
            options,
            repos=repos,
            log=output.with_suffix(".jsonl"),
            reporter=reporter,
        )
        write_json(output, _report(executed, file, tasks, options))
    return executed


def summarise_runs(
    executed: Executed, rows: Sequence[Mapping[str, Any]], settings: Settings
) -> dict[str, Any]:
    """Return what the summary of a file of predictions says of the runs.

    The resolved rate is that of tasks that could be judged here, plain and by cluster: empty
    patches and those that do not apply count as not resolved, tasks that are errors here do not
    count, and one with several samples counts by its first.
    """
    checks, verdicts = executed.checks.values(), executed.verdicts.values()
    owner = {"repo": "repo", "row": "instance_id"}.get(settings.cluster_by, "group")
    owners = {row["instance_id"]: row[owner] or row["group"] for row in rows}
    first = _first_samples(executed.verdicts)
    names = [name for name in sorted(first) if first[name].fate != "error"]
    flags = [first[name].fate == "resolved" for name in names]
    unit = "share of tasks judged"
    plain = wilson_share("resolved_rate", flags, settings, unit=unit)
    clusters = [owners[name] for name in names]
    clustered = clustered_share("resolved_rate", flags, clusters, settings, unit=unit)
    return {
        "sandbox": dict(executed.sandbox),
        "tasks": _counts(check.reason or "valid" for check in checks),
        "tests_left_out": sum(check.left_out for check in checks),
        "files_left_out": sum(check.files_left_out for check in checks),
        "errors": {
            name: f"{check.reason}: {check.detail}"
            for name, check in sorted(executed.checks.items())
            if check.reason
        },
        "fates": _counts(verdict.fate for verdict in verdicts),
        "reasons": _counts(verdict.reason for verdict in verdicts if verdict.reason),
        "of_judged": asdict(plain),
        "of_judged_clustered": asdict(clustered),
    }


def _report(
    executed: Executed, file: PredictionFile, tasks: TaskFile, options: Execution
) -> dict[str, Any]:
    """Return the report: lists of ids as the harness has them, then each prediction and task."""
    first = _first_samples(executed.verdicts)
    missing = [name for name in tasks.tasks if name not in first]
    lists = {key: _of(first, fate) for fate, key in _LISTS.items()}
    if sum(map(len, lists.values())) + len(missing) != len(tasks.tasks):
        raise ScaffoldError("tasks do not add up: this is our fault, please report it")
    return {
        "schema": SCHEMA,
        "kind": "execution",
        **provenance(),
        "schema_version": _HARNESS_SCHEMA,
        "total_instances": len(tasks.tasks),
        "submitted_instances": len(first),
        "completed_instances": len(lists["resolved_ids"]) + len(lists["unresolved_ids"]),
        "resolved_instances": len(lists["resolved_ids"]),
        "unresolved_instances": len(lists["unresolved_ids"]),
        "empty_patch_instances": len(lists["empty_patch_ids"]),
        "error_instances": len(lists["error_ids"]),
        "submitted_ids": sorted(first),
        "completed_ids": sorted(lists["resolved_ids"] + lists["unresolved_ids"]),
        "incomplete_ids": sorted(missing),
        **lists,
        "inputs": {
            "predictions": asdict(file.input),
            "tasks": [asdict(read) for read in tasks.inputs],
        },
        "command": list(executed.command),
        "sandbox": dict(executed.sandbox),
        "python_of_tests": executed.installed.python,
        "packages_of_tests": dict(executed.installed.packages),
        "project_given": options.project is not None,
        "predictions": {
            "judged": len(executed.verdicts),
            "fates": _counts(verdict.fate for verdict in executed.verdicts.values()),
            "rows": [
                {"instance_id": name, "sample": sample, **verdict.as_dict()}
                for (name, sample), verdict in sorted(executed.verdicts.items())
            ],
        },
        "tasks": {
            "checked": len(executed.checks),
            "valid": sum(not check.reason for check in executed.checks.values()),
            "reasons": _counts(c.reason for c in executed.checks.values() if c.reason),
            "rows": [_task(name, check) for name, check in sorted(executed.checks.items())],
        },
    }


def is_resolved(verdict: Verdict) -> bool | None:
    """Whether a prediction resolves its task; None where nobody knows."""
    return None if verdict.fate == "error" else verdict.fate == "resolved"


def _first_samples(verdicts: Mapping[tuple[str, int], Verdict]) -> dict[str, Verdict]:
    first: dict[str, Verdict] = {}
    for (name, _), verdict in sorted(verdicts.items(), key=lambda item: item[0]):
        first.setdefault(name, verdict)
    return first


def _of(first: Mapping[str, Verdict], fate: str) -> list[str]:
    return sorted(name for name, verdict in first.items() if verdict.fate == fate)


def _counts(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _task(name: str, check: Check) -> dict[str, Any]:
    """Return a task's row; of tests that passed before there may be thousands."""
    return {"instance_id": name, **check.as_dict(), "pass_to_pass": len(check.pass_to_pass)}
