"""Rendering: what training sees, told by properties that hold for any text."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.rendering import QWEN_SYSTEM, Renderer, target_classes
from swe_scaffold.types import Example, Message, TokenizedExample, ToolCall, Verdict
from tests.chats import (
    PATCH,
    SPELT,
    chat,
    chats,
    decoded,
    encoded,
    honest,
    hostile,
    ids_of,
    own_ids,
    pair,
    refused,
    rendered,
    some,
    targets,
)
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="module")
def renderer(folder: Path) -> Renderer:
    return Renderer.load(folder)


@pytest.fixture(scope="module")
def official(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def controls(renderer: Renderer, row: TokenizedExample) -> list[int]:
    added = set(renderer.tokenizer.added.values())
    return [number for number in row.input_ids if number in added]


@some
@given(prompt=hostile, response=hostile)
def test_text_of_a_row_never_becomes_a_control_token(
    renderer: Renderer, prompt: str, response: str
) -> None:
    row = rendered(renderer, pair(prompt, f"a{response}"))
    assert controls(renderer, row) == controls(renderer, rendered(renderer, pair("p", "r")))


@some
@given(data=st.data())
def test_text_of_a_chat_never_becomes_a_control_token(renderer: Renderer, data: Any) -> None:
    example = data.draw(chats(hostile))
    calm = replace(
        example,
        messages=tuple(
            replace(
                message,
                content="c" if message.content else "",
                tool_calls=tuple(ToolCall("n", {}) for _ in message.tool_calls),
            )
            for message in example.messages
        ),
        tools=({},) * len(example.tools),
    )
    row, bare = rendered(renderer, example), rendered(renderer, calm)
    assert controls(renderer, row) == controls(renderer, bare)


@some
@given(prompt=honest, response=honest)
def test_ids_are_the_tokenizers_own(
    renderer: Renderer, official: Any, prompt: str, response: str
) -> None:
    example = pair(prompt, f"diff{response}")
    assert ids_of(rendered(renderer, example)) == own_ids(official, example)


@some
@given(example=chats())
def test_chats_with_tools_are_the_tokenizers_own(
    renderer: Renderer, official: Any, example: Example
) -> None:
    proof = renderer.prove([example])
    assert (proof.rows, proof.verdicts, proof.spelt_controls) == (1, 0, 1 if example.tools else 0)
    if proof.identical:
        assert ids_of(rendered(renderer, example)) == own_ids(official, example)
    else:
        assert proof.boundary_merges or example.tools


@some
@given(example=chats(hostile) | st.builds(pair, hostile, hostile.map("a{}".format)))
def test_targets_begin_where_generation_does(
    renderer: Renderer, official: Any, example: Example
) -> None:
    row = rendered(renderer, example)
    mask = row.loss_mask.tolist()
    begin = max(i for i in range(1, len(mask)) if mask[i] and not mask[i - 1])
    assert decoded(official, row.input_ids[:begin]).endswith("<|im_start|>assistant\n")


def test_the_default_system_message_is_qwens(renderer: Renderer, official: Any) -> None:
    text = decoded(official, rendered(renderer, pair("ask", "answer")).input_ids)
    assert text == (
        f"<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n<|im_start|>user\nask<|im_end|>\n"
        "<|im_start|>assistant\nanswer<|im_end|>\n"
    )


# What is trained.


@some
@given(prompt=hostile, response=hostile)
def test_trained_is_the_response_and_its_end(
    renderer: Renderer, official: Any, prompt: str, response: str
) -> None:
    response = f"a{response}"
    row = rendered(renderer, pair(prompt, response))
    assert decoded(official, targets(row)) == unicodedata.normalize("NFC", response) + "<|im_end|>"
    assert targets(row)[-1] == renderer.end_id
    assert targets(row).count(renderer.end_id) == 1
    assert row.response_bytes == len(response.encode())
    assert 0 <= min(row.input_ids) <= max(row.input_ids) < renderer.vocab_size
    # Only the newline after the end token follows the answer.
    assert row.loss_mask[-2:].tolist() == [True, False]


def test_each_trained_message_is_trained_with_its_end(renderer: Renderer, official: Any) -> None:
    call = ToolCall("open", {"path": "m.py"})
    example = chat(
        Message("user", "ask"),
        Message("assistant", "one", tool_calls=(call,)),
        Message("tool", "text"),
        Message("assistant", "two", train=False),
        Message("user", "more"),
        Message("assistant", ""),
        Message("assistant", "three"),
    )
    row = rendered(renderer, example)
    called = 'one\n<tool_call>\n{"name": "open", "arguments": {"path": "m.py"}}\n</tool_call>'
    assert decoded(official, targets(row)) == f"{called}<|im_end|>three<|im_end|>"
    assert row.response_bytes == len(called) + len("three")
    assert ids_of(row) == own_ids(official, example)


def test_an_answer_that_begins_with_newlines_is_split_from_its_header(
    renderer: Renderer, official: Any
) -> None:
    example = pair("ask", "\n\nanswer")
    row = rendered(renderer, example)
    assert decoded(official, targets(row)) == "\n\nanswer<|im_end|>"
    assert ids_of(row) != own_ids(official, example)
    proof = renderer.prove([example, pair("ask", "answer")])
    assert (proof.rows, proof.identical, proof.boundary_merges) == (2, 1, 1)


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (pair("ask", ""), "no_trainable_tokens"),
        (pair("ask", " \n"), "no_trainable_tokens"),
        (chat(Message("user", "a")), "no_trainable_tokens"),
        (chat(Message("user", "a"), Message("assistant", "b", train=False)), "no_trainable_tokens"),
        (chat(Message("user", "a", train=True), Message("assistant", "b")), "invalid_row"),
        (chat(Message("exit", "a"), Message("assistant", "b")), "invalid_row"),
        (
            chat(Message("user", "a", (ToolCall("f", {}),)), Message("assistant", "b")),
            "invalid_row",
        ),
        (chat(Message("assistant", "b", (ToolCall("f", {"x": float("nan")}),))), "invalid_row"),
        (chat(Message("user", "a"), Message("assistant", "b"), tools=({"x": {1}},)), "invalid_row"),
        (pair("half \ud800", "b"), "invalid_row"),
    ],
)
def test_rows_without_a_render_say_why(renderer: Renderer, example: Example, reason: str) -> None:
    verdict = refused(renderer, example)
    assert verdict.reason == reason
    assert verdict.detail


def test_many_at_once_is_the_same_as_one_by_one(renderer: Renderer) -> None:
    rows = [pair("a", "b"), pair("", ""), pair("c" * 2000, PATCH), chat(Message("tool", "x"))]
    assert list(renderer.render_many(rows)) == [renderer.render(row) for row in rows]
    limited = {"max_length": 400, "min_prompt_tokens": 10}
    assert list(renderer.render_many(rows, **limited)) == [
        renderer.render(row, **limited) for row in rows
    ]


lines = st.lists(
    st.text("abc <>|\n()é", max_size=60) | st.sampled_from([*SPELT, "", "x" * 300]), max_size=60
).map("\n".join)


@settings(some, max_examples=80)
@given(
    prompt=lines,
    response=st.text("abc\n+-", min_size=1, max_size=80).filter(str.strip),
    max_length=st.integers(1, 700),
    floor=st.integers(0, 150),
)
def test_max_length_cuts_prompts_only(
    renderer: Renderer, prompt: str, response: str, max_length: int, floor: int
) -> None:
    limits = {"max_length": max_length, "min_prompt_tokens": floor}
    full = rendered(renderer, pair(prompt, response))
    row = renderer.render(pair(prompt, response), **limits)
    assert row == renderer.render(pair(prompt, response), **limits)
    prompt_tokens = len(renderer.tokenizer.plain.encode(prompt, add_special_tokens=False).ids)
    if isinstance(row, Verdict):
        assert row.reason == "over_length"
        # 40 tokens: the marker and what re-tokenising at two cuts may cost.
        assert max_length < len(full.input_ids) - prompt_tokens + min(floor, prompt_tokens) + 40
        return
    assert len(row.input_ids) <= max_length
    assert targets(row) == targets(full)
    assert (row.prompt_cut == 0) == (ids_of(row) == ids_of(full))
    assert prompt_tokens - row.prompt_cut >= min(floor, prompt_tokens)


def test_the_middle_goes_at_line_bounds_and_a_marker_says_so(renderer: Renderer) -> None:
    prompt = "".join(f"line {number} of the issue\n" for number in range(200))
    result = encoded(renderer, pair(prompt, PATCH), max_length=600)
    content = result.messages[0].content
    head, _, rest = content.partition("[… ")
    count, marker, tail = rest.partition(" lines omitted …]\n")
    assert marker
    assert prompt.startswith(head)
    assert prompt.endswith(tail)
    assert head.count("\n") + int(count) + tail.count("\n") == 200
    assert abs(len(head) - len(tail)) < 60
    assert 600 - 40 < len(result.ids) <= 600


def test_one_endless_line_is_cut_inside(renderer: Renderer) -> None:
    result = encoded(renderer, pair("first\n" + "ab " * 5000 + "\nlast", PATCH), max_length=500)
    content = result.messages[0].content
    assert content.startswith("first\nab ab")
    assert content.endswith("ab \nlast")
    assert " characters omitted …]" in content
    assert 500 - 40 < len(result.ids) <= 500


def test_long_tool_output_is_cut_before_short_questions(renderer: Renderer, official: Any) -> None:
    messages = (
        Message("system", "rules\n" * 10),
        Message("user", "question\n" * 20),
        Message("assistant", "looking\n" * 50, tool_calls=(ToolCall("open", {"path": "a" * 90}),)),
        Message("tool", "output\n" * 3000),
        Message("tool", "more\n" * 2000),
        Message("assistant", "answer\n" * 30),
    )
    limits = {"max_length": 2000, "min_prompt_tokens": 64}
    row = rendered(renderer, chat(*messages), **limits)
    result = encoded(renderer, chat(*messages), **limits)
    assert 2000 - 100 < len(row.input_ids) <= 2000
    assert targets(row) == targets(rendered(renderer, chat(*messages)))
    kept = result.messages
    assert (kept[0], kept[1], kept[2], kept[5]) == (*messages[:3], messages[5])
    assert all("lines omitted" in kept[place].content for place in (3, 4))
    assert renderer.prove([chat(*messages)], **limits).identical == 1
    verdict = refused(renderer, chat(*messages), max_length=500)
    assert verdict.reason == "over_length"
    assert "500" in verdict.detail


def test_what_an_assistant_said_is_never_cut(renderer: Renderer) -> None:
    long = "answer\n" * 300
    assert refused(renderer, pair("ask", long), max_length=500).reason == "over_length"
    said = Message("assistant", long, train=False)
    example = chat(Message("user", "ask\n" * 300), said, Message("assistant", "ok"))
    result = encoded(renderer, example, max_length=2300)
    assert result.prompt_cut > 0
    assert result.messages[1] == said


def test_a_guess_too_low_is_mended(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swe_scaffold.rendering.renderer.character_marker", lambda count: "")
    messages = [Message("tool", "output\n" * 200) for _ in range(20)]
    example = chat(Message("user", "ask"), *messages, Message("assistant", "ok"))
    for max_length in range(2000, 2020):
        row = rendered(renderer, example, max_length=max_length, min_prompt_tokens=0)
        assert 500 < len(row.input_ids) <= max_length


def test_impossible_limits_are_refused(renderer: Renderer) -> None:
    with pytest.raises(UsageError):
        renderer.render(pair("a", "b"), max_length=0)


def test_each_target_has_the_class_of_its_line(renderer: Renderer, official: Any) -> None:
    example = pair("ask", PATCH)
    row = rendered(renderer, example)
    classes = target_classes(renderer, example, row)
    assert len(classes) == row.targets
    words: dict[str, str] = {}
    for name, number in zip(classes, targets(row), strict=True):
        words[name] = words.get(name, "") + decoded(official, [number])
    assert words["removed"] == "-b\n"
    assert words["added"] == "+c\n"
    assert words["context"] == " a\n"
    assert words["header"].startswith("diff --git")
    assert words["end"] == "<|im_end|>"
    with pytest.raises(IntegrityError):
        target_classes(renderer, pair("ask", "other"), row)


def test_targets_of_a_chat_are_text_and_ends(renderer: Renderer) -> None:
    example = chat(Message("user", "a"), Message("assistant", "bc"), Message("assistant", "d"))
    classes = target_classes(renderer, example, rendered(renderer, example))
    assert classes.count("end") == 2
    assert set(classes) == {"text", "end"}
