"""Are row sums those of a plain loop, and by how much does what a tool reports move."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

TOLERANCE = 1e-6
LEGEND = (
    "Mean NLL per target token over all rows (for Trainer its eval_loss), its relative difference "
    "from a plain loop of one row at a time in float32 whose sums are float64, and the largest "
    "relative difference of any row's sum (Trainer reports none). Under each tool: how far apart "
    "its figures lie over the batch sizes of a dtype."
)


def worst_difference(sums: Mapping[str, float], right: Mapping[str, float]) -> float:
    """Return the largest relative difference of any row's sum; infinite where rows differ."""
    if sums.keys() != right.keys():
        return math.inf
    return max(abs(sums[key] - value) / abs(value) for key, value in right.items())


def table(
    found: Mapping[str, Mapping[str, Any]], right: Mapping[str, float], targets: int
) -> list[list[str]]:
    """Return the rows of a table, heading first: what each run reported, tool by tool.

    Args:
        found: What a run reported by its name, `TOOL, DTYPE, batch N`.
        right: Sum of each row in the plain loop.
        targets: Target tokens of all rows.
    """
    wanted = math.fsum(right.values()) / targets
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for name, value in found.items():
        tool, _, batch = name.rpartition(", batch ")
        groups.setdefault(tool, []).append((batch, value))
    lines = [["tool, dtype", "batch", "mean NLL", "from plain", "worst row from plain"]]
    for tool, values in groups.items():
        for batch, value in values:
            worst = f"{worst_difference(value['sums'], right):.1e}" if "sums" in value else "-"
            away = f"{value['mean'] / wanted - 1:+.1e}"
            lines.append([tool, batch, f"{value['mean']:.6f}", away, worst])
        if len(values) > 1:
            means = [value["mean"] for _, value in values]
            rows = _row_spread([value["sums"] for _, value in values if "sums" in value])
            spread = f"{(max(means) - min(means)) / min(means):.1e}"
            lines.append([tool, "**spread**", "", f"**{spread}**", f"**{rows}**"])
    return lines


def _row_spread(runs: list[Mapping[str, float]]) -> str:
    if not runs:
        return "-"
    spreads = [
        (max(values) - min(values)) / min(values)
        for values in ([sums[key] for sums in runs] for key in runs[0])
    ]
    return f"{max(spreads):.1e}"
