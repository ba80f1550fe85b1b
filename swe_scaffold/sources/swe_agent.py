"""SWE-agent's `.traj` documents, 0.x to 1.1, to `Trajectory`.

The chat is `history`: what the model was shown. `trajectory` holds in addition the attempts that
were asked again (`attempts_not_in_history`), and a last step that some versions do not show the
model: that one is appended where its response is the whole action, and among tool calls where its
action is `submit`, a call without arguments. Only a document without a history is read from its
steps (`swe-agent-steps`). Whether a task was solved is in its report.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.jsonl import loads_strict
from swe_scaffold.sources.fields import objects, repository, text
from swe_scaffold.sources.turns import Chat, dig_text, id_from_name
from swe_scaffold.types import Origin, Outcome, Trajectory

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAIN = ("main", "primary")
# A model that answers without looking, for trying a setup out.
_SCRIPTED = {"instant_empty_submit"}
# What our scripted guide said, replayed under that name; other replays are of what a model said.
SCRIPTED_REPLAY = "scripted-guide.jsonl"
_SUBMIT = "submit"


def recognise(row: Mapping[str, Any]) -> bool:
    """Say whether a document is one of SWE-agent's."""
    if _starts_with(row.get("history"), "role"):
        return True
    return "info" in row and _starts_with(row.get("trajectory"), "action", "observation")


def read(row: Mapping[str, Any], origin: Origin) -> Trajectory:
    """Read one document.

    Raises:
        DataError: A field has the wrong type, or there is no turn of the agent.
    """
    chat = Chat()
    config = _config(row.get("replay_config"), chat)
    steps = objects(row, "trajectory")
    history = objects(row, "history")
    info = row.get("info")
    info = info if isinstance(info, Mapping) else {}
    exit_status = text(info, "exit_status", "info.")
    if history:
        _read_history(chat, history, config)
        _compare(chat, steps, history, submitted=exit_status.startswith("submitted"))
    else:
        _read_steps(chat, steps)
    instance_id = dig_text(config, "problem_statement", "id") or text(row, "instance_id")
    instance_id = instance_id or id_from_name(origin)
    commit = dig_text(config, "env", "repo", "base_commit")
    attempts = row.get("attempts")
    chat.left_out["other_attempts"] = max(len(attempts) - 1, 0) if isinstance(attempts, list) else 0
    return Trajectory(
        instance_id=instance_id,
        repo=repository({"instance_id": instance_id}),
        messages=chat.finished(),
        origin=origin,
        source_format="swe-agent" if history else "swe-agent-steps",
        model=dig_text(config, "agent", "model", "name"),
        patch=text(info, "submission", "info."),
        exit_status=exit_status,
        submitted=exit_status == "submitted" if "exit_status" in info else None,
        outcome=chat.outcome(Outcome()),
        left_out=chat.counts(),
        extra={"base_commit": commit} if _COMMIT.fullmatch(commit) else {},
    )


def _starts_with(value: object, *keys: str) -> bool:
    if not isinstance(value, list) or not value or not isinstance(value[0], Mapping):
        return False
    return all(key in value[0] for key in keys)


def _config(value: object, chat: Chat) -> Mapping[str, Any]:
    """Return the run's configuration: an object, or JSON text once or twice over."""
    try:
        for _ in range(2):
            if isinstance(value, str):
                value = loads_strict(value, "")
    except DataError:
        chat.left_out["unreadable_replay_config"] += 1
    return value if isinstance(value, Mapping) else {}


def _read_history(
    chat: Chat, history: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> None:
    main = _main_agents(history, dig_text(config, "agent", "name"))
    replayed = dig_text(config, "agent", "model", "replay_path").rpartition("/")[2]
    scripted = dig_text(config, "agent", "model", "name") in _SCRIPTED
    marked = dig_text(config, "agent", "model", "api_version")
    scripted = scripted or SCRIPTED_REPLAY in (replayed, marked)
    for index, value in enumerate(history):
        reason = "other_agent" if text(value, "agent", f"history[{index}].") not in main else ""
        chat.add(value, f"history[{index}].", reason=reason or ("scripted" if scripted else ""))


def _main_agents(history: Sequence[Mapping[str, Any]], configured: str) -> set[str]:
    """Return the names of the agent whose run it is; the first that acts where none is usual."""
    acting = [
        name
        for value in history
        if value.get("role") == "assistant" and isinstance(name := value.get("agent"), str)
    ]
    known = {*_MAIN, configured}
    return {"", *(known if not acting or known.intersection(acting) else acting[:1])}


def _compare(
    chat: Chat,
    steps: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    *,
    submitted: bool,
) -> None:
    """Count the steps that the history does not show; a last one that submitted is appended."""
    unseen = _unseen(chat, steps, history)
    if unseen and unseen[-1] == len(steps) - 1 and submitted:
        unseen = unseen[: len(unseen) - _add_last(chat, steps[-1], f"trajectory[{unseen[-1]}].")]
    chat.left_out["attempts_not_in_history"] = len(unseen)


def _add_last(chat: Chat, step: Mapping[str, Any], where: str) -> bool:
    """Add the step that ended the run, if it says its whole action; say whether it does."""
    said, action = text(step, "response", where), text(step, "action", where).strip()
    with_calls = any(message.tool_calls for message in chat.messages)
    if (action != _SUBMIT) if with_calls else not said.strip():
        return False
    calls = [{"name": _SUBMIT, "arguments": {}}] if with_calls else []
    chat.add({"role": "assistant", "content": said, "tool_calls": calls}, where)
    return True


def _unseen(
    chat: Chat, steps: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]
) -> list[int]:
    """Return the steps without a turn: compared by response and action, then by action alone."""
    shown = Counter(
        (message.content.strip(), dig_text(value, "action").strip())
        for value, message in zip(history, chat.messages, strict=True)
        if message.role == "assistant" and message.train_reason != "demonstration"
    )
    unseen = []
    for index, step in enumerate(steps):
        where = f"trajectory[{index}]."
        said = (text(step, "response", where).strip(), text(step, "action", where).strip())
        if shown[said] > 0:
            shown[said] -= 1
        else:
            unseen.append((index, said[1]))
    actions: Counter[str] = Counter()
    for (_, action), count in shown.items():
        actions[action] += count
    left = []
    for index, action in unseen:
        if action and actions[action] > 0:
            actions[action] -= 1
        else:
            left.append(index)
    return left


def _read_steps(chat: Chat, steps: Sequence[Mapping[str, Any]]) -> None:
    """Add what the first step was asked with, where it is recorded, then action and observation."""
    opening = objects(steps[0], "query", "trajectory[0].") if steps else []
    chat.read(opening, "trajectory[0].query")
    chat.left_out["opening_messages"] = 0 if opening else 1
    for index, step in enumerate(steps):
        where = f"trajectory[{index}]."
        said, action = text(step, "response", where), text(step, "action", where).strip()
        if action not in said:
            said = "\n\n".join(
                part for part in (said or text(step, "thought", where), action) if part
            )
        chat.add({"role": "assistant", "content": said}, where)
        chat.append("user", text(step, "observation", where))
