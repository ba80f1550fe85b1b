"""Duplicates: tasks by id, other rows by content, and the first one stays."""

from __future__ import annotations

from swe_scaffold.quality.duplicates import duplicate_stage
from swe_scaffold.quality.stage import IndexStage, RowKey, Subject
from swe_scaffold.rows import make_example
from swe_scaffold.types import Example, Origin, SpeedrunLabel, Task, Verdict


def row(name: str, text: str, place: Origin) -> tuple[Example, Task]:
    example = make_example(
        instance_id=name,
        repo="a/b",
        prompt=text,
        response="r",
        response_source="patch",
        label=SpeedrunLabel.SUCCESS,
        origin=place,
    )
    return example, Task(name, "a/b", text, place)


def judge(stage: IndexStage, example: Example, subject: Subject) -> Verdict:
    place = f"{example.meta['source']}:{example.meta['row']}"
    key = stage.key_of(example, subject)
    return stage.judge(RowKey(example.instance_id, example.repo, "success", place, key))


def test_the_same_task_again_is_a_duplicate_that_names_the_first() -> None:
    stage = duplicate_stage()
    assert judge(stage, *row("x", "text", Origin("a.jsonl", 1))).keep
    again = judge(stage, *row("x", "text", Origin("b.jsonl", 7)))
    assert (again.reason, again.detail) == ("duplicate", "same id as a.jsonl:1, identical content")
    other = judge(stage, *row("x", "other", Origin("b.jsonl", 8)))
    assert (other.reason, other.detail) == ("duplicate", "same id as a.jsonl:1, different content")


def test_different_tasks_with_the_same_text_are_kept() -> None:
    stage = duplicate_stage()
    assert judge(stage, *row("x", "text", Origin("a", 1))).keep
    assert judge(stage, *row("y", "text", Origin("a", 2))).keep


def test_other_rows_are_known_by_content_alone() -> None:
    stage = duplicate_stage()
    assert judge(stage, row("x", "text", Origin("a", 1))[0], None).keep
    assert judge(stage, row("x", "other", Origin("a", 2))[0], None).keep
    again = judge(stage, row("y", "text", Origin("a", 3))[0], None)
    assert (again.reason, again.detail) == ("duplicate", "same content as a:1")


def test_a_row_that_repeats_a_task_is_a_duplicate_but_sharing_its_id_is_fine() -> None:
    stage = duplicate_stage()
    assert judge(stage, *row("x", "text", Origin("tasks", 1))).keep
    assert judge(stage, row("x", "a trajectory of x", Origin("chats", 1))[0], None).keep
    assert not judge(stage, row("z", "text", Origin("chats", 2))[0], None).keep


def test_the_same_place_twice_is_no_excuse() -> None:
    stage = duplicate_stage()
    assert judge(stage, *row("x", "text", Origin("a", 1))).keep
    assert not judge(stage, *row("x", "text", Origin("a", 1))).keep


def test_what_a_stage_keeps_is_of_one_build() -> None:
    first = duplicate_stage()
    assert judge(first, *row("x", "text", Origin("a", 1))).keep
    assert judge(duplicate_stage(), *row("x", "text", Origin("a", 1))).keep
