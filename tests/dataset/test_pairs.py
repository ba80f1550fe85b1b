"""Pairs: which text answers, what is asked, what the label is, what is remembered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swe_scaffold.dataset.pairs import choose_response, source_fields, task_to_example
from swe_scaffold.sources.prompts import make_prompt
from swe_scaffold.splits import text_hash
from swe_scaffold.types import CodeContext, Origin, Outcome, SourceFields, SpeedrunLabel, Task

TASK = Task("a__b-1", "a/b", "It breaks.\n", Origin("tasks.jsonl", 4), patch="diff\n")


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        (("summary", "patch", "test"), "change_summary"),
        ((" \n", "patch", "test"), "patch"),
        (("", "\t", "test"), "test_patch"),
        (("", " ", "\n"), "none"),
    ],
)
def test_the_first_text_that_is_not_blank_answers(
    fields: tuple[str, str, str], source: str
) -> None:
    summary, patch, test_patch = fields
    task = replace(TASK, change_summary=summary, patch=patch, test_patch=test_patch)
    text, name = choose_response(task)
    assert name == source
    assert text == {"none": ""}.get(source, getattr(task, source, ""))
    assert task_to_example(task).response_source == source


def test_the_response_is_kept_to_the_letter() -> None:
    assert task_to_example(replace(TASK, patch="  diff \r\n\n")).response == "  diff \r\n\n"


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "success"),
        ({"patch": "", "test_patch": "t"}, "failure"),
        ({"patch": "", "change_summary": "s"}, "success"),
        ({"outcome": Outcome(resolved=False)}, "failure"),
        ({"outcome": Outcome(pass_rate=0.1)}, "failure"),
        ({"label": SpeedrunLabel.FAILURE}, "failure"),
        ({"label": SpeedrunLabel.SUCCESS, "outcome": Outcome(resolved=False)}, "success"),
        ({"patch": "", "outcome": Outcome(resolved=True)}, "failure"),
        ({"patch": "", "label": SpeedrunLabel.SUCCESS}, "failure"),
    ],
    ids=str,
)
def test_labels_of_tasks(changes: dict[str, object], label: str) -> None:
    assert task_to_example(replace(TASK, **changes)).label == label  # type: ignore[arg-type]


def test_the_prompt_is_the_problem_statement_to_the_letter() -> None:
    assert make_prompt(TASK) == "It breaks.\n"
    assert "context" not in task_to_example(TASK).meta


def test_code_follows_the_problem_with_its_place() -> None:
    code = CodeContext("pkg/mod.py", 7, "def f():\n    return 1\n")
    example = task_to_example(replace(TASK, context=(code, CodeContext("b.py", 1, "x = 1"))))
    assert example.prompt == (
        "It breaks.\n\n"
        "pkg/mod.py, lines 7-8:\n```\ndef f():\n    return 1\n```\n\n"
        "b.py, lines 1-1:\n```\nx = 1\n```"
    )
    assert example.meta["context"] == "oracle"


def test_no_line_of_the_code_can_close_its_fence() -> None:
    code = '"""\n````\ninside\n`````\n"""\n'
    prompt = make_prompt(replace(TASK, context=(CodeContext("a\nb.py", 1, code),)))
    fence = "`" * 6
    assert prompt.count(fence) == 2
    assert "a b.py, lines 1-5:" in prompt


def test_meta_remembers_what_is_small_and_where_it_came_from() -> None:
    task = replace(
        TASK,
        base_commit="abc",
        created_at="2024-01-01",
        group="pkg",
        extra={"difficulty": "easy", "sha256": "forged", "tests": ["t"] * 1000, "base_commit": "z"},
    )
    meta = task_to_example(task).meta
    assert (meta["source"], meta["row"], meta["group"]) == ("tasks.jsonl", 4, "pkg")
    assert (meta["base_commit"], meta["created_at"], meta["difficulty"]) == (
        *("abc", "2024-01-01"),
        "easy",
    )
    assert meta["sha256"] != "forged"
    assert "tests" not in meta
    assert "patch_hash" not in meta


def test_a_patch_behind_a_summary_is_remembered_by_its_hash() -> None:
    meta = task_to_example(replace(TASK, change_summary="summary")).meta
    assert meta["patch_hash"] == text_hash("diff")


def test_source_fields_say_what_was_not_blank() -> None:
    assert source_fields(replace(TASK, test_patch=" ")) == SourceFields(False, True, False)
    assert source_fields(None) == SourceFields(False, False, False)
