"""How well places were found: precision, recall, F1 of files, hunks, lines, functions against gold.

Nothing to find gives None, never a perfect score; finding nothing gives recall and F1 of 0 and no
precision. Where a patch changes things is `places`'.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from swe_scaffold.metrics.places import Lines, Places


@dataclass(frozen=True, slots=True)
class Overlap:
    """What was predicted and what there was to find, and how many of each the other side has."""

    predicted: int
    predicted_hits: int
    gold: int
    gold_hits: int

    @property
    def precision(self) -> float | None:
        """Share of what was predicted that is right; None if nothing was, or nothing is right."""
        return self.predicted_hits / self.predicted if self.predicted and self.gold else None

    @property
    def recall(self) -> float | None:
        """Share of what is right that was predicted; None if there is nothing to find."""
        return self.gold_hits / self.gold if self.gold else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; 0 if nothing was predicted or nothing hit."""
        if not self.gold:
            return None
        precision, recall = self.precision or 0.0, self.recall or 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@dataclass(frozen=True, slots=True)
class Scores:
    """Overlaps by what was looked for; `functions` is None where a side does not know its own."""

    files: Overlap
    lines: Overlap
    functions: Overlap | None


def localisation(predicted: Places, gold: Places) -> Scores:
    """Compare places of one tree.

    Line ranges of a file hit each other where they share a line; files and functions where they
    are the same.
    """
    functions = None
    if predicted.functions is not None and gold.functions is not None:
        functions = _same(predicted.functions, gold.functions)
    lines = Overlap(
        len(predicted.lines),
        _hits(predicted.lines, gold.lines),
        len(gold.lines),
        _hits(gold.lines, predicted.lines),
    )
    return Scores(_same(predicted.files, gold.files), lines, functions)


def first_hit_rank(ranked: Sequence[str], gold: Collection[str]) -> int | None:
    """Return the 1-based rank of the first right entry, repeats not counted; None without one."""
    order = dict.fromkeys(ranked)
    return next((rank for rank, name in enumerate(order, 1) if name in gold), None)


def recall_at(ranked: Sequence[str], gold: Collection[str], k: int) -> float | None:
    """Return the share of gold among the first `k` entries, repeats not counted.

    None if there is nothing to find.
    """
    wanted = set(gold)
    return len(wanted.intersection(list(dict.fromkeys(ranked))[:k])) / len(wanted) if gold else None


def line_overlap(predicted: Sequence[Lines], gold: Sequence[Lines]) -> Overlap:
    """Count single lines on both sides, each once however many ranges hold it."""
    ours, theirs = _merged(predicted), _merged(gold)
    common = sum(
        max(0, min(last, end) - max(first, start) + 1)
        for path, ranges in ours.items()
        for first, last in ranges
        for start, end in theirs.get(path, ())
    )
    return Overlap(_length(ours), common, _length(theirs), common)


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of lines in order, those that meet as one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _merged(places: Iterable[Lines]) -> dict[str, list[tuple[int, int]]]:
    by_path: dict[str, list[tuple[int, int]]] = {}
    for path, first, last in places:
        by_path.setdefault(path, []).append((first, last))
    return {path: merge_ranges(ranges) for path, ranges in by_path.items()}


def _length(places: Mapping[str, Sequence[tuple[int, int]]]) -> int:
    return sum(last - first + 1 for ranges in places.values() for first, last in ranges)


def _same(predicted: frozenset[object], gold: frozenset[object]) -> Overlap:
    hits = len(predicted & gold)
    return Overlap(len(predicted), hits, len(gold), hits)


def _hits(ranges: Sequence[Lines], others: Sequence[Lines]) -> int:
    """Count the ranges that share a line with one of the others."""
    by_path: dict[str, list[tuple[int, int]]] = {}
    for path, first, last in sorted(others):
        known = by_path.setdefault(path, [])
        # Of those that begin no later, only the one that reaches furthest matters.
        known.append((first, max(last, known[-1][1] if known else last)))
    return sum(_hit(by_path.get(path, []), first, last) for path, first, last in ranges)


def _hit(known: Sequence[tuple[int, int]], first: int, last: int) -> bool:
    index = bisect.bisect_right(known, last, key=lambda pair: pair[0])
    return index > 0 and known[index - 1][1] >= first
