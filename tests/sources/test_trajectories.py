"""Trajectories among other rows: told apart by content, read in linear time, refused in words."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.errors import DataError
from swe_scaffold.sources import open_source
from swe_scaffold.sources.shapes import read_row
from swe_scaffold.sources.trajectories import FORMATS, TRAJECTORY_KEYS, find_format
from swe_scaffold.types import Example, Origin, Skip, Task, Trajectory

HERE = Origin("x.jsonl", 1)
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ONE_OF_EACH: dict[str, dict[str, Any]] = {
    "mini-swe-agent": {"trajectory_format": "mini-swe-agent-1.1", "messages": TURNS},
    "SWE-agent": {"history": TURNS},
    "OpenHands output": {"raw_completions": {"messages": TURNS}},
    "nebius rows": {"trajectory": [{"role": "user", "text": "q"}, {"role": "ai", "text": "a"}]},
    "OpenHands rows": {"trajectory": TURNS},
    "agent chat": {"messages": TURNS, "traj_id": "t"},
}


@pytest.mark.parametrize(("name", "row"), ONE_OF_EACH.items())
def test_each_format_is_known_by_its_content(name: str, row: dict[str, Any]) -> None:
    assert [format.name for format in FORMATS if format.recognise(row)] == [name]
    item = read_row(row, HERE)
    assert isinstance(item, Trajectory)
    assert [(m.role, m.content, m.train) for m in item.messages] == [
        ("user", "q", False),
        ("assistant", "a", True),
    ]
    assert item.origin == HERE


def test_every_format_has_an_example_here() -> None:
    assert {format.name for format in FORMATS} >= set(ONE_OF_EACH)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS},
        {"problem_statement": "p", "patch": "x"},
        {"prompt": "p", "response": "r"},
        {"history": []},
        {"trajectory": []},
        {"trajectory": "a path"},
        {},
    ],
)
def test_other_rows_are_no_trajectories(row: dict[str, Any]) -> None:
    assert find_format(row) is None


@pytest.mark.parametrize(
    ("name", "instance_id"),
    [
        ("a__b-1.traj", "a__b-1"),
        ("a__b-1.traj.json", "a__b-1"),
        ("a__b-1.traj.json.gz", "a__b-1"),
        ("a__b-1.TRAJ.gz", "a__b-1"),
        ("a__b-1.trajectory.json", "a__b-1"),
        ("output.json", ""),
        ("rows.jsonl", ""),
    ],
)
def test_a_run_without_an_id_is_named_after_its_own_file(
    tmp_path: Path, name: str, instance_id: str
) -> None:
    data = json.dumps({"history": TURNS}).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    for source in (open_source(str(tmp_path / name)), open_source(str(tmp_path))):
        (item,) = source
        assert isinstance(item, Trajectory)
        assert item.instance_id == instance_id
        assert item.repo == ("a/b" if instance_id else "")
        assert source.kind.startswith("1 trajectory, JSON")


def test_what_lies_beside_trajectories_is_named(tmp_path: Path) -> None:
    (tmp_path / "a__b-1.traj").write_text(json.dumps({"history": TURNS}, indent=2))
    (tmp_path / "preds.json").write_text(json.dumps({"a__b-1": {"model_patch": "x"}}))
    (tmp_path / "report.json").write_text(json.dumps({"resolved_ids": ["a__b-1"]}))
    (tmp_path / "exit_statuses.yaml").write_text("instances_by_exit_status: {}\n")
    source = open_source(str(tmp_path))
    run, prediction, report = source
    assert isinstance(run, Trajectory)
    assert isinstance(prediction, Skip)
    assert "looks like a SWE-bench prediction" in prediction.detail
    assert isinstance(report, Skip)
    assert "looks like a SWE-bench report" in report.detail
    assert source.notes == ["1 other file is not read: exit_statuses.yaml"]


WORDS = st.sampled_from(
    [
        *(
            "user",
            "assistant",
            "ai",
            "tool",
            "exit",
            "system",
            "text",
            "message",
            "run",
            "response",
        ),
        *(
            "mini-swe-agent-1",
            "[]",
            "{}",
            '[{"role": "assistant", "content": "<function=f>"}]',
            "```",
        ),
        *("function_call_output", "tool_use", "image_url", "agent", "submitted", "true", "main"),
    ]
)
KEYS = st.sampled_from(
    sorted(
        TRAJECTORY_KEYS
        | {
            *(
                "role",
                "content",
                "from",
                "value",
                "text",
                "system_prompt",
                "mask",
                "agent",
                "action",
            ),
            *("is_demo", "tool_calls", "function_call", "function", "name", "arguments", "id"),
            *("tool_call_id", "tool_call_ids", "type", "object", "output", "call_id", "extra"),
            *(
                "thinking_blocks",
                "train",
                "weight",
                "train_reason",
                "source",
                "observation",
                "args",
            ),
            *("tool_call_metadata", "model_response", "choices", "message", "query", "response"),
            *("problem_statement", "patch", "prompt", "completion", "instruction", "label", "meta"),
            *("response_source", "resolved", "turns", "repo", "group", "actions", "interrupt_type"),
        }
    )
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), WORDS
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(KEYS | WORDS, inner, max_size=4)
    ),
    max_leaves=20,
)
TURN_KEYS = ("tool_calls", "function_call", "agent", "is_demo", "tool_call_ids", "mask", "extra")
CHATS = st.lists(
    st.builds(
        lambda role, content, more: {"role": role, "content": content, "text": "x", **more},
        st.sampled_from(["system", "user", "assistant", "ai", "tool"]),
        st.one_of(st.text(max_size=5), WORDS, VALUES),
        st.dictionaries(st.sampled_from(TURN_KEYS) | KEYS, VALUES, max_size=2),
    ),
    max_size=4,
)
CHAT_KEYS = st.sampled_from(["messages", "history", "trajectory", "conversations"])


@pytest.mark.slow
@given(
    row=st.dictionaries(KEYS, VALUES, max_size=6),
    chat=st.dictionaries(CHAT_KEYS, CHATS, max_size=2),
)
def test_any_object_is_read_or_refused_in_words(row: dict[str, Any], chat: dict[str, Any]) -> None:
    with suppress(DataError):
        assert isinstance(read_row({**row, **chat}, HERE), Task | Trajectory | Example)


def growing(size: int) -> list[dict[str, Any]]:
    said = [{"role": "assistant", "content": f"```\nls {n}\n```"} for n in range(size)]
    seen = [{"role": "user", "content": "Operation '" + "x" * 40} for _ in range(size)]
    return [turn for pair in zip(said, seen, strict=True) for turn in pair]


@pytest.mark.parametrize(
    "make",
    [
        lambda size: {"history": growing(size), "trajectory": [{"response": "x"}] * size},
        lambda size: {"messages": growing(size), "instance_id": "a__b-1" + "-1" * 100},
        lambda size: {
            "messages": [{"role": "assistant", "content": "Exit due to " * size}],
            "run_id": "r",
        },
        lambda size: {"history": [*TURNS, {"role": "user", "content": "Operation '" * size * 4}]},
        lambda size: {"history": TURNS, "instance_id": "a__" + ".aaaaaaaa.x" * size * 4 + "\n"},
    ],
)
def test_time_grows_with_the_text_alone(make: Any) -> None:
    def seconds(size: int) -> float:
        row, best = make(size), 9.0
        for _ in range(3):
            start = time.perf_counter()
            read_row(row, HERE)
            best = min(best, time.perf_counter() - start)
        return best

    small = seconds(1500)
    assert seconds(6000) < 16 * small + 0.05


def test_every_real_file_is_read_or_refused_in_words(shared_data: Path) -> None:
    folders = ("swe-agent", "se-agent", "swe-smith", "openhands", "mini-swe-agent-tests")
    read: Counter[str] = Counter()
    for folder in folders:
        for item in open_source(str(shared_data / "trajectories" / folder)):
            if isinstance(item, Trajectory):
                read[folder] += 1
                assert any(message.trained for message in item.messages)
                assert all(
                    m.trained == (not m.train_reason)
                    for m in item.messages
                    if m.role == "assistant"
                )
                assert not any(m.trained for m in item.messages if m.role != "assistant")
            elif isinstance(item, Skip):
                assert "looks like a SWE-bench report" in item.detail
    assert read == {
        "swe-agent": 16,
        "se-agent": 5,
        "swe-smith": 6,
        "openhands": 3,
        "mini-swe-agent-tests": 2,
    }
