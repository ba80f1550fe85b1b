"""A predicted patch beside the gold one: which changed lines both have, and which only one.

A diff of two diffs cannot be read; here the changed lines of each file stand in one column, each
with the side it is on. Texts that are no patches are compared line by line. What a patch is worth
is left to scoring.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from swe_scaffold.diffs import FilePatch, parse_patch

Where = Literal["both", "gold", "prediction"]
# Beyond so many lines on a side they are listed one side after the other, not aligned.
MOST_ALIGNED = 2000


@dataclass(frozen=True, slots=True)
class FilePair:
    """The changed lines of one file, with `+` or `-` before each; a text has no path."""

    path: str
    in_gold: bool
    in_prediction: bool
    lines: tuple[tuple[Where, str], ...]


@dataclass(frozen=True, slots=True)
class PatchPair:
    """All files of two patches, gold's order first; `patches` is False where texts are compared."""

    files: tuple[FilePair, ...]
    patches: bool

    def count(self, where: Where) -> int:
        """Return how many lines stand on one side, or on both."""
        return sum(side == where for file in self.files for side, _ in file.lines)

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON."""
        return {
            "of": "patches" if self.patches else "texts",
            "lines": {
                "both": self.count("both"),
                "only_gold": self.count("gold"),
                "only_prediction": self.count("prediction"),
            },
            "files": [
                {
                    "path": file.path,
                    "in_gold": file.in_gold,
                    "in_prediction": file.in_prediction,
                    "lines": [{"in": where, "line": line} for where, line in file.lines],
                }
                for file in self.files
            ],
        }


def pair_patches(gold: str, patch: str, text: str) -> PatchPair:
    """Put a prediction beside the gold response.

    Args:
        gold: The row's response.
        patch: The predicted patch; empty where there is none.
        text: What the model wrote; it is compared where gold is no patch.
    """
    wanted = parse_patch(gold)
    if not wanted:
        lines = _aligned(gold.split("\n"), (text or patch).split("\n"))
        return PatchPair((FilePair("", True, True, lines),), patches=False)
    sides = _changes(wanted), _changes(parse_patch(patch))
    files = [
        FilePair(
            path,
            path in sides[0],
            path in sides[1],
            _aligned(sides[0].get(path, ()), sides[1].get(path, ())),
        )
        for path in dict.fromkeys([*sides[0], *sides[1]])
    ]
    return PatchPair(tuple(files), patches=True)


def _changes(files: Sequence[FilePatch]) -> dict[str, list[str]]:
    """Return the lines that are added and removed, by file."""
    found: dict[str, list[str]] = {}
    for file in files:
        lines = found.setdefault(file.path, [])
        lines += [line for hunk in file.hunks for line in hunk.lines if line[:1] in ("+", "-")]
    return found


def _aligned(gold: Sequence[str], other: Sequence[str]) -> tuple[tuple[Where, str], ...]:
    if max(len(gold), len(other)) > MOST_ALIGNED:
        return (*(("gold", line) for line in gold), *(("prediction", line) for line in other))
    return tuple(_walk(gold, other))


def _walk(gold: Sequence[str], other: Sequence[str]) -> Iterator[tuple[Where, str]]:
    matcher = difflib.SequenceMatcher(None, gold, other, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            yield from (("both", line) for line in gold[i:j])
        else:
            yield from (("gold", line) for line in gold[i:j])
            yield from (("prediction", line) for line in other[k:m])
