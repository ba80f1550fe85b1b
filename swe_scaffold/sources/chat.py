"""Rows people bring for fine-tuning: `messages` (or ShareGPT's), prompt + response, instruction.

Roles, content, tool calls and per-message training flags are brought to one form. Whether a
conversation can be rendered, and what its tokens are, is judged elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.jsonl import type_name
from swe_scaffold.rows import make_example
from swe_scaffold.sources.fields import (
    EXTRA_KEYS,
    OUTCOME_KEYS,
    extra,
    label_of,
    objects,
    parse_text,
    plain_json,
    repository,
    text,
)
from swe_scaffold.terminal import show
from swe_scaffold.types import Example, Message, Origin, ToolCall

RESPONSE_KEYS = ("response", "completion")
_META_KEYS = ("base_commit", "created_at", *EXTRA_KEYS)
CHAT_KEYS = frozenset(
    {
        *("instance_id", "repo", "org", "group", "messages", "conversations", "tools", "prompt"),
        *("instruction", "input", "output", "response_source", "meta"),
        *(*RESPONSE_KEYS, *_META_KEYS, *OUTCOME_KEYS),
    }
)
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


def is_pair(keys: frozenset[str]) -> bool:
    """Say whether a row with these keys is a prompt with its response."""
    return "prompt" in keys and not keys.isdisjoint(RESPONSE_KEYS)


def is_instruction(keys: frozenset[str]) -> bool:
    """Say whether a row with these keys is an instruction with its output."""
    return {"instruction", "output"} <= keys


def with_messages(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a ShareGPT row (`conversations` of from and value) with `messages`, others unchanged.

    Raises:
        DataError: A speaker is not known, or a turn has another shape.
    """
    if row.get("messages") or not row.get("conversations"):
        return row
    said = objects(row, "conversations")
    messages = [_said(value, f"conversations[{index}].") for index, value in enumerate(said)]
    if system := text(row, "system"):
        messages.insert(0, {"role": "system", "content": system})
    rest = {key: value for key, value in row.items() if key != "conversations"}
    return {**rest, "messages": messages}


def read_messages(row: Mapping[str, Any], origin: Origin) -> Example:
    """Read a row with `messages`, and `tools` where given.

    Raises:
        DataError: A message or a tool has another shape; the key is named.
    """
    messages = _messages(row, "messages")
    if not messages:
        raise DataError("messages is empty")
    return _chat(row, messages, "messages", origin)


def read_pair(row: Mapping[str, Any], origin: Origin) -> Example:
    """Read a row with `prompt` and `response` (or `completion`): texts, or lists of messages.

    Of two lists only the assistant messages of the second are trained, unless a message says
    otherwise.

    Raises:
        DataError: A field has another shape.
    """
    key = next((key for key in RESPONSE_KEYS if row.get(key) is not None), RESPONSE_KEYS[0])
    if not isinstance(row.get("prompt"), list) and not isinstance(row.get(key), list):
        return _pair(row, (text(row, "prompt"), text(row, key), key), origin)
    before = [
        message if message.train is not None else replace(message, train=False)
        for message in _side(row, "prompt", "user")
    ]
    return _chat(row, [*before, *_side(row, key, "assistant")], key, origin)


def read_instruction(row: Mapping[str, Any], origin: Origin) -> Example:
    """Read a row with `instruction`, `output`, and `input` where given.

    Raises:
        DataError: A field is not text.
    """
    parts = (text(row, "instruction"), text(row, "input"))
    prompt = "\n\n".join(part for part in parts if part.strip())
    return _pair(row, (prompt, text(row, "output"), "output"), origin)


def readable(message: Message) -> str:
    """Return a message as people read it: its text, then each call on a line as JSON."""
    calls = (
        json.dumps(
            {"name": call.name, "arguments": dict(call.arguments)},
            ensure_ascii=False,
            allow_nan=False,
        )
        for call in message.tool_calls
    )
    return "\n".join(part for part in (message.content, *calls) if part)


def transcript(messages: Sequence[Message]) -> str:
    """Return messages as people read them; a single one goes without its role."""
    if len(messages) == 1:
        return readable(messages[0])
    return "\n\n".join(f"{message.role}:\n{readable(message)}" for message in messages)


def call_objects(value: Mapping[str, Any], where: str) -> list[Mapping[str, Any]]:
    """Return the calls of a message as they are written, one in the older spelling included.

    Raises:
        DataError: They are no list of objects.
    """
    calls = objects(value, "tool_calls", where)
    single = value.get("function_call")
    if single is not None and not isinstance(single, Mapping):
        raise DataError(f"{where}function_call is {type_name(single)}, not an object")
    return calls or ([single] if single else [])


def tool_call(call: Mapping[str, Any], where: str) -> ToolCall:
    """Read one call; its arguments may be an object or JSON text.

    Raises:
        DataError: It has no name, or its arguments are no object.
    """
    function = call.get("function", call)
    if not isinstance(function, Mapping):
        raise DataError(f"{where}function is {type_name(function)}, not an object")
    name = text(function, "name", where)
    if not name:
        raise DataError(f"{where}name is missing")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = parse_text(arguments, f"{where}arguments") if arguments.strip() else {}
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, Mapping):
        raise DataError(f"{where}arguments is {type_name(arguments)}, not an object")
    return ToolCall(name, plain_json(arguments, f"{where}arguments"), text(call, "id", where))


def train_flag(value: Mapping[str, Any], where: str) -> bool | None:
    """Return whether a message says it is trained: `train`, `loss`, `weight`, `masked`; else None.

    Raises:
        DataError: A flag is neither true nor false, or two of them disagree.
    """
    flags = {}
    for key in ("train", "loss", "weight", "masked"):
        given = value.get(key)
        if given is None:
            continue
        if not isinstance(given, bool | int | float) or given not in (0, 1):
            raise DataError(f"{where}{key} must be true or false")
        flags[key] = bool(given) != (key == "masked")
    if len(set(flags.values())) > 1:
        raise DataError(f"{where}{' and '.join(flags)} contradict each other")
    return next(iter(flags.values()), None)


def _pair(row: Mapping[str, Any], content: tuple[str, str, str], origin: Origin) -> Example:
    prompt, response, response_source = content
    if not prompt.strip():
        raise DataError("prompt is empty")
    return make_example(
        instance_id=text(row, "instance_id"),
        repo=repository(row),
        prompt=prompt,
        response=response,
        response_source=response_source,
        label=label_of(row, response),
        origin=origin,
        group=text(row, "group"),
        meta=extra(row, _META_KEYS),
    )


def _chat(
    row: Mapping[str, Any], messages: Sequence[Message], response_source: str, origin: Origin
) -> Example:
    last = max((i for i, message in enumerate(messages) if message.role == "assistant"), default=-1)
    response = readable(messages[last]) if last >= 0 else ""
    return make_example(
        instance_id=text(row, "instance_id"),
        repo=repository(row),
        prompt=transcript(messages[:last] if last >= 0 else messages),
        response=response,
        response_source=response_source,
        label=label_of(row, response),
        origin=origin,
        messages=messages,
        tools=[plain_json(tool, "tools") for tool in objects(row, "tools")],
        group=text(row, "group"),
        meta=extra(row, _META_KEYS),
    )


def _messages(row: Mapping[str, Any], key: str) -> list[Message]:
    return [_message(value, f"{key}[{index}].") for index, value in enumerate(objects(row, key))]


def _said(value: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return a ShareGPT turn as a message; one that is a message already stays."""
    if "from" not in value:
        return value
    speaker = text(value, "from", where)
    if speaker not in _SPEAKERS:
        known = "human, gpt, system, tool, function, observation, function_call"
        raise DataError(f'{where}from is "{show(speaker, width=30)}", expected one of {known}')
    rest = {key: item for key, item in value.items() if key not in ("from", "value")}
    message = {**rest, "role": _SPEAKERS[speaker], "content": value.get("value")}
    if speaker == "function_call":
        call = parse_text(text(value, "value", where), f"{where}value")
        return {**message, "content": "", "tool_calls": [call]}
    return message


def _side(row: Mapping[str, Any], key: str, role: str) -> list[Message]:
    value = row.get(key)
    return [Message(role, value)] if isinstance(value, str) else _messages(row, key)


def _message(value: Mapping[str, Any], where: str) -> Message:
    role = text(value, "role", where)
    if role not in _ROLES:
        known = "system, user, assistant, tool"
        raise DataError(f'{where}role is "{show(role, width=30)}", expected one of {known}')
    return Message(
        role=_ROLES[role],
        content=_content(value.get("content"), f"{where}content"),
        tool_calls=tuple(
            tool_call(call, f"{where}tool_calls[{index}].")
            for index, call in enumerate(call_objects(value, where))
        ),
        tool_call_id=text(value, "tool_call_id", where),
        train=train_flag(value, where),
        train_reason=text(value, "train_reason", where),
    )


def _content(value: object, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise DataError(f"{where} is {type_name(value)}, not text")
    parts = []
    for index, block in enumerate(value):
        if isinstance(block, str):
            parts.append(block)
        elif isinstance(block, Mapping) and block.get("type", "text") == "text":
            parts.append(text(block, "text", f"{where}[{index}]."))
        else:
            kind = block.get("type") if isinstance(block, Mapping) else type_name(block)
            raise DataError(f"{where}[{index}] is {show(kind, width=30)}; only text is read")
    return "".join(parts)
