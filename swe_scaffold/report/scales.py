"""From numbers to places on a chart: linear scales, round ticks, how wide a text is."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from swe_scaffold.numbers import fixed, scientific

FONT_SIZE = 12.0
_LETTER = 0.6
_NEARLY_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high`, drawn from `start` to `end`; `step` is between ticks."""

    low: float
    high: float
    start: float
    end: float
    step: float

    def at(self, value: float) -> float:
        """Return the place of a value; values beyond the ends stay at the ends."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the round values within the scale and how they are written."""
        slack = self.step * _NEARLY_EQUAL * 1000
        first = math.ceil((self.low - slack) / self.step)
        last = math.floor((self.high + slack) / self.step)
        values = [index * self.step for index in range(first, last + 1)]
        return [(value, self._written(value)) for value in values]

    def _written(self, value: float) -> str:
        if self.step < 1e-4 or max(abs(self.low), abs(self.high)) >= 1e7:
            return scientific(value) if value else "0"
        return fixed(value, max(0, -math.floor(math.log10(self.step) + _NEARLY_EQUAL)))


def span(values: Iterable[float], *, zero: bool = False) -> tuple[float, float] | None:
    """Return the ends of the finite values, widened where they are one; None if there are none."""
    kept = [value for value in values if math.isfinite(value)]
    if not kept:
        return None
    low, high = min(kept), max(kept)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= _NEARLY_EQUAL * max(abs(low), abs(high), 1e-3):
        pad = max(abs(low) * 0.1, 1e-3) if low or high else 1.0
        low, high = (0.0 if zero and low == 0 else low - pad), high + pad
    return low, high


def scale(
    ends: tuple[float, float],
    start: float,
    end: float,
    *,
    ticks: int = 5,
    rounded: bool = True,
    least: float = 0.0,
) -> Scale:
    """Return a scale over `ends` with about `ticks` ticks, at least `least` apart.

    `rounded` widens the scale to whole steps.
    """
    low, high = ends
    step = max(_round_step((high - low) / max(ticks, 1)), least)
    if rounded:
        low = math.floor(low / step + _NEARLY_EQUAL) * step
        high = math.ceil(high / step - _NEARLY_EQUAL) * step
    return Scale(low, high, start, end, step)


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """Estimate the width of a text in a common sans serif font."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return size * (_LETTER * (len(text) - wide) + wide)


def shortened(text: str, width: float) -> str:
    """Return a text that fits into `width`, cut in the middle where it must be."""
    if text_width(text) <= width:
        return text
    keep = max(int(width / (FONT_SIZE * _LETTER)) - 1, 2)
    while keep > 2 and text_width(_cut(text, keep)) > width:
        keep -= 1
    return _cut(text, keep)


def _cut(text: str, keep: int) -> str:
    head = (keep + 1) // 2
    return f"{text[:head]}…{text[len(text) - (keep - head) :]}"


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(size * power for size in (1, 2, 5, 10) if rough <= size * power * (1 + 1e-9))
