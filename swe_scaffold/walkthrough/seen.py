"""What a walkthrough looked at: files and lines shown, calls, and the files it reports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swe_scaffold.metrics.localisation import Scores, first_hit_rank, localisation
from swe_scaffold.metrics.places import Lines, Places

_NAMED = re.compile(r"(?<![\w/])((?:[\w.@+-]+/)*[\w.@+-]+\.\w{1,5})(?::(\d+)(?:-(\d+))?)?")
_MOST_REPORTED = 20


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file of which lines were shown, and which: 1-based, ends included, joined, in order."""

    path: str
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a tool, and what came back."""

    number: int
    thought: str
    command: str
    tool: str
    output: str
    returncode: int | None
    seconds: float | None


def steps_of(trajectory: Mapping[str, Any]) -> list[Step]:
    """Return the calls of a trajectory of ours, in order, the report among them."""
    steps: list[Step] = []
    for index, message in enumerate(trajectory["messages"]):
        if message.get("role") == "assistant":
            for action in message["extra"]["actions"]:
                # Ids are the model's to choose, and need not differ: what follows is the answer.
                following = trajectory["messages"][index + 1 : index + 2]
                steps.append(_step(len(steps) + 1, message, action, following))
    return steps


def _step(
    number: int,
    message: Mapping[str, Any],
    action: Mapping[str, Any],
    following: Sequence[Mapping[str, Any]],
) -> Step:
    result = following[0] if following and following[0].get("role") == "tool" else {}
    about = result.get("extra", {})
    return Step(
        number=number,
        thought=str(message.get("content") or ""),
        command=str(action["command"]),
        tool=str(action["tool"]),
        output=str(result.get("content", "")),
        returncode=about.get("returncode"),
        seconds=about.get("seconds"),
    )


def inspected(trajectory: Mapping[str, Any]) -> list[Inspected]:
    """Return the files of which lines were shown, in the order in which they first were."""
    found: dict[str, list[tuple[int, int]]] = {}
    for message in trajectory["messages"]:
        extra = message.get("extra", {})
        if message.get("role") == "tool" and "first" in extra:
            found.setdefault(extra["path"], []).append((extra["first"], extra["last"]))
    return [Inspected(path, tuple(_joined(ranges))) for path, ranges in found.items()]


def reported_files(report: str) -> list[str]:
    """Return the files that a report names with a line, in order; without any, those it names."""
    named = [(match[1], match[2]) for match in _NAMED.finditer(report)]
    with_line = [path for path, line in named if line]
    # "e.g" is no file.
    plain = [path for path, _ in named if "/" in path or len(path.split(".")[0]) > 1]
    return list(dict.fromkeys(with_line or plain))[:_MOST_REPORTED]


@dataclass(frozen=True, slots=True)
class Localised:
    """How well a walkthrough found what a patch changes.

    Attributes:
        seen: What was shown to the agent, against the patch.
        reported: The files that the report names, against the patch.
        first_hit: Rank of the first right file in the report, None without one.
    """

    seen: Scores
    reported: Scores
    first_hit: int | None


def localise(trajectory: Mapping[str, Any], gold: Places) -> Localised:
    """Compare what a walkthrough saw and reported with the places of a patch."""
    shown = inspected(trajectory)
    lines = tuple(Lines(file.path, first, last) for file in shown for first, last in file.ranges)
    names = reported_files(str(trajectory["info"].get("submission", "")))
    seen = Places(frozenset(file.path for file in shown), lines)
    reported = Places(frozenset(names), ())
    return Localised(
        localisation(seen, gold), localisation(reported, gold), first_hit_rank(names, gold.files)
    )


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined
