"""mini-swe-agent's documents, v1 and v2: what was said, without how the run ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.sources import open_source
from swe_scaffold.types import Message, Outcome, Skip, ToolCall, Trajectory

SYSTEM = {"role": "system", "content": "s"}
TASK = {"role": "user", "content": "t"}
COMPLAINT = "Please always provide EXACTLY ONE action in triple backticks, found 2 actions."


def said(content: str, **extra: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "extra": {"response": "{}", **extra}}


def bash(command: str) -> dict[str, Any]:
    function = {"name": "bash", "arguments": json.dumps({"command": command})}
    calls = [{"index": 0, "id": "c1", "type": "function", "function": function}]
    extra = {"actions": [{"command": command, "tool_call_id": "c1"}], "response": {}}
    return {"role": "assistant", "content": "", "tool_calls": calls, "extra": extra}


def seen(output: str, **extra: Any) -> dict[str, Any]:
    return {"role": "tool", "content": output, "tool_call_id": "c1", "extra": extra}


def document(version: str, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    info = {
        "exit_status": "Submitted",
        "submission": "the patch",
        "config": {"model": {"model_name": "m"}},
    }
    return {
        "info": info,
        "messages": [SYSTEM, TASK, *messages],
        "trajectory_format": version,
        "instance_id": "a__b-1",
        **more,
    }


def items(folder: Path, value: Any, name: str = "a__b-1.traj.json") -> list[Any]:
    (folder / name).write_text(json.dumps(value, indent=1), encoding="utf-8")
    return list(open_source(str(folder / name)))


def one(folder: Path, value: Any, name: str = "a__b-1.traj.json") -> Trajectory:
    (item,) = items(folder, value, name)
    assert isinstance(item, Trajectory), item
    return item


def tail(trajectory: Trajectory) -> list[tuple[str, str, str]]:
    return [(m.role, m.content, m.train_reason) for m in trajectory.messages[2:]]


def test_version_one_ends_with_the_submission(tmp_path: Path) -> None:
    messages = (
        said("```bash\nls\n```"),
        {"role": "user", "content": "x.py"},
        said("```bash\nx\n```"),
    )
    value = document("mini-swe-agent-1", *messages, {"role": "user", "content": "the patch"})
    item = one(tmp_path, value)
    assert tail(item) == [
        ("assistant", "```bash\nls\n```", ""),
        ("user", "x.py", ""),
        ("assistant", "```bash\nx\n```", ""),
    ]
    assert [m.trained for m in item.messages] == [False, False, True, False, True]
    assert item.left_out == {"api_response": 2, "exit_message": 1}
    assert (item.patch, item.exit_status, item.submitted) == ("the patch", "Submitted", True)
    assert (item.instance_id, item.repo, item.model) == ("a__b-1", "a/b", "m")
    assert (item.outcome, item.source_format) == (Outcome(turns=2), "mini-swe-agent-1")


def test_a_run_that_was_cut_short_keeps_its_last_observation(tmp_path: Path) -> None:
    value = document("mini-swe-agent-1", said("```bash\nls\n```"), {"role": "user", "content": "x"})
    value["info"]["exit_status"] = None
    item = one(tmp_path, value)
    assert item.messages[-1].content == "x"
    assert (item.submitted, item.left_out) == (False, {"api_response": 1})


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("", COMPLAINT),
        ("Please always provide EXACTLY ONE action{{ n }}", COMPLAINT),
        (
            "Only one of your commands is allowed, found {{n}}",
            "Only one of your commands is allowed, found 3",
        ),
    ],
)
def test_a_turn_whose_form_was_refused_is_not_learnt(
    tmp_path: Path, template: str, complaint: str
) -> None:
    value = document(
        "mini-swe-agent-1", said("two"), {"role": "user", "content": complaint}, said("x")
    )
    value["info"]["config"]["agent"] = {"format_error_template": template}
    assert tail(one(tmp_path, value))[:2] == [
        ("assistant", "two", "format_error"),
        ("user", complaint, ""),
    ]


def test_version_two_calls_tools(tmp_path: Path) -> None:
    end = {"role": "exit", "content": "the patch", "extra": {"submission": "the patch"}}
    item = one(
        tmp_path, document("mini-swe-agent-1.1", bash("ls"), seen("x.py"), bash("done"), end)
    )
    assert item.messages[2:] == (
        Message("assistant", "", (ToolCall("bash", {"command": "ls"}, "c1"),), train=True),
        Message("tool", "x.py", tool_call_id="c1", train=False),
        Message("assistant", "", (ToolCall("bash", {"command": "done"}, "c1"),), train=True),
    )
    assert item.left_out == {"exit_message": 1}


def test_a_refused_reply_that_was_not_kept_is_counted(tmp_path: Path) -> None:
    error = {
        "role": "user",
        "content": "No action.",
        "extra": {"interrupt_type": "FormatError", "model_response": "hm"},
    }
    item = one(tmp_path, document("mini-swe-agent-1.1", bash("ls"), seen("x"), error, bash("done")))
    assert item.left_out == {"rejected_responses": 1}
    assert [m.trained for m in item.messages] == [False, False, True, False, False, True]
    kept = one(tmp_path, document("mini-swe-agent-1.1", said("two"), error, bash("done")))
    assert tail(kept)[0] == ("assistant", "two", "format_error")
    assert "rejected_responses" not in kept.left_out


def test_a_reply_without_an_action_is_not_learnt(tmp_path: Path) -> None:
    item = one(tmp_path, document("mini-swe-agent-1.1", said("hm", actions=[]), bash("done")))
    assert [reason for _, _, reason in tail(item)] == ["format_error", ""]


def test_items_of_the_responses_api_are_one_turn(tmp_path: Path) -> None:
    reply = {
        "object": "response",
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "content": [{"type": "output_text", "text": "Look."}]},
            {
                "type": "function_call",
                "call_id": "c9",
                "name": "bash",
                "arguments": '{"command": "ls"}',
            },
        ],
        "extra": {"actions": [{"command": "ls"}]},
    }
    output = {"type": "function_call_output", "call_id": "c9", "output": "x.py"}
    error = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "No tool calls found"}],
        "extra": {"interrupt_type": "FormatError"},
    }
    end = {"type": "message", "role": "exit", "content": ""}
    item = one(tmp_path, document("mini-swe-agent-1.1", reply, output, error, reply, end))
    turn = Message("assistant", "Look.", (ToolCall("bash", {"command": "ls"}, "c9"),), train=True)
    assert item.messages[2:] == (
        turn,
        Message("tool", "x.py", tool_call_id="c9", train=False),
        Message("user", "No tool calls found", train=False),
        turn,
    )
    assert item.left_out == {"exit_message": 1, "reasoning": 2, "rejected_responses": 1}


def test_a_scripted_model_teaches_nothing(tmp_path: Path) -> None:
    value = document("mini-swe-agent-1.1", bash("ls"), seen("x"))
    value["info"]["config"]["model_type"] = "minisweagent.models.test_models.DeterministicModel"
    assert [reason for role, _, reason in tail(one(tmp_path, value)) if role == "assistant"] == [
        "scripted"
    ]


def test_a_bare_list_of_messages_is_a_run_named_after_its_file(tmp_path: Path) -> None:
    command = "```mswea_bash_command\necho COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\n```"
    turns = [SYSTEM, TASK, {"role": "assistant", "content": command}]
    item = one(tmp_path, [*turns, {"role": "user", "content": "diff"}], "owner__name-3.traj.json")
    assert (item.instance_id, item.repo, item.submitted) == ("owner__name-3", "owner/name", None)
    assert item.left_out == {"exit_message": 1}
    assert item.messages[-1].content == command


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("none", "messages: not valid JSON"),
        ([], "the trajectory has no turn of the agent"),
        ([SYSTEM, {"role": "narrator", "content": "x"}], 'messages[1].role is "narrator"'),
        ([SYSTEM, "x"], "messages[1] is text, not an object"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, messages: Any, message: str) -> None:
    (item,) = items(tmp_path, {**document("mini-swe-agent-1.1"), "messages": messages})
    assert isinstance(item, Skip)
    assert message in item.detail


def test_real_runs_of_both_versions(shared_data: Path) -> None:
    folder = shared_data / "trajectories"
    (old,) = open_source(str(folder / "mini-swe-agent-gemini/astropy__astropy-14309.traj.json.gz"))
    assert isinstance(old, Trajectory)
    assert [i for i, m in enumerate(old.messages) if m.train_reason == "format_error"]
    for message, after in zip(old.messages, old.messages[1:], strict=False):
        refused = after.content.startswith("Please always provide EXACTLY ONE action")
        assert (message.train_reason == "format_error") == refused
    name = "deepseek_chat_dev/marshmallow-code__marshmallow-1343.traj.json.gz"
    (new,) = open_source(str(folder / "mini-swe-agent-deepseek" / name))
    assert isinstance(new, Trajectory)
    assert len([m for m in new.messages if m.trained]) == new.outcome.turns == 104
    assert new.messages[-1].tool_calls[0].arguments == {
        "command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt"
    }
    assert new.patch.startswith("diff --git a/src/marshmallow/marshalling.py")
    ids = {call.id for message in new.messages for call in message.tool_calls}
    assert all(m.tool_call_id in ids for m in new.messages if m.role == "tool")
