"""Let a project's own tests decide about mutants, in copies of it that are thrown away.

Every worker copies the project once and puts it back as it was after every run. pytest is asked for
a report through its environment; where none appears, the exit code alone decides. What is run is
code of that project, with this user's rights and network: only a person asks for it. Nothing of it
is imported here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from swe_scaffold.errors import DataError, UsageError
from swe_scaffold.executors import RunInOrder, workers
from swe_scaffold.synthesis.junit import Report
from swe_scaffold.synthesis.mutants import Mutant, Observation
from swe_scaffold.synthesis.workplace import Run, Trial, Workplace, cut, is_left_out
from swe_scaffold.terminal import SILENT, Reporter, Track

_WHERE = "--validate"
_MAX_CHARS = 200


class Baseline(NamedTuple):
    """What holds of the unchanged project: names of tests that pass twice; none by exit code."""

    validation: str
    passed: tuple[str, ...] = ()
    failing: int = 0
    unstable: int = 0


class _Job(NamedTuple):
    trial: Trial
    folder: Path
    baseline: Baseline
    path: str
    data: bytes


class Checker:
    """Tries mutants, several at once, in the order given."""

    def __init__(self, run: RunInOrder, job: Callable[..., _Job], track: Track) -> None:
        self._run, self._job, self._track = run, job, track

    def __call__(self, mutants: Sequence[Mutant]) -> list[Observation]:
        """Say of each mutant what the tests showed."""
        jobs = [self._job(mutant.file.path, mutant.data) for mutant in mutants]
        seen = []
        # Runs differ a lot in length: nobody waits for a slow one before its turn.
        for observation in self._run(_observe, jobs, ahead=len(jobs)):
            self._track.advance(note=observation.reason or "kept")
            seen.append(observation)
        return seen


@contextlib.contextmanager
def open_checker(
    trial: Trial, *, jobs: int = 1, reporter: Reporter = SILENT
) -> Iterator[tuple[Checker, Baseline]]:
    """Run the tests twice on the unchanged project, then yield what tries mutants of it.

    Raises:
        UsageError: The command cannot be started, or `tree` is not in `project`.
        DataError: No test passes before anything is changed, or the project is too large to copy.
        EnvironmentFailure: The project cannot be copied.
    """
    _refuse_wrong(trial)
    with tempfile.TemporaryDirectory(
        prefix="swe-scaffold-validate-", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        try:
            reporter.say("running the tests on the unchanged tree")
            baseline = _measure(_workplace(trial, folder))
            with (
                workers(jobs) as run,
                reporter.progress("testing mutants", None, unit="runs") as track,
            ):
                yield (
                    Checker(run, functools.partial(_Job, trial, folder, baseline), track),
                    baseline,
                )
        finally:
            _workplace.cache_clear()


def read_command(text: str, project: Path | None, *, where: str = _WHERE) -> tuple[str, ...]:
    """Split a command line as a shell would; no shell is involved.

    A program named by a path is the one in the project's copy, or the very one where it is outside
    the project or in an environment, which is not copied.

    Raises:
        UsageError: There is nothing to run, or a quote is left open.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"cannot be read: {str(error).lower()}", where=where) from None
    if not words:
        raise UsageError("is empty", where=where, hint='give a command, as "python -m pytest -q"')
    if os.sep in words[0] and Path(words[0]).exists():
        words[0] = _program(words[0], project)
    return tuple(words)


def _program(name: str, project: Path | None) -> str:
    # Not resolve(): an environment's interpreter is a link that must not be followed.
    path = Path(os.path.abspath(name))  # noqa: PTH100
    if project is None:
        return str(path)
    root = Path(os.path.abspath(project))  # noqa: PTH100
    if not path.is_relative_to(root):
        return str(path)
    above = [place for place in path.parents if place.is_relative_to(root)]
    return str(path) if any(map(is_left_out, above)) else f"./{path.relative_to(root)}"


def _refuse_wrong(trial: Trial) -> None:
    if not trial.project.is_dir():
        raise UsageError("not a folder", where=str(trial.project))
    if not trial.tree.resolve().is_relative_to(trial.project.resolve()):
        hint = "name a folder that holds it with --validate-in"
        raise UsageError(f"{trial.tree} is not inside", where=str(trial.project), hint=hint)
    if trial.seconds <= 0:
        raise UsageError("must be more than 0 seconds", where="--validate-timeout")
    program = trial.command[0]
    in_project = os.sep in program and (trial.project / program).is_file()
    if not in_project and shutil.which(program) is None:
        hint = "name a program of this machine, as in --validate 'python -m pytest -q'"
        raise UsageError(f"no such program: {program}", where=_WHERE, hint=hint)


@functools.lru_cache(maxsize=1)
def _workplace(trial: Trial, folder: Path) -> Workplace:
    """Return this process's own copy."""
    return Workplace(trial, folder)


def _measure(workplace: Workplace) -> Baseline:
    """Run the unchanged tests twice: what does not pass both times decides nothing."""
    runs = [_unchanged(workplace) for _ in range(2)]
    reports = [run.report for run in runs if run.report is not None]
    if len(reports) < len(runs) or not all(map(_has_tests, reports)):
        for run in runs:
            _require_success(run)
        return Baseline("exit_code")
    once = reports[0].passed | reports[1].passed
    passed = reports[0].passed & reports[1].passed
    if not passed:
        raise _unusable("no test passes on the unchanged tree", runs[0])
    failing = set(reports[0].failures) | set(reports[0].broken_files)
    return Baseline("tests", tuple(sorted(passed)), len(failing), len(once - passed))


def _unchanged(workplace: Workplace) -> Run:
    run = workplace.run()
    if run.finished.timed_out:
        seconds = f"{workplace.trial.seconds:g} s"
        raise DataError(
            f"the unchanged tree's tests do not end within {seconds}",
            where=_WHERE,
            hint="raise --validate-timeout, or run fewer tests",
        )
    return run


def _has_tests(report: Report) -> bool:
    return bool(report.passed or report.failures or report.broken_files)


def _require_success(run: Run) -> None:
    if not run.finished.ok:
        code = run.finished.returncode
        raise _unusable(f"the command fails on the unchanged tree (exit code {code})", run)


def _unusable(message: str, run: Run) -> DataError:
    line = run.last_line()
    return DataError(
        f"{message}: {cut(line, _MAX_CHARS)}" if line else message,
        where=_WHERE,
        hint="run it in the folder yourself; tests outside PATH need --validate-in, and paths to "
        "packages elsewhere are not passed on",
    )


def _observe(job: _Job) -> Observation:
    """Try one mutant."""
    workplace = _workplace(job.trial, job.folder)
    run = workplace.run(job.path, job.data)
    if run.finished.timed_out:
        return Observation("timeout")
    if run.finished.cut:
        return Observation("test_run_crashed")
    if job.baseline.validation == "exit_code":
        return _by_exit_code(run, workplace)
    if run.report is None or not _has_tests(run.report):
        return Observation("test_run_crashed")
    return _by_tests(job.baseline, run.report, workplace)


def _by_exit_code(run: Run, workplace: Workplace) -> Observation:
    code = run.finished.returncode
    if code == 0:
        return Observation("tests_pass")
    end = f"ends with exit code {code}" if code > 0 else f"is ended by signal {-code}"
    words = _indented(workplace.clean(run.last_line()))
    return Observation(validation="exit_code", failure=f"The project's own check {end}:\n\n{words}")


def _by_tests(baseline: Baseline, report: Report, workplace: Workplace) -> Observation:
    words = {
        test: report.failures.get(test, report.broken_files.get(test.split("::", 1)[0]))
        for test in baseline.passed
    }
    failing = {test: text for test, text in words.items() if text is not None}
    if not failing:
        return Observation("tests_pass")
    first, text = next(iter(failing.items()))
    name = f"`{cut(workplace.clean(first), _MAX_CHARS)}`"
    told = f"The test {name} fails:"
    if len(failing) > 1:
        told = f"{len(failing)} tests fail. The first of them, {name}, says:"
    return Observation(
        fail_to_pass=tuple(failing),
        pass_to_pass=tuple(sorted(report.passed & set(baseline.passed))),
        failure=f"{told}\n\n{_indented(workplace.clean(text))}",
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.split("\n"))
