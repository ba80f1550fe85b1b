"""NeMo Gym records: rollouts are trajectories, prompts with answers are chats, instances tasks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import DataError
from swe_scaffold.jsonl import JsonlReader, Line
from swe_scaffold.sources.nemo_gym import read, recognise
from swe_scaffold.types import Example, Origin, Task, Trajectory

ORIGIN = Origin("rows.jsonl", 1)
TOOL = {"type": "function", "name": "bash", "parameters": {"type": "object"}, "strict": None}


def text(role: str, content: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": "output_text", "text": content}]}


def call(id: str, arguments: str = '{"command": "ls"}') -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": "bash", "arguments": arguments}


def output(id: str, content: str = "a.py") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": content}


def rollout(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    prompt = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "fix it"}]
    about = {"instance_id": "own__repo-1", "repo": "own/repo", "base_commit": "abc"}
    return {
        "responses_create_params": {"input": prompt, "metadata": about, "model": "m"},
        "response": {"id": "r1", "output": list(items), "tools": [TOOL]},
        "metadata": {"instance_id": "own__repo-1", "resolved": True, "patch_exists": True},
        **fields,
    }


def reading(*items: dict[str, Any], **fields: Any) -> Trajectory:
    trajectory = read(rollout(*items, **fields), ORIGIN)
    assert isinstance(trajectory, Trajectory)
    return trajectory


def test_a_text_and_the_calls_after_it_are_one_turn() -> None:
    trajectory = reading(
        *(text("assistant", "look"), call("1"), call("2"), output("1"), output("2", "b.py")),
        *(call("3"), output("3"), text("assistant", "done")),
    )
    assert [message.role for message in trajectory.messages] == [
        *("system", "user", "assistant", "tool", "tool", "assistant", "tool", "assistant")
    ]
    look = trajectory.messages[2]
    assert (look.content, [made.id for made in look.tool_calls]) == ("look", ["1", "2"])
    assert look.tool_calls[0].arguments == {"command": "ls"}
    assert trajectory.messages[4].tool_call_id == "2"
    assert [message.trained for message in trajectory.messages] == [0, 0, 1, 0, 0, 1, 0, 1]
    assert (trajectory.outcome.turns, trajectory.outcome.resolved) == (2, True)
    assert (trajectory.instance_id, trajectory.repo) == ("own__repo-1", "own/repo")
    assert (trajectory.submitted, trajectory.model, trajectory.trajectory_id) == (True, "m", "r1")
    assert trajectory.extra == {"base_commit": "abc"}
    assert trajectory.left_out == {}


def test_tools_take_the_shape_that_chat_templates_know() -> None:
    function = {"name": "bash", "parameters": {"type": "object"}}
    assert reading(call("1")).tools == ({"type": "function", "function": function},)


def test_a_call_that_its_tool_refused_is_not_trained() -> None:
    refused = output("1", "ERROR:\nThe file is open elsewhere.")
    first, last = (
        message
        for message in reading(call("1"), refused, call("2")).messages
        if message.role == "assistant"
    )
    assert (first.trained, first.train_reason) == (False, "failed_action")
    assert last.trained


def test_an_answer_in_the_prompt_is_context() -> None:
    params = {"input": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    trajectory = reading(text("assistant", "c"), responses_create_params=params)
    earlier, now = trajectory.messages[1:]
    assert (earlier.trained, earlier.train_reason) == (False, "copied_context")
    assert now.trained
    assert now.content == "c"


def test_a_call_at_the_beginning_does_not_join_the_prompt() -> None:
    params = {"input": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    trajectory = reading(call("1"), responses_create_params=params)
    assert [len(message.tool_calls) for message in trajectory.messages] == [0, 0, 1]


def test_a_prompt_may_be_one_text() -> None:
    trajectory = reading(text("assistant", "c"), responses_create_params={"input": "fix it"})
    assert trajectory.messages[0].content == "fix it"


def test_what_a_chat_cannot_carry_is_counted() -> None:
    picture = {"type": "message", "role": "user", "content": [{"type": "input_image"}]}
    trajectory = reading(
        {"type": "reasoning", "summary": []}, text("assistant", "x"), picture, {"type": "novelty"}
    )
    assert trajectory.left_out == {"images": 1, "other_items": 1, "reasoning": 1}


@pytest.mark.parametrize(
    ("fields", "resolved", "submitted"),
    [
        ({"metadata": {}, "resolved": 1.0, "patch_exists": 0.0}, True, False),
        ({"metadata": {}, "resolved": 0.0}, False, None),
        ({"metadata": {}}, None, None),
        ({"metadata": {"resolved": "maybe"}}, None, None),
    ],
)
def test_an_outcome_is_never_guessed(
    fields: dict[str, Any], resolved: bool | None, submitted: bool | None
) -> None:
    trajectory = reading(call("1"), **fields)
    assert trajectory.outcome.resolved is resolved
    assert trajectory.submitted is submitted


def expected(**fields: Any) -> dict[str, Any]:
    prompt = [text("user", "a"), text("assistant", "b"), text("user", "c")]
    return {
        "uuid": "row_3",
        "responses_create_params": {"input": prompt},
        "expected_answer": '{"commands": []}',
        "metadata": {"task": "task_1", "category": "others"},
        **fields,
    }


def test_a_prompt_with_its_answer_is_a_chat_that_trains_the_answer_alone() -> None:
    example = read(expected(), ORIGIN)
    assert isinstance(example, Example)
    assert [(m.role, m.content, m.trained) for m in example.messages] == [
        ("user", "a", False),
        ("assistant", "b", False),
        ("user", "c", False),
        ("assistant", '{"commands": []}', True),
    ]
    assert example.messages[1].train_reason == "copied_context"
    assert example.response == '{"commands": []}'
    assert (example.instance_id, example.group) == ("row_3", "task_1")


def test_an_instance_is_a_task_with_the_files_its_prompt_shows() -> None:
    instance = {"instance_id": "own__repo-1", "problem_statement": "broken", "patch": "diff"}
    task = read(
        {
            "responses_create_params": {"input": "..."},
            "instance": instance,
            "metadata": {"relevant_file_contents": json.dumps({"a.py": "x = 1\n"})},
        },
        ORIGIN,
    )
    assert isinstance(task, Task)
    assert (task.instance_id, task.repo, task.patch) == ("own__repo-1", "own/repo", "diff")
    assert [(piece.path, piece.text) for piece in task.context] == [("a.py", "x = 1\n")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"responses_create_params": {}}, "without response, expected_answer or instance"),
        (rollout(), "output is empty"),
        (rollout(text("critic", "x")), "role is"),
        (rollout(call("1", "{")), "arguments"),
        (rollout(call("1", "[1]")), "arguments is a list"),
        (rollout({"type": "function_call", "call_id": "1"}), "name is missing"),
        (rollout(text("user", "x")), "no turn of the agent"),
        (rollout({"role": "assistant", "content": 4}), "content is a number, not text"),
        (rollout(call("1"), metadata=[]), "metadata is a list, not an object"),
        (expected(expected_answer=4), "expected_answer is a number"),
        (
            expected(responses_create_params={"input": [{"type": "reasoning"}]}),
            "the prompt holds reasoning; only text is read",
        ),
        (
            {
                "responses_create_params": {},
                "instance": {"problem_statement": "x"},
                "metadata": {"relevant_file_contents": "[1]"},
            },
            "relevant_file_contents is a list",
        ),
    ],
)
def test_malformed_records_are_refused_by_name(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(row, ORIGIN)


@pytest.mark.parametrize("row", [{}, {"responses_create_params": []}, {"messages": []}])
def test_other_rows_are_not_recognised(row: dict[str, Any]) -> None:
    assert not recognise(row)


def real(shared_data: Path, name: str) -> list[Trajectory | Example | Task]:
    items = []
    for line in JsonlReader(shared_data / "trajectories" / "nemo-gym" / name):
        assert isinstance(line, Line)
        assert recognise(line.value)
        items.append(read(line.value, Origin(name, line.number)))
    return items


def test_the_real_rollouts(shared_data: Path) -> None:
    found = []
    for trajectory in real(shared_data, "swe_agents_example_rollouts.jsonl.gz"):
        assert isinstance(trajectory, Trajectory)
        trained = sum(message.trained for message in trajectory.messages)
        reasons = Counter(m.train_reason for m in trajectory.messages if m.train_reason)
        outcome = trajectory.outcome
        found.append((len(trajectory.messages), trained, dict(reasons), outcome.resolved))
        assert trajectory.left_out == {}
        assert trajectory.messages[-1].trained
        assert len(trajectory.tools) == 5
    assert found == [
        (15, 4, {"failed_action": 3}, False),
        (13, 3, {"failed_action": 3}, False),
        (91, 37, {"failed_action": 6}, False),
        (117, 49, {"failed_action": 9}, True),
        (117, 52, {"failed_action": 6}, True),
    ]


def test_the_real_prompts_with_answers(shared_data: Path) -> None:
    examples = real(shared_data, "openthoughts_agent_v1_sft_train.jsonl.gz")
    assert len(examples) == 246
    for example in examples:
        assert isinstance(example, Example)
        assert [message.trained for message in example.messages].count(True) == 1
        assert example.messages[-1].trained
        assert "commands" in json.loads(example.response)
    assert len({example.group for example in examples if isinstance(example, Example)}) > 20


def test_the_real_instances(shared_data: Path) -> None:
    tasks = real(shared_data, "swerl_gen_example.jsonl.gz")
    assert len(tasks) == 5
    for task in tasks:
        assert isinstance(task, Task)
        assert task.patch.startswith("diff --git")
        assert task.context
        assert all(piece.text for piece in task.context)
