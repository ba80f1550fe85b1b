"""A trajectory as a training row: text, label and what travels along."""

from __future__ import annotations

from typing import Any

import pytest

from swe_scaffold.dataset.trajectories import trajectory_to_example
from swe_scaffold.jsonl import encode_row
from swe_scaffold.rows import example_to_row, row_to_example
from swe_scaffold.splits import SplitKeys, text_hash
from swe_scaffold.types import Message, Origin, Outcome, SpeedrunLabel, ToolCall, Trajectory

TURN = Message("assistant", "So:", (ToolCall("bash", {"command": "ls"}, "c1"),), train=True)
MESSAGES = (
    Message("system", "s", train=False),
    Message("user", "t", train=False),
    Message("assistant", "bad", train=False, train_reason="failed_action"),
    Message("user", "o", train=False),
    TURN,
    Message("tool", "out", tool_call_id="c1", train=False),
)


def run(**fields: Any) -> Trajectory:
    base = {
        "instance_id": "a__b-1",
        "repo": "a/b",
        "messages": MESSAGES,
        "origin": Origin("runs/x.traj", 1),
        "source_format": "swe-agent",
    }
    return Trajectory(**{**base, **fields})


def test_prompt_and_response_are_around_the_last_turn() -> None:
    example = trajectory_to_example(run(tools=({"name": "bash"},)))
    assert example.prompt == "system:\ns\n\nuser:\nt\n\nassistant:\nbad\n\nuser:\no"
    assert example.response == 'So:\n{"name": "bash", "arguments": {"command": "ls"}}'
    assert example.response_source == "trajectory"
    assert example.messages == MESSAGES
    assert example.tools == ({"name": "bash"},)
    assert (example.instance_id, example.repo, example.group) == ("a__b-1", "a/b", "a/b")


def test_a_row_comes_back_as_it_was_written() -> None:
    example = trajectory_to_example(run(left_out={"images": 1}, patch="p"))
    row = example_to_row(example)
    assert encode_row(row, "")
    assert row_to_example(row, Origin("other", 9)) == example


def test_meta_holds_what_the_source_states() -> None:
    full = run(
        patch="\ndiff\n",
        exit_status="submitted",
        submitted=True,
        model="m",
        trajectory_id="t",
        outcome=Outcome(resolved=False, turns=2),
        left_out={"thinking_blocks": 3},
        extra={"base_commit": "c"},
    )
    assert trajectory_to_example(full).meta == {
        "group": "a/b",
        "source": "runs/x.traj",
        "row": 1,
        "sha256": trajectory_to_example(full).meta["sha256"],
        "base_commit": "c",
        "source_format": "swe-agent",
        "exit_status": "submitted",
        "submitted": True,
        "resolved": False,
        "model": "m",
        "trajectory_id": "t",
        "turns": 2,
        "left_out": {"thinking_blocks": 3},
        "patch_hash": text_hash("diff"),
    }
    bare = trajectory_to_example(run()).meta
    assert set(bare) == {"group", "source", "row", "sha256", "source_format"}


def test_attempts_with_one_patch_stay_on_one_side() -> None:
    same = [
        SplitKeys.of(trajectory_to_example(run(instance_id=name, patch="p", messages=messages)))
        for name, messages in (("a__b-1", MESSAGES), ("c__d-2", (Message("user", "z"), TURN)))
    ]
    assert set(same[0].links) & set(same[1].links)


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"outcome": Outcome(resolved=True, turns=90)}, "success"),
        ({"outcome": Outcome(resolved=False, turns=3), "patch": "p"}, "failure"),
        ({"label": SpeedrunLabel.SUCCESS, "outcome": Outcome(resolved=False)}, "success"),
        ({"outcome": Outcome(turns=18), "patch": "p"}, "success"),
        ({"outcome": Outcome(turns=19), "patch": "p"}, "failure"),
        ({"outcome": Outcome(turns=3), "submitted": False}, "failure"),
        ({"outcome": Outcome(turns=3), "submitted": False, "patch": "p"}, "success"),
        ({"outcome": Outcome(turns=3)}, "success"),
        ({"patch": "p"}, "success"),
        ({"submitted": True}, "success"),
        ({}, "failure"),
    ],
)
def test_the_label_follows_what_is_known(fields: dict[str, Any], label: str) -> None:
    assert trajectory_to_example(run(**fields)).label == label


def test_a_run_without_a_turn_has_no_response() -> None:
    example = trajectory_to_example(run(messages=MESSAGES[:2]))
    assert (example.prompt, example.response) == ("system:\ns\n\nuser:\nt", "")
