"""One worker's turn: the files of a task brought into its room, then a check or a verdict."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from swe_scaffold.errors import DataError
from swe_scaffold.mining.checkouts import write_tree
from swe_scaffold.mining.clones import NoCodeError, find_clone
from swe_scaffold.scoring.named_tests import NamedTests
from swe_scaffold.scoring.testbed import Bench, Testbed
from swe_scaffold.scoring.verdicts import Check, Verdict, check_task, judge
from swe_scaffold.types import Task


class Places(NamedTuple):
    """Where files of tasks are: clones, and a copy of a project with its packages' folder."""

    repos: Path | None
    project: Path | None = None
    packages: str = "."
    sha256: str = ""


class Job(NamedTuple):
    """A task to check, or a prediction for a checked task to judge."""

    bench: Bench
    folder: Path
    places: Places
    task: Task
    named: NamedTests
    check: Check | None = None
    patch: str = ""


def do(job: Job) -> Any:
    """Check a task, or judge a prediction, in this process's room."""
    worker = _worker(job.bench, job.folder)
    if problem := worker.begin(job):
        return problem if job.check is None else Verdict("error", problem.reason, problem.detail)
    if job.check is None:
        check = check_task(worker.bed, job.task, job.named)
        return replace(check, files_left_out=worker.files_left_out)
    return judge(worker.bed, job.task, job.named, job.check, job.patch)


class _Worker:
    """A room, and the task whose files are its base."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        place = folder / f"worker-{os.getpid()}"
        place.mkdir()
        self.bed = Testbed(bench, place)
        self._task = ""
        self.files_left_out = 0

    def begin(self, job: Job) -> Check | None:
        """Bring the files of the job's task, or say why they cannot be had."""
        task, places = job.task, job.places
        if reason := _no_measure(task, job.named):
            return reason
        if task.instance_id == self._task:
            return None
        self._task, self.files_left_out = "", 0
        if not task.base_commit:
            if places.project is None:
                return Check("no_project", "a task made from a tree needs --project")
            self.bed.begin(places.project, places.packages)
        elif places.repos is None:
            return Check("no_clone", "a task with a base commit needs --repos")
        else:
            try:
                repository = find_clone(places.repos, task)
                self.bed.begin()
                written = write_tree(repository, task.base_commit, self.bed.base)
                self.files_left_out = sum(written.left_out.values())
            except NoCodeError as problem:
                return Check(problem.reason, problem.detail)
            except DataError as error:
                return Check("unreadable", error.message)
        self._task = task.instance_id
        return None


@functools.lru_cache(maxsize=1)
def _worker(bench: Bench, folder: Path) -> _Worker:
    return _Worker(bench, folder)


def _no_measure(task: Task, named: NamedTests) -> Check | None:
    """Say why a task cannot be checked, whatever its files are."""
    if named.fault:
        return Check("bad_test_names", named.fault)
    if not task.patch.strip():
        return Check("no_gold_patch", "the task has no patch")
    if not (task.base_commit or named.mutant_sha256):
        return Check("no_files", "the task names neither a base commit nor a planted bug")
    if not (task.test_patch.strip() or named.fail_to_pass):
        return Check("no_tests", "the task names no tests and brings none")
    return None


def leave() -> None:
    """Forget this process's room."""
    _worker.cache_clear()
