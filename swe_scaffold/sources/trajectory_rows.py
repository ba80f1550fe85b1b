"""Rows of data sets made for fine-tuning agents, to `Trajectory`.

Chats under `messages` (SWE-smith's three forms, SWE-Gym, R2E-Gym and their like; `messages` may be
JSON text) or ShareGPT's `conversations`; and nebius/SWE-agent-trajectories, whose turns have a
`text`. A chat is a trajectory when its row names a run, when the assistant writes `<function=`, or
when the row names a task and the assistant calls tools, or writes a fence in more turns than one;
any other is left to `chat`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.labels import read_outcome
from swe_scaffold.sources.chat import with_messages
from swe_scaffold.sources.fields import (
    explicit_label,
    first_text,
    not_blank,
    objects,
    parse_text,
    repository,
    text,
)
from swe_scaffold.sources.turns import Chat, dig, dig_text, read_tools
from swe_scaffold.types import Origin, Trajectory

_RUN_KEYS = frozenset(
    {"traj_id", "trajectory_id", "run_id", "exit_status", "model_patch", "generated_patch"}
)


def recognise_chat(row: Mapping[str, Any]) -> bool:
    """Say whether a row's `messages` or `conversations` are an agent's run."""
    said = row.get("messages") or row.get("conversations")
    if not isinstance(said, list | str) or not said:
        return False
    if not _RUN_KEYS.isdisjoint(row) or isinstance(dig(row, "test_result", "git_patch"), str):
        return True
    try:
        said = parse_text(said, "messages") if isinstance(said, str) else said
    except DataError:
        return False
    acts = Counter(_act(message) for message in said) if isinstance(said, list) else Counter()
    named = isinstance(row.get("instance_id"), str)
    return acts["function"] > 0 or (named and (acts["call"] > 0 or acts["fence"] > 1))


def recognise_nebius(row: Mapping[str, Any]) -> bool:
    """Say whether a row is one of nebius/SWE-agent-trajectories."""
    turns = row.get("trajectory")
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], Mapping):
        return False
    return {"role", "text"} <= turns[0].keys()


def read_chat(row: Mapping[str, Any], origin: Origin) -> Trajectory:
    """Read a row with `messages` or `conversations`.

    Raises:
        DataError: A field has the wrong type, or there is no turn of the agent.
    """
    shape = "messages" if row.get("messages") else "conversations"
    row = with_messages(row)
    chat = Chat()
    chat.read(objects(row, "messages"), shape)
    status = text(row, "exit_status")
    return Trajectory(
        instance_id=text(row, "instance_id"),
        repo=repository(row),
        messages=chat.finished(),
        origin=origin,
        source_format=shape,
        tools=read_tools(row.get("tools"), "tools"),
        trajectory_id=first_text(row, ("traj_id", "trajectory_id", "run_id")),
        model=first_text(row, ("model", "model_name", "model_name_or_path")),
        patch=_patch(row),
        exit_status=status,
        submitted=status.lower() == "submitted" if status else None,
        group=text(row, "group"),
        outcome=chat.outcome(read_outcome(not_blank(row))),
        label=explicit_label(row),
        left_out=chat.counts(),
    )


def read_nebius(row: Mapping[str, Any], origin: Origin) -> Trajectory:
    """Read a row whose turns have `text`, the system's `system_prompt`; `mask` is not trained.

    Raises:
        DataError: A field has the wrong type, or there is no turn of the agent.
    """
    chat = Chat()
    chat.read(_nebius_messages(row), "trajectory")
    status = text(row, "exit_status")
    resolved = row.get("target") if row.get("resolved") is None else row["resolved"]
    return Trajectory(
        instance_id=text(row, "instance_id"),
        repo=repository(row),
        messages=chat.finished(),
        origin=origin,
        source_format="nebius-swe-agent",
        model=text(row, "model_name"),
        patch=text(row, "generated_patch"),
        exit_status=status,
        submitted=status == "submitted" if status else None,
        outcome=chat.outcome(read_outcome({**not_blank(row), "resolved": resolved})),
        label=explicit_label(row),
        left_out=chat.counts(),
    )


def _act(message: object) -> str:
    """Return how a message of the agent acts: by a tool call, a function or a fence in its text."""
    if not isinstance(message, Mapping):
        return ""
    speaker = message.get("role") or message.get("from")
    if speaker not in ("assistant", "gpt", "function_call"):
        return ""
    if speaker == "function_call" or message.get("tool_calls"):
        return "call"
    said = dig_text(message, "content") or dig_text(message, "value")
    if "<function=" in said:
        return "function"
    return "fence" if "```" in said else ""


def _nebius_messages(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for index, turn in enumerate(objects(row, "trajectory")):
        where = f"trajectory[{index}]."
        content = text(turn, "text", where)
        if turn.get("role") == "system":
            content = text(turn, "system_prompt", where) or content
        yield {"role": turn.get("role"), "content": content, "masked": turn.get("mask")}


def _patch(row: Mapping[str, Any]) -> str:
    """Return what the agent submitted; beside a problem statement `patch` is the solution."""
    own = () if "problem_statement" in row else ("patch",)
    found = first_text(row, ("model_patch", "generated_patch", "git_patch", *own))
    return found or dig_text(row, "test_result", "git_patch")
