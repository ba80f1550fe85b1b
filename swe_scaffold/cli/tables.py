"""Numbers and tables for people: plain text that stays readable in a pipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from swe_scaffold.terminal import show

PLACE_WIDTH = 4096
# Beyond these, digits before the point say less than an exponent.
_LARGE = 1e7
_SIGNS = str.maketrans("", "", ",.-+\u2212")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an aligned table; columns of numbers are set right, and every text is made safe."""
    lines = [headers, *rows]
    cells = [[show(value, width=PLACE_WIDTH) for value in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [
        bool(rows) and all(map(_is_number, column[1:])) for column in zip(*cells, strict=True)
    ]

    def line(values: Sequence[str]) -> str:
        parts = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def facts(title: str, rows: Sequence[tuple[str, object]]) -> str:
    """Return a title and below it one `name  value` a line, every text made safe."""
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name.ljust(width)}  {place(value)}".rstrip() for name, value in rows]
    return "\n".join([place(title), *lines])


def number(metric: Mapping[str, Any]) -> str:
    """Return a metric's value with its interval, digits by the interval's half width."""
    value, interval = metric["value"], metric["ci"]
    if value is None:
        return f"none ({metric['reason']})"
    if interval is None:
        return f"{value:.4g} (no interval: {metric['reason']})"
    low, high = interval
    if max(abs(low), abs(high)) >= _LARGE:
        return f"{value:.4g} [{low:.4g}, {high:.4g}]"
    digits = _digits((high - low) / 2)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def level(metric: Mapping[str, Any]) -> str:
    """Return the level of a metric's interval, as `95 %`."""
    return f"{100 * metric['level']:g} %"


def counts(values: Mapping[str, int]) -> str:
    """Return `a 3, b 2`, or `none`."""
    return ", ".join(f"{show(name, width=80)} {n}" for name, n in values.items()) or "none"


def place(path: object) -> str:
    """Return a path, or another long value, safe to print and whole, so that it can be copied."""
    return show(path, width=PLACE_WIDTH)


def _digits(half_width: float) -> int:
    """Decimals that show the first two significant digits of the half width."""
    if half_width <= 0 or not math.isfinite(half_width):
        return 4
    return max(0, min(6, 1 - math.floor(math.log10(half_width))))


def _is_number(text: str) -> bool:
    return text.translate(_SIGNS).rstrip(" %").isdecimal()
