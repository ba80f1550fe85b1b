"""ATIF documents (Agent Trajectory Interchange Format 1.x, as Harbor defines it) to `Trajectory`.

A step is a message, and each result of its observation another. Steps copied from an earlier
trajectory and steps no model made stay in the chat untrained. Fields of ours sit under
`extra.swe_scaffold`; `dataset.atif` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.jsonl import type_name
from swe_scaffold.sources.chat import tool_call
from swe_scaffold.sources.fields import objects, repository, text
from swe_scaffold.sources.turns import Chat, read_tools
from swe_scaffold.terminal import show
from swe_scaffold.types import Message, Origin, Outcome, SpeedrunLabel, ToolCall, Trajectory

OWN = "swe_scaffold"
_VERSION = re.compile(r"ATIF-v1\.\d{1,3}")
_REASON = re.compile(r"[a-z][a-z_]{0,40}")
_ROLES = {"system": "system", "user": "user", "agent": "assistant"}
_STEP_KEYS = frozenset(
    {
        *("step_id", "timestamp", "source", "model_name", "reasoning_effort", "message"),
        *("reasoning_content", "tool_calls", "observation", "metrics", "is_copied_context"),
        *("llm_call_count", "extra"),
    }
)


def recognise(row: Mapping[str, Any]) -> bool:
    """Say whether a row calls itself an ATIF 1.x document."""
    version = row.get("schema_version")
    return isinstance(version, str) and _VERSION.fullmatch(version) is not None


def read(row: Mapping[str, Any], origin: Origin) -> Trajectory:
    """Read one document.

    Raises:
        DataError: A field has another type than the format gives it; the key is named.
    """
    steps = objects(row, "steps")
    if not steps:
        raise DataError("steps is empty")
    agent, extra = json_object(row, "agent"), json_object(row, "extra")
    chat = Chat()
    chat.left_out["subagent_trajectories"] = len(objects(row, "subagent_trajectories"))
    chat.left_out["continuation"] = int(row.get("continued_trajectory_ref") is not None)
    for index, step in enumerate(steps):
        _add_step(chat, step, f"steps[{index}].")
    turns = sum(map(_acted, steps))
    return Trajectory(
        instance_id=text(extra, "instance_id", "extra."),
        repo=repository(extra),
        messages=tuple(chat.messages) if OWN in extra else chat.finished(),
        origin=origin,
        source_format="atif",
        tools=read_tools(agent.get("tool_definitions"), "agent.tool_definitions"),
        trajectory_id=text(row, "trajectory_id") or text(row, "session_id"),
        model=text(agent, "model_name", "agent."),
        patch=_known(extra, "submission"),
        exit_status=_known(extra, "exit_status"),
        submitted=_flag(extra, "submitted"),
        group=_known(extra, "group"),
        outcome=Outcome(resolved=_flag(extra, "resolved"), turns=turns),
        label=_label(extra),
        left_out=chat.counts(),
        extra={"agent": text(agent, "name", "agent."), "version": text(agent, "version", "agent.")},
    )


def json_object(value: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    """Return a field that is an object; absent and null are empty.

    Raises:
        DataError: Any other type.
    """
    item = value.get(key)
    if item is None:
        return {}
    if not isinstance(item, Mapping):
        raise DataError(f"{where}{key} is {type_name(item)}, not an object")
    return item


def _add_step(chat: Chat, step: Mapping[str, Any], where: str) -> None:
    source = text(step, "source", where)
    if source not in _ROLES:
        raise DataError(f'{where}source is "{show(source, width=30)}", not system, user or agent')
    chat.left_out["unknown_fields"] += len(step.keys() - _STEP_KEYS)
    chat.left_out["reasoning"] += bool(text(step, "reasoning_content", where).strip())
    content = chat.text(step.get("message"), f"{where}message")
    if source == "agent":
        calls = tuple(
            _call(call, f"{where}tool_calls[{index}].")
            for index, call in enumerate(objects(step, "tool_calls", where))
        )
        train, reason = _training(step, where)
        message = Message("assistant", content, calls, train=train, train_reason=reason)
        chat.messages.append(message)
    else:
        chat.append(_ROLES[source], content)
    observation = json_object(step, "observation", where)
    for index, result in enumerate(objects(observation, "results", f"{where}observation.")):
        _add_result(chat, result, f"{where}observation.results[{index}].")


def _training(step: Mapping[str, Any], where: str) -> tuple[bool, str]:
    own = _own(step, where)
    if own.get("train") is False:
        reason = own.get("train_reason")
        known = isinstance(reason, str) and (not reason or _REASON.fullmatch(reason))
        return False, str(reason) if known else "masked"
    if step.get("is_copied_context") is True:
        return False, "copied_context"
    if step.get("llm_call_count") == 0:
        return False, "scripted"
    return True, ""


def _call(call: Mapping[str, Any], where: str) -> ToolCall:
    id = text(call, "tool_call_id", where) if _own(call, where).get("id") != "" else ""
    name = text(call, "function_name", where)
    return tool_call({"name": name, "arguments": call.get("arguments"), "id": id}, where)


def _add_result(chat: Chat, result: Mapping[str, Any], where: str) -> None:
    references = objects(result, "subagent_trajectory_ref", where)
    chat.left_out["subagent_trajectory_refs"] += len(references)
    content = chat.text(result.get("content"), f"{where}content")
    call_id, own = text(result, "source_call_id", where), _own(result, where)
    if call_id or "tool_call_id" in own:
        chat.append("tool", content, (), call_id or text(own, "tool_call_id", where))
    else:
        chat.append("user", content)


def _acted(step: Mapping[str, Any]) -> bool:
    acts = bool(step.get("tool_calls") or step.get("observation"))
    return acts and step.get("source") == "agent" and step.get("is_copied_context") is not True


def _own(value: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    own = json_object(value, "extra", where).get(OWN)
    return own if isinstance(own, Mapping) else {}


def _known(extra: Mapping[str, Any], key: str) -> str:
    """Return a text of the free-form root `extra`, where anything may stand."""
    value = extra.get(key)
    return value if isinstance(value, str) else ""


def _flag(extra: Mapping[str, Any], key: str) -> bool | None:
    value = extra.get(key)
    return value if isinstance(value, bool) else None


def _label(extra: Mapping[str, Any]) -> SpeedrunLabel | None:
    value = extra.get("label")
    return SpeedrunLabel(value) if value in ("success", "failure") else None
