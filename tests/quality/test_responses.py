"""Responses: blank ones are empty, short patches are short, nothing else is."""

from __future__ import annotations

import pytest

from swe_scaffold.quality.responses import has_response, judge_empty, judge_short
from swe_scaffold.rows import make_example
from swe_scaffold.types import Example, Message, Origin, SpeedrunLabel, Task, ToolCall

ORIGIN = Origin("s", 1)
TASK = Task("id", "a/b", "problem", ORIGIN)


def answer(response: str, source: str = "patch", messages: tuple[Message, ...] = ()) -> Example:
    return make_example(
        instance_id="id",
        repo="a/b",
        prompt="p",
        response=response,
        response_source=source,
        label=SpeedrunLabel.SUCCESS,
        origin=ORIGIN,
        messages=messages,
    )


@pytest.mark.parametrize("blank", ["", " ", "\n\t\r ", "\u00a0\u2003"])
def test_white_space_alone_is_empty(blank: str) -> None:
    assert judge_empty(answer(blank), TASK).reason == "empty_response"
    assert judge_empty(answer(blank, "response"), None).reason == "empty_response"


@pytest.mark.parametrize("text", ["x", " x ", "\u200b", "0"])
def test_anything_else_is_an_answer(text: str) -> None:
    assert judge_empty(answer(text), TASK).keep


def test_a_chat_needs_one_trained_message_that_says_something() -> None:
    user, silent = Message("user", "hi"), Message("assistant", " ")
    call = Message("assistant", "", tool_calls=(ToolCall("ls", {}),))
    masked = Message("assistant", "hello", train=False)
    assert not has_response(answer("", "messages", (user, silent)))
    assert not has_response(answer("hello", "messages", (user, masked)))
    assert has_response(answer("", "messages", (user, call)))
    assert has_response(answer("", "messages", (user, masked, Message("assistant", "x"), silent)))


@pytest.mark.parametrize("source", ["patch", "test_patch"])
def test_short_patches_are_skipped_below_the_bound(source: str) -> None:
    judge = judge_short(5)
    assert judge(answer("1234", source), TASK).reason == "short_patch"
    assert "4 characters" in judge(answer("1234", source), TASK).detail
    assert judge(answer("12345", source), TASK).keep


@pytest.mark.parametrize("source", ["change_summary", "response", "messages", "none"])
def test_only_patches_can_be_short(source: str) -> None:
    assert judge_short(1000)(answer("x", source), TASK).keep
