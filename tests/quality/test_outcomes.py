"""Outcomes and caps: what is not known to be good is skipped when asked, and so is too much."""

from __future__ import annotations

from typing import Any

import pytest

from swe_scaffold.config import QualityConfig
from swe_scaffold.quality.caps import caps_stage
from swe_scaffold.quality.outcomes import judge_outcome
from swe_scaffold.quality.stage import RowKey, Subject
from swe_scaffold.rows import make_example
from swe_scaffold.types import Message, Origin, Outcome, SpeedrunLabel, Task, Trajectory

ORIGIN = Origin("s", 1)
EXAMPLE = make_example(
    instance_id="a__b-1",
    repo="a/b",
    prompt="p",
    response="r",
    response_source="messages",
    label=SpeedrunLabel.SUCCESS,
    origin=ORIGIN,
)
SUCCESS, FAILURE = SpeedrunLabel.SUCCESS, SpeedrunLabel.FAILURE


def attempt(**given: Any) -> Trajectory:
    return Trajectory("a__b-1", "a/b", (Message("user", "hi"),), ORIGIN, "test", **given)


def reason(subject: Subject, **config: bool) -> str:
    judge = judge_outcome(QualityConfig(**config))
    assert judge is not None
    return judge(EXAMPLE, subject).reason


def test_nothing_is_asked_by_default() -> None:
    assert judge_outcome(QualityConfig()) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"outcome": Outcome(resolved=True)}, ""),
        ({"outcome": Outcome(resolved=False)}, "not_resolved"),
        ({}, "not_resolved"),
        ({"label": SUCCESS}, ""),
        ({"label": FAILURE}, "not_resolved"),
        ({"label": SUCCESS, "outcome": Outcome(resolved=False)}, "not_resolved"),
        ({"label": FAILURE, "outcome": Outcome(resolved=True)}, ""),
        ({"submitted": True}, "not_resolved"),
    ],
)
def test_only_resolved_keeps_what_is_known_to_be_resolved(
    given: dict[str, Any], expected: str
) -> None:
    assert reason(attempt(**given), only_resolved=True) == expected


@pytest.mark.parametrize(
    ("submitted", "expected"), [(True, ""), (False, "not_submitted"), (None, "not_submitted")]
)
def test_only_submitted_keeps_what_is_known_to_be_submitted(
    submitted: bool | None, expected: str
) -> None:
    assert reason(attempt(submitted=submitted), only_submitted=True) == expected


def test_the_detail_tells_unknown_from_no() -> None:
    judge = judge_outcome(QualityConfig(only_submitted=True, only_resolved=True))
    assert judge is not None
    assert judge(EXAMPLE, attempt()).detail == "the source does not say"
    ended = attempt(submitted=False, exit_status="exit_cost")
    assert judge(EXAMPLE, ended).detail == "ended as exit_cost"
    assert judge(EXAMPLE, attempt(submitted=True)).reason == "not_resolved"


@pytest.mark.parametrize("subject", [None, Task("a__b-1", "a/b", "problem", ORIGIN)])
def test_tasks_and_plain_rows_are_left_alone(subject: Subject) -> None:
    assert reason(subject, only_resolved=True, only_submitted=True) == ""


def reasons(rows: list[tuple[str, str, str]], **caps: int) -> list[str]:
    stage = caps_stage(QualityConfig(**caps))
    assert stage is not None
    return [
        stage.judge(RowKey(name, repo, label, "s:1", stage.key_of(EXAMPLE, None))).reason
        for name, repo, label in rows
    ]


def test_caps_keep_the_first_rows_of_each_kind() -> None:
    rows = [("i", "a/b", "success"), ("j", "a/b", "failure"), ("i", "c/d", "success")]
    assert reasons(rows, max_per_repo=1) == ["", "over_max_per_repo", ""]
    assert reasons(rows, max_per_label=1) == ["", "", "over_max_per_label"]
    assert reasons(rows, max_per_instance=1) == ["", "", "over_max_per_instance"]
    assert reasons(rows, max_per_repo=2, max_per_instance=2) == ["", "", ""]
    assert caps_stage(QualityConfig()) is None


def test_a_row_that_one_cap_skips_counts_for_no_other() -> None:
    rows = [("i", "a/b", "success"), ("j", "a/b", "success"), ("j", "c/d", "success")]
    assert reasons(rows, max_per_repo=1, max_per_instance=1) == ["", "over_max_per_repo", ""]


def test_rows_that_name_no_repository_are_not_of_one() -> None:
    rows = [("i", "", "success"), ("j", "", "success")]
    assert reasons(rows, max_per_repo=1) == ["", ""]
