"""Rows as ATIF: the document keeps the format's rules, and the same chat is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.dataset.atif import example_to_atif
from swe_scaffold.errors import DataError
from swe_scaffold.rows import make_example, message_to_dict
from swe_scaffold.sources import atif
from swe_scaffold.types import Example, Message, Origin, SpeedrunLabel, ToolCall, Trajectory

ORIGIN = Origin("rows.jsonl", 3)
TOOL = {"type": "function", "function": {"name": "bash", "parameters": {}}}
LS = ToolCall("bash", {"command": "ls", "deep": {"n": [1, 2.5, None]}}, "c1")
CHAT = (
    Message("system", "be brief"),
    Message("user", "fix it"),
    Message("assistant", "look", (LS,), train=True),
    Message("tool", "a.py", tool_call_id="c1"),
    Message("assistant", "oops", train=False, train_reason="failed_action"),
    Message("user", "no"),
    Message("assistant", "done", train=True),
)


def row(*messages: Message, **fields: Any) -> Example:
    known: dict[str, Any] = {
        "instance_id": "own__repo-1",
        "repo": "own/repo",
        "prompt": "fix it",
        "response": "done",
        "response_source": "trajectory",
        "label": SpeedrunLabel.FAILURE,
        "origin": ORIGIN,
    }
    return make_example(**{**known, "messages": messages, "tools": (TOOL,), **fields})


def there_and_back(example: Example) -> Trajectory:
    text = json.dumps(example_to_atif(example), allow_nan=False)
    return atif.read(json.loads(text), ORIGIN)


def as_written(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [message_to_dict(message) for message in messages]


def check_rules(document: dict[str, Any]) -> None:
    """Check what Harbor's models check of the parts that are written here."""
    assert document["schema_version"] == "ATIF-v1.7"
    assert {"name", "version"} <= document["agent"].keys()
    assert document["steps"]
    for number, step in enumerate(document["steps"], 1):
        assert step["step_id"] == number
        assert step["source"] in {"system", "user", "agent"}
        assert isinstance(step["message"], str)
        assert step["source"] == "agent" or "tool_calls" not in step
        ids = {call["tool_call_id"] for call in step.get("tool_calls", ())}
        assert "" not in ids
        for result in step.get("observation", {"results": []})["results"]:
            assert result.get("source_call_id") in {None, *ids}


def test_a_chat_survives_the_way_there_and_back() -> None:
    example = row(*CHAT, meta={"model": "m", "resolved": False, "exit_status": "Limits"})
    check_rules(example_to_atif(example))
    back = there_and_back(example)
    assert as_written(back.messages) == as_written(example.messages)
    assert (back.instance_id, back.repo, back.model) == ("own__repo-1", "own/repo", "m")
    assert back.label is SpeedrunLabel.FAILURE
    assert back.outcome.resolved is False
    assert back.exit_status == "Limits"
    assert back.tools == (TOOL,)
    assert back.left_out == {}


@pytest.mark.parametrize(
    "chat",
    [
        (Message("assistant", "x", (ToolCall("f", {}),)), Message("tool", "y")),
        (Message("assistant", "", (LS, ToolCall("f", {}, "c2"))), Message("tool", "y", (), "c2")),
        (Message("assistant", "x"), Message("tool", "y", (), "elsewhere")),
        (Message("user", "x"), Message("tool", "y", (), "c1"), Message("assistant", "z")),
        (Message("assistant", "x", train=False), Message("assistant", "y")),
        (Message("user", "only a question"),),
    ],
    ids=["no-ids", "two-calls", "unknown-id", "after-a-user", "no-reason", "no-answer"],
)
def test_odd_chats_survive_too(chat: tuple[Message, ...]) -> None:
    example = row(*chat)
    check_rules(example_to_atif(example))
    assert as_written(there_and_back(example).messages) == as_written(chat)


def test_copied_and_scripted_turns_carry_the_formats_own_marks() -> None:
    steps = example_to_atif(
        row(
            Message("assistant", "a", train=False, train_reason="copied_context"),
            Message("assistant", "b", train=False, train_reason="scripted"),
            Message("assistant", "c"),
        )
    )["steps"]
    assert steps[0]["is_copied_context"] is True
    assert steps[1]["llm_call_count"] == 0
    assert {"is_copied_context", "llm_call_count", "extra"}.isdisjoint(steps[2])


def test_a_pair_is_two_steps() -> None:
    steps = example_to_atif(row())["steps"]
    assert [(step["source"], step["message"]) for step in steps] == [
        *(("user", "fix it"), ("agent", "done"))
    ]


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (row(Message("tool", "x")), "begins with a tool's answer"),
        (row(Message("critic", "x")), "no role critic"),
        (row(Message("user", "x", train=True)), "is not trained"),
        (row(Message("user", "x", (LS,))), "calls no tools"),
    ],
)
def test_what_the_format_cannot_say_is_refused(example: Example, message: str) -> None:
    with pytest.raises(DataError, match=message):
        example_to_atif(example)


def test_only_strict_json_is_written() -> None:
    example = row(*CHAT, meta={"score": float("nan")})
    with pytest.raises(DataError, match="JSON cannot say"):
        example_to_atif(example)


calls = st.builds(
    ToolCall,
    st.sampled_from(["bash", "edit"]),
    st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=3)),
    st.sampled_from(["", "c1", "c2", "call_1_1"]),
)
turns = st.one_of(
    st.builds(Message, st.sampled_from(["system", "user"]), st.text(max_size=4)),
    st.builds(
        lambda content, made: Message("assistant", content, tuple(made)),
        st.text(max_size=4),
        st.lists(calls, max_size=2),
    ),
    st.builds(
        lambda content, id: Message("tool", content, (), id),
        st.text(max_size=4),
        st.sampled_from(["", "c1", "c2", "call_2_1", "else"]),
    ),
)


@pytest.mark.slow
@given(st.lists(turns, min_size=1, max_size=8))
def test_any_chat_is_the_same_chat_afterwards(chat: list[Message]) -> None:
    if chat[0].role == "tool":
        return
    example = row(*chat)
    check_rules(example_to_atif(example))
    assert as_written(there_and_back(example).messages) == as_written(tuple(chat))
