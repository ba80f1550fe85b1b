"""Shorten texts from the middle, at line bounds, with a visible marker.

Works on texts and the places where their tokens start; knows neither tokenizers nor chats. Answers
are never handed in here, so they are never cut.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class CountedText:
    """A text and the character at which each of its tokens starts, never decreasing."""

    text: str
    starts: Sequence[int]

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.starts)


@dataclass(frozen=True, slots=True)
class Cut:
    """A shortened text and how many of the original's tokens it keeps, the marker not counted."""

    text: str
    kept: int


def line_marker(count: int) -> str:
    """Say that whole lines are missing here."""
    return f"[… {count} lines omitted …]\n"


def character_marker(count: int) -> str:
    """Say that part of a long line is missing here."""
    return f"\n[… {count} characters omitted …]\n"


def shorten(
    texts: Sequence[CountedText], budget: int, *, floor: int, marker_tokens: int
) -> list[Cut] | None:
    """Cut the longest texts to one common length so that all together have `budget` tokens.

    Args:
        texts: What may be cut.
        budget: Tokens for all texts together, markers included.
        floor: A text keeps at least this many of its tokens, or all it has.
        marker_tokens: What a marker may take.

    Returns:
        One Cut for each text, or None when the floor or a negative budget forbids it.
    """
    if budget < 0:
        return None
    level = _level([text.tokens for text in texts], budget)
    cuts = []
    for text in texts:
        if text.tokens <= level:
            cuts.append(Cut(text.text, text.tokens))
            continue
        room = level - marker_tokens
        if room < min(floor, text.tokens):
            return None
        cuts.append(_cut(text, room, floor))
    return cuts


def _level(counts: Sequence[int], budget: int) -> int:
    """Return the largest n for which the sum of min(count, n) is within the budget."""
    left = budget
    ordered = sorted(counts)
    for index, count in enumerate(ordered):
        share = left // (len(ordered) - index)
        if count > share:
            return share
        left -= count
    return ordered[-1] if ordered else 0


def _cut(text: CountedText, room: int, floor: int) -> Cut:
    """Keep whole lines where they fill at least half the room, else parts of lines."""
    lines = _cut_lines(text, room)
    return lines if lines.kept >= max(floor, room // 2) else _cut_characters(text, room)


def _cut_lines(text: CountedText, room: int) -> Cut:
    bounds = [0, *(i + 1 for i in _newlines(text.text))]
    if bounds[-1] != len(text.text):
        bounds.append(len(text.text))
    # before[i]: tokens that start before line i.
    before = [bisect_left(text.starts, bound) for bound in bounds]
    last = len(bounds) - 1
    head = max(0, bisect_left(before, room // 2 + 1) - 1)
    tail = last
    while tail > head and before[head] + text.tokens - before[tail - 1] <= room:
        tail -= 1
    while head < tail and before[head + 1] + text.tokens - before[tail] <= room:
        head += 1
    kept = before[head] + text.tokens - before[tail]
    marker = line_marker(tail - head)
    return Cut(text.text[: bounds[head]] + marker + text.text[bounds[tail] :], kept)


def _cut_characters(text: CountedText, room: int) -> Cut:
    head = room // 2
    tail = text.tokens - (room - head)
    start = text.starts[head]
    end = text.starts[tail] if tail < text.tokens else len(text.text)
    marker = character_marker(end - start)
    return Cut(text.text[:start] + marker + text.text[end:], room)


def _newlines(text: str) -> list[int]:
    lengths = (len(line) + 1 for line in text.split("\n")[:-1])
    return [end - 1 for end in accumulate(lengths)]
