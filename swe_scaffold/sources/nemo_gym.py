"""NeMo Gym records to what they are: a rollout, a prompt with its expected answer, or a task.

A rollout (`response.output`, the OpenAI Responses form) is a `Trajectory`: a text and the calls
after it are one turn, a call that its tool refused (output beginning with "ERROR:") is not trained.
A prompt with `expected_answer` is a chat whose last turn alone is trained. A prompt made from an
`instance` is that task, with the files the prompt shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.jsonl import type_name
from swe_scaffold.rows import message_to_dict
from swe_scaffold.sources.atif import json_object
from swe_scaffold.sources.chat import read_messages, tool_call
from swe_scaffold.sources.fields import objects, parse_text, repository, text
from swe_scaffold.sources.tasks import is_task, read_task
from swe_scaffold.sources.turns import Chat, read_role, read_tools
from swe_scaffold.types import Example, Message, Origin, Outcome, Task, Trajectory

_REFUSED = "ERROR:"
_COPIED = "copied_context"


def recognise(row: Mapping[str, Any]) -> bool:
    """Say whether a row is a NeMo Gym record."""
    return isinstance(row.get("responses_create_params"), Mapping)


def read(row: Mapping[str, Any], origin: Origin) -> Trajectory | Example | Task:
    """Read one record.

    Raises:
        DataError: A field has another shape, or there is neither rollout nor answer nor task.
    """
    instance = row.get("instance")
    if isinstance(row.get("response"), Mapping):
        return _rollout(row, origin)
    if text(row, "expected_answer").strip():
        return _expected(row, origin)
    if isinstance(instance, Mapping) and is_task(frozenset(instance)):
        return read_task({**instance, "context": _shown_files(row)}, origin)
    raise DataError("a prompt without response, expected_answer or instance")


def _rollout(row: Mapping[str, Any], origin: Origin) -> Trajectory:
    params, response = json_object(row, "responses_create_params"), json_object(row, "response")
    task, result = json_object(params, "metadata"), json_object(row, "metadata")
    chat = _chat(params)
    done = objects(response, "output")
    if not done:
        raise DataError("response.output is empty")
    _add_items(chat, done, "response.output")
    tools = response.get("tools") or params.get("tools")
    ids = {"instance_id": text(result, "instance_id") or text(task, "instance_id")}
    resolved = result.get("resolved", row.get("resolved"))
    return Trajectory(
        instance_id=ids["instance_id"],
        repo=text(task, "repo") or repository(ids),
        messages=_without_refused(chat.finished()),
        origin=origin,
        source_format="nemo_gym",
        tools=_tools(tools),
        trajectory_id=text(response, "id"),
        model=text(response, "model") or text(params, "model"),
        exit_status=text(response, "status"),
        submitted=_submitted(result, row),
        outcome=Outcome(
            resolved=bool(resolved) if resolved in (0, 1) else None,
            turns=sum(_acted(message) for message in chat.messages),
        ),
        left_out=chat.counts(),
        extra={key: task[key] for key in ("base_commit", "version") if text(task, key)},
    )


def _expected(row: Mapping[str, Any], origin: Origin) -> Example:
    params, about = json_object(row, "responses_create_params"), json_object(row, "metadata")
    prompt = _chat(params)
    if left_out := prompt.counts():
        raise DataError(f"the prompt holds {', '.join(left_out)}; only text is read")
    answer = Message("assistant", text(row, "expected_answer"), train=True)
    chat = {
        "instance_id": text(row, "uuid"),
        "group": text(about, "task"),
        "category": about.get("category"),
        "messages": [message_to_dict(message) for message in (*prompt.messages, answer)],
        "tools": list(_tools(params.get("tools"))),
    }
    return read_messages(chat, origin)


def _shown_files(row: Mapping[str, Any]) -> list[dict[str, str]]:
    about = json_object(row, "metadata")
    files = about.get("relevant_file_contents")
    if isinstance(files, str) and files.strip():
        files = parse_text(files, "metadata.relevant_file_contents")
    if not files:
        return []
    if not isinstance(files, Mapping):
        raise DataError(f"metadata.relevant_file_contents is {type_name(files)}, not an object")
    return [{"path": path, "text": content} for path, content in files.items()]


def _chat(params: Mapping[str, Any]) -> Chat:
    """Return the prompt; answers in it were learnt, or not, where they were first given."""
    chat = Chat()
    prompt = params.get("input")
    if isinstance(prompt, str):
        chat.append("user", prompt)
        return chat
    _add_items(chat, objects(params, "input"), "input")
    chat.messages = [
        replace(message, train=False, train_reason=_COPIED)
        if message.role == "assistant"
        else message
        for message in chat.messages
    ]
    return chat


def _add_items(chat: Chat, items: Sequence[Mapping[str, Any]], key: str) -> None:
    begin = len(chat.messages)
    for index, item in enumerate(items):
        where = f"{key}[{index}]."
        kind = item.get("type") or "message"
        if kind == "message":
            content = chat.text(item.get("content"), f"{where}content")
            chat.append(read_role(item, where), content)
        elif kind == "function_call":
            _add_call(chat, item, where, begin)
        elif kind == "function_call_output":
            output = chat.text(item.get("output"), f"{where}output")
            chat.append("tool", output, (), text(item, "call_id", where))
        else:
            chat.left_out["reasoning" if kind == "reasoning" else "other_items"] += 1


def _add_call(chat: Chat, item: Mapping[str, Any], where: str, begin: int) -> None:
    """Add a call to the turn before it, which it belongs to, or as a turn of its own."""
    id = text(item, "call_id", where)
    call = tool_call(
        {"name": text(item, "name", where), "arguments": item.get("arguments"), "id": id}, where
    )
    last = chat.messages[-1] if len(chat.messages) > begin else None
    if last is not None and last.role == "assistant":
        chat.messages[-1] = replace(last, tool_calls=(*last.tool_calls, call))
    else:
        chat.append("assistant", "", (call,))


def _without_refused(messages: Sequence[Message]) -> tuple[Message, ...]:
    refused = {
        message.tool_call_id
        for message in messages
        if message.role == "tool" and message.content.startswith(_REFUSED)
    }
    return tuple(
        replace(message, train=False, train_reason="failed_action")
        if message.trained and any(call.id in refused for call in message.tool_calls)
        else message
        for message in messages
    )


def _acted(message: Message) -> bool:
    return bool(message.tool_calls) and message.train_reason != _COPIED


def _tools(value: object) -> tuple[Mapping[str, Any], ...]:
    """Return tools as chat templates expect them: the function's fields below `function`."""
    return tuple(
        tool
        if "function" in tool or tool.get("type") != "function"
        else {"type": "function", "function": _function(tool)}
        for tool in read_tools(value, "tools")
    )


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tool.items() if key != "type" and value is not None}


def _submitted(result: Mapping[str, Any], row: Mapping[str, Any]) -> bool | None:
    value = result.get("patch_exists", row.get("patch_exists"))
    return bool(value) if value in (0, 1) else None
