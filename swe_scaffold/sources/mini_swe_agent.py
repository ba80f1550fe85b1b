"""mini-swe-agent's `.traj.json` documents to `Trajectory`: v1, v2 with tool calls, v2 as text.

Messages may also be items of the Responses API. The last message tells how the run ended and is
none of the chat (`exit_message`); v2 keeps no turn whose form was refused (`rejected_responses`).
Documents that are only a list of messages arrive here as a row with `messages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swe_scaffold.sources.fields import objects, repository, text
from swe_scaffold.sources.turns import Chat, dig, dig_text, id_from_name, read_tools
from swe_scaffold.types import Origin, Outcome, Trajectory

_FENCE = "```mswea_bash_command"
_DONE = ("COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", "MINI_SWE_AGENT_FINAL_OUTPUT")
# Models that say what they were told to: mini-swe-agent's own for tests, and our guide.
_SCRIPTED = ("test_models", "ScriptedGuide")
_MIN_PREFIX_CHARS = 20


def recognise(row: Mapping[str, Any]) -> bool:
    """Say whether a document is one of mini-swe-agent's."""
    if dig_text(row, "trajectory_format").startswith("mini-swe-agent"):
        return True
    messages = row.get("messages")
    if not isinstance(messages, list):
        return False
    if isinstance(info := row.get("info"), Mapping) and "exit_status" in info:
        return True
    return any(
        dig(message, "role") == "assistant" and _FENCE in dig_text(message, "content")
        for message in messages
    )


def read(row: Mapping[str, Any], origin: Origin) -> Trajectory:
    """Read one document.

    Raises:
        DataError: A field has the wrong type, or there is no turn of the agent.
    """
    info = row.get("info")
    info = info if isinstance(info, Mapping) else {}
    messages = objects(row, "messages")
    exit_status = text(info, "exit_status", "info.")
    chat = Chat()
    kept = _without_exit(messages, ended=bool(exit_status))
    chat.left_out["exit_message"] = len(messages) - len(kept)
    _read_messages(chat, kept, info)
    instance_id = (
        text(row, "instance_id") or text(info, "instance_id", "info.") or id_from_name(origin)
    )
    return Trajectory(
        instance_id=instance_id,
        repo=repository({"repo": text(info, "repo", "info."), "instance_id": instance_id}),
        messages=chat.finished(),
        origin=origin,
        source_format=dig_text(row, "trajectory_format") or "mini-swe-agent",
        tools=read_tools(info.get("tools"), "info.tools"),
        model=dig_text(info, "config", "model", "model_name"),
        patch=text(info, "submission", "info."),
        exit_status=exit_status,
        submitted=exit_status == "Submitted" if "exit_status" in info else None,
        outcome=chat.outcome(Outcome()),
        left_out=chat.counts(),
    )


def _without_exit(
    messages: Sequence[Mapping[str, Any]], *, ended: bool
) -> Sequence[Mapping[str, Any]]:
    """Return the messages before the one that tells the end: role exit, in v1 the last user's."""
    if not messages:
        return messages
    if _is_exit(messages[-1]):
        return messages[:-1]
    if len(messages) < 2 or dig(messages[-1], "role") != "user" or "extra" in messages[-1]:
        return messages
    last_action = dig_text(messages[-2], "content") if _is_agent(messages[-2]) else ""
    done = any(mark in last_action for mark in _DONE)
    return messages[:-1] if ended or done else messages


def _is_exit(message: Mapping[str, Any]) -> bool:
    return "exit" in (message.get("role"), message.get("type"))


def _is_agent(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "assistant"


def _read_messages(
    chat: Chat, messages: Sequence[Mapping[str, Any]], info: Mapping[str, Any]
) -> None:
    model_type = dig_text(info, "config", "model_type")
    scripted = "scripted" if any(name in model_type for name in _SCRIPTED) else ""
    complaints = _format_complaints(info)
    for index, message in enumerate(messages):
        where = f"messages[{index}]."
        chat.left_out["api_response"] += bool(dig(message, "extra", "response"))
        if _is_format_error(message, complaints) and not chat.distrust("format_error"):
            chat.left_out["rejected_responses"] += 1
        if message.get("object") == "response":
            _read_response(chat, message, where, scripted)
        elif message.get("type") == "function_call_output":
            output = chat.text(message.get("output"), f"{where}output")
            chat.append("tool", output, tool_call_id=text(message, "call_id", where))
        else:
            unread = dig(message, "extra", "actions") == []
            chat.add(message, where, reason=scripted or ("format_error" if unread else ""))


def _read_response(chat: Chat, response: Mapping[str, Any], where: str, reason: str) -> None:
    """Add a reply of the Responses API, its items as one message."""
    content: list[str] = []
    calls: list[Mapping[str, Any]] = []
    for index, item in enumerate(objects(response, "output", where)):
        kind, place = item.get("type"), f"{where}output[{index}]."
        if kind == "message":
            content.append(chat.text(item.get("content"), f"{place}content"))
        elif kind == "function_call":
            calls.append({**item, "id": item.get("call_id") or item.get("id")})
        else:
            chat.left_out["reasoning" if kind == "reasoning" else "other_items"] += 1
    value = {"role": "assistant", "content": "\n".join(content), "tool_calls": calls}
    chat.add(value, where, reason=reason)


def _format_complaints(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how this run's complaints about a turn's form begin, as far as they are fixed text."""
    templates = (
        dig_text(info, "config", part, "format_error_template") for part in ("agent", "model")
    )
    beginnings = (template.split("{", 1)[0].strip() for template in templates)
    return tuple(text for text in beginnings if len(text) >= _MIN_PREFIX_CHARS)


def _is_format_error(message: Mapping[str, Any], complaints: tuple[str, ...]) -> bool:
    if dig(message, "extra", "interrupt_type") == "FormatError":
        return True
    said = dig_text(message, "content").lstrip()
    return message.get("role") == "user" and bool(complaints) and said.startswith(complaints)
