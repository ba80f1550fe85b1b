"""SWE-agent's trajectory of a walkthrough with our tools, as pages and exchange formats want it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.sources.swe_agent import read
from swe_scaffold.strict_json import Malformed, parse
from swe_scaffold.types import Origin, Trajectory
from swe_scaffold.walkthrough.session import Walk
from swe_scaffold.walkthrough.tools import definitions, in_words, problem_of

SUBMITTED = "submitted"
# Of these, its last words tell the cause.
_WITH_CAUSE = ("exit_error", "exit_api", "exit_environment_error")
_MOST_SAID = 300
# What `read_file` begins with.
_SHOWN = re.compile(r"(.+) \(lines (\d+) to (\d+) of \d+\)\n")


def as_trajectory(document: Mapping[str, Any], where: str) -> Trajectory:
    """Return a trajectory as `build` reads it, with the tools, which SWE-agent does not write down.

    Raises:
        DataError: It is none.
    """
    return replace(read(document, Origin(where, 0)), tools=tuple(definitions(bash=False)))


def as_walkthrough(document: Mapping[str, Any], about: Mapping[str, Any], *, fault: str) -> Walk:
    """Return a session of SWE-agent's in the form that pages are made of.

    Args:
        document: What it wrote.
        about: What is known of the session beside it.
        fault: How SWE-agent ended, where it did not by itself and well.

    Raises:
        DataError: A field has the wrong type.
    """
    info, history = document.get("info"), document.get("history")
    if not isinstance(info, Mapping) or not isinstance(history, list):
        raise DataError("has no info or history", where=f"{about['instance_id']}.traj")
    messages = [_message(entry) for entry in history if isinstance(entry, Mapping)]
    status, report = str(info.get("exit_status") or ""), str(info.get("submission") or "")
    if status == SUBMITTED and report.strip() and not fault:
        status = "Submitted"
    else:
        status = _why(document, status if status != SUBMITTED else "", fault)
        report = ""
    trajectory = {
        "info": {**about, "exit_status": status, "submission": report},
        "messages": messages,
    }
    repository = about["repository"]
    return Walk(
        exit_status=status,
        report=report,
        unchanged=bool(repository["unchanged"]),
        changed=list(repository.get("changed", [])),
        steps=sum(message["role"] == "assistant" for message in messages),
        seconds=about["seconds"],
        trajectory=trajectory,
    )


def _why(document: Mapping[str, Any], status: str, fault: str) -> str:
    """Return why there is no report: SWE-agent's word for it, and what it said last."""
    if not status:
        return fault or "ended without a report"
    steps = document.get("trajectory")
    last = steps[-1] if isinstance(steps, list) and steps else {}
    said = str(last.get("thought") or "") if isinstance(last, Mapping) else ""
    said = said.strip().split("\n")[0][:_MOST_SAID]
    return f"{status}: {said}" if status in _WITH_CAUSE and said else status


def _message(entry: Mapping[str, Any]) -> dict[str, Any]:
    content = str(entry.get("content") or "")
    message: dict[str, Any] = {"role": str(entry.get("role")), "content": content, "extra": {}}
    if message["role"] == "assistant":
        message["extra"]["actions"] = [_action(call) for call in entry.get("tool_calls") or []][:1]
    elif message["role"] == "tool" and (shown := _SHOWN.match(content)):
        message["extra"] = {"path": shown[1], "first": int(shown[2]), "last": int(shown[3])}
    return message


def _action(call: object) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    function = function if isinstance(function, Mapping) else {}
    name, arguments = function.get("name"), function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = parse(arguments.encode("utf-8", "surrogatepass"))
        except Malformed:
            arguments = None
    if problem_of(name, arguments, bash=False) or not isinstance(arguments, Mapping):
        return {"tool": str(name), "command": f"{name} {function.get('arguments')}"}
    return {"tool": str(name), "command": in_words(str(name), arguments)}
