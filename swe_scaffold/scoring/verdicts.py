"""What runs of tests mean: which tests of a task decide, and whether a prediction resolves it.

A task whose own gold patch does not do here what it should is no measure of anything: it is an
error with a reason, and nobody's prediction is called wrong by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from swe_scaffold.changed_paths import is_among_tests, is_test
from swe_scaffold.diffs import parse_patch
from swe_scaffold.metrics.places import paths_of
from swe_scaffold.scoring.named_tests import NamedTests
from swe_scaffold.scoring.testbed import Run, Testbed
from swe_scaffold.types import Task

# pytest's own: all tests passed, some did not.
_PASSED, _FAILED = 0, 1
_MAX_NAMED = 20
_TEST_FILES = ("test_*.py", "*_test.py", "tests.py")


@dataclass(frozen=True, slots=True)
class Check:
    """What a task's gold patch showed here.

    Attributes:
        reason: Why the task decides nothing; empty where it does.
        detail: The same for people.
        fail_to_pass: Tests that fail without the gold patch and pass with it.
        pass_to_pass: Tests that pass without it and with it.
        left_out: Tests the task names that do not pass with the gold patch here.
        unstable: Tests that passed once and failed once with it.
        exit_code: How pytest ended with it.
        changes_tests: Whether the tests change files of tests themselves.
        files_left_out: Files of the commit that could not be written here.
        seconds: Of the longest run.
    """

    reason: str = ""
    detail: str = ""
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    left_out: int = 0
    unstable: int = 0
    exit_code: int = 0
    changes_tests: bool = False
    files_left_out: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; `read_check` reads it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a prediction; `fate` is one of those of a harness's report."""

    fate: str = ""
    reason: str = ""
    detail: str = ""
    failed: tuple[str, ...] = ()
    failed_tests: int = 0
    tail: tuple[str, ...] = ()
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; `read_verdict` reads it."""
        return asdict(self)


def read_check(value: Mapping[str, Any]) -> Check:
    """Return what `Check.as_dict` gave.

    Raises:
        TypeError: It is something else.
    """
    return Check(**_checked(value, Check))


def read_verdict(value: Mapping[str, Any]) -> Verdict:
    """Return what `Verdict.as_dict` gave.

    Raises:
        TypeError: It is something else.
    """
    return Verdict(**_checked(value, Verdict))


def check_task(bed: Testbed, task: Task, named: NamedTests) -> Check:
    """Run the tests with the gold patch, without it, and with it again; the base is there.

    Raises:
        EnvironmentFailure: The sandbox or the disk fails.
    """
    runs = []
    for patch in (task.patch, "", task.patch):
        if problem := _prepare(bed, task, named, patch):
            return problem
        run = bed.test(_targets(bed, task, named))
        if patch and (problem := _unusable(run)):
            return problem
        runs.append(run)
    once, before, again = runs
    return _compare(named, before, once, again)


def judge(bed: Testbed, task: Task, named: NamedTests, check: Check, patch: str) -> Verdict:
    """Run the tests on a prediction, with the tests as the task has them.

    Raises:
        EnvironmentFailure: The sandbox or the disk fails.
    """
    bed.renew()
    if problem := _plant(bed, task, named):
        return Verdict("error", problem.reason, problem.detail)
    before = bed.state()
    applied = bed.apply(patch)
    if not applied.applies:
        return Verdict("not_applied", applied.reason, applied.detail)
    bed.put_back(_protected(task, before, bed.state()))
    if task.test_patch.strip() and not (placed := bed.apply(task.test_patch)).applies:
        return Verdict("unresolved", "tests_in_the_way", placed.detail)
    run = bed.test(_targets(bed, task, named))
    reason, failed = _fault(check, run)
    return Verdict(
        "unresolved" if reason else "resolved",
        reason,
        "" if run.ended or not reason else f"exit code {run.returncode}",
        tuple(failed[:_MAX_NAMED]),
        len(failed),
        run.tail if reason else (),
        run.seconds,
    )


def _prepare(bed: Testbed, task: Task, named: NamedTests, patch: str) -> Check | None:
    """Make the copy the task's, with a patch and its tests; say what does not fit."""
    bed.renew()
    if problem := _plant(bed, task, named):
        return problem
    steps = (("gold_does_not_apply", patch), ("tests_do_not_apply", task.test_patch))
    for reason, text in steps:
        if text.strip() and not (done := bed.apply(text)).applies:
            return Check(reason, done.detail)
    return None


def _plant(bed: Testbed, task: Task, named: NamedTests) -> Check | None:
    """Put the bug of a synthetic task into the copy, and make sure that it is that bug."""
    if not named.mutant_sha256:
        return None
    if not (done := bed.apply(task.patch, reverse=True)).applies:
        return Check("other_tree", done.detail)
    if hashlib.sha256(bed.read(named.source_path)).hexdigest() != named.mutant_sha256:
        return Check("other_tree", f"{named.source_path} is not what the task was made from")
    return None


def _protected(task: Task, before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the paths that a prediction has no say in: tests, but for what gold changes itself.

    Sorted, so that a folder comes before what is in it.
    """
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    tests = {p for p in changed if is_among_tests(p) or PurePosixPath(p).name == "conftest.py"}
    tests.update(paths_of(parse_patch(task.test_patch)))
    return sorted(tests.difference(paths_of(parse_patch(task.patch))))


def _targets(bed: Testbed, task: Task, named: NamedTests) -> list[str]:
    """Return the test files to run: of the test patch and of the names; none is all there are."""
    if not task.test_patch.strip():
        return []
    touched = [path for path in paths_of(parse_patch(task.test_patch)) if is_test(path)]
    paths = [p for p in touched if any(map(PurePosixPath(p).match, _TEST_FILES))]
    listed = (*named.fail_to_pass, *named.pass_to_pass)
    paths += [name.partition("::")[0] for name in listed if "::" in name]
    there = [path for path in dict.fromkeys(paths) if bed.has_file(path)]
    return [f"./{path}" if path.startswith("-") else path for path in there]


def _unusable(run: Run) -> Check | None:
    """Say why a run with the gold patch tells nothing."""
    last = run.tail[-1] if run.tail else ""
    if run.ended:
        return Check(f"gold_{run.ended}", last)
    if run.report is None:
        return Check("no_report", last)
    if run.returncode not in (_PASSED, _FAILED):
        return Check("gold_stops", f"exit code {run.returncode}: {last}")
    return None


def _compare(named: NamedTests, before: Run, once: Run, again: Run) -> Check:
    assert once.report is not None
    assert again.report is not None
    passed = once.report.passed & again.report.passed
    passed_before = set() if before.report is None else before.report.passed
    failing = [test for test in named.fail_to_pass if test not in passed]
    if failing or not passed:
        wanted = f"{len(failing)} of {len(named.fail_to_pass)} FAIL_TO_PASS do not pass"
        told = f"{wanted}, {failing[0]} first" if failing else "no test passes"
        return Check("gold_fails", f"{told}: {once.tail[-1] if once.tail else ''}")
    if named.fail_to_pass:
        asked = dict.fromkeys((*named.fail_to_pass, *named.pass_to_pass))
    else:
        asked = dict.fromkeys(sorted(passed))
    wanted_tests = set(named.fail_to_pass) or passed
    decisive = tuple(test for test in asked if test in wanted_tests and test not in passed_before)
    if not decisive:
        return Check("no_failing_test", "no test fails without the gold patch and passes with it")
    others = passed.difference(decisive)
    return Check(
        fail_to_pass=decisive,
        pass_to_pass=tuple(test for test in asked if test in others),
        left_out=sum(test not in passed for test in asked),
        unstable=len(once.report.passed ^ again.report.passed),
        exit_code=max(once.returncode, again.returncode),
        changes_tests=once.tests_changed or again.tests_changed,
        seconds=max(run.seconds for run in (before, once, again)),
    )


def _fault(check: Check, run: Run) -> tuple[str, list[str]]:
    """Return why a run does not show the task resolved, and which tests say so."""
    if run.ended:
        return run.ended, []
    if run.report is None:
        return "no_report", []
    if run.returncode not in (_PASSED, _FAILED):
        return "stopped", []
    for reason, tests in (
        ("still_failing", check.fail_to_pass),
        ("breaks_others", check.pass_to_pass),
    ):
        if failed := [test for test in tests if test not in run.report.passed]:
            return reason, failed
    if run.tests_changed and not check.changes_tests:
        return "tests_changed", []
    told = bool(run.report.failures or run.report.broken_files)
    said = run.returncode == _FAILED
    # Plugins can fail a run in which every test passes; then they did so with the gold patch, too.
    if (told and not said) or (said and not told and check.exit_code == _PASSED):
        return "report_contradicts", []
    return "", []


def _checked(value: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Return the fields of a dataclass out of JSON, lists as tuples."""
    made = {}
    for field in fields(kind):
        found = value.get(field.name)
        found = tuple(found) if isinstance(found, list) else found
        if not isinstance(found, type(field.default)):
            raise TypeError(field.name)
        made[field.name] = found
    return made
