"""SWE-bench's own harness: handing predictions over to it, and reading what it reports.

The harness runs tests in containers and needs Docker and the `swebench` package; it is called as a
program and never imported. Its reports, of schema 2 and older, become a ledger in which every task
has one fate, and rates with intervals. Joining outcomes to trajectories is `sources.outcomes`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.errors import DataError, EnvironmentFailure, IntegrityError, UsageError
from swe_scaffold.files import require_writable
from swe_scaffold.jsonl import BadLine
from swe_scaffold.metrics.clustered import Settings
from swe_scaffold.metrics.shares import McNemar, clustered_share, mcnemar, wilson_share
from swe_scaffold.process import run_program
from swe_scaffold.sources.local import open_file
from swe_scaffold.sources.outcomes import read_outcomes
from swe_scaffold.terminal import show
from swe_scaffold.types import Metric

# A task is in the first fate that one of its lists names.
_LISTS: dict[str, tuple[str, ...]] = {
    "resolved": ("resolved_ids", "ids_resolved", "resolved"),
    "not_applied": ("no_apply",),
    "error": (
        *("error_ids", "test_errored", "test_timeout", "install_fail", "reset_failed"),
        "no_logs",
    ),
    "unresolved": (
        *("unresolved_ids", "ids_unresolved", "completed_ids", "applied", "with_logs"),
        "generated",
    ),
    "empty": ("empty_patch_ids", "no_generation"),
    "not_submitted": ("incomplete_ids",),
    "unknown": ("submitted_ids",),
}
FATES = tuple(_LISTS)
_SUBMITTED = ("resolved", "not_applied", "error", "unresolved", "empty")
_INFRASTRUCTURE = ("infra_failure_ids",)
_AMBIGUOUS = ("ambiguous_failure_ids",)

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# SWE-bench's ids end in the number of a pull request, SWE-smith's in a commit and a kind of bug.
_TASK = re.compile(r"(?P<repo>.+__.+?)(?:-\d+|\.[0-9a-f]{8}\..+)")
_INSTALL = "pip install swebench"
_DOCKER_SECONDS = 60.0
# Variables by which Docker and the hub are found; tokens are not among them.
_PASSED_ON = (
    *("PATH", "HOME", "LANG", "TMPDIR", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"),
    *("DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "XDG_RUNTIME_DIR", "HF_HOME", "HF_HUB_CACHE"),
    *("HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """One report: the fate of every task it names.

    `fates` holds sorted ids under each of `FATES`, every id once. `infrastructure` and `ambiguous`
    are ids among the unresolved and failed ones of which the harness says that the machine was (or
    may have been) at fault; they count as not resolved. `total` is the size of the data set, which
    may exceed the ids named.
    """

    path: str
    fates: Mapping[str, tuple[str, ...]]
    infrastructure: tuple[str, ...]
    ambiguous: tuple[str, ...]
    total: int

    @property
    def submitted(self) -> tuple[str, ...]:
        """The tasks that have a prediction and a fate, sorted."""
        return tuple(sorted(name for fate in _SUBMITTED for name in self.fates[fate]))

    def ledger(self) -> dict[str, int]:
        """Return how many tasks have each fate; the values add up to `total`."""
        counts = {fate: len(self.fates[fate]) for fate in FATES}
        counts["not_submitted"] += self.total - sum(counts.values())
        return counts


@dataclass(frozen=True, slots=True)
class ResolvedRates:
    """Resolved tasks of all tasks, and of those with a prediction.

    Leaderboards divide by all tasks; empty patches, failures to apply and errors count as not
    resolved in both. The clustered rate of all is over the tasks that the report names.
    """

    of_all: Metric
    of_all_clustered: Metric
    of_submitted: Metric
    of_submitted_clustered: Metric


@dataclass(frozen=True, slots=True)
class ReportComparison:
    """Two reports on the tasks that both submitted; `only_*` count what one of them left out."""

    common: int
    only_first: int
    only_second: int
    test: McNemar


def read_report(path: Path | str) -> Resolved:
    """Read a report of the harness: lists of ids per outcome.

    Raises:
        DataError: It is no such report, or contradicts itself.
        EnvironmentFailure: It cannot be read.
    """
    shown = str(path)
    row = _only_row(Path(path), shown)
    if not any(isinstance(row.get(key), list) for key in _LISTS["resolved"]):
        hint = "expected the report that `swebench eval` writes, with resolved_ids"
        raise DataError("is no report of the harness", where=shown, hint=hint)
    # What is refused there (an id both resolved and not, an id that is none) is refused here.
    read_outcomes([path])
    fates, placed = {}, set[str]()
    for fate, keys in _LISTS.items():
        named = set(_ids(row, keys)) - placed
        fates[fate] = tuple(sorted(named))
        placed |= named
    total = row.get("total_instances")
    known = isinstance(total, int) and not isinstance(total, bool) and total > len(placed)
    return Resolved(
        path=shown,
        fates=fates,
        infrastructure=tuple(sorted(set(_ids(row, _INFRASTRUCTURE)))),
        ambiguous=tuple(sorted(set(_ids(row, _AMBIGUOUS)))),
        total=int(total or 0) if known else len(placed),
    )


def resolved_rates(
    report: Resolved, settings: Settings, *, groups: Mapping[str, str] | None = None
) -> ResolvedRates:
    """Return the resolved rates with Wilson intervals, plain and by cluster.

    Args:
        report: What `read_report` returned.
        settings: What all intervals share; clusters are groups, or rows where it says so.
        groups: The cluster of a task; without it the repository in its id.
    """
    yes = set(report.fates["resolved"])
    named = sorted(name for fate in FATES for name in report.fates[fate])
    everything = [name in yes for name in named] + [False] * (report.total - len(named))
    submitted = report.submitted
    outcomes = [name in yes for name in submitted]
    unit = "share of tasks"

    def clustered(names: Sequence[str]) -> Metric:
        flags = [name in yes for name in names]
        owners = _clusters(names, settings, groups)
        return clustered_share("resolved_rate", flags, owners, settings, unit=unit)

    return ResolvedRates(
        of_all=wilson_share("resolved_rate", everything, settings, unit=unit),
        of_all_clustered=clustered(named),
        of_submitted=wilson_share("resolved_rate", outcomes, settings, unit="share of submitted"),
        of_submitted_clustered=clustered(submitted),
    )


def compare_reports(
    first: Resolved,
    second: Resolved,
    settings: Settings,
    *,
    groups: Mapping[str, str] | None = None,
) -> ReportComparison:
    """Compare two reports on the tasks that both have predictions for, by McNemar's exact test.

    Raises:
        IntegrityError: They have no task in common.
    """
    ours, theirs = set(first.submitted), set(second.submitted)
    common = sorted(ours & theirs)
    if not common:
        raise IntegrityError(f"no task in common with {show(first.path)}", where=show(second.path))
    before, after = (set(report.fates["resolved"]) for report in (first, second))
    test = mcnemar(
        [name in before for name in common],
        [name in after for name in common],
        _clusters(common, settings, groups),
        settings,
        metric="resolved_rate_difference",
    )
    return ReportComparison(len(common), len(ours - theirs), len(theirs - ours), test)


def repository_of(instance_id: str) -> str:
    """Return the repository in the id of a task (`owner__name` in `owner__name-1`), else the id."""
    found = _TASK.fullmatch(instance_id)
    return found["repo"] if found else instance_id


def hand_over(
    predictions: Path,
    dataset: str,
    *,
    run_id: str,
    report_dir: Path,
    split: str = "test",
    workers: int = 4,
    seconds_per_task: int = 1800,
) -> Path:
    """Run `swebench eval` on predictions and return the path of its report.

    The harness writes its report and its logs below `report_dir`. A run of the same id goes on
    where it ended: that is the harness's own rule.

    Args:
        predictions: A file of predictions, JSON Lines or JSON.
        dataset: The harness's alias (`verified`), a hub id or a local path.
        run_id: Letters, digits, dots, dashes and underscores.
        report_dir: Where the harness works.
        split: Of the data set.
        workers: Tasks evaluated at once.
        seconds_per_task: The harness's limit for the tests of one task.

    Raises:
        UsageError: An argument that the harness would misread.
        EnvironmentFailure: Docker or `swebench` is missing or does not answer, or the harness
            failed; the hint has the command to run elsewhere.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"run id {show(run_id)} is not plain", hint="letters, digits, dots, dashes"
        )
    if not dataset or dataset.startswith("-"):
        raise UsageError(f"no data set: {show(dataset)}")
    if not predictions.is_file():
        raise UsageError("no such file of predictions", where=show(predictions))
    if predictions.suffix not in (".json", ".jsonl"):
        hint = "unpack it first" if predictions.suffix == ".gz" else ""
        raise UsageError("the harness reads .json and .jsonl", where=show(predictions), hint=hint)
    local = Path(dataset)
    arguments = [
        *("swebench", "eval", str(local.absolute()) if local.exists() else dataset),
        *("--predictions", str(predictions.absolute()), "--run-id", run_id, "--split", split),
        *("--workers", str(workers), "--timeout", str(seconds_per_task)),
        *("--report-dir", str(report_dir.absolute())),
    ]
    _require_programs(shlex.join(arguments))
    require_writable(report_dir)
    before = dict(_reports(report_dir, run_id))
    limit = 3600.0 + float(seconds_per_task) * _tasks(predictions)
    done = run_program(arguments, seconds=limit, cwd=report_dir, environment=_environment())
    if not done.ok:
        text = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        said = show(text.rpartition("\n")[2]) or f"exit code {done.returncode}"
        raise EnvironmentFailure(
            f"the harness failed: {said}", where="swebench eval", hint=shlex.join(arguments)
        )
    written = [path for path, at in _reports(report_dir, run_id) if before.get(path) != at]
    if len(written) != 1:
        found = f"{len(written)} reports" if written else "no report"
        raise EnvironmentFailure(f"the harness wrote {found}", where=show(report_dir))
    return written[0]


def _require_programs(command: str) -> None:
    missing = [name for name in ("docker", "swebench") if shutil.which(name) is None]
    if missing:
        what = " and ".join(missing)
        install = f"; install it by `{_INSTALL}`" if missing == ["swebench"] else ""
        hint = f"where both are there{install}: {command}"
        verb = "are" if len(missing) > 1 else "is"
        raise EnvironmentFailure(f"{what} {verb} not installed here", hint=hint)
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    if not run_program(asked, seconds=_DOCKER_SECONDS, environment=_environment()).ok:
        raise EnvironmentFailure(
            "docker does not answer: is its daemon running, and may you use it?",
            hint=f"`docker version` says more; elsewhere: {command}",
        )


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def _reports(folder: Path, run_id: str) -> Iterator[tuple[Path, int]]:
    for path in sorted(folder.glob(f"*.{run_id}.json")):
        yield path, path.stat().st_mtime_ns


def _tasks(predictions: Path) -> int:
    return max(1, sum(1 for _ in open_file(predictions, str(predictions)).rows()))


def _only_row(path: Path, shown: str) -> Mapping[str, Any]:
    rows = list(open_file(path, shown).rows())
    if len(rows) != 1:
        raise DataError(f"is no report of the harness: {len(rows)} rows", where=shown)
    if isinstance(rows[0], BadLine):
        raise DataError(rows[0].message, where=shown)
    return rows[0].value


def _ids(row: Mapping[str, Any], keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        listed = row.get(key)
        for name in listed if isinstance(listed, list) else ():
            if not isinstance(name, str) or not name:
                raise DataError(f"{key} holds something that is not the id of a task")
            yield name


def _clusters(
    names: Sequence[str], settings: Settings, groups: Mapping[str, str] | None
) -> list[str]:
    if settings.cluster_by == "row":
        return list(names)
    return [(groups or {}).get(name) or repository_of(name) for name in names]
