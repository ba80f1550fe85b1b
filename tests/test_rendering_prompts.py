"""What a model is asked is what it was trained on, token for token; what it writes can be read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.rendering import Encoded, Renderer, asked
from swe_scaffold.types import Example, Message, ToolCall, Verdict
from tests.chats import TOOL, chat, chats, encoded, hostile, ids_of, pair, rendered, some
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer.load(tiny_tokenizer(tmp_path_factory.mktemp("tokenizers")))


def prompted(renderer: Renderer, example: Example, **limits: Any) -> Encoded:
    found = renderer.prompt(example, **limits)
    assert isinstance(found, Encoded), found
    return found


def answer_ids(renderer: Renderer, text: str) -> tuple[int, ...]:
    return tuple(renderer.tokenizer.plain.encode(text, add_special_tokens=False).ids)


@some
@given(prompt=hostile, response=hostile)
def test_prompt_response_and_end_are_what_training_sees(
    renderer: Renderer, prompt: str, response: str
) -> None:
    example = pair(prompt, f"a{response}")
    begun = prompted(renderer, example).ids
    newline = answer_ids(renderer, "\n")
    answer = (*answer_ids(renderer, example.response), renderer.end_id)
    assert (*begun, *answer, *newline) == ids_of(rendered(renderer, example))


@some
@given(data=st.data())
def test_a_chat_is_asked_for_its_last_turn(renderer: Renderer, data: Any) -> None:
    example = data.draw(chats(hostile))
    whole = encoded(renderer, example)
    begun = prompted(renderer, example)
    assert begun.ids == whole.ids[: len(begun.ids)]
    last = example.messages[-1]
    rest = (*answer_ids(renderer, last.content), renderer.end_id, *answer_ids(renderer, "\n"))
    assert whole.ids[len(begun.ids) :] == rest


@pytest.mark.parametrize("room", [90, 120, 200, 333])
def test_a_prompt_is_shortened_as_in_training(renderer: Renderer, room: int) -> None:
    lines = "".join(f"The function add returns {number}, a wrong value.\n" for number in range(40))
    example = pair(lines, "- return first\n+ return second\n")
    after = len(answer_ids(renderer, example.response)) + 1 + len(answer_ids(renderer, "\n"))
    row = rendered(renderer, example, max_length=room + after, min_prompt_tokens=16)
    begun = prompted(renderer, example, max_length=room, min_prompt_tokens=16)
    assert begun.prompt_cut == row.prompt_cut > 0
    assert begun.ids == ids_of(row)[: len(begun.ids)]
    assert len(row.input_ids) - len(begun.ids) == after
    assert len(begun.ids) <= room


def test_a_prompt_that_cannot_be_shortened_says_so(renderer: Renderer) -> None:
    found = renderer.prompt(pair("word " * 400, "r"), max_length=64, min_prompt_tokens=128)
    assert isinstance(found, Verdict)
    assert found.reason == "over_length"


def test_turns_of_the_assistant_at_the_end_are_what_is_asked_for() -> None:
    user, tool = Message("user", "u"), Message("tool", "t")
    one, two = Message("assistant", "one"), Message("assistant", "two")
    assert asked(chat(user, one, tool, two, one)) == (user, one, tool)
    assert asked(chat(user, one, tool)) == (user, one, tool)
    assert asked(chat(one)) == ()
    assert asked(pair("p", "r")) == (Message("user", "p"),)


def test_a_chat_of_answers_alone_asks_nothing(renderer: Renderer) -> None:
    found = renderer.prompt(chat(Message("assistant", "one")))
    assert isinstance(found, Verdict)
    assert found.reason == "invalid_row"


def test_what_was_rendered_is_read_back(renderer: Renderer) -> None:
    call = ToolCall("open", {"path": "é"})
    example = chat(
        Message("user", "why?"),
        Message("assistant", "so 日本 é", tool_calls=(call,)),
        tools=(TOOL,),
    )
    row, begun = encoded(renderer, example), prompted(renderer, example)
    text = renderer.decode(row.ids[len(begun.ids) :])
    assert text == (
        'so 日本 é\n<tool_call>\n{"name": "open", "arguments": {"path": "é"}}\n</tool_call>'
        "<|im_end|>\n"
    )
    assert renderer.decode([]) == ""
    assert renderer.decode([10**6]) == ""


def test_the_answer_does_not_change_the_prompt(renderer: Renderer) -> None:
    example = pair("p", "r")
    other = replace(example, response="another")
    assert prompted(renderer, example).ids == prompted(renderer, other).ids
