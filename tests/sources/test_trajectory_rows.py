"""Rows of agent data sets: which chats are runs, and what comes with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.jsonl import write_jsonl
from swe_scaffold.sources import open_source
from swe_scaffold.types import Example, Message, Outcome, Skip, SpeedrunLabel, ToolCall, Trajectory

TOOL = {"type": "function", "function": {"name": "bash"}}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "bash", "arguments": '{"command": "ls"}'},
}
TASK = {"role": "user", "content": "t"}
CLAIM = (
    "Since we have successfully fixed the issue and verified it works, let's submit the changes:"
)


def said(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def one(folder: Path, row: dict[str, Any]) -> Any:
    write_jsonl(folder / "rows.jsonl", [row])
    (item,) = open_source(str(folder / "rows.jsonl"))
    return item


SMITH = {
    "instance_id": "a__b.1a2b3c4d.x",
    "resolved": True,
    "model": "m",
    "traj_id": "t",
    "patch": "d",
}
FORMS = {
    "tool": [
        TASK,
        said("", tool_calls=[CALL]),
        {"role": "tool", "content": "o", "tool_call_id": "c1"},
    ],
    "xml": [
        TASK,
        said("<function=bash>\n</function>"),
        {"role": "user", "content": "OBSERVATION:\no"},
    ],
    "ticks": [TASK, said("```\nls\n```"), {"role": "user", "content": "OBSERVATION:\no"}],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrap", [list, json.dumps])
def test_the_forms_of_swe_smith(tmp_path: Path, form: str, wrap: Any) -> None:
    item = one(tmp_path, {**SMITH, "messages": wrap(FORMS[form])})
    assert isinstance(item, Trajectory)
    assert [m.trained for m in item.messages] == [False, True, False]
    assert item.outcome == Outcome(resolved=True, turns=1)
    assert (item.trajectory_id, item.model, item.patch) == ("t", "m", "d")
    assert (item.repo, item.source_format, item.submitted) == ("a/b", "messages", None)
    if form == "tool":
        assert item.messages[1].tool_calls == (ToolCall("bash", {"command": "ls"}, "c1"),)
        assert item.messages[2] == Message("tool", "o", tool_call_id="c1", train=False)


def test_a_claim_that_replaced_the_end_of_a_run_is_not_learnt(tmp_path: Path) -> None:
    claim = said(f"{CLAIM}\n\n<function=submit>\n</function>")
    item = one(tmp_path, {**SMITH, "messages": [*FORMS["xml"], claim]})
    assert [m.train_reason for m in item.messages] == ["", "", "", "harness_text"]


def test_a_row_of_swe_gym(tmp_path: Path) -> None:
    row = {
        "instance_id": "a__b-1",
        "run_id": "r",
        "resolved": False,
        "messages": [TASK, said("hm")],
        "tools": [TOOL],
        "test_result": {"git_patch": "d"},
    }
    item = one(tmp_path, row)
    assert (item.trajectory_id, item.patch, item.tools) == ("r", "d", (TOOL,))
    assert item.outcome.resolved is False


def test_sharegpt_runs_are_read(tmp_path: Path) -> None:
    turns = [
        {"from": "system", "value": "s"},
        {"from": "human", "value": "t"},
        {"from": "gpt", "value": "<function=bash>\n</function>"},
        {"from": "observation", "value": "o"},
        {"from": "gpt", "value": "", "weight": 1},
        {"from": "gpt", "value": "<function=x>", "weight": 0},
    ]
    item = one(tmp_path, {"conversations": turns, "label": "failure"})
    assert isinstance(item, Trajectory)
    roles = ["system", "user", "assistant", "tool", "assistant", "assistant"]
    assert [m.role for m in item.messages] == roles
    assert [m.train_reason for m in item.messages] == ["", "", "", "", "format_error", "masked"]
    assert (item.source_format, item.label) == ("conversations", SpeedrunLabel.FAILURE)


FENCE = said("```diff\nx\n```")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"messages": [TASK, said("<function=f>")]}, Trajectory),
        ({"messages": [TASK, said("", tool_calls=[CALL])], "instance_id": "i"}, Trajectory),
        ({"messages": [TASK, FENCE, TASK, FENCE], "instance_id": "i"}, Trajectory),
        ({"messages": [TASK, said("a")], "exit_status": "x"}, Trajectory),
        ({"messages": [TASK, said("a")], "model_patch": "x"}, Trajectory),
        ({"messages": [TASK, said("", tool_calls=[CALL])]}, Example),
        ({"messages": [TASK, FENCE], "instance_id": "i"}, Example),
        ({"messages": [TASK, FENCE, TASK, FENCE]}, Example),
        ({"messages": [{"role": "user", "content": "<function=f>"}, said("a")]}, Example),
        ({"messages": [TASK, said("a")], "instance_id": "i", "patch": "x"}, Example),
    ],
)
def test_which_chats_are_runs(tmp_path: Path, row: dict[str, Any], kind: type) -> None:
    assert type(one(tmp_path, row)) is kind
    text = {**row, "messages": json.dumps(row["messages"])}
    assert type(one(tmp_path, text)) is kind


def test_the_solution_of_a_task_is_not_what_the_agent_submitted(tmp_path: Path) -> None:
    row = {**SMITH, "messages": FORMS["tool"], "problem_statement": "p"}
    assert one(tmp_path, row).patch == ""
    assert one(tmp_path, {**row, "model_patch": "own"}).patch == "own"


def test_rows_of_nebius(tmp_path: Path) -> None:
    row = {
        "instance_id": "a__b-1",
        "model_name": "m",
        "target": False,
        "trajectory": [
            {"role": "system", "text": None, "system_prompt": "s", "mask": True},
            {"role": "user", "text": "t", "system_prompt": None, "mask": False},
            {"role": "ai", "text": "```\nls\n```", "mask": False, "cutoff_date": "2024"},
            {"role": "user", "text": "o", "mask": False},
            {"role": "ai", "text": "hidden", "mask": True},
            {"role": "ai", "text": "Exit due to context window", "mask": False},
        ],
        "exit_status": "submitted (exit_context)",
        "generated_patch": "d",
        "eval_logs": "long",
    }
    item = one(tmp_path, row)
    assert [(m.role, m.content, m.train_reason) for m in item.messages] == [
        ("system", "s", ""),
        ("user", "t", ""),
        ("assistant", "```\nls\n```", ""),
        ("user", "o", ""),
        ("assistant", "hidden", "masked"),
        ("assistant", "Exit due to context window", "harness_text"),
    ]
    assert item.outcome == Outcome(resolved=False, turns=2)
    assert (item.patch, item.submitted, item.source_format) == ("d", False, "nebius-swe-agent")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**SMITH, "messages": [TASK]}, "the trajectory has no turn of the agent"),
        ({**SMITH, "messages": "[{"}, "messages: truncated JSON"),
        ({**SMITH, "messages": [said("a")], "resolved": "maybe"}, "resolved must be true or false"),
        ({**SMITH, "messages": [said("a")], "tools": {"a": 1}}, "tools is an object, not a list"),
        ({**SMITH, "messages": [said("a", masked=True, train=True)]}, "contradict each other"),
        ({"trajectory": [{"role": "oracle", "text": "x"}]}, 'trajectory[0].role is "oracle"'),
        ({"conversations": [{"from": "bot", "value": "x"}], "run_id": "r"}, 'from is "bot"'),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    item = one(tmp_path, row)
    assert isinstance(item, Skip)
    assert message in item.detail


def test_real_rows_of_swe_smith(shared_data: Path) -> None:
    path = shared_data / "trajectories/swe-smith/ft_xml_example.jsonl.gz"
    read = list(open_source(str(path)))
    assert [type(item) for item in read] == [Trajectory] * 3
    assert [item.outcome.turns for item in read] == [37, 44, 22]
    assert all(item.messages[-1].trained for item in read)
    assert read[0].messages[-1].content.endswith("<function=submit>\n</function>")
