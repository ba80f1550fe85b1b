"""What seconds of training come to: tokens a second, share of the machine's peak, spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from measuring import LEAST_RUNS, summary
from pages import MB, span, told_spread
from train_material import Shape

# Scores and their sums over values, each with two more products for the gradients.
ATTENTION_PASSES = 3.0
LEGEND = (
    "Medians (least to most) of interleaved runs, each a fresh process in a folder of its own. "
    "Training s is from the begin of the first step to the end of the last, logging between them "
    "included; process s the whole process. Beside the median stands the fastest run: neighbours "
    "on a shared machine slow things down and never speed them up. Memory is the largest sum of "
    "the processes' proportional set sizes, in brackets the part that no file backs. A figure of "
    "which runs spread by more than 5 %, or are fewer than five, is not measured."
)
ONE_RUN = (
    "On a device everyone runs once. The spread of training s is that of five equal parts of that "
    "run's steps, its first left out: their seconds per token, or per step where rows are packed. "
    "Seconds of processes and memory have one run, and so count as not measured."
)


@dataclass(frozen=True)
class Work:
    """What a whole run trains; `peak` is FLOP/s of a matrix product here."""

    tokens: int
    targets: int
    flops: float
    peak: float


def training_flops(shape: Shape, lengths: Sequence[int], targets: int) -> float:
    """Return the FLOPs that exact LoRA training of these rows needs on a frozen base.

    Counted as `swe_scaffold.engine.flops` does, without the adapter: two for each weight and token
    forward, two for the gradient of the inputs, none for that of the weights; causal attention
    within rows, half of the square; the head where a target is. Norms and softmax are left out.
    Work that a contender does beyond this (padding, recomputation, other positions of the head)
    does not count.
    """
    trunk = 4 * shape.trunk * sum(lengths)
    attention = ATTENTION_PASSES * 2 * shape.hidden * shape.layers * sum(n * n for n in lengths)
    head = 4 * shape.vocabulary * shape.hidden * targets
    return trunk + attention + head


def within_one_run(seconds: float, ends: Sequence[float], tokens: Sequence[int]) -> dict[str, Any]:
    """Return the figure of a single run, its spread that of five parts of its steps.

    Args:
        seconds: What the run took.
        ends: Seconds from its begin to the end of each step.
        tokens: Real tokens of each step; none where nobody knows.
    """
    figure = summary([seconds])
    count = (len(ends) - 1) // LEAST_RUNS
    if not count:
        return figure
    parts = []
    for number in range(LEAST_RUNS):
        last = (number + 1) * count
        took = ends[last] - ends[last - count]
        parts.append(took / (sum(tokens[last - count + 1 : last + 1]) or count))
    spread = summary(parts)
    return {**figure, **{key: spread[key] for key in ("spread", "runs", "measured")}}


def table(figures: Mapping[str, Any], work: Work) -> list[list[str]]:
    """Return the rows of a table, heading first, by contender."""
    heading = [
        *("", "supervised tok/s", "real tok/s", "training s", "fastest run s", "its CPU s"),
        *("process s", "CPU s of the process", "first step s", "peak MB (no file behind)"),
        *("of the GEMM peak", "spread of training s"),
    ]
    return [heading, *(_line(name, found, work) for name, found in figures.items())]


def _line(name: str, found: Mapping[str, Any], work: Work) -> list[str]:
    training = found["training_seconds"]
    seconds = training["median"]
    memory = f"{found['peak_pss']['median'] / MB:,.0f}"
    memory += f" ({found['peak_anonymous']['median'] / MB:,.0f})"
    if "device_bytes" in found:
        memory += f", device {found['device_bytes']['median'] / MB:,.0f}"
    return [
        name,
        f"{work.targets / seconds:,.0f}",
        f"{work.tokens / seconds:,.0f}",
        span(training),
        f"{training['min']:.2f}",
        *(span(found[key]) for key in ("training_cpu_seconds", "wall_seconds", "cpu_seconds")),
        span(found["first_step_seconds"]),
        memory,
        f"{work.flops / seconds / work.peak:.0%}",
        told_spread(training),
    ]
