"""What seconds of training come to: tokens a second, share of the machine's peak, ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train_material import Shape

MB = 1e6
# A backward pass through attention costs two and a half times the forward pass.
ATTENTION_PASSES = 3.5
AGREEMENT = 0.1
# Seconds of one contender over another's, as prototypes had it on one Zen 4 core with 16 rows of up
# to 2,048 tokens, one run each; differences below 8 % were noise.
EARLIER = {
    "like3b": {
        ("TRL, defaults", "TRL, best-tuned"): 63.1 / 35.4,
        ("TRL, best-tuned", "litgpt, best-tuned"): 35.4 / 28.3,
        ("Trainer, padded batches", "litgpt, best-tuned"): 43.3 / 28.3,
        ("the seed's way", "TRL, best-tuned"): 177.6 / 35.4,
    },
    "bigvocab": {("TRL, best-tuned", "litgpt, best-tuned"): 173.8 / 119.6},
}
EXPLANATION = (
    "The ratios were measured before with other rows: 1,181 tokens on average against {mean:,.0f} "
    "here, the longest cut at 2,048, and by one run each. Shorter rows have less attention, whose "
    "cost grows with the square, and padding to 2,048 weighs on them more; prototypes made models "
    "in memory, here everyone loads one from disk. Where a ratio is not within 10 %, this is why, "
    "as far as is known; --length 2048 has rows like those."
)


@dataclass(frozen=True)
class Work:
    """What a whole run trains; `peak` is FLOP/s of a matrix product here, 0 where unknown."""

    tokens: int
    targets: int
    flops: float
    peak: float = 0.0


def training_flops(shape: Shape, lengths: Sequence[int], targets: int) -> float:
    """Return the FLOPs that exact LoRA training of these rows needs on a frozen base.

    Two for each weight and token forward, two for the gradient of the inputs, none for that of the
    weights; causal attention within rows; the head where a target is. Adapters, norms and softmax
    are left out. Work that a contender does beyond this (padding, recomputation, other positions
    of the head) does not count.
    """
    trunk = 4 * shape.trunk * sum(lengths)
    attention = ATTENTION_PASSES * 2 * shape.hidden * shape.layers * sum(n * n for n in lengths)
    head = 4 * shape.vocabulary * shape.hidden * targets
    return trunk + attention + head


def table(figures: Mapping[str, Any], work: Work) -> list[list[str]]:
    """Return the rows of a table, heading first, by contender."""
    heading = [
        *("", "supervised tok/s", "real tok/s", "training s", "process s", "its CPU s"),
        *("first step s", "peak MB (no file behind)", "of the GEMM peak", "spread"),
    ]
    return [heading, *(_line(name, found, work) for name, found in figures.items())]


def _line(name: str, found: Mapping[str, Any], work: Work) -> list[str]:
    training = found["training_seconds"]
    seconds = training["median"]
    memory = f"{found['peak_pss']['median'] / MB:,.0f}"
    memory += f" ({found['peak_anonymous']['median'] / MB:,.0f})"
    if "device_bytes" in found:
        memory += f", device {found['device_bytes']['median'] / MB:,.0f}"
    share = f"{work.flops / seconds / work.peak:.0%}" if work.peak else "-"
    return [
        name,
        f"{work.targets / seconds:,.0f}",
        f"{work.tokens / seconds:,.0f}",
        *(span(found[key]) for key in ("training_seconds", "wall_seconds", "cpu_seconds")),
        span(found["first_step_seconds"]),
        memory,
        share,
        f"{training['spread']:.1%}" + ("" if training["measured"] else " **not measured**"),
    ]


def span(figure: Mapping[str, Any]) -> str:
    """Return a figure as its median and range."""
    return f"{figure['median']:.2f} ({figure['min']:.2f} to {figure['max']:.2f})"


def against_earlier(shape: str, figures: Mapping[str, Any]) -> list[list[str]]:
    """Return a table of the ratios between peers beside those measured earlier, heading first."""
    lines = [["seconds of", "over those of", "here", "earlier", "within 10 %"]]
    for (slow, fast), before in EARLIER.get(shape, {}).items():
        if slow in figures and fast in figures:
            seconds = [figures[name]["training_seconds"]["median"] for name in (slow, fast)]
            here = seconds[0] / seconds[1]
            agrees = "yes" if abs(here / before - 1) <= AGREEMENT else "**no**"
            lines.append([slow, fast, f"{here:.2f}", f"{before:.2f}", agrees])
    return lines if len(lines) > 1 else []
