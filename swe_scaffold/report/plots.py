"""Horizontal plots with a label on each line: dots and bars with intervals, shares of a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from swe_scaffold.numbers import Estimate, count, shown
from swe_scaffold.report.charts import Words, dot, drawing, line, rectangle, text
from swe_scaffold.report.html import NOTHING, Html, element
from swe_scaffold.report.scales import Scale, scale, shortened, span, text_width

_BOTTOM, _RIGHT = 40.0, 14.0
_ROW, _BAR = 24.0, 13.0
_LABEL_SHARE = 0.36
_GAP = 10.0
# An interval of two rows can be a hundred times as wide as all others; the axis follows the others.
_REACH = 6.0
_OTHER_SIDE, _PAD = 0.18, 0.03


@dataclass(frozen=True, slots=True)
class Dot:
    """One line of a dot plot; a `head` line stands for all the others and is drawn stronger."""

    label: str
    estimate: Estimate
    head: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """One line of a bar plot: class, name and estimate of each bar."""

    label: str
    parts: Sequence[tuple[str, str, Estimate]]


@dataclass(frozen=True, slots=True)
class Share:
    """One part of a whole; `kind` is its class in the style sheet."""

    name: str
    amount: int
    kind: str


def dot_plot(rows: Sequence[Dot], words: Words, *, width: float, sides: tuple[str, str]) -> Html:
    """Draw differences around zero with their intervals.

    A filled dot has an interval that excludes zero, a hollow one has not; an arrow head marks an
    interval that goes on beyond the axis. `sides` say what lies left and right of zero.
    """
    if not rows:
        return NOTHING
    top, bottom = 30.0, 30.0 + _ROW * len(rows)
    labels, left = _labels([row.label for row in rows], width)
    ends = _reach(rows)
    ticks = 6 if width > 500 else 3
    horizontal = scale(ends, left, width - _RIGHT, ticks=ticks, rounded=False)
    zero = horizontal.at(0.0)
    parts = _grid(horizontal, top, bottom, words.x)
    parts.append(line(zero, top - 4, zero, bottom, kind="zero"))
    if zero - left > text_width(sides[0]) + 6:
        parts.append(text(zero - 6, 16, sides[0], kind="axis", anchor="end"))
    if width - _RIGHT - zero > text_width(sides[1]) + 6:
        parts.append(text(zero + 6, 16, sides[1], kind="axis"))
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = top + _ROW * (index + 0.5)
        parts.append(_label(label, row.label, left, y, strong=row.head))
        parts.append(_interval(row, horizontal, y))
    return drawing(words, width, bottom + _BOTTOM, *parts)


def bar_plot(
    rows: Sequence[Bars], words: Words, *, width: float, top_value: float | None = None
) -> Html:
    """Draw bars from zero with intervals and values; `top_value` fixes the end of the axis."""
    values = [estimate for row in rows for _, _, estimate in row.parts]
    if not values:
        return NOTHING
    numbers = [shown(one)[0] for one in values]
    ends = span(
        (max(end, 0.0) for one in values for end in (one.value, one.high or 0.0)), zero=True
    )
    ends = (0.0, top_value) if top_value is not None else ends
    if ends is None:
        return NOTHING
    labels, left = _labels([row.label for row in rows], width)
    right = width - max(map(text_width, numbers)) - 14
    horizontal = scale(ends, left, right, ticks=6 if width > 500 else 4, rounded=False)
    top = y = 8.0
    marks = []
    for row, label in zip(rows, labels, strict=True):
        middle = y + _BAR * len(row.parts) / 2
        marks.append(_label(label, row.label, left, middle))
        for kind, name, estimate in row.parts:
            marks += _bar(kind, f"{row.label}, {name}", estimate, horizontal, y)
            y += _BAR
        y += _GAP
    bottom = y - _GAP / 2
    return drawing(
        words, width, bottom + _BOTTOM, *_grid(horizontal, top - 4, bottom, words.x), *marks
    )


def share_bar(shares: Sequence[Share], words: Words, *, width: float) -> Html:
    """Draw the parts of a whole as one bar."""
    whole = sum(share.amount for share in shares)
    if not whole:
        return NOTHING
    parts, x = [], 0.0
    for share in shares:
        size = width * share.amount / whole
        if share.amount:
            tip = f"{share.name}: {count(share.amount)}"
            parts.append(
                rectangle(x, 0, max(size - 1.5, 1.0), 22, kind=f"fill {share.kind}", tip=tip)
            )
        x += size
    return drawing(words, width, 22, *parts)


def _labels(names: Sequence[str], width: float) -> tuple[list[str], float]:
    """Return the names as they fit, and where the plot begins."""
    room = width * _LABEL_SHARE
    cut = [shortened(name, room) for name in names]
    return cut, max(map(text_width, cut)) + 16


def _label(shortened_name: str, name: str, left: float, y: float, *, strong: bool = False) -> Html:
    content = text(left - 10, y + 4, shortened_name, kind="strong" if strong else "", anchor="end")
    if shortened_name == name:
        return content
    return element("g", element("title", name), content)


def _grid(horizontal: Scale, top: float, bottom: float, name: str) -> list[Html]:
    parts = []
    for value, label in horizontal.ticks():
        x = horizontal.at(value)
        parts.append(line(x, top, x, bottom, kind="grid"))
        parts.append(text(x, bottom + 15, label, anchor="middle"))
    if name:
        parts.append(text(horizontal.end, bottom + 33, name, kind="axis", anchor="end"))
    return parts


def _reach(rows: Sequence[Dot]) -> tuple[float, float]:
    """Return the ends of an axis that shows every value and all intervals but outlandish ones."""
    values = [0.0, *(row.estimate.value for row in rows)]
    intervals = [row.estimate.interval for row in rows if row.estimate.interval]
    low, high = min(values), max(values)
    halves = [(end - start) / 2 for start, end in intervals]
    room = max(high - low, _REACH * median(halves) / 2 if halves else 0.0)
    ends = [max(start, low - room) for start, _ in intervals]
    ends += [min(end, high + room) for _, end in intervals]
    low, high = span([*values, *ends]) or (-1.0, 1.0)
    pad = _PAD * (high - low)
    # The side of zero without a value is shown too, or nobody would know which side that is.
    return min(low - pad, -_OTHER_SIDE * high), max(high + pad, -_OTHER_SIDE * low)


def _interval(row: Dot, horizontal: Scale, y: float) -> Html:
    estimate = row.estimate
    value, interval = shown(estimate, signed=True)
    kind = "all" if row.head else "one"
    parts = []
    if estimate.interval:
        x1, x2 = (horizontal.at(end) for end in estimate.interval)
        parts.append(line(x1, y, x2, y, kind=f"whisker {kind}"))
        if estimate.interval[0] < horizontal.low:
            parts.append(_arrow(horizontal.start, y, -1, kind))
        if estimate.interval[1] > horizontal.high:
            parts.append(_arrow(horizontal.end, y, 1, kind))
    sure = "sure" if estimate.excludes_zero else "unsure"
    radius = 4.4 if row.head else 3.6
    parts.append(dot(horizontal.at(estimate.value), y, radius, kind=f"dot {kind} {sure}"))
    tip = f"{row.label}: {value} {interval or 'no interval'}"
    return element("g", element("title", tip), *parts)


def _arrow(x: float, y: float, direction: int, kind: str) -> Html:
    back = x - 7 * direction
    points = f"{x:.1f},{y:.1f} {back:.1f},{y - 4:.1f} {back:.1f},{y + 4:.1f}"
    return element("polygon", points=points, class_=f"fill {kind}")


def _bar(kind: str, name: str, estimate: Estimate, horizontal: Scale, y: float) -> list[Html]:
    value, interval = shown(estimate)
    end, middle = horizontal.at(max(estimate.value, 0.0)), y + _BAR / 2
    size = max(end - horizontal.start, 1.0), _BAR - 3
    parts = [
        rectangle(
            horizontal.start, y + 1.5, *size, kind=f"fill {kind}", tip=f"{name}: {value} {interval}"
        )
    ]
    if estimate.interval:
        low, high = (horizontal.at(edge) for edge in estimate.interval)
        parts.append(line(low, middle, high, middle, kind="whisker bar"))
        end = max(end, high)
    parts.append(text(end + 6, middle + 4, value, kind="value"))
    return parts
