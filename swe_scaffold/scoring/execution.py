"""Run the tests of tasks on predictions, in the sandbox, and say which are resolved.

First every task is checked: its gold patch has to make failing tests pass here. Then each
prediction is judged by those tests. What was found is kept line by line, each under the hash of all
that decides it, so that an interrupted run goes on where it stopped; checks of tasks are also kept
in the user's cache, for the next file of predictions.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from swe_scaffold.cache import Cache, code_version, key_of
from swe_scaffold.errors import EnvironmentFailure, UsageError
from swe_scaffold.executors import RunInOrder, workers
from swe_scaffold.sandbox import Sandbox, take_snapshot
from swe_scaffold.scoring.interpreter import Installed, ask_versions, find_interpreter
from swe_scaffold.scoring.kept import Kept
from swe_scaffold.scoring.named_tests import NamedTests
from swe_scaffold.scoring.reading import Prediction
from swe_scaffold.scoring.rooms import Job, Places, do, leave
from swe_scaffold.scoring.testbed import Bench, clear
from swe_scaffold.scoring.verdicts import Check, Verdict
from swe_scaffold.synthesis.validation import read_command
from swe_scaffold.synthesis.workplace import copy_project
from swe_scaffold.terminal import Reporter, show
from swe_scaffold.types import Task

_WHERE = "--execute"


@dataclass(frozen=True, slots=True)
class Execution:
    """How tests are run.

    Attributes:
        command: What runs them, as a shell would split it; it has to be pytest in the end.
        project: The folder that synthetic tasks were made and validated in.
        tree: The folder in it that they were made from; the project itself unless given.
        environment: A virtual environment with what tests need; None is this program's own.
        sandbox: `auto`, `bwrap` or `landlock`.
        seconds: Most time of one run.
        memory_bytes: Most address space of each process.
        jobs: Runs at a time.
        cache: Where checks of tasks are kept for other files of predictions.
    """

    command: str
    project: Path | None = None
    tree: Path | None = None
    environment: Path | None = None
    sandbox: str = "auto"
    seconds: float = 300.0
    memory_bytes: int = 8 << 30
    jobs: int = 1
    cache: Cache | None = None


@dataclass(frozen=True, slots=True)
class Executed:
    """What the runs showed: a check of each task with a prediction, a verdict on each prediction.

    `sandbox`, `installed` and `command` say how they were made.
    """

    checks: Mapping[str, Check]
    verdicts: Mapping[tuple[str, int], Verdict]
    sandbox: Mapping[str, Any]
    installed: Installed
    command: tuple[str, ...]


Found = TypeVar("Found", Check, Verdict)


def execute(
    predictions: Sequence[Prediction],
    tasks: Mapping[str, Task],
    named: Mapping[str, NamedTests],
    options: Execution,
    *,
    repos: Path | None,
    log: Path,
    reporter: Reporter,
) -> Executed:
    """Check the tasks that have predictions, and judge these.

    Args:
        predictions: Each with one fate in the end.
        tasks: By id.
        named: What their rows say about tests, by id.
        options: See there.
        repos: Folder of clones, for tasks with a base commit.
        log: What is kept from one run to the next.
        reporter: Where messages and progress go.

    Raises:
        UsageError: Options do not fit, or there is no Python with pytest.
        DataError: The project cannot be copied.
        EnvironmentFailure: No sandbox works here, or the disk says no.
    """
    _refuse_wrong(options, repos)
    bench = Bench(
        read_command(options.command, options.project, where=_WHERE),
        find_interpreter(options.environment),
        options.sandbox,
        options.seconds,
        options.memory_bytes,
    )
    with _workshop() as folder:
        sandbox = _probe(bench, folder / "probe")
        installed = ask_versions(sandbox)
        _require_program(sandbox, bench.command[0])
        bench = replace(bench, backend=sandbox.backend)
        places = _places(options, repos, folder)
        settings = key_of(
            *(1, code_version(), bench.command, bench.backend, bench.seconds, bench.memory_bytes),
            asdict(installed),
        )
        with Kept(log, options.cache) as kept, workers(options.jobs) as run:
            work = _Work(run, (bench, folder, places), kept, settings, reporter)
            checks = work.check(
                [
                    (tasks[name], named.get(name, NamedTests()))
                    for name in dict.fromkeys(p.instance_id for p in predictions if not _empty(p))
                ]
            )
            verdicts = work.judge(predictions, tasks, named, checks)
    return Executed(checks, verdicts, sandbox.facts(), installed, bench.command)


class _Work:
    """The two rounds, each with what is known already left out."""

    def __init__(
        self,
        run: RunInOrder,
        where: tuple[Bench, Path, Places],
        kept: Kept,
        settings: str,
        reporter: Reporter,
    ) -> None:
        self._run, self._where, self._kept = run, where, kept
        self._settings, self._reporter = settings, reporter

    def check(self, tasks: Sequence[tuple[Task, NamedTests]]) -> dict[str, Check]:
        """Check the gold patch of each task."""
        jobs = {self._key(task, named): Job(*self._where, task, named) for task, named in tasks}
        found = {key: check for key in jobs if (check := self._kept.check(key))}
        todo = {key: job for key, job in jobs.items() if key not in found}
        title = "checking tasks against their gold patches"
        for key, check in self._rounds(title, "tasks", todo, found, _valid):
            self._kept.add("check", key, check)
            found[key] = check
        return {job.task.instance_id: found[key] for key, job in jobs.items()}

    def judge(
        self,
        predictions: Sequence[Prediction],
        tasks: Mapping[str, Task],
        named: Mapping[str, NamedTests],
        checks: Mapping[str, Check],
    ) -> dict[tuple[str, int], Verdict]:
        """Judge each prediction by the tests of its task."""
        verdicts: dict[tuple[str, int], Verdict] = {}
        places: dict[str, list[tuple[str, int]]] = {}
        todo: dict[str, Job] = {}
        found: dict[str, Verdict] = {}
        for prediction in predictions:
            name = prediction.instance_id
            if _empty(prediction):
                verdicts[name, prediction.sample] = Verdict("empty")
                continue
            check = checks[name]
            if check.reason:
                verdict = Verdict("error", check.reason, check.detail)
                verdicts[name, prediction.sample] = verdict
                continue
            task, tests = tasks[name], named.get(name, NamedTests())
            key = key_of(self._key(task, tests), prediction.patch)
            places.setdefault(key, []).append((name, prediction.sample))
            if known := self._kept.verdict(key):
                found[key] = known
            else:
                todo[key] = Job(*self._where, task, tests, check, prediction.patch)
        for key, verdict in self._rounds("running tests", "predictions", todo, found, _fate):
            self._kept.add("verdict", key, verdict)
            found[key] = verdict
        verdicts |= {place: found[key] for key, named_by in places.items() for place in named_by}
        return verdicts

    def _rounds(
        self,
        title: str,
        unit: str,
        todo: Mapping[str, Job],
        found: Mapping[str, Found],
        word: Callable[[Any], str],
    ) -> Iterator[tuple[str, Any]]:
        """Yield what is found of each job, and tell how it goes."""
        total = len(todo) + len(found)
        counts = Counter[str](map(word, found.values()))
        if found:
            self._reporter.say(f"{title}: {len(found)} of {total} {unit} are known already")
        with self._reporter.progress(title, total, unit=unit) as track:
            if found:
                track.advance(len(found), note=_counted(counts))
            # Runs differ a lot in length: nobody waits for a slow one before its turn.
            results = self._run(do, todo.values(), ahead=len(todo))
            for key, result in zip(todo, results, strict=True):
                counts[word(result)] += 1
                yield key, result
                track.advance(note=_counted(counts))

    def _key(self, task: Task, named: NamedTests) -> str:
        """Return the hash of all that decides what the gold patch shows."""
        places = self._where[2]
        synthetic = bool(named.mutant_sha256) and not task.base_commit
        tree = (places.sha256, places.packages) if synthetic else ()
        where = (task.repo, task.base_commit, tree)
        return key_of(self._settings, where, task.patch, task.test_patch, asdict(named))


def _refuse_wrong(options: Execution, repos: Path | None) -> None:
    if options.tree is not None and options.project is None:
        raise UsageError("--tree goes with --project")
    if options.project is None and repos is None:
        raise UsageError(
            "--execute needs the files of tasks",
            hint="--repos CLONES for tasks from a history, --project FOLDER for synthetic ones",
        )
    if options.project is not None and not options.project.is_dir():
        raise UsageError("--project: there is no such folder", where=str(options.project))
    if options.seconds <= 0:
        raise UsageError("must be more than 0 seconds", where="--execute-timeout")


def _places(options: Execution, repos: Path | None, folder: Path) -> Places:
    """Copy the project once, so that all runs see the same, whatever becomes of it."""
    if options.project is None:
        return Places(repos)
    project = options.project.resolve()
    tree = (options.tree or options.project).resolve()
    if not tree.is_relative_to(project):
        raise UsageError(f"{options.tree} is not inside", where=str(options.project))
    copy_project(project, folder / "project", option="--project")
    packages = str(tree.relative_to(project))
    if not (folder / "project" / packages).is_dir():
        hint = "version control and environments are no part of a project"
        raise UsageError("is left out of the copy", where=str(options.tree), hint=hint)
    return Places(repos, folder / "project", packages, take_snapshot(folder / "project").sha256)


def _probe(bench: Bench, room: Path) -> Sandbox:
    room.mkdir()
    return bench.enclose(room)


def _require_program(sandbox: Sandbox, program: str) -> None:
    if os.sep in program:
        return
    done = sandbox.run(["/bin/sh", "-c", 'command -v "$1"', "sh", program])
    if not done.ok:
        hint = "it is looked for in the environment and the system's folders"
        raise UsageError(
            f"no such program in the sandbox: {show(program)}", where=_WHERE, hint=hint
        )


@contextlib.contextmanager
def _workshop() -> Iterator[Path]:
    """Yield a private folder that goes away, whatever programs made of it."""
    folder = Path(tempfile.mkdtemp(prefix="swe-scaffold-execute-"))
    try:
        yield folder.resolve()
    finally:
        leave()
        with contextlib.suppress(EnvironmentFailure):
            clear(folder)


def _empty(prediction: Prediction) -> bool:
    return not prediction.patch.strip()


def _valid(check: Check) -> str:
    return check.reason or "valid"


def _fate(verdict: Verdict) -> str:
    return verdict.fate


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)
