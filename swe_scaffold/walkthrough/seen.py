"""What a walkthrough looked at: files and lines shown, calls, and the files it reports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swe_scaffold.diffs import DEV_NULL, parse_patch
from swe_scaffold.metrics.localisation import (
    Overlap,
    first_hit_rank,
    line_overlap,
    localisation,
    merge_ranges,
)
from swe_scaffold.metrics.places import Lines, Places, changed_lines

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
    return [Inspected(path, tuple(merge_ranges(ranges))) for path, ranges in found.items()]


def reported_files(report: str) -> list[str]:
    """Return the files that a report names with a line, in order; without any, those it names."""
    named = [(match[1], match[2]) for match in _NAMED.finditer(report)]
    with_line = [path for path, line in named if line]
    # "e.g" is no file.
    plain = [path for path, _ in named if "/" in path or len(path.split(".")[0]) > 1]
    return list(dict.fromkeys(with_line or plain))[:_MOST_REPORTED]


def gold_places(patch: str) -> Places | None:
    """Return what of a patch can be found by looking: files and lines that exist before it.

    The lines are those that it removes, and the neighbours of those that it only adds. None where
    there is nothing of the kind: no patch, or one that only adds files.
    """
    found = [file for file in parse_patch(patch) if file.old_path != DEV_NULL]
    if not found:
        return None
    lines = tuple(lines for file in found for lines in changed_lines(file))
    return Places(frozenset(file.old_path for file in found), lines)


def localise(trajectory: Mapping[str, Any], gold: Places) -> dict[str, float | None]:
    """Hold what a walkthrough reported and saw against the places of a patch.

    Returns:
        Of the files that the report names, best first: `hit_at_1`, `hit_at_5` (1 or 0), and
        `reciprocal_rank` of the first right one; `file_precision`, `file_recall`, `file_f1` of all
        of them. Of the files and the lines that were shown: `seen_file_*`, `seen_line_*`. None
        where nothing was named or shown that could be right.
    """
    names = reported_files(str(trajectory["info"].get("submission", "")))
    shown = inspected(trajectory)
    lines = tuple(Lines(file.path, first, last) for file in shown for first, last in file.ranges)
    rank = first_hit_rank(names, gold.files)
    reported = localisation(Places(frozenset(names)), gold)
    seen = localisation(Places(frozenset(file.path for file in shown)), gold)
    return {
        "hit_at_1": float(rank == 1),
        "hit_at_5": float(rank is not None and rank <= 5),
        "reciprocal_rank": 1 / rank if rank else 0.0,
        **_numbers("file", reported.files),
        **_numbers("seen_file", seen.files),
        **_numbers("seen_line", line_overlap(lines, gold.lines)),
    }


def _numbers(name: str, overlap: Overlap) -> dict[str, float | None]:
    return {
        f"{name}_precision": overlap.precision,
        f"{name}_recall": overlap.recall,
        f"{name}_f1": overlap.f1,
    }
