"""From a trajectory to a chat example: what is asked, what is answered, and its label.

Reading trajectories is left to `sources`, judging the result to `quality`.
"""

from __future__ import annotations

from typing import Any

from swe_scaffold.labels import label_outcome
from swe_scaffold.rows import make_example
from swe_scaffold.sources.chat import readable, transcript
from swe_scaffold.splits import text_hash
from swe_scaffold.types import Example, SpeedrunLabel, Trajectory


def trajectory_to_example(trajectory: Trajectory) -> Example:
    """Return the trajectory as a chat with its label; nothing is judged yet."""
    messages = trajectory.messages
    turns = [index for index, message in enumerate(messages) if message.role == "assistant"]
    last = turns[-1] if turns else len(messages)
    return make_example(
        instance_id=trajectory.instance_id,
        repo=trajectory.repo,
        prompt=transcript(messages[:last]),
        response=readable(messages[last]) if turns else "",
        response_source="trajectory",
        label=label_trajectory(trajectory),
        origin=trajectory.origin,
        messages=messages,
        tools=trajectory.tools,
        group=trajectory.group,
        meta=_meta(trajectory),
    )


def label_trajectory(trajectory: Trajectory) -> SpeedrunLabel:
    """Return the label a trajectory brings or deserves.

    Its own label and whether it was resolved decide first. A run that is known to have ended
    without an answer is failure; else the thresholds of `labels` decide.
    """
    if trajectory.label is not None:
        return trajectory.label
    has_answer = bool(trajectory.patch.strip()) or trajectory.submitted is True
    unknown = trajectory.outcome.resolved is None
    if unknown and trajectory.submitted is False and not has_answer:
        return SpeedrunLabel.FAILURE
    return label_outcome(trajectory.outcome, has_answer=has_answer)


def _meta(trajectory: Trajectory) -> dict[str, Any]:
    """Return what travels along: the facts that the source states."""
    patch = trajectory.patch.strip()
    stated = {
        "base_commit": trajectory.extra.get("base_commit"),
        "source_format": trajectory.source_format,
        "exit_status": trajectory.exit_status,
        "submitted": trajectory.submitted,
        "resolved": trajectory.outcome.resolved,
        "model": trajectory.model,
        "trajectory_id": trajectory.trajectory_id,
        "turns": trajectory.outcome.turns,
        "left_out": dict(trajectory.left_out),
        "patch_hash": text_hash(patch) if patch else "",
    }
    return {key: value for key, value in stated.items() if value not in (None, "", {})}
