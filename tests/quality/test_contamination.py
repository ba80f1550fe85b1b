"""Contamination: each mark of a benchmark task is recognised, and nothing common is."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.dataset.pairs import task_to_example
from swe_scaffold.errors import DataError
from swe_scaffold.quality.contamination import ContaminationIndex, judge_contaminated
from swe_scaffold.quality.fingerprints import patch_fingerprints
from swe_scaffold.rows import make_example
from swe_scaffold.sources import open_source
from swe_scaffold.types import Message, Origin, SpeedrunLabel, Task, Trajectory

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def words(seed: int, count: int = 60) -> str:
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(9999)}" for _ in range(count))


def patch(*lines: str, path: str = "pkg/core.py") -> str:
    body = "".join(f"{line}\n" for line in lines)
    old = sum(not line.startswith("+") for line in lines)
    new = sum(not line.startswith("-") for line in lines)
    names = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
    return f"{names}@@ -1,{old} +1,{new} @@\n{body}"


FIX = patch(
    " def total(rows):",
    "-    return sum(rows)",
    "+    weights = [row.weight for row in rows if row.weight is not None]",
    "+    return math.fsum(weights) / max(len(weights), 1)",
)
BENCH = Task(
    "acme__tool-123",
    "acme/tool",
    words(1),
    Origin("bench.jsonl", 1),
    patch=FIX,
    test_patch=patch(
        "+def test_total_of_rows_without_weight():",
        "+    assert total([Row(weight=None), Row(weight=2.5)]) == pytest.approx(2.5)",
        path="tests/test_core.py",
    ),
    base_commit=COMMIT,
)
OTHER = Task("other__repo-9", "other/repo", words(2), Origin("rows.jsonl", 1), base_commit="f" * 40)


def index_of(*tasks: Task) -> ContaminationIndex:
    index = ContaminationIndex()
    for task in tasks or (BENCH,):
        index.add(task, "Bench")
    return index


def kinds(task: Task, index: ContaminationIndex | None = None) -> list[str]:
    hits = (index or index_of()).check(task_to_example(task), task)
    return [hit.kind for hit in hits]


def test_the_task_itself_is_recognised_by_every_mark() -> None:
    assert kinds(BENCH) == ["id", "number", "commit", "hunk", "text"]
    assert kinds(OTHER) == []


MARKS: list[tuple[dict[str, Any], list[str], str]] = [
    ({"instance_id": "ACME__Tool-123"}, ["id", "number"], "same id as"),
    (
        {"instance_id": "https://x/pull/123", "repo": "Acme/Tool"},
        ["number"],
        "same repository and number (acme/tool#123) as",
    ),
    (
        {"repo": "ACME/tool", "base_commit": COMMIT.upper()},
        ["commit"],
        "same base commit as",
    ),
    ({"patch": FIX}, ["hunk"], "same added lines as"),
    ({"patch": FIX.replace("pkg/core.py", "moved/elsewhere.py")}, ["hunk"], "same added lines as"),
    ({"patch": FIX.replace("    ", "\t")}, ["hunk"], "same added lines as"),
    ({"test_patch": BENCH.test_patch}, ["hunk"], "same added lines as"),
    ({"problem_statement": BENCH.problem_statement}, ["text"], "100% of the issue of"),
    (
        {"problem_statement": f"{words(3)}\n{BENCH.problem_statement.upper()}!\n{words(4)}"},
        ["text"],
        "100% of the issue of",
    ),
    ({"change_summary": f"Here it is:\n\n{FIX}"}, ["hunk"], "same added lines as"),
]


@pytest.mark.parametrize(("given", "found", "evidence"), MARKS)
def test_one_mark_is_enough_and_is_told(
    given: dict[str, Any], found: list[str], evidence: str
) -> None:
    task = replace(OTHER, **given)
    assert kinds(task) == found
    verdict = judge_contaminated(index_of())(task_to_example(task), task)
    assert verdict.reason == "contaminated"
    assert verdict.detail.startswith(f"{evidence} acme__tool-123 (Bench)")


@pytest.mark.parametrize(
    "given",
    [
        {"instance_id": "acme__tool-1234"},
        {"instance_id": "row-123", "repo": "acme/tool"},
        {"base_commit": COMMIT},
        {"repo": "acme/tool"},
        {"patch": FIX.replace("fsum", "gsum")},
        {"problem_statement": " ".join(BENCH.problem_statement.split()[:40]) + words(5)},
        {"problem_statement": " ".join(reversed(BENCH.problem_statement.split()))},
    ],
)
def test_half_a_mark_is_none(given: dict[str, Any]) -> None:
    assert kinds(replace(OTHER, **given)) == []


COMMON = [
    patch('-__version__ = "1.0"', '+__version__ = "1.1"', path="pkg/__init__.py"),
    patch("+# Licensed under the Apache License, Version 2.0 (the License); you may not use it"),
    patch("+# Copyright 2024 the authors", "+from __future__ import annotations", "+import os"),
    patch("+import collections.abc", "+from typing import Any, Callable, Iterable, Sequence"),
    patch("+}", "+", "+    )", "+]"),
    patch("+    return None"),
    patch("-    x = 1", "+    x = 2"),
]


@pytest.mark.parametrize("common", COMMON)
def test_common_hunks_have_no_fingerprint(common: str) -> None:
    assert list(patch_fingerprints(common)) == []


def test_hunks_and_templates_that_many_tasks_share_recognise_nothing() -> None:
    template = words(7, 80)
    tasks = [
        replace(
            BENCH,
            instance_id=f"acme__tool-{number}",
            problem_statement=f"{template} {words(100 + number, 30)}",
            test_patch="",
            base_commit="",
        )
        for number in range(1, 6)
    ]
    row = replace(OTHER, patch=FIX, problem_statement=template)
    assert kinds(row, index_of(*tasks[:2])) != []
    assert kinds(row, index_of(*tasks)) == []
    again = replace(OTHER, problem_statement=tasks[4].problem_statement)
    assert kinds(again, index_of(*tasks)) == ["text"]


def test_short_issues_are_known_by_other_marks_only() -> None:
    short = replace(BENCH, problem_statement="Crash when the list is empty")
    assert kinds(replace(OTHER, problem_statement=short.problem_statement), index_of(short)) == []


def test_trajectories_are_known_by_what_was_asked_and_submitted() -> None:
    def chat(*messages: Message, patch: str = "") -> list[str]:
        example = make_example(
            instance_id="run-1",
            repo="",
            prompt="",
            response="",
            response_source="messages",
            label=SpeedrunLabel.SUCCESS,
            origin=Origin("s", 1),
            messages=messages,
        )
        subject = Trajectory("run-1", "", messages, Origin("s", 1), "test", patch=patch)
        return [hit.kind for hit in index_of().check(example, subject)]

    asked = Message("user", f"Solve this issue:\n{BENCH.problem_statement}")
    answer = Message("assistant", BENCH.problem_statement)
    assert chat(asked, Message("assistant", "ok")) == ["text"]
    assert chat(Message("user", "hello"), answer) == []
    assert chat(Message("user", "hello"), Message("assistant", "ok"), patch=FIX) == ["hunk"]


def test_an_index_survives_json_and_holds_no_text() -> None:
    index = index_of(BENCH, OTHER)
    text = json.dumps(index.to_dict(), allow_nan=False)
    again = ContaminationIndex.from_dict(json.loads(text), "index.json")
    assert again.to_dict() == index.to_dict()
    assert len(again) == 2
    assert again.benchmarks == {"Bench": 2}
    assert kinds(BENCH, again) == kinds(BENCH)
    for secret in (BENCH.problem_statement.split()[0], "weights", COMMIT, "pkg/core.py"):
        assert secret not in text


def test_the_order_of_tasks_makes_no_difference_and_an_id_stays_with_the_first() -> None:
    assert index_of(BENCH, OTHER).to_dict() == index_of(OTHER, BENCH).to_dict()
    index = index_of()
    index.add(BENCH, "Another")
    assert (len(index), index.benchmarks) == (1, {"Bench": 1})


BAD: list[tuple[Any, str]] = [
    ([], "no index of tasks"),
    ({"schema": "x/2", "tasks": []}, "no index of tasks"),
    ({"tasks": 3}, "tasks is not a list"),
    ({"tasks": [3]}, "is not an object"),
    ({"tasks": [{"instance_id": 3}]}, "must be text"),
    ({"tasks": [{"instance_id": "", "benchmark": "b", "commit": ""}]}, "must be text"),
    ({"hunks": ["XYZ"]}, "16 hex digits"),
    ({"words": [5]}, "16 hex digits"),
    ({"words": "0123456789abcdef"}, "16 hex digits"),
    ({"words": ["0123456789abcdef"] * 65}, "more than 64"),
]


@pytest.mark.parametrize(("value", "message"), BAD)
def test_anything_else_is_refused(value: Any, message: str) -> None:
    entry = {"instance_id": "i", "benchmark": "b", "commit": "", "hunks": [], "words": []}
    if isinstance(value, dict) and not {"tasks", "schema"} & set(value):
        value = {"tasks": [{**entry, **value}]}
    if isinstance(value, dict):
        value = {"schema": index_of().to_dict()["schema"], **value}
    with pytest.raises(DataError, match=message) as caught:
        ContaminationIndex.from_dict(value, "index.json")
    assert caught.value.where.startswith("index.json")


def tasks_of(path: Path) -> list[Task]:
    pytest.importorskip("pyarrow")
    source = open_source(str(path), split=None, revision=None, offline=True)
    return [item for item in source if isinstance(item, Task)]


@pytest.mark.slow
def test_on_real_benchmarks_the_common_tasks_are_found_and_no_others(shared_data: Path) -> None:
    lite = tasks_of(shared_data / "swe-bench-lite" / "test.parquet")
    verified = tasks_of(shared_data / "swe-bench-verified" / "test-shared.parquet")
    index = index_of(*lite)
    common = {task.instance_id for task in lite} & {task.instance_id for task in verified}
    assert len(common) == 93
    for task in verified:
        found = set(kinds(task, index))
        if task.instance_id in common:
            assert found == {"id", "number", "commit", "hunk", "text"}
        else:
            assert found <= {"commit"}
    # Under other names they are found all the same.
    hidden = [replace(task, instance_id="x", repo="", base_commit="") for task in lite[:50]]
    assert all({"hunk", "text"} <= set(kinds(task, index)) for task in hidden)
    loc = tasks_of(shared_data / "loc-bench" / "locbench-shared.jsonl.gz")
    assert [task.instance_id for task in loc if kinds(task, index)] == []
