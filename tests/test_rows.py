"""Rows: what is written is read back unchanged, and what was changed meanwhile is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.errors import DataError
from swe_scaffold.rows import (
    BuiltFiles,
    content_sha256,
    example_to_row,
    make_example,
    row_to_example,
    skip_to_row,
)
from swe_scaffold.types import (
    Example,
    Message,
    Origin,
    Skip,
    SourceFields,
    SpeedrunLabel,
    ToolCall,
)

ORIGIN = Origin("source.jsonl", 3)
KEYS = ["instance_id", "repo", "prompt", "response", "response_source", "label", "meta"]
texts = st.text(st.characters(codec="utf-8"), max_size=30)
objects = st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts, max_size=2)
calls = st.builds(ToolCall, name=texts, arguments=objects, id=texts)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=texts,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=texts,
    train=st.none() | st.booleans(),
    train_reason=texts,
)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    chat = draw(st.lists(messages, max_size=3))
    return make_example(
        instance_id=draw(texts),
        repo=draw(texts),
        prompt=draw(texts),
        response=draw(texts),
        response_source="messages" if chat else "patch",
        label=draw(st.sampled_from(SpeedrunLabel)),
        origin=ORIGIN,
        messages=chat,
        tools=draw(st.lists(objects, max_size=1)) if chat else (),
        group=draw(texts),
        meta=draw(objects),
    )


def a_row(**changes: Any) -> dict[str, Any]:
    example = make_example(
        instance_id="a__b-1",
        repo="a/b",
        prompt="why",
        response="because",
        response_source="response",
        label=SpeedrunLabel.SUCCESS,
        origin=ORIGIN,
    )
    return {**example_to_row(example), **changes}


@given(examples())
def test_a_row_survives_writing_and_reading(example: Example) -> None:
    row = example_to_row(example)
    text = json.dumps(row, allow_nan=False)
    again = row_to_example(json.loads(text), Origin("elsewhere", 9))
    assert json.dumps(example_to_row(again)) == text
    assert (again.prompt, again.response, again.label) == (
        example.prompt,
        example.response,
        example.label,
    )
    assert [m.trained for m in again.messages] == [m.trained for m in example.messages]


def test_key_order_and_meta_are_the_contract() -> None:
    row = a_row()
    assert list(row) == KEYS
    assert list(row["meta"]) == ["group", "source", "row", "sha256"]
    assert (row["meta"]["group"], row["meta"]["source"], row["meta"]["row"]) == (
        "a/b",
        *("source.jsonl", 3),
    )


def test_chat_rows_carry_messages_before_meta() -> None:
    example = make_example(
        instance_id="x",
        repo="",
        prompt="",
        response="hi",
        response_source="messages",
        label=SpeedrunLabel.SUCCESS,
        origin=ORIGIN,
        messages=[Message("user", "hello"), Message("assistant", "hi")],
    )
    row = example_to_row(example)
    assert list(row) == [*KEYS[:-1], "messages", "tools", "meta"]
    assert [message["train"] for message in row["messages"]] == [False, True]


def test_an_id_is_derived_from_content() -> None:
    first, second = (
        make_example(
            instance_id="",
            repo="",
            prompt=prompt,
            response="r",
            response_source="response",
            label=SpeedrunLabel.SUCCESS,
            origin=ORIGIN,
        )
        for prompt in ("a", "b")
    )
    assert first.instance_id == f"row-{content_sha256('a', 'r')[:16]}"
    assert first.instance_id != second.instance_id
    assert first.group == first.instance_id


@pytest.mark.parametrize("key", ["prompt", "response"])
def test_changed_content_is_refused(key: str) -> None:
    with pytest.raises(DataError, match="changed after the row was built"):
        row_to_example(a_row(**{key: "something else"}), ORIGIN)


def test_changed_training_marks_are_refused() -> None:
    chat = [Message("user", "a"), Message("assistant", "b")]
    row = example_to_row(
        make_example(
            instance_id="x",
            repo="",
            prompt="a",
            response="b",
            response_source="messages",
            label=SpeedrunLabel.SUCCESS,
            origin=ORIGIN,
            messages=chat,
        )
    )
    row["messages"][0]["train"] = True
    with pytest.raises(DataError, match="changed after"):
        row_to_example(row, ORIGIN)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": None}, "prompt is NoneType"),
        ({"label": "maybe"}, "label must be success or failure"),
        ({"label": 1}, "label is int"),
        ({"meta": "x"}, "meta must be an object"),
        ({"messages": "abc"}, "messages must be a list of objects"),
        ({"messages": ["abc"]}, "messages must be a list of objects"),
        ({"messages": [{"role": "user"}]}, "content is missing"),
        ({"messages": [{"role": "user", "content": "a", "train": 1}]}, "train must be true"),
        ({"messages": [{"role": "a", "content": "", "tool_calls": 5}]}, "tool_calls must be"),
        (
            {"messages": [{"role": "a", "content": "", "tool_calls": [{"function": "f"}]}]},
            "needs a name",
        ),
        ({"tools": "bash"}, "tools must be a list of objects"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_wrong_types_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        row_to_example(a_row(**changes), ORIGIN)


def test_a_missing_key_is_named() -> None:
    row = a_row()
    del row["response"]
    with pytest.raises(DataError, match="response is missing"):
        row_to_example(row, ORIGIN)


def test_meta_cannot_overwrite_the_contract() -> None:
    example = make_example(
        instance_id="x",
        repo="r",
        prompt="p",
        response="r",
        response_source="response",
        label=SpeedrunLabel.SUCCESS,
        origin=ORIGIN,
        meta={"sha256": "forged", "group": "forged", "difficulty": 2},
    )
    assert example.meta["sha256"] == content_sha256("p", "r")
    assert example.meta["group"] == "r"
    assert example.meta["difficulty"] == 2


def test_a_skipped_row_has_the_seed_keys_first() -> None:
    skip = Skip("id", "empty_response", SourceFields(has_patch=True), 7, "stage", ORIGIN, "why")
    row = skip_to_row(skip)
    assert list(row)[:4] == ["instance_id", "reason", "source_fields", "patch_len"]
    assert row["source_fields"] == {
        "has_change_summary": False,
        "has_patch": True,
        "has_test_patch": False,
    }
    assert (row["patch_len"], row["stage"], row["source"], row["row"]) == (
        7,
        "stage",
        *("source.jsonl", 3),
    )


def test_files_that_belong_together() -> None:
    files = BuiltFiles.of(Path("data/x.jsonl"))
    assert files.test == Path("data/x.test.jsonl")
    assert files.skipped == Path("data/x.skipped.jsonl")
    assert files.manifest == Path("data/x.jsonl.manifest.json")
    assert BuiltFiles.of(Path("x.jsonl"), Path("y.jsonl")).skipped == Path("y.jsonl")
