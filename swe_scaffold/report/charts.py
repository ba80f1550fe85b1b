"""Charts as SVG: what all of them share, the line chart and the histogram.

A chart is drawn twice, for wide and for narrow screens, so that its letters stay legible on a
phone; the style sheet shows one of the two, and holds the colours. Nothing to draw gives no chart.
Horizontal plots with labels are in `plots`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swe_scaffold.numbers import count
from swe_scaffold.report.html import NOTHING, Html, details, element, join
from swe_scaffold.report.scales import Scale, scale, span, text_width

WIDE, NARROW = 720.0, 360.0
_TOP, _BOTTOM, _RIGHT = 26.0, 40.0, 14.0
# Labels of common size leave the same room, so that charts under one another line up.
_LEFT = 54.0
_COLUMNS = 360
_BINS = {WIDE: 36, NARROW: 18}

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Words:
    """What a chart says of itself: its id on the page, title and description, names of the axes."""

    key: str
    title: str
    description: str
    x: str = ""
    y: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart; `kind` is its class in the style sheet."""

    name: str
    kind: str
    points: Sequence[Point]
    markers: bool = False


def figure(
    draw: Callable[[float], Html],
    *,
    caption: object = None,
    legend: Sequence[tuple[str, str]] = (),
    behind: Html = NOTHING,
) -> Html:
    """Return a chart for wide and narrow screens with its legend, caption and table.

    Args:
        draw: Draws the chart for one of the two widths.
        caption: What to read from it.
        legend: Class and name of what is drawn.
        behind: The table with the numbers, folded.
    """
    wide = draw(WIDE)
    if not wide:
        return NOTHING
    keys = [
        element("li", element("span", class_=f"key {kind}", aria_hidden="true"), name)
        for kind, name in legend
    ]
    return element(
        "figure",
        element("ul", *keys, class_="legend") if keys else None,
        element("div", wide, class_="wide"),
        element("div", draw(NARROW), class_="narrow"),
        element("figcaption", caption) if caption else None,
        details("Numbers behind this chart", behind) if behind else None,
    )


def drawing(words: Words, width: float, height: float, *parts: Html) -> Html:
    """Return an SVG image with its title and description for those who do not see it."""
    key = f"{words.key}-{'wide' if width == WIDE else 'narrow'}"
    return element(
        "svg",
        element("title", words.title, id=f"{key}-title"),
        element("desc", words.description, id=f"{key}-desc"),
        *parts,
        viewBox=f"0 0 {place(width)} {place(height)}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )


def place(value: float) -> str:
    """Return a coordinate with one decimal at most."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def text(x: float, y: float, words: object, *, kind: str = "", anchor: str = "start") -> Html:
    """Return a text on a chart; `y` is its base line."""
    return element("text", words, x=place(x), y=place(y), text_anchor=anchor, class_=kind or None)


def line(x1: float, y1: float, x2: float, y2: float, *, kind: str) -> Html:
    """Return a straight line."""
    ends = {"x1": place(x1), "y1": place(y1), "x2": place(x2), "y2": place(y2)}
    return element("line", **ends, class_=kind)


def rectangle(x: float, y: float, width: float, height: float, *, kind: str, tip: str = "") -> Html:
    """Return a filled rectangle; `tip` is shown under the pointer."""
    size = {"x": place(x), "y": place(y), "width": place(width), "height": place(height)}
    return element("rect", element("title", tip) if tip else None, **size, class_=kind)


def dot(x: float, y: float, radius: float, *, kind: str, tip: str = "") -> Html:
    """Return a dot; `tip` is shown under the pointer."""
    at = {"cx": place(x), "cy": place(y), "r": place(radius)}
    return element("circle", element("title", tip) if tip else None, **at, class_=kind)


def line_chart(
    series: Sequence[Series],
    words: Words,
    *,
    width: float,
    height: float = 260.0,
    zero: bool = False,
    across: tuple[float, float] | None = None,
) -> Html:
    """Draw lines over a common axis of whole numbers.

    `zero` puts zero on the y axis; `across` fixes the ends of the x axis, so that charts under one
    another share it.
    """
    drawn = [one for one in series if one.points]
    across = across or span(x for one in drawn for x, _ in one.points)
    up = span((y for one in drawn for _, y in one.points), zero=zero)
    if across is None or up is None:
        return NOTHING
    vertical = scale(up, height - _BOTTOM, _TOP, ticks=max(2, round(height / 52)))
    horizontal = _x_scale(across, vertical, width)
    parts = [*_y_axis(vertical, horizontal, words.y), *_x_axis(horizontal, vertical, words.x)]
    parts += [mark for one in drawn for mark in _marks(one, horizontal, vertical)]
    return drawing(words, width, height, *parts)


def histogram(
    values: Sequence[float],
    words: Words,
    *,
    width: float,
    height: float = 190.0,
    limit: tuple[float, str] | None = None,
) -> Html:
    """Draw how often values occur; `limit` is a value to mark and its name, if on the axis."""
    ends = span(values, zero=True)
    if ends is None:
        return NOTHING
    bins = binned(values, most=_BINS.get(width, 18))
    highest = max(many for _, _, many in bins)
    vertical = scale((0.0, float(highest)), height - _BOTTOM, _TOP, ticks=3, least=1.0)
    domain = (min(0.0, bins[0][0]), bins[-1][1])
    horizontal = _x_scale(domain, vertical, width)
    parts = [*_y_axis(vertical, horizontal, words.y), *_x_axis(horizontal, vertical, words.x)]
    for low, high, many in bins:
        left, right, top = horizontal.at(low), horizontal.at(high), vertical.at(many)
        tip = f"{low:g} to under {high:g}: {count(many)}"
        size = max(right - left - 1, 0.6), vertical.start - top
        parts.append(rectangle(left + 0.5, top, *size, kind="fill tuned", tip=tip))
    if limit is not None and domain[0] <= limit[0] <= domain[1]:
        x = horizontal.at(limit[0])
        end = "end" if x > width / 2 else "start"
        parts.append(line(x, 3, x, vertical.start, kind="limit"))
        parts.append(text(x + (-6 if end == "end" else 6), 12, limit[1], anchor=end))
    return drawing(words, width, height, *parts)


def binned(values: Sequence[float], *, most: int) -> list[tuple[float, float, int]]:
    """Return (from, to, how many) over bins of one round width, at most about `most` of them."""
    kept = [value for value in values if math.isfinite(value)]
    ends = span(kept)
    if ends is None:
        return []
    size = max(scale(ends, 0, 1, ticks=most).step, 1.0)
    first = math.floor(min(kept) / size)
    counts = [0] * (math.floor(max(kept) / size) - first + 1)
    for value in kept:
        counts[math.floor(value / size) - first] += 1
    return [((first + i) * size, (first + i + 1) * size, many) for i, many in enumerate(counts)]


def thinned(points: Sequence[Point], columns: int = _COLUMNS) -> list[Point]:
    """Return at most two points per column, its lowest and highest: what a screen can show."""
    if len(points) <= 2 * columns:
        return list(points)
    ordered = sorted(points)
    low, high = ordered[0][0], ordered[-1][0]
    width = (high - low) / columns or 1.0
    kept: dict[int, list[Point]] = {}
    for one in ordered:
        kept.setdefault(min(int((one[0] - low) / width), columns - 1), []).append(one)
    ends = ({min(part, key=_height), max(part, key=_height)} for part in kept.values())
    return [one for pair in ends for one in sorted(pair)]


def _height(one: Point) -> float:
    return one[1]


def _x_scale(ends: tuple[float, float], vertical: Scale, width: float) -> Scale:
    left = max(_LEFT, *(text_width(label) + 10 for _, label in vertical.ticks()))
    ticks = 8 if width > 500 else 4
    return scale(ends, left, width - _RIGHT, ticks=ticks, rounded=False, least=1.0)


def _y_axis(vertical: Scale, horizontal: Scale, name: str) -> list[Html]:
    parts = [text(0, 12, name, kind="axis")] if name else []
    for value, label in vertical.ticks():
        y = vertical.at(value)
        parts.append(line(horizontal.start, y, horizontal.end, y, kind="grid"))
        parts.append(text(horizontal.start - 8, y + 4, label, anchor="end"))
    return parts


def _x_axis(horizontal: Scale, vertical: Scale, name: str) -> list[Html]:
    base = vertical.start
    parts = [line(horizontal.start, base, horizontal.end, base, kind="rule")]
    for value, label in horizontal.ticks():
        x = horizontal.at(value)
        parts.append(line(x, base, x, base + 4, kind="rule"))
        parts.append(text(x, base + 17, label, anchor="middle"))
    if name:
        parts.append(text(horizontal.end, base + 34, name, kind="axis", anchor="end"))
    return parts


def _marks(one: Series, horizontal: Scale, vertical: Scale) -> list[Html]:
    places = [(horizontal.at(x), vertical.at(y)) for x, y in thinned(one.points)]
    parts = []
    if len(places) > 1:
        path = "L".join(f"{place(x)} {place(y)}" for x, y in places)
        parts.append(element("path", d=f"M{path}", class_=f"line {one.kind}"))
    if one.markers or len(places) == 1:
        radius = 3.4 if len(places) <= 60 else 1.8
        parts.append(join(dot(x, y, radius, kind=f"dot {one.kind}") for x, y in places))
    return parts
