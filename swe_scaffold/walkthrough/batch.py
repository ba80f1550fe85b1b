"""Many tasks, one walkthrough each: in the tree of the task's base commit, without its history.

Every task has one status. The rows stand in `walkthroughs.jsonl`, written as they come; the same
command goes on where it stopped, and tries again what could not begin. Where the gold patch is
known, what was found is held against it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swe_scaffold.errors import (
    DataError,
    EnvironmentFailure,
    IntegrityError,
    MissingExtra,
    ScaffoldError,
    UsageError,
)
from swe_scaffold.executors import workers
from swe_scaffold.files import (
    AppendLog,
    disk_errors,
    folder_lock,
    remove,
    require_different,
    require_writable,
    write_json,
)
from swe_scaffold.git.trial import is_safe_path
from swe_scaffold.jsonl import JsonlReader, Line, write_jsonl
from swe_scaffold.manifest import SCHEMA, fingerprint, provenance, read_manifest
from swe_scaffold.metrics.clustered import Settings
from swe_scaffold.mining.checkouts import write_tree
from swe_scaffold.mining.clones import NoCodeError, find_clone
from swe_scaffold.scoring import Keep
from swe_scaffold.scoring.expressions import Filter
from swe_scaffold.scoring.reading import TaskFile
from swe_scaffold.strict_json import Malformed, parse
from swe_scaffold.terminal import SILENT, Reporter
from swe_scaffold.types import Task
from swe_scaffold.walkthrough import TRAJECTORY, Subject, clear_room, explore
from swe_scaffold.walkthrough.found import MEASURES, against, summarise
from swe_scaffold.walkthrough.guides import Guide
from swe_scaffold.walkthrough.seen import gold_places, inspected, localise, reported_files

KIND = "walkthroughs"
ROWS, SUMMARY, INDEX = "walkthroughs.jsonl", "walkthroughs.json", "index.html"
FILTER_FIELDS = (
    *("instance_id", "repo", "group", "status", "exit_status", "steps", "seconds"),
    *MEASURES,
)
# These have come to an end; all other tasks are tried again.
WALKED = ("submitted", "not_submitted", "changed", "failed")
_HINT = "--overwrite begins anew, --output chooses another folder"


@dataclass(frozen=True, slots=True)
class Batch:
    """How tasks are walked through.

    Attributes:
        repos: Folder of clones, or bare mirrors, of the tasks' repositories.
        output: Where a folder for each task, the rows and the summary are written.
        page: Makes the HTML page of a trajectory; importable under its name.
        guide: Who chooses the steps.
        max_steps: Most answers of the guide.
        environment: Settings of the sandbox, as `environment.EnvironmentConfig` has them.
        jobs: Processes.
        settings: What all intervals share.
        keep: Write the trajectories that pass a filter in one file, for `build`.
    """

    repos: Path
    output: Path
    page: Callable[[Mapping[str, Any]], str]
    guide: Guide = field(default_factory=Guide)
    max_steps: int = 40
    environment: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 1
    settings: Settings = field(default_factory=Settings)
    keep: Keep | None = None


@dataclass(frozen=True, slots=True)
class Walks:
    """The summary (strict JSON), and the row of every task in the order of the tasks."""

    report: dict[str, Any]
    rows: list[dict[str, Any]]


def walk_tasks(
    tasks: TaskFile,
    batch: Batch,
    *,
    other: Path | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Walks:
    """Walk through the repository of every task.

    Args:
        tasks: The tasks.
        batch: How.
        other: Folder of an earlier batch to compare with, task by task.
        overwrite: Begin anew where there are walkthroughs.
        reporter: Where progress is told.

    Raises:
        UsageError: There is no such folder, or walkthroughs of other tasks or another guide.
        IntegrityError: Earlier rows are damaged, or the sandbox let a write through.
        EnvironmentFailure: No sandbox works, or the model cannot be reached; what is done is kept.
    """
    if not batch.repos.is_dir():
        raise UsageError("there is no such folder", where=f"--repos {batch.repos}")
    if batch.guide.is_local and batch.jobs > 1:
        raise UsageError("a model on this machine takes one job", where=f"--jobs {batch.jobs}")
    theirs = None if other is None else read_rows(other)
    passes = Filter(batch.keep.expression, FILTER_FIELDS) if batch.keep else None
    require_writable(batch.output)
    if batch.keep:
        if batch.keep.rows.resolve().is_relative_to(batch.output.resolve()):
            hint = "name a file elsewhere: build reads all of that folder"
            raise UsageError("lies in --output", where=f"--rows {batch.keep.rows}", hint=hint)
        require_different(batch.keep.rows, [Path(file.path) for file in tasks.inputs])
        require_writable(batch.keep.rows.parent)
    with folder_lock(batch.output):
        identity = _identity(tasks, batch, reporter)
        rows = _earlier(batch.output, identity, overwrite=overwrite)
        summary = batch.output / SUMMARY
        write_json(summary, {"kind": KIND, "schema": SCHEMA, **identity, "complete": False})
        rows = _walk_rest(tasks, batch, rows, reporter)
        ordered = [rows[name] for name in tasks.tasks]
        write_jsonl(batch.output / ROWS, ordered)
        report = {
            "kind": KIND,
            "schema": SCHEMA,
            **identity,
            "complete": True,
            **provenance(),
            "rows": len(tasks.tasks) + sum(tasks.left_out.values()),
            "left_out": dict(tasks.left_out),
            "tasks": len(ordered),
            "statuses": dict(sorted(Counter(row["status"] for row in ordered).items())),
            **summarise(ordered, batch.settings),
        }
        if theirs is not None:
            compared = against(ordered, theirs, batch.settings)
            report["against"] = {"folder": str(other), **compared}
        if batch.keep and passes:
            report["kept"] = _keep(batch, [row for row in ordered if passes(row)])
        write_json(summary, report)
    return Walks(report, ordered)


def _keep(batch: Batch, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Write the trajectories of some rows, those that were not walked through left out."""
    assert batch.keep is not None
    walked = [row for row in rows if row["status"] in WALKED and row["status"] != "failed"]
    paths = (batch.output / row["folder"] / TRAJECTORY for row in walked)
    written = write_jsonl(batch.keep.rows, map(_trajectory, paths))
    return {
        "expression": batch.keep.expression,
        "path": str(batch.keep.rows),
        "rows": written.rows,
        "size": written.size,
        "sha256": written.sha256,
    }


def _trajectory(path: Path) -> dict[str, Any]:
    with disk_errors(path):
        data = path.read_bytes()
    try:
        value = parse(data)
    except Malformed as error:
        raise IntegrityError(f"is damaged: {error.message}", where=str(path)) from None
    return dict(value)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a batch.

    Raises:
        UsageError: There are none.
        IntegrityError: They are damaged.
    """
    path = folder / ROWS
    if not path.is_file():
        raise UsageError("has no walkthroughs of a batch", where=str(folder))
    rows = []
    for line in JsonlReader(path):
        known = isinstance(line, Line) and {"instance_id", "status", *MEASURES} <= line.value.keys()
        if not known or not isinstance(line, Line):
            raise IntegrityError("is damaged", where=str(path), hint=_HINT)
        rows.append(dict(line.value))
    return rows


def _walk_rest(
    tasks: TaskFile, batch: Batch, rows: dict[str, dict[str, Any]], reporter: Reporter
) -> dict[str, dict[str, Any]]:
    left = [task for name, task in tasks.tasks.items() if name not in rows]
    if rows:
        reporter.say(f"going on: {len(rows)} of {len(tasks.tasks)} tasks are done")
    log = AppendLog(batch.output / ROWS, keep=None)
    try:
        with (
            # Trees are this process's to remove: a worker may be ended while it does so.
            tempfile.TemporaryDirectory(prefix="swe-scaffold-walk-") as trees,
            workers(min(batch.jobs, max(1, len(left)))) as run,
            reporter.progress("walking", len(tasks.tasks), unit="tasks") as track,
        ):
            track.advance(len(rows))
            for row in run(_walk, [_Job(batch, task, Path(trees)) for task in left]):
                log.append(row)
                rows[row["instance_id"]] = row
                track.advance(note=row["status"])
    except BaseException:
        reporter.say(f"{len(rows)} of {len(tasks.tasks)} are kept; the same command goes on")
        raise
    finally:
        log.close()
    return rows


@dataclass(frozen=True, slots=True)
class _Job:
    batch: Batch
    task: Task
    trees: Path


def _walk(job: _Job) -> dict[str, Any]:
    """Walk through one task's repository and return its row."""
    task = job.task
    row: dict[str, Any] = {
        "instance_id": task.instance_id,
        "repo": task.repo,
        "group": task.group or task.repo or task.instance_id,
        "base_commit": task.base_commit,
        "folder": folder_of(task.instance_id),
        "status": "",
        "detail": "",
    }
    place = Path(tempfile.mkdtemp(dir=job.trees))
    try:
        row |= _walked(job, place, row["folder"])
    except NoCodeError as problem:
        row |= {"status": problem.reason, "detail": problem.detail}
    except (EnvironmentFailure, IntegrityError, MissingExtra, UsageError):
        # What would meet every other task too.
        raise
    except ScaffoldError as error:
        row |= {"status": "failed", "detail": error.message}
    remove(place)
    return {**row, **{name: row.get(name) for name in MEASURES}}


def _walked(job: _Job, folder: Path, name: str) -> dict[str, Any]:
    batch, task = job.batch, job.task
    tree = folder / (task.repo.rsplit("/", 1)[-1].strip(".") or "repository")
    tree.mkdir()
    try:
        checkout = write_tree(find_clone(batch.repos, task), task.base_commit, tree)
    except DataError as error:
        raise NoCodeError("no_tree", error.message) from None
    walked = explore(
        Subject(tree, task.problem_statement, task.instance_id, task.repo),
        batch.guide.make,
        batch.output / name,
        max_steps=batch.max_steps,
        overwrite=True,
        page=batch.page,
        **batch.environment,
    )
    status = "submitted" if walked.exit_status == "Submitted" else "not_submitted"
    gold = gold_places(task.patch)
    return {
        "status": status if walked.unchanged else "changed",
        "exit_status": walked.exit_status,
        "steps": walked.steps,
        "seconds": walked.seconds,
        "tree": asdict(checkout),
        "inspected": [file.path for file in inspected(walked.trajectory)],
        "reported": reported_files(walked.report),
        "gold": None if gold is None else sorted(gold.files),
        **({} if gold is None else localise(walked.trajectory, gold)),
    }


def folder_of(instance_id: str) -> str:
    """Return the name of a task's folder: its id, or a hash of one that makes no name."""
    taken = {ROWS, SUMMARY, INDEX}
    if (
        "/" not in instance_id
        and is_safe_path(instance_id)
        and instance_id[0] not in ".-"
        and instance_id.isprintable()
        and instance_id not in taken
    ):
        return instance_id
    known = hashlib.sha256(instance_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"task-{known[:16]}"


def _identity(tasks: TaskFile, batch: Batch, reporter: Reporter) -> dict[str, Any]:
    """Return all that decides what is walked and how, and its fingerprints."""
    parts = {
        "guide": batch.guide.identity(reporter),
        "data": {
            "name": tasks.name,
            "inputs": [asdict(file) for file in tasks.inputs],
            "ids": fingerprint(list(tasks.tasks)),
        },
        "settings": {"max_steps": batch.max_steps, **batch.environment},
    }
    # Where a file stands does not matter.
    decides = parts | {"data": [file.sha256 for file in tasks.inputs] or parts["data"]["ids"]}
    return {**parts, "fingerprint": {name: fingerprint(part) for name, part in decides.items()}}


def _earlier(
    output: Path, identity: Mapping[str, Any], *, overwrite: bool
) -> dict[str, dict[str, Any]]:
    """Return the rows of tasks that are done, by id; or remove all there is of an earlier batch."""
    rows, summary = output / ROWS, output / SUMMARY
    if overwrite:
        if rows.is_file():
            _clear(output, _whole_rows(rows))
        remove(rows)
        remove(summary)
        return {}
    if not rows.is_file() and not summary.is_file():
        return {}
    try:
        before = read_manifest(summary)
    except ScaffoldError:
        raise IntegrityError("is no summary of walkthroughs", where=str(summary)) from None
    prints = before.get("fingerprint")
    prints = prints if isinstance(prints, Mapping) else {}
    now = identity["fingerprint"]
    if other := [part for part in now if prints.get(part) != now[part]]:
        raise UsageError(
            f"there are walkthroughs already, of another {' and '.join(other)}",
            where=str(output),
            hint=_HINT,
        )
    done = _whole_rows(rows) if rows.is_file() else ()
    return {row["instance_id"]: row for row in done if row["status"] in WALKED}


def _whole_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a log; the last, which a kill may have torn, only if it is whole."""
    lines = list(JsonlReader(path))
    for place, line in enumerate(lines):
        if isinstance(line, Line) and isinstance(line.value.get("instance_id"), str):
            yield dict(line.value)
        elif place < len(lines) - 1:
            raise IntegrityError("is damaged", where=str(path), hint=_HINT)


def _clear(output: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        clear_room(output / folder_of(row["instance_id"]), overwrite=True)
