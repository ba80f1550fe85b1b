"""Stages: run in order until one skips, and every row is counted where it stopped."""

from __future__ import annotations

from swe_scaffold.quality.stages import Stage, StageRunner, default_stages
from swe_scaffold.rows import make_example
from swe_scaffold.types import KEEP, Example, Origin, SpeedrunLabel, Task, Verdict


def row(response: str, number: int = 1) -> Example:
    return make_example(
        instance_id=f"id-{number}",
        repo="",
        prompt=f"p{number}",
        response=response,
        response_source="patch",
        label=SpeedrunLabel.SUCCESS,
        origin=Origin("s", number),
    )


def test_the_first_stage_that_skips_decides_and_later_ones_do_not_see_the_row() -> None:
    seen: list[str] = []

    def stage(name: str, reason: str) -> Stage:
        def judge(example: Example, task: Task | None) -> Verdict:
            seen.append(name)
            return Verdict(reason) if reason and example.response == name else KEEP

        return Stage(name, judge)

    runner = StageRunner([stage("first", "bad"), stage("second", "worse"), stage("third", "")])
    assert runner.judge(row("second")) == ("second", Verdict("worse"))
    assert seen == ["first", "second"]
    assert runner.judge(row("fine"))[1].keep
    assert [count.to_dict() for count in runner.counts] == [
        {"name": "first", "rows": 2, "skipped": {}},
        {"name": "second", "rows": 2, "skipped": {"worse": 1}},
        {"name": "third", "rows": 1, "skipped": {}},
    ]


def test_the_table_holds_what_was_asked_for() -> None:
    def names(**options: object) -> list[str]:
        return [stage.name for stage in default_stages(**options)]  # type: ignore[arg-type]

    assert names(min_patch_chars=None, include_empty=False) == ["empty_response", "duplicate"]
    assert names(min_patch_chars=0, include_empty=True) == ["duplicate"]
    assert names(min_patch_chars=9, include_empty=False) == [
        "empty_response",
        "short_patch",
        "duplicate",
    ]


def test_skipped_rows_make_no_later_row_a_duplicate() -> None:
    runner = StageRunner(default_stages(min_patch_chars=10, include_empty=False))
    task = Task("id-1", "", "p1", Origin("s", 1))
    assert runner.judge(row(""), task)[1].reason == "empty_response"
    assert runner.judge(row("short"), task)[1].reason == "short_patch"
    assert runner.judge(row("long enough now"), task)[1].keep
    assert runner.judge(row("long enough now"), task)[1].reason == "duplicate"
