"""Responses: blank ones are empty, short and long ones are what the bounds say, nothing else is."""

from __future__ import annotations

import pytest

from swe_scaffold.quality.responses import has_response, judge_empty, judge_long, judge_short
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


def test_bounds_that_are_not_set_judge_nothing() -> None:
    assert judge_short(0) is None
    assert judge_long(response=None, patch=None) is None


@pytest.mark.parametrize(
    ("bounds", "source", "longest"),
    [
        ({"response": 9, "patch": None}, "response", 9),
        ({"response": 9, "patch": None}, "patch", 9),
        ({"response": 9, "patch": 4}, "patch", 4),
        ({"response": 4, "patch": 9}, "test_patch", 4),
        ({"response": 9, "patch": 4}, "change_summary", 9),
    ],
)
def test_long_responses_are_skipped_above_the_bound(
    bounds: dict[str, int | None], source: str, longest: int
) -> None:
    judge = judge_long(**bounds)
    assert judge is not None
    assert judge(answer("x" * longest, source), TASK).keep
    verdict = judge(answer("x" * (longest + 1), source), TASK)
    assert verdict.reason == "long_response"
    assert verdict.detail == f"{longest + 1} characters, more than {longest}"


def test_a_patch_bound_leaves_other_responses_alone() -> None:
    judge = judge_long(response=None, patch=4)
    assert judge is not None
    assert judge(answer("x" * 100, "response"), TASK).keep


def test_of_a_chat_all_trained_text_counts_and_nothing_else() -> None:
    call = Message("assistant", "12345", tool_calls=(ToolCall("ls", {"a": 1}),))
    unseen = (Message("user", "x" * 99), Message("assistant", "x" * 99, train=False))
    judge = judge_long(response=5 + len("ls") + len('{"a": 1}'), patch=1)
    assert judge is not None
    assert judge(answer("12345", "messages", (*unseen, call)), None).keep
    more = Message("assistant", "!")
    assert judge(answer("!", "messages", (*unseen, call, more)), None).reason == "long_response"
