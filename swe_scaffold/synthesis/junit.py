"""Read pytest's JUnit report: which tests passed, which did not, and the words of a failure.

The report is written by a run of foreign code: it is bounded, and one that cannot be read counts as
absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from swe_scaffold.python_tree import regular_bytes

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_REPORT_BYTES = 64 << 20


@dataclass(slots=True)
class Report:
    """Names of tests as pytest gives them, and of files it could not import.

    A test passes where every part of it (setup, body, teardown) does; skipped ones are in neither.
    """

    passed: set[str] = field(default_factory=set)
    failures: dict[str, str] = field(default_factory=dict)
    broken_files: dict[str, str] = field(default_factory=dict)


def read_report(path: Path) -> Report | None:
    """Read a report of the family xunit1; None where there is none that can be read."""
    from xml.etree import ElementTree

    try:
        data, reason = regular_bytes(path, MAX_REPORT_BYTES)
    except OSError:
        return None
    # pytest declares no entities, which can grow without end.
    if reason or not data or b"<!" in data.replace(b"<![CDATA[", b""):
        return None
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        return None
    report = Report()
    for case in root.iter("testcase"):
        _take(case, report)
    report.passed -= report.failures.keys()
    return report


def _take(case: Element, report: Report) -> None:
    file, name = case.get("file", ""), case.get("name", "")
    problem = next((part for part in case if part.tag in ("failure", "error")), None)
    if problem is not None and not case.get("classname"):
        report.broken_files.setdefault(file or f"{name.replace('.', '/')}.py", _words(problem))
        return
    test = _test_name(case.get("classname", ""), name, file)
    if problem is not None:
        report.failures.setdefault(test, _words(problem))
    elif case.find("skipped") is None:
        report.passed.add(test)


def _test_name(owner: str, name: str, file: str) -> str:
    """Return `tests/test_x.py::TestThing::test_it[0]`, from `tests.test_x.TestThing`."""
    if not file:
        return f"{owner}::{name}"
    module = file.removesuffix(".py").replace("/", ".")
    classes = owner.removeprefix(module).strip(".")
    return "::".join([file, *filter(None, classes.split(".")), name])


def _words(problem: Element) -> str:
    """Return the last exception as pytest words it, or the summary where it shows none."""
    blocks: list[list[str]] = [[]]
    for line in (problem.text or "").split("\n"):
        if line.startswith("E "):
            blocks[-1].append(line[1:])
        elif blocks[-1]:
            blocks.append([])
    lines = next((block for block in reversed(blocks) if block), [])
    if not lines:
        return problem.get("message") or ""
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    return "\n".join(line[indent:] for line in lines)
