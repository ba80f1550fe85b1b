"""What is asked: rows and tasks to questions, in order, each with a key of its own.

A task asks what `build` would write into its prompt. No question holds what its row answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.metrics.health import wants_patch
from swe_scaffold.rendering import asked
from swe_scaffold.rows import content_sha256, make_example
from swe_scaffold.sources import InputFile, Item, open_source
from swe_scaffold.sources.prompts import make_prompt
from swe_scaffold.strict_json import encode
from swe_scaffold.terminal import show
from swe_scaffold.types import Example, Message, Origin, Skip, SpeedrunLabel, Task, Trajectory

TEXT_ID = "text"


@dataclass(frozen=True, slots=True)
class Question:
    """What one row asks.

    Attributes:
        index: Its place among the questions.
        example: The row; of a task, what `build` would make of it.
        messages: What the answer follows.
        key: Decides what is drawn: the same question under the same id has the same key.
        is_turn: Whether the next turn of a chat is asked for, and not a text that may be a patch.
        expects_patch: Whether the gold response is a patch.
    """

    index: int
    example: Example
    messages: tuple[Message, ...]
    key: str
    is_turn: bool
    expects_patch: bool

    @property
    def instance_id(self) -> str:
        """The row's id."""
        return self.example.instance_id


@dataclass(frozen=True, slots=True)
class Questions:
    """All that is asked; rows that ask nothing (id, reason, detail); the files that were read."""

    asked: tuple[Question, ...]
    skipped: tuple[tuple[str, str, str], ...]
    rows: int
    beyond_limit: int
    inputs: tuple[InputFile, ...]

    def identity(self) -> list[str]:
        """Return what tells these questions, and the files they are from, from others."""
        return [*(file.sha256 for file in self.inputs), *(question.key for question in self.asked)]


def read_questions(
    data: str, *, split: str | None = None, limit: int | None = None, offline: bool = False
) -> Questions:
    """Read what every row of a file, folder or hub data set asks.

    Args:
        data: Built rows, rows with messages or prompt + response, or SWE-bench-style tasks.
        split: Of a hub data set or a folder.
        limit: Ask the first rows only; the others are counted.
        offline: Ask only the hub cache for a hub data set.

    Raises:
        DataError: The first row that cannot be used, or there is none.
    """
    source = open_source(data, split=split, offline=offline)
    found: list[Question] = []
    skipped: list[tuple[str, str, str]] = []
    seen: set[str] = set()
    rows = 0
    for rows, item in enumerate(source, 1):
        if limit is not None and rows > limit:
            continue
        question = _question(len(found), _example(item))
        if not question.messages:
            skipped.append((question.instance_id, "no_prompt", "no message to be answered"))
        elif question.key in seen:
            skipped.append((question.instance_id, "duplicate", "asked before under the same id"))
        else:
            seen.add(question.key)
            found.append(question)
    if not found:
        raise DataError(f"no row asks anything ({rows} read)", where=data)
    beyond = max(rows - limit, 0) if limit is not None else 0
    return Questions(tuple(found), tuple(skipped), rows, beyond, tuple(source.inputs))


def ask_text(text: str) -> Questions:
    """Return the one question that a text is.

    Raises:
        DataError: It is blank.
    """
    if not text.strip():
        raise DataError("there is nothing to answer", where="--text")
    example = make_example(
        instance_id=TEXT_ID,
        repo="",
        prompt=text,
        response="",
        response_source="none",
        label=SpeedrunLabel.FAILURE,
        origin=Origin("--text", 1),
    )
    return Questions((_question(0, example),), (), 1, 0, ())


def chat_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as OpenAI-compatible servers take them; nothing is added to them."""
    return [_as_sent(message) for message in messages]


def _as_sent(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        value["tool_calls"] = [
            {
                "id": call.id or f"call_{number}",
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": encode(dict(call.arguments)).decode("utf-8"),
                },
            }
            for number, call in enumerate(message.tool_calls)
        ]
    if message.role == "tool" and message.tool_call_id:
        value["tool_call_id"] = message.tool_call_id
    return value


def _question(index: int, example: Example) -> Question:
    messages = asked(example)
    return Question(
        index=index,
        example=example,
        messages=messages,
        key=content_sha256(example.instance_id, "", _plain(messages), example.tools),
        is_turn=bool(example.messages),
        expects_patch=wants_patch(example),
    )


def _plain(messages: Iterable[Message]) -> list[Message]:
    """Leave out what is about training: it changes no question."""
    return [Message(m.role, m.content, m.tool_calls, m.tool_call_id, train=False) for m in messages]


def _example(item: Item) -> Example:
    match item:
        case Example():
            return item
        case Task():
            return _of_task(item)
        case Trajectory():
            raise DataError(
                f"a trajectory, not a row or a task: {show(item.instance_id, width=60)}",
                where=_place(item.origin),
                hint=f"build it first: swe-scaffold build --dataset {item.origin.source}",
            )
        case Skip():
            raise DataError(item.detail)


def _of_task(task: Task) -> Example:
    source = "patch" if task.patch.strip() else "none"
    return make_example(
        instance_id=task.instance_id,
        repo=task.repo,
        prompt=make_prompt(task),
        response=task.patch,
        response_source=source,
        label=SpeedrunLabel.FAILURE,
        origin=task.origin,
        group=task.group,
        meta={"base_commit": task.base_commit},
    )


def _place(origin: Origin) -> str:
    return f"{origin.source}:{origin.row}"
