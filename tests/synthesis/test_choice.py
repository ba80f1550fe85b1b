"""Which candidates become tasks: caps, several functions at once, processes, checks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.synthesis import Recipe, SynthesisResult, synthesize
from swe_scaffold.synthesis.mutants import Mutant, Observation
from swe_scaffold.synthesis.operators import OPERATORS
from swe_scaffold.synthesis.selection import TRIES_PER_FUNCTION, TRIES_PER_TASK
from tests.synthesis.test_synthesis import STDLIB, check_row, write

FUNCTION = """\
def name{n}(first, second):
    if first < second:
        return helper(first, second)
    return first[{n}:] + second


"""
FREE = {"max_per_file": 0, "max_per_operator": 0}


def files(root: Path, **counts: int) -> Path:
    """Write modules that hold so many small functions each."""
    for name, count in counts.items():
        text = "".join(FUNCTION.format(n=n + 1) for n in range(count))
        write(root / f"{name.replace('__', '/')}.py", text)
    return root


def made(root: Path, count: int, seed: int = 1, **recipe: Any) -> SynthesisResult:
    result = synthesize(root, count=count, seed=seed, recipe=Recipe(**recipe))
    counts = result.counts
    assert counts["candidates"] == counts["candidates_used"] + sum(counts["rejected"].values())
    assert sum(counts["kept_by_operator"].values()) == counts["candidates_used"]
    return result


def test_a_file_gives_no_more_than_its_cap(tmp_path: Path) -> None:
    files(tmp_path, big=30, small=3)
    result = made(tmp_path, 40, max_per_file=4, max_per_operator=0)
    assert Counter(row["source_path"] for row in result.tasks) == {"big.py": 4, "small.py": 3}
    assert result.counts["rejected"]["file_cap"] > 100
    free = made(tmp_path, 40, **FREE)
    assert free.counts["kept"] == 33
    assert "file_cap" not in free.counts["rejected"]


def test_an_operator_gives_no_more_than_its_cap(tmp_path: Path) -> None:
    files(tmp_path, big=30)
    names = ("off_by_one", "wrong_variable")
    result = made(tmp_path, 30, operators=names, max_per_file=0, max_per_operator=3)
    assert result.counts["kept_by_operator"] == {"off_by_one": 3, "wrong_variable": 3}
    assert result.counts["rejected"]["operator_cap"] > 50


@pytest.mark.parametrize(("count", "file", "operator"), [(4, 5, 5), (100, 10, 25), (101, 11, 26)])
def test_caps_follow_the_number_of_tasks(count: int, file: int, operator: int) -> None:
    limits = Recipe().limits(count)
    assert (limits.per_file, limits.per_operator) == (file, operator)
    assert Recipe(max_per_file=0).limits(count).per_file == 0


def test_a_default_run_keeps_variety(tmp_path: Path) -> None:
    files(tmp_path, big=60, a=4, b=4, c=4)
    tasks = made(tmp_path, 60).tasks
    assert Counter(row["source_path"] for row in tasks)["big.py"] == 6


@pytest.mark.parametrize("together", [2, 3])
def test_several_functions_break_together(tmp_path: Path, together: int) -> None:
    root = files(tmp_path / "tree", many=9, pair__code=2, alone=1)
    result = made(root, 50, functions_per_task=together, **FREE)
    whole = {2: {"many.py": 4, "pair/code.py": 1}, 3: {"many.py": 3}}[together]
    assert Counter(row["source_path"] for row in result.tasks) == whole
    assert result.counts["candidates_used"] == together * sum(whole.values())
    assert result.counts["rejected"]["no_partner"] > 0
    for row in result.tasks:
        functions = row["function"].split(", ")
        assert len(set(functions)) == len(row["context"]) == together
        assert len(row["operator"].split("+")) == together
        assert set(row["operator"].split("+")) <= set(OPERATORS)
        assert all(f"- `{name}`: " in row["problem_statement"] for name in functions)
        check_row(root, tmp_path / "applied", row)


def test_the_lines_of_later_functions_are_those_of_the_mutant(tmp_path: Path) -> None:
    root = files(tmp_path / "tree", many=9)
    recipe = {"functions_per_task": 3, "operators": ("dropped_guard",), **FREE}
    for row in made(root, 3, **recipe).tasks:
        check_row(root, tmp_path / "applied", row)
        # A function takes six lines, and each guard that was dropped before it took two away.
        numbers = [int(shown["text"][len("def name")]) for shown in row["context"]]
        starts = [6 * (number - 1) + 1 - 2 * index for index, number in enumerate(numbers)]
        assert [shown["start_line"] for shown in row["context"]] == starts


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [Recipe(), Recipe(functions_per_task=2, max_per_file=2)])
def test_any_number_of_processes_gives_the_same(recipe: Recipe) -> None:
    packages = ["json", "html", "email", "urllib"]
    one, two = (
        synthesize(STDLIB, count=20, seed=3, include=packages, recipe=recipe, jobs=jobs)
        for jobs in (1, 2)
    )
    assert json.dumps([one.tasks, one.counts]) == json.dumps([two.tasks, two.counts])
    assert one.counts["kept"] == 20


class Tests:
    """Stands for a project's tests: they find some mutants, and it is noted which were tried."""

    __test__ = False

    def __init__(self, *found_by: str) -> None:
        self.found_by, self.tried = found_by, list[str]()

    def __call__(self, mutants: Sequence[Mutant]) -> list[Observation]:
        self.tried += [mutant.names[0][1] for mutant in mutants]
        return [self.see(mutant.names) for mutant in mutants]

    def see(self, names: Sequence[tuple[str, str]]) -> Observation:
        if any(operator in self.found_by for operator, _ in names):
            return Observation(fail_to_pass=("t.py::a",), pass_to_pass=("t.py::b",), failure="Oh!")
        return Observation("tests_pass")


def test_only_what_tests_find_is_kept_and_says_so(tmp_path: Path) -> None:
    files(tmp_path, big=20)
    tests = Tests("off_by_one", "wrong_slice")
    result = synthesize(tmp_path, count=8, seed=1, check=tests)
    assert {row["operator"] for row in result.tasks} <= {"off_by_one", "wrong_slice"}
    assert len({row["function"] for row in result.tasks}) == result.counts["kept"] > 0
    for row in result.tasks:
        assert row["validated"] is True
        assert row["validation"] == "tests"
        assert json.loads(row["FAIL_TO_PASS"]) == ["t.py::a"]
        assert json.loads(row["PASS_TO_PASS"]) == ["t.py::b"]
        assert row["problem_statement"].endswith("\n\nOh!")
        assert "Nobody" not in row["problem_statement"]
    counts = result.counts
    assert counts["candidates"] == counts["kept"] + sum(counts["rejected"].values())
    assert counts["validation_runs"] == len(tests.tried)
    assert counts["rejected"]["tests_pass"] == len(tests.tried) - counts["kept"]


def test_functions_without_tests_are_given_up_and_so_is_a_tree(tmp_path: Path) -> None:
    files(tmp_path, one=1)
    tests = Tests()
    result = synthesize(tmp_path, count=5, seed=1, check=tests)
    assert len(tests.tried) == TRIES_PER_FUNCTION
    assert result.counts["rejected"]["untested_function"] > 0
    files(tmp_path, big=40)
    tests = Tests()
    result = synthesize(tmp_path, count=2, seed=1, check=tests)
    assert len(tests.tried) == 2 * TRIES_PER_TASK
    assert result.tasks == []
    assert result.counts["rejected"]["not_selected"] > 0


def test_a_refused_mutant_makes_room_for_another_of_its_function(tmp_path: Path) -> None:
    files(tmp_path, one=1)
    for name in ("flip_comparison", "wrong_slice"):
        result = synthesize(
            tmp_path,
            count=1,
            seed=1,
            recipe=Recipe(operators=("flip_comparison", "wrong_slice")),
            check=Tests(name),
        )
        assert [row["operator"] for row in result.tasks] == [name]


def test_a_check_sees_the_bytes_of_the_row(tmp_path: Path) -> None:
    root = files(tmp_path / "tree", big=6)
    seen: list[bytes] = []

    def check(mutants: Sequence[Mutant]) -> list[Observation]:
        seen.extend(mutant.data for mutant in mutants)
        return [Observation(validation="exit_code", failure="No.")] * len(mutants)

    recipe = Recipe(functions_per_task=2)
    tasks = synthesize(root, count=3, seed=1, recipe=recipe, check=check).tasks
    assert len(tasks) == len(seen) == 3
    for row in tasks:
        assert (row["validation"], row["FAIL_TO_PASS"]) == ("exit_code", "[]")
        check_row(root, tmp_path / "applied", row)
        assert (tmp_path / "applied" / "big.py").read_bytes() == (root / "big.py").read_bytes()
