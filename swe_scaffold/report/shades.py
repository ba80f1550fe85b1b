"""How surprising a token is, as a step of a scale: the same steps on pages and terminals."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

# Nats: probabilities of 90, 61, 37, 14, 1.8 and 0.03 %.
NLL_BOUNDS = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
CHANGE_BOUNDS = (0.1, 0.5, 2.0, 4.0)


def shade(nll: float) -> int:
    """Return the step of an NLL, 0 (expected) to 6 (beyond 8 nats)."""
    return bisect_right(NLL_BOUNDS, nll)


def change_shade(change: float) -> int:
    """Return the step of a change, -4 (likelier by far) over 0 to 4."""
    step = bisect_right(CHANGE_BOUNDS, abs(change))
    return -step if change < 0 else step


def shade_names(bounds: tuple[float, ...]) -> list[str]:
    """Return what each step from 0 on means, in nats."""
    ends = [f"{bound:g}" for bound in bounds]
    between = [f"{low}\u2013{high}" for low, high in pairwise(ends)]
    return [f"below {ends[0]}", *between, f"{ends[-1]} and more"]
