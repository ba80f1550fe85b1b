"""Rows people bring: messages, tool calls and training flags in their many spellings, one form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.jsonl import write_jsonl
from swe_scaffold.rows import example_to_row
from swe_scaffold.sources import open_source
from swe_scaffold.types import Example, Message, Skip, SpeedrunLabel, ToolCall

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


def one(folder: Path, row: dict[str, Any]) -> Example | Skip:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (item,) = open_source(str(path))
    assert isinstance(item, Example | Skip)
    return item


def example(folder: Path, **row: Any) -> Example:
    item = one(folder, row)
    assert isinstance(item, Example), item
    return item


def problem(folder: Path, **row: Any) -> str:
    item = one(folder, row)
    assert isinstance(item, Skip), item
    return item.detail.split(":1: ", 1)[1]


def test_a_single_turn_reads_as_prompt_and_response(tmp_path: Path) -> None:
    item = example(tmp_path, messages=[USER, ANSWER])
    assert (item.prompt, item.response, item.response_source) == ("q", "a", "messages")
    assert item.messages == (Message("user", "q"), Message("assistant", "a"))
    assert [message.trained for message in item.messages] == [False, True]
    assert item.label is SpeedrunLabel.SUCCESS
    assert item.instance_id == f"row-{item.meta['sha256'][:16]}"


def test_prompt_is_what_comes_before_the_last_answer(tmp_path: Path) -> None:
    system = {"role": "system", "content": "s"}
    thanks = {"role": "user", "content": "thanks"}
    item = example(tmp_path, messages=[system, USER, ANSWER, USER, ANSWER, thanks])
    assert item.prompt == "system:\ns\n\nuser:\nq\n\nassistant:\na\n\nuser:\nq"
    assert item.response == "a"
    assert len(item.messages) == 6


def test_a_chat_without_an_answer_has_an_empty_response(tmp_path: Path) -> None:
    item = example(tmp_path, messages=[USER])
    assert (item.prompt, item.response, item.label) == ("q", "", SpeedrunLabel.FAILURE)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("plain", "plain"),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        (["a", {"text": "b"}], "ab"),
    ],
)
def test_content_becomes_text(tmp_path: Path, content: Any, text: str) -> None:
    item = example(tmp_path, messages=[USER, {"role": "assistant", "content": content}])
    assert item.messages[1].content == text


@pytest.mark.parametrize(
    "call",
    [
        {"type": "function", "function": {"name": "f", "arguments": {"x": [1, "é"]}}},
        {"function": {"name": "f", "arguments": '{"x": [1, "\\u00e9"]}'}},
        {"name": "f", "arguments": {"x": [1, "é"]}},
    ],
)
def test_tool_calls_become_objects(tmp_path: Path, call: dict[str, Any]) -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", **call}]}
    result = {"role": "tool", "content": "out", "tool_call_id": "c1"}
    item = example(tmp_path, messages=[USER, turn, result], tools=[{"name": "f"}])
    assert item.messages[1].tool_calls == (ToolCall("f", {"x": [1, "é"]}, "c1"),)
    assert item.messages[2] == Message("tool", "out", tool_call_id="c1")
    assert item.response == '{"name": "f", "arguments": {"x": [1, "é"]}}'
    assert item.tools == ({"name": "f"},)
    assert item.label is SpeedrunLabel.SUCCESS


@pytest.mark.parametrize("arguments", [None, "", " ", {}])
def test_missing_arguments_are_an_empty_object(tmp_path: Path, arguments: Any) -> None:
    turn = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
    }
    assert example(tmp_path, messages=[USER, turn]).messages[1].tool_calls == (ToolCall("f", {}),)


def test_a_legacy_function_call_is_not_lost(tmp_path: Path) -> None:
    turn = {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}}
    item = example(tmp_path, messages=[USER, turn, {"role": "function", "content": "r"}])
    assert item.messages[1].tool_calls == (ToolCall("f", {}),)
    assert item.messages[2].role == "tool"


@pytest.mark.parametrize(
    ("flag", "train"),
    [
        ({"train": True}, True),
        ({"train": False}, False),
        ({"weight": 1}, True),
        ({"weight": 0}, False),
        ({"weight": 0.0}, False),
        ({"loss": False}, False),
        ({"masked": True}, False),
        ({"masked": False}, True),
        ({"masked": True, "weight": 0}, False),
        ({"train": None}, None),
        ({}, None),
    ],
)
def test_training_flags_are_read(tmp_path: Path, flag: dict[str, Any], train: bool | None) -> None:
    item = example(tmp_path, messages=[USER, {**ANSWER, **flag}])
    assert item.messages[1].train is train
    assert item.messages[1].trained is (train is not False)


@pytest.mark.parametrize("tools", [None, "", [], "[]"])
def test_no_tools_are_no_tools(tmp_path: Path, tools: Any) -> None:
    assert example(tmp_path, messages=[USER, ANSWER], tools=tools).tools == ()


def test_messages_and_tools_may_be_json_text(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    item = example(tmp_path, messages=json.dumps([USER, ANSWER]), tools=json.dumps(tools))
    assert item.response == "a"
    assert item.tools == tuple(tools)


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ("hello", "messages[1] is text, not an object"),
        ({"content": "x"}, 'messages[1].role is "", expected one of system, user'),
        ({"role": "exit", "content": "x"}, 'messages[1].role is "exit"'),
        ({"role": "\x1b[2J", "content": "x"}, 'messages[1].role is "\\x1b[2J"'),
        ({"role": 1}, "messages[1].role is a number, not text"),
        ({**ANSWER, "content": 7}, "messages[1].content is a number, not text"),
        (
            {**ANSWER, "content": [{"type": "image_url"}]},
            "messages[1].content[0] is image_url; only text is read",
        ),
        ({**ANSWER, "train": "yes"}, "messages[1].train must be true or false"),
        ({**ANSWER, "weight": 0.5}, "messages[1].weight must be true or false"),
        ({**ANSWER, "train": True, "masked": True}, "messages[1].train and masked contradict"),
        ({**ANSWER, "tool_calls": "no"}, "messages[1].tool_calls: not valid JSON"),
        ({**ANSWER, "tool_calls": [1]}, "messages[1].tool_calls[0] is a number"),
        ({**ANSWER, "tool_calls": [{}]}, "messages[1].tool_calls[0].name is missing"),
        (
            {**ANSWER, "tool_calls": [{"name": "f", "arguments": "[1]"}]},
            "messages[1].tool_calls[0].arguments is a list, not an object",
        ),
        (
            {**ANSWER, "tool_calls": [{"name": "f", "arguments": '{"a":1,"a":2}'}]},
            'messages[1].tool_calls[0].arguments: duplicate key "a"',
        ),
        (
            {**ANSWER, "tool_calls": [{"name": "f", "arguments": '{"a":' * 60 + "1" + "}" * 60}]},
            "messages[1].tool_calls[0].arguments: nested deeper",
        ),
    ],
)
def test_a_wrong_message_is_named(tmp_path: Path, message: Any, detail: str) -> None:
    assert detail in problem(tmp_path, messages=[USER, message])


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"messages": {"role": "user"}}, "messages is an object, not a list"),
        ({"messages": [ANSWER], "tools": {"a": 1}}, "tools is an object, not a list"),
        ({"messages": [ANSWER], "tools": ["f"]}, "tools[0] is text, not an object"),
        ({"messages": [ANSWER], "instance_id": 4}, "instance_id is a number"),
        ({"messages": [ANSWER], "label": "great"}, "label must be success or failure"),
        ({"prompt": 1, "response": "r"}, "prompt is a number, not text"),
        ({"prompt": "p", "response": {"a": 1}}, "response is an object, not text"),
        ({"prompt": " ", "response": "r"}, "prompt is empty"),
        ({"prompt": [USER], "completion": 5}, "completion is a number, not a list"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, row: dict[str, Any], detail: str) -> None:
    assert detail in problem(tmp_path, **row)


def test_prompt_and_completion_of_texts(tmp_path: Path) -> None:
    item = example(tmp_path, prompt="p", completion="r", instance_id="a__b-1", label="failure")
    assert (item.prompt, item.response, item.messages) == ("p", "r", ())
    assert (item.instance_id, item.repo, item.group) == ("a__b-1", "a/b", "a/b")
    assert item.label is SpeedrunLabel.FAILURE
    assert example(tmp_path, prompt="p", completion=None, response="r").response == "r"
    assert example(tmp_path, prompt="p", response=None).label is SpeedrunLabel.FAILURE


def test_prompt_and_completion_of_messages_train_the_completion_only(tmp_path: Path) -> None:
    item = example(tmp_path, prompt=[USER, ANSWER, USER], completion=[ANSWER])
    assert [message.trained for message in item.messages] == [False, False, False, True]
    assert item.response == "a"
    kept = example(tmp_path, prompt=[USER, {**ANSWER, "train": True}, USER], completion="a")
    assert [message.trained for message in kept.messages] == [False, True, False, True]


def test_instructions_are_read(tmp_path: Path) -> None:
    item = example(tmp_path, instruction="Do.", input="This.", output="Done.")
    assert (item.prompt, item.response) == ("Do.\n\nThis.", "Done.")
    assert example(tmp_path, instruction="Do.", input="", output="Done.").prompt == "Do."


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({}, "success"),
        ({"resolved": False}, "failure"),
        ({"pass_rate": 0.2}, "failure"),
        ({"pass_rate": 0.9, "turns": 40}, "failure"),
        ({"label": "success", "resolved": False}, "success"),
        ({"label": False}, "failure"),
    ],
)
def test_outcomes_decide_the_label(tmp_path: Path, fields: dict[str, Any], label: str) -> None:
    assert example(tmp_path, messages=[USER, ANSWER], **fields).label == label


def test_meta_keeps_small_facts(tmp_path: Path) -> None:
    item = example(tmp_path, messages=[USER, ANSWER], group="g", language="go", base_commit="c")
    assert item.group == "g"
    assert (item.meta["language"], item.meta["base_commit"]) == ("go", "c")
    assert item.meta["row"] == 1


def test_what_was_read_can_be_written_and_read_again(tmp_path: Path) -> None:
    call = {"name": "f", "arguments": {"x": {"y": [1.5, None, "\u2028"]}}}
    turn = {"role": "assistant", "content": "c", "tool_calls": [call], "train_reason": "said so"}
    item = example(tmp_path, messages=[USER, turn, {"role": "tool", "content": "o"}], tools=[call])
    write_jsonl(tmp_path / "built.jsonl", [example_to_row(item)])
    (again,) = open_source(str(tmp_path / "built.jsonl"))
    assert isinstance(again, Example)
    assert example_to_row(again) == example_to_row(item)


def test_sharegpt_conversations_are_chats(tmp_path: Path) -> None:
    said = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "o"},
        {"from": "gpt", "value": "a", "weight": 0},
    ]
    item = example(tmp_path, conversations=said, system="s", tools="[]")
    assert item.messages == (
        Message("system", "s"),
        Message("user", "q"),
        Message("assistant", "", (ToolCall("f", {"x": 1}),)),
        Message("tool", "o"),
        Message("assistant", "a", train=False),
    )
    assert item.response == "a"


@pytest.mark.parametrize(
    ("turn", "detail"),
    [
        ({"from": "narrator", "value": "x"}, 'conversations[0].from is "narrator", expected one'),
        ({"from": 3, "value": "x"}, "conversations[0].from is a number, not text"),
        ({"from": "function_call", "value": "f(1)"}, "conversations[0].value: not valid JSON"),
        ("hello", "conversations[0] is text, not an object"),
    ],
)
def test_a_wrong_sharegpt_turn_is_named(tmp_path: Path, turn: Any, detail: str) -> None:
    assert detail in problem(tmp_path, conversations=[turn])
