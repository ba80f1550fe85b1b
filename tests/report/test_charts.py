"""Charts are sound SVG for any numbers: none, one, all equal, huge, not finite."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_scaffold.numbers import Estimate
from swe_scaffold.report.charts import (
    NARROW,
    WIDE,
    Series,
    Words,
    binned,
    figure,
    histogram,
    line_chart,
    thinned,
)
from swe_scaffold.report.html import Html
from swe_scaffold.report.plots import Bars, Dot, Share, bar_plot, dot_plot, share_bar
from swe_scaffold.report.scales import scale, shortened, span, text_width

WORDS = Words("key", "<Title>", "Description & more", x="x axis", y="y axis")
SIDES = ("left", "right")
NUMBERS = st.floats(-1e100, 1e100) | st.floats(allow_nan=True, allow_infinity=True)
FINITE = st.floats(-1e100, 1e100)
ESTIMATES = st.builds(
    lambda value, below, above: Estimate(value, value - abs(below), value + abs(above)),
    *(FINITE, FINITE, FINITE),
) | st.builds(Estimate, FINITE)
Draw = Callable[[float], Html]


def lines_of(*points: tuple[float, float]) -> Draw:
    series = [Series("a", "soft", points), Series("b", "hold", points[:1], markers=True)]
    return lambda width: line_chart(series, WORDS, width=width)


def bars_of(values: list[float]) -> Draw:
    return lambda width: histogram(values, WORDS, width=width, limit=(5.0, "limit"))


def check(svg: Html, width: float) -> ElementTree.Element:
    """The chart is well formed, says what it is, holds finite numbers and draws nothing outside."""
    root = ElementTree.fromstring(svg)
    left, top, across, down = map(float, root.attrib["viewBox"].split())
    assert (left, top, across) == (0, 0, width)
    ids = {child.attrib["id"]: child.text for child in root if "id" in child.attrib}
    assert list(ids) == root.attrib["aria-labelledby"].split()
    assert root.attrib["role"] == "img"
    assert all(ids.values())
    for node in root.iter():
        for name, value in node.attrib.items():
            if name in ("x", "x1", "x2", "cx"):
                assert -1 <= float(value) <= across + 1
            if name in ("y", "y1", "y2", "cy"):
                assert -1 <= float(value) <= down + 1
            if name in ("width", "height", "r"):
                assert math.isfinite(float(value))
                assert float(value) >= 0
            if name in ("d", "points"):
                assert re.fullmatch(r"[ML0-9., -]+", value)
    return root


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_gives_no_chart(width: float) -> None:
    assert line_chart([], WORDS, width=width) == ""
    assert line_chart([Series("a", "soft", [])], WORDS, width=width) == ""
    assert histogram([], WORDS, width=width) == ""
    assert dot_plot([], WORDS, width=width, sides=SIDES) == ""
    assert bar_plot([], WORDS, width=width) == ""
    assert bar_plot([Bars("a", [])], WORDS, width=width) == ""
    assert share_bar([Share("a", 0, "soft")], WORDS, width=width) == ""
    assert figure(lambda width: histogram([], WORDS, width=width), caption="none") == ""


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize(
    "draw",
    [
        lines_of((3, 2.5)),
        lines_of((0, 0)),
        lines_of((1, 2.5), (2, 2.5), (3, 2.5)),
        lines_of((1, -7), (2, 1e9)),
        bars_of([7]),
        bars_of([0]),
        bars_of([4] * 50),
        bars_of([1, 10**6]),
    ],
)
def test_one_point_and_constant_data_are_drawn(draw: Draw, width: float) -> None:
    root = check(draw(width), width)
    assert root.findall(".//circle") or root.findall(".//rect") or root.findall(".//path")


def test_a_single_point_is_a_dot_and_several_are_a_line() -> None:
    assert check(lines_of((1, 2))(WIDE), WIDE).findall("path") == []
    assert len(check(lines_of((1, 2), (2, 3))(WIDE), WIDE).findall("path")) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), FINITE), max_size=20), st.booleans())
def test_any_line_is_drawn_inside(points: list[tuple[float, float]], zero: bool) -> None:
    svg = line_chart([Series("a", "soft", sorted(points))], WORDS, width=NARROW, zero=zero)
    assert bool(svg) == bool(points)
    if points:
        check(svg, NARROW)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=30), st.integers(0, 10**7))
def test_a_histogram_counts_every_value_once(values: list[int], limit: int) -> None:
    assert sum(many for _, _, many in binned(values, most=20)) == len(values)
    assert len(binned(values, most=20)) <= 24
    for low, high, _ in binned(values, most=20):
        assert low < high
    check(histogram(values, WORDS, width=WIDE, limit=(float(limit), "limit")), WIDE)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=60), ESTIMATES), min_size=1, max_size=12))
def test_any_estimates_are_drawn_inside(rows: list[tuple[str, Estimate]]) -> None:
    dots = [Dot(name, one, head=i == 0) for i, (name, one) in enumerate(rows)]
    check(dot_plot(dots, WORDS, width=NARROW, sides=SIDES), NARROW)
    bars = [Bars(name, [("base", "base", one), ("tuned", "tuned", one)]) for name, one in rows]
    check(bar_plot(bars, WORDS, width=WIDE), WIDE)


def classes_of(estimate: Estimate) -> str:
    root = check(dot_plot([Dot("a", estimate)], WORDS, width=WIDE, sides=SIDES), WIDE)
    return root.findall(".//circle")[0].attrib["class"]


def test_only_an_interval_without_zero_fills_the_dot() -> None:
    assert " sure" in classes_of(Estimate(-1, -2, -0.5))
    assert " sure" in classes_of(Estimate(1, 0.5, 2))
    assert " unsure" in classes_of(Estimate(-1, -2, 0.1))
    assert " unsure" in classes_of(Estimate(-1))


def test_an_outlandish_interval_does_not_flatten_the_others() -> None:
    rows = [Dot(f"g{i}", Estimate(-0.5, -0.6, -0.4)) for i in range(9)]
    rows.append(Dot("wild", Estimate(-0.4, -90.4, 89.6)))
    root = check(dot_plot(rows, WORDS, width=WIDE, sides=SIDES), WIDE)
    assert len(root.findall(".//polygon")) == 2
    drawn = [n for n in root.iter("line") if n.attrib["class"] == "whisker one"]
    assert float(drawn[0].attrib["x2"]) - float(drawn[0].attrib["x1"]) > 30


def test_both_sides_of_zero_are_named() -> None:
    for sign in (-1, 1):
        ends = sorted([sign * 0.8, sign * 1.2])
        svg = dot_plot([Dot("a", Estimate(sign, *ends))], WORDS, width=WIDE, sides=SIDES)
        assert ">left<" in svg
        assert ">right<" in svg


def test_labels_are_text_and_cut_ones_are_told_in_full() -> None:
    name = "<b>" + "x" * 80
    root = check(dot_plot([Dot(name, Estimate(1.0))], WORDS, width=NARROW, sides=SIDES), NARROW)
    assert name in [node.text for node in root.iter("title")]
    assert not root.findall(".//b")


def test_thinning_keeps_the_extremes_and_the_order() -> None:
    points = [(float(i), math.sin(i / 500)) for i in range(20_000)] + [(20_000.0, 9.0)]
    kept = thinned(points, columns=100)
    assert len(kept) <= 200
    assert kept == sorted(kept)
    assert max(kept, key=lambda p: p[1]) == (20_000.0, 9.0)
    assert set(kept) <= set(points)
    assert thinned(points[:50], columns=100) == points[:50]


@given(st.lists(NUMBERS, max_size=8), st.booleans(), st.integers(1, 9))
def test_a_scale_covers_its_values_and_has_few_ticks(
    values: list[float], zero: bool, ticks: int
) -> None:
    ends = span(values, zero=zero)
    kept = [value for value in values if math.isfinite(value)]
    assert (ends is None) == (not kept)
    if ends is None:
        return
    made = scale(ends, 0.0, 100.0, ticks=ticks)
    assert made.low < made.high
    slack = 1e-6 * (made.high - made.low)
    assert all(made.low - slack <= value <= made.high + slack for value in kept)
    assert 1 <= len(made.ticks()) <= 2 * ticks + 4
    assert all(-1e-6 <= made.at(value) <= 100 + 1e-6 for value in kept)


@given(st.text(), st.floats(30, 300))
def test_a_shortened_text_fits(text: str, width: float) -> None:
    cut = shortened(text, width)
    assert cut == text or ("…" in cut and text_width(cut) <= max(width, 41))
