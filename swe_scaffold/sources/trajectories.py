"""Which format of trajectory a row is, by its content, and the way to its reader.

A format is one line in `FORMATS`; the first that recognises a row reads it. How messages are made
is in `turns`; labels are given in the rooms above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from swe_scaffold.sources import (
    atif,
    codex,
    mini_swe_agent,
    moatless,
    nemo_gym,
    openhands,
    swe_agent,
    trajectory_rows,
)
from swe_scaffold.types import Example, Origin, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Format:
    """One format: `recognise` never raises, `read` raises DataError that names the field.

    A format that mixes trajectories with other rows may return those too.
    """

    name: str
    recognise: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], Origin], Trajectory | Example | Task]


FORMATS = (
    Format("ATIF", atif.recognise, atif.read),
    Format("moatless tree", moatless.recognise, moatless.read),
    Format("Codex events", codex.recognise, codex.read),
    Format("NeMo Gym", nemo_gym.recognise, nemo_gym.read),
    Format("mini-swe-agent", mini_swe_agent.recognise, mini_swe_agent.read),
    Format("SWE-agent", swe_agent.recognise, swe_agent.read),
    Format("OpenHands output", openhands.recognise_output, openhands.read_output),
    Format("nebius rows", trajectory_rows.recognise_nebius, trajectory_rows.read_nebius),
    Format("OpenHands rows", openhands.recognise_row, openhands.read_row),
    Format("agent chat", trajectory_rows.recognise_chat, trajectory_rows.read_chat),
)

# No format is without one of these keys, so that most other rows are known by a glance.
MARKS = frozenset(
    {
        *("messages", "conversations", "trajectory", "history", "raw_completions"),
        *("schema_version", "nodes", "events", "responses_create_params"),
    }
)

# Of a table with more columns only those that a row is made of are read.
TRAJECTORY_KEYS = frozenset(
    {
        *("instance_id", "messages", "conversations", "system", "tools", "trajectory", "history"),
        *("info", "replay_config", "attempts", "trajectory_format", "raw_completions"),
        *("test_result", "report", "metadata", "instance", "error", "target", "exit_status"),
        *("git_patch", "model_patch", "generated_patch", "trajectory_id", "traj_id", "run_id"),
        *("model", "model_name", "model_name_or_path"),
    }
)


def find_format(row: Mapping[str, Any]) -> Format | None:
    """Return the format of a row that is a trajectory; None for any other row."""
    if MARKS.isdisjoint(row):
        return None
    return next((format for format in FORMATS if format.recognise(row)), None)
