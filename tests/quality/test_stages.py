"""Stages: run in order until one skips, every row counted where it stopped, as configured."""

from __future__ import annotations

import builtins
import json
import pickle
import sys
from dataclasses import replace
from typing import Any

import pytest

from swe_scaffold.config import DatasetConfig, QualityConfig, StageName
from swe_scaffold.errors import MissingExtra
from swe_scaffold.quality.contamination import ContaminationIndex
from swe_scaffold.quality.stage import RowKey, RowStage, Subject
from swe_scaffold.quality.stages import RowRunner, StageCount, Stages, make_stages
from swe_scaffold.rows import make_example
from swe_scaffold.types import (
    KEEP,
    Example,
    Message,
    Origin,
    SpeedrunLabel,
    Task,
    ToolCall,
    Verdict,
)

ALL: list[StageName] = [
    "empty_response",
    "short_patch",
    "long_response",
    "invalid_patch",
    "outcome",
    "trajectory",
    "contaminated",
    "secret",
    "hidden_text",
    "duplicate",
    "near_duplicate",
    "caps",
]


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


def configured(quality: dict[str, Any] | None = None, **dataset: Any) -> DatasetConfig:
    return DatasetConfig(quality=QualityConfig(**(quality or {})), **dataset)


def names(stages: Stages) -> list[str]:
    return [stage.name for stage in (*stages.row, *stages.index)]


def test_the_first_stage_that_skips_decides_and_later_ones_do_not_see_the_row() -> None:
    seen: list[str] = []

    def stage(name: str, reason: str) -> RowStage:
        def judge(example: Example, _: Subject) -> Verdict:
            seen.append(name)
            return Verdict(reason) if reason and example.response == name else KEEP

        return RowStage(name, judge)

    runner = RowRunner([stage("first", "bad"), stage("second", "worse"), stage("third", "")])
    assert runner.judge(row("second")) == ("second", Verdict("worse"))
    assert seen == ["first", "second"]
    assert runner.judge(row("fine")) == ("", KEEP)
    assert [count.to_dict() for count in runner.counts] == [
        {"name": "first", "rows": 2, "skipped": {}},
        {"name": "second", "rows": 2, "skipped": {"worse": 1}},
        {"name": "third", "rows": 1, "skipped": {}},
    ]


def test_what_stages_say_of_a_row_that_stays_is_collected_and_later_ones_see_it_changed() -> None:
    def shout(example: Example, _: Subject) -> Verdict:
        changed = replace(example, response=example.response.upper())
        return Verdict(findings=("quiet",), links=("id:a",), example=changed)

    def listen(example: Example, _: Subject) -> Verdict:
        return Verdict(findings=(example.response,), links=("id:b",))

    runner = RowRunner([RowStage("shout", shout), RowStage("listen", listen)])
    stage, verdict = runner.judge(row("word"))
    assert (stage, verdict.keep) == ("", True)
    assert verdict.findings == ("quiet", "WORD")
    assert verdict.links == ("id:a", "id:b")
    assert verdict.example is not None
    assert verdict.example.response == "WORD"
    assert runner.counts[1].to_dict()["findings"] == {"WORD": 1}


def test_counts_of_parts_add_up() -> None:
    left, right = StageCount("s"), StageCount("s")
    left.add(Verdict("bad"), 0.5)
    right.add(Verdict(findings=("odd",)), 0.25)
    right.add(Verdict("bad"), 0.25)
    left.merge(right)
    assert left.seconds == 1.0
    assert left.to_dict() == {"name": "s", "rows": 3, "skipped": {"bad": 2}, "findings": {"odd": 1}}


def test_by_default_only_what_says_something_judges() -> None:
    assert names(make_stages(DatasetConfig())) == ["empty_response", "hidden_text", "duplicate"]
    assert names(make_stages(configured(min_patch_chars=0, include_empty=True))) == [
        "hidden_text",
        "duplicate",
    ]
    assert names(make_stages(configured(min_patch_chars=9)))[:2] == [
        "empty_response",
        "short_patch",
    ]


@pytest.mark.parametrize(
    ("quality", "name"),
    [
        ({"max_response_chars": 5}, "long_response"),
        ({"max_patch_chars": 5}, "long_response"),
        ({"only_resolved": True}, "outcome"),
        ({"only_submitted": True}, "outcome"),
        ({"max_per_repo": 1}, "caps"),
        ({"max_per_label": 1}, "caps"),
        ({"max_per_instance": 1}, "caps"),
    ],
)
def test_one_key_is_enough_to_turn_its_stage_on(quality: dict[str, Any], name: str) -> None:
    assert name not in names(make_stages(DatasetConfig()))
    assert name in names(make_stages(configured(quality)))


def test_every_name_is_a_stage_and_they_come_in_the_order_given() -> None:
    pytest.importorskip("rensa")
    pytest.importorskip("detect_secrets")
    index = ContaminationIndex()
    index.add(Task("a__b-1", "a/b", "problem", Origin("s", 1)), "bench")
    quality = {"stages": ALL, "max_per_repo": 1, "only_resolved": True, "max_patch_chars": 9}
    config = configured(quality, min_patch_chars=1)
    assert names(make_stages(config, contamination=index)) == ALL
    turned = [*ALL[8::-1], *ALL[:8:-1]]
    turned_config = configured({**quality, "stages": turned}, min_patch_chars=1)
    assert names(make_stages(turned_config, contamination=index)) == turned
    assert names(make_stages(configured({"stages": []}))) == []


def test_the_audit_of_trajectories_is_configured() -> None:
    call = ToolCall("bash", {"command": "git log --all"})
    messages = (Message("user", "fix it"), Message("assistant", "", tool_calls=(call,)))
    example = replace(row("x"), messages=messages)

    def verdict(**quality: Any) -> Verdict:
        (stage,) = make_stages(configured({"stages": ["trajectory"], **quality})).row
        return stage.judge(example, None)

    assert verdict().reason == "leaky_trajectory"
    assert "leaky_trajectory" in verdict(leaky_trajectories="report").findings
    assert "observation_flood" not in verdict(leaky_trajectories="report").findings
    short = verdict(leaky_trajectories="report", max_observation_chars=3)
    assert "observation_flood" in short.findings


def test_contaminated_needs_something_to_exclude() -> None:
    assert "contaminated" not in names(make_stages(DatasetConfig()))
    empty = make_stages(DatasetConfig(), contamination=ContaminationIndex())
    assert "contaminated" not in names(empty)


@pytest.mark.parametrize(
    ("stage", "module"), [("near_duplicate", "rensa"), ("secret", "detect_secrets.plugins")]
)
def test_a_stage_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, stage: StageName, module: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module.split(".")[0]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module.split(".")[0], None)
    with pytest.raises(MissingExtra) as caught:
        make_stages(configured({"stages": [stage]}))
    assert "swe-speedrun-scaffold[data]" in caught.value.hint
    assert isinstance(caught.value, builtins.ImportError)


def test_skipped_rows_make_no_later_row_a_duplicate() -> None:
    stages = make_stages(configured(min_patch_chars=10))
    runner = RowRunner(stages.row)
    (duplicate,) = stages.index
    task = Task("id-1", "", "p1", Origin("s", 1))

    def reason(example: Example) -> str:
        _, verdict = runner.judge(example, task)
        if not verdict.keep:
            return verdict.reason
        key = duplicate.key_of(example, task)
        return duplicate.judge(RowKey(example.instance_id, "", "success", "s:1", key)).reason

    assert reason(row("")) == "empty_response"
    assert reason(row("short")) == "short_patch"
    assert reason(row("long enough now")) == ""
    assert reason(row("long enough now")) == "duplicate"


def test_keys_of_index_stages_travel_between_processes() -> None:
    pytest.importorskip("rensa")
    quality = {"stages": ["duplicate", "near_duplicate", "caps"], "max_per_repo": 1}
    task = Task("id-1", "", "p1", Origin("s", 1))
    for stage in make_stages(configured(quality)).index:
        key = stage.key_of(row("+ a line\n" * 500), task)
        assert pickle.loads(pickle.dumps(key)) == key
        assert len(pickle.dumps(key)) < 1500


def test_counts_can_be_written_as_strict_json() -> None:
    count = StageCount("s")
    count.add(Verdict("bad", findings=("b", "a")), 0.1)
    assert json.loads(json.dumps(count.to_dict(), allow_nan=False))["findings"] == {"a": 1, "b": 1}
