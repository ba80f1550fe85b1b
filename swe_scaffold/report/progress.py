"""The section about training: the loss, step by step, and the learning rate under it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from swe_scaffold.numbers import count, counted, finite, fixed, percent, pick, point
from swe_scaffold.report.charts import Point, Series, Words, figure, line_chart
from swe_scaffold.report.html import NOTHING, Html, paragraph, section, table
from swe_scaffold.report.material import HoldOut, Material, Step
from swe_scaffold.report.scales import span
from swe_scaffold.report.verdict import UNIT

# Fewer steps than this are their own smooth line.
_SMOOTH_FROM = 12
_WINDOW_SHARE = 25
_LISTED = 24


def training(material: Material) -> Html:
    """Return loss curve and learning rate; a note where there is nothing to draw."""
    if not material.steps and not material.hold_out:
        return section(
            "training", "Training", paragraph("No training steps are recorded.", kind="note")
        )
    window = _window(len(material.steps))
    numbers = [*(one.step for one in material.steps), *(one.step for one in material.hold_out)]
    across = span(map(float, numbers))
    charts = _loss(material, window, across), _rate(material, across)
    return section("training", "Training", *charts)


def smoothed(steps: Sequence[Step], window: int) -> list[Point]:
    """Return the loss over a window centred on each step, weighted by response tokens."""
    nll = [0.0, *accumulate(step.loss * step.targets for step in steps)]
    targets = [0, *accumulate(step.targets for step in steps)]
    points = []
    for index, step in enumerate(steps):
        first, last = max(index - window // 2, 0), min(index + window // 2 + 1, len(steps))
        points.append(
            (float(step.step), (nll[last] - nll[first]) / (targets[last] - targets[first]))
        )
    return points


def _window(steps: int) -> int:
    """Return an odd number of steps, 0 for no smoothing."""
    return 0 if steps < _SMOOTH_FROM else max(steps // _WINDOW_SHARE, 2) | 1


def _loss(material: Material, window: int, across: tuple[float, float] | None) -> Html:
    steps, hold_out = material.steps, material.hold_out
    each: list[Point] = [(step.step, step.loss) for step in steps]
    held: list[Point] = [(row.step, row.nll) for row in hold_out]
    series = [Series("each step", "soft" if window else "tuned", each)]
    if window:
        series.append(Series("smoothed", "tuned", smoothed(steps, window)))
    series.append(Series("hold-out", "hold", held, markers=True))
    legend = [("soft thin" if window else "tuned thin", "training rows, each step")]
    legend += [("tuned thin", f"the same over {window} steps")] if window else []
    words = Words(
        "loss",
        "Loss over training steps",
        _described(steps, hold_out),
        x="optimizer step",
        y=UNIT,
    )
    return figure(
        lambda width: line_chart(series, words, width=width, height=280, across=across),
        caption=_caption(material),
        legend=[*(legend if steps else []), *([("hold round", "hold-out rows")] if held else [])],
        behind=_table(steps, hold_out),
    )


def _rate(material: Material, across: tuple[float, float] | None) -> Html:
    rates = [(float(step.step), step.lr) for step in material.steps if step.lr is not None]
    if not rates:
        return NOTHING
    peak = max(rate for _, rate in rates)
    words = Words(
        "rate",
        "Learning rate over training steps",
        f"From {point(rates[0][1])} at step {rates[0][0]:.0f} over {point(peak)} at most to "
        f"{point(rates[-1][1])} at step {rates[-1][0]:.0f}.",
        x="optimizer step",
        y="learning rate",
    )
    series = [Series("learning rate", "base", rates)]
    return figure(
        lambda width: line_chart(series, words, width=width, height=130, zero=True, across=across)
    )


def _described(steps: Sequence[Step], hold_out: Sequence[HoldOut]) -> str:
    parts = []
    if steps:
        first, last = steps[0], steps[-1]
        parts.append(
            f"Training loss {point(first.loss)} at step {first.step}, {point(last.loss)} at step "
            f"{last.step}."
        )
    if hold_out:
        first_row, last_row = hold_out[0], hold_out[-1]
        parts.append(
            f"Hold-out loss {point(first_row.nll)} at step {first_row.step}, "
            f"{point(last_row.nll)} at step {last_row.step}."
        )
    return " ".join(parts)


def _caption(material: Material) -> str:
    parts = []
    if material.steps:
        parts.append("Rows differ from step to step, and so does the loss.")
    if material.hold_out:
        lowest = min(material.hold_out, key=lambda row: (row.nll, row.step))
        parts.append(
            f"Lowest hold-out loss: {point(lowest.nll)} at step {lowest.step:,}, a single number "
            "without an interval."
        )
    kept = finite(pick(material.manifest, "result", "best_step"))
    if kept is not None:
        parts.append(f"The weights kept are those of step {kept:,.0f}.")
    share = finite(pick(material.training, "warmup_ratio"))
    if share and 0 < share < 1 and material.steps:
        parts.append(f"The learning rate rises over the first {percent(share)} of the steps.")
    return " ".join(parts)


def _table(steps: Sequence[Step], hold_out: Sequence[HoldOut]) -> Html:
    """Return a table of every hold-out number and some steps between."""
    held = {row.step: row for row in hold_out}
    every = max(-(-len(steps) // _LISTED), 1)
    chosen = {step.step: step for step in (*steps[::every], *steps[-1:])}
    chosen |= {step.step: step for step in steps if step.step in held}
    lines = []
    for number in sorted({*chosen, *held}):
        step, row = chosen.get(number), held.get(number)
        cells = [
            fixed(step.loss, 3) if step else "",
            fixed(row.nll, 3) if row else "",
            point(step.lr) if step and step.lr is not None else "",
            count(step.targets) if step else "",
        ]
        lines.append([count(number), *cells])
    every_note = f"; {counted(len(steps), 'step')} in all" if len(chosen) < len(steps) else ""
    headers = ["Step", "Training loss", "Hold-out loss", "Learning rate", "Response tokens"]
    return table(headers, lines, caption=f"Loss in {UNIT}{every_note}")
