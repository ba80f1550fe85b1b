"""tasks synthesize: the ledger in text and JSON, caps, processes, and tests that decide."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run

MODULE = """
def clamp(value, low, high):
    if value < low:
        return low
    if value > high:
        return high
    return value


def find(items, wanted):
    for index in range(len(items)):
        if items[index] == wanted:
            return index
    return -1
"""


@pytest.fixture
def tree(folder: Path) -> Path:
    for package in ("one", "two"):
        path = folder / "src" / package / "code.py"
        path.parent.mkdir(parents=True)
        path.write_text(MODULE.replace("clamp", f"clamp_{package}"), "utf-8")
    return folder / "src"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text("utf-8").split("\n") if line]


def test_synthesized_tasks_build(run: Run, tree: Path) -> None:
    made = run("tasks", "synthesize", tree, "--count", 4, "--output", "tasks.jsonl", "--json")
    assert made.code == 0, made.err
    assert made.value["counts"]["kept"] == len(rows("tasks.jsonl")) == 4
    assert made.value["validation"] is None
    text = run("tasks", "synthesize", tree, "--count", 4, "--output", "again.jsonl", "--jobs", 2)
    assert "4 of 4 asked for" in text.out
    assert text.out.endswith("next: swe-scaffold build --dataset again.jsonl\n")
    assert Path("again.jsonl").read_bytes() == Path("tasks.jsonl").read_bytes()
    built = run("build", "--dataset", "tasks.jsonl", "--output", "rows.jsonl", "--json")
    assert built.value["counts"]["read"] == 4


def test_package_and_context_are_obeyed(run: Run, tree: Path) -> None:
    arguments = ["--count", 2, "--output", "t.jsonl", "--package", "two", "--context", "none"]
    assert run("tasks", "synthesize", tree, *arguments).code == 0
    assert {row["repo"] for row in rows("t.jsonl")} == {"two"}
    assert not any(row.get("context") for row in rows("t.jsonl"))


def test_operators_caps_and_several_functions(run: Run, tree: Path) -> None:
    flags = ["--operator", "off_by_one", "--operator", "dropped_return", "--max-per-operator", 0]
    flags += ["--functions-per-task", 2, "--max-per-file", 1]
    done = run("tasks", "synthesize", tree, "--output", "t.jsonl", *flags, "--json")
    assert done.value["counts"]["kept"] == len(rows("t.jsonl")) == 2
    for row in rows("t.jsonl"):
        assert len(row["context"]) == 2
        assert set(row["operator"].split("+")) <= {"off_by_one", "dropped_return"}


def test_an_unknown_operator_lists_them_all(run: Run, tree: Path) -> None:
    done = run("tasks", "synthesize", tree, "--output", "t.jsonl", "--operator", "x\x1b[31m")
    assert done.code == 2
    assert "\x1b" not in done.err
    assert "off_by_one" in done.err
    assert not Path("t.jsonl").exists()


@pytest.mark.slow
def test_tests_decide(run: Run, tree: Path, folder: Path) -> None:
    test = "from one.code import find\n\ndef test_find():\n    assert find([4, 5], 5) == 1\n"
    (folder / "test_find.py").write_text(test, "utf-8")
    command = f"{shlex.quote(sys.executable)} -m pytest -q"
    validate = ["--validate", command, "--validate-in", folder, "--validate-timeout", 60]
    flags = ["--output", folder.parent / "t.jsonl", "--count", 1, "--operator", "dropped_return"]
    done = run("tasks", "synthesize", tree, *flags, *validate)
    assert done.code == 0, done.err
    assert "judged by single tests (1 pass, 0 fail, 0 unstable before any change)" in done.out
    (row,) = rows(str(folder.parent / "t.jsonl"))
    assert (row["validated"], row["validation"]) == (True, "tests")
    assert json.loads(row["FAIL_TO_PASS"]) == ["test_find.py::test_find"]
    assert "The test `test_find.py::test_find` fails:\n\n    " in row["problem_statement"]
    built = run("build", "--dataset", folder.parent / "t.jsonl", "--output", "r.jsonl")
    assert built.code == 0
    assert rows("r.jsonl")[0]["meta"]["validated"] is True


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("no-such-program -x", 2, "no such program: no-such-program"),
        ("'", 2, "cannot be read"),
        ("false", 3, "fails on the unchanged tree (exit code 1)"),
    ],
)
def test_a_command_that_tells_nothing_stops_at_once(
    run: Run, tree: Path, command: str, code: int, text: str
) -> None:
    done = run("tasks", "synthesize", tree, "--output", "t.jsonl", "--validate", command)
    assert done.code == code
    assert text in done.err
    assert "--validate" in done.err
    assert not Path("t.jsonl").exists()
