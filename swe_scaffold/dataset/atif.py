"""A row as an ATIF document, for tools that read Harbor's Agent Trajectory Interchange Format.

Written is version 1.7, which all its readers know. What the format has no field for (whether a turn
is trained and why not, ids that are missing) stands under `extra.swe_scaffold`, so that
`sources.atif` reads the same chat back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.sources.atif import OWN
from swe_scaffold.sources.fields import plain_json
from swe_scaffold.types import Example, Message

VERSION = "ATIF-v1.7"
_SOURCES = {"system": "system", "user": "user", "assistant": "agent"}
_KNOWN = ("group", "resolved", "submitted", "exit_status")
_UNKNOWN = "unknown"


def example_to_atif(example: Example) -> dict[str, Any]:
    """Return the row as one ATIF document of strict JSON values.

    A tool's answer becomes a result of the step before it. A prompt/response pair is two steps.

    Raises:
        DataError: The chat begins with a tool's answer, has a role the format lacks, or holds what
            JSON cannot say.
    """
    messages = example.messages or (
        Message("user", example.prompt),
        Message("assistant", example.response),
    )
    steps: list[dict[str, Any]] = []
    for message in messages:
        if message.role != "tool":
            steps.append(_step(message, len(steps) + 1))
        elif not steps:
            raise DataError("a chat that begins with a tool's answer has no form in ATIF")
        else:
            observation = steps[-1].setdefault("observation", {"results": []})
            observation["results"].append(_result(message, steps[-1]))
    meta = example.meta
    document = {
        "schema_version": VERSION,
        "session_id": example.instance_id,
        "trajectory_id": str(meta.get("trajectory_id") or example.instance_id),
        "agent": _agent(example),
        "steps": steps,
        "final_metrics": {"total_steps": len(steps)},
        "extra": {
            "instance_id": example.instance_id,
            "repo": example.repo,
            "label": str(example.label),
            **{key: meta[key] for key in _KNOWN if meta.get(key) is not None},
            OWN: {"response_source": example.response_source, "meta": dict(meta)},
        },
    }
    plain: dict[str, Any] = plain_json(document, example.instance_id)
    return plain


def _agent(example: Example) -> dict[str, Any]:
    meta = example.meta
    agent = {
        "name": str(meta.get("agent") or meta.get("source_format") or _UNKNOWN),
        "version": str(meta.get("agent_version") or _UNKNOWN),
    }
    tools = {"tool_definitions": [dict(tool) for tool in example.tools]} if example.tools else {}
    return {**agent, **({"model_name": str(meta["model"])} if meta.get("model") else {}), **tools}


def _step(message: Message, number: int) -> dict[str, Any]:
    if message.role not in _SOURCES:
        raise DataError(f"step {number}: ATIF has no role {message.role}")
    if message.role != "assistant" and (message.tool_calls or message.trained):
        raise DataError(
            f"step {number}: a {message.role} message calls no tools and is not trained"
        )
    step: dict[str, Any] = {
        "step_id": number,
        "source": _SOURCES[message.role],
        "message": message.content,
    }
    if message.tool_calls:
        step["tool_calls"] = _calls(message, number)
    if message.trained or message.role != "assistant":
        return step
    if message.train_reason == "copied_context":
        step["is_copied_context"] = True
    elif message.train_reason == "scripted":
        step["llm_call_count"] = 0
    return {**step, **_own({"train": False, "train_reason": message.train_reason})}


def _calls(message: Message, number: int) -> list[dict[str, Any]]:
    """Return the calls; the format demands ids, so those that are missing are made and marked."""
    return [
        {
            "tool_call_id": call.id or f"call_{number}_{place}",
            "function_name": call.name,
            "arguments": dict(call.arguments),
            **({} if call.id else _own({"id": ""})),
        }
        for place, call in enumerate(message.tool_calls, 1)
    ]


def _result(message: Message, step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool's answer; one that names no call of its step keeps its id as ours."""
    id = message.tool_call_id
    called = {call["tool_call_id"] for call in step.get("tool_calls", ())}
    tie = {"source_call_id": id} if id in called else _own({"tool_call_id": id})
    return {**tie, "content": message.content}


def _own(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"extra": {OWN: dict(value)}}
