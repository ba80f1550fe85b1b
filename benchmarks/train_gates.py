"""Did the contenders do the same work: losses, gradients, and what the adapters came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-3}
# Relative, of a float32 gradient: what the order of sums may do.
GRADIENT_TOLERANCE = 1e-4
HELD_OUT_MARGIN = 2e-3
# Rounding grows with every step that builds on it; other rows show in the first few.
COMPARED_STEPS = 4


def gradient_error(found: Mapping[str, Any], right: Mapping[str, Any]) -> float:
    """Return the norm of the difference over the norm; infinite where tensors are missing.

    Tensors that `right` has as zeros need not be there: nothing came to them.
    """
    total = wrong = 0.0
    for name, wanted in right.items():
        exact = np.asarray(wanted, np.float64)
        total += float((exact**2).sum())
        if name in found:
            wrong += float(((np.asarray(found[name], np.float64) - exact) ** 2).sum())
        elif exact.any():
            return math.inf
    return math.sqrt(wrong / total) if total else math.inf


def losses_agree(found: Sequence[float], right: Sequence[float], dtype: str) -> tuple[bool, float]:
    """Return whether two runs took the same steps to the same losses, and the largest difference.

    The first steps are compared; a different number of steps is an infinite difference.
    """
    if len(found) != len(right) or not right:
        return False, math.inf
    pairs = list(zip(found, right, strict=True))[:COMPARED_STEPS]
    worst = max(abs(one - other) for one, other in pairs)
    return worst <= TOLERANCES[dtype], worst


def held_out(
    found: Sequence[float], right: Sequence[float], targets: Sequence[int]
) -> tuple[bool, float, tuple[float, float]]:
    """Compare the NLL of the same rows under two adapters.

    Returns:
        Whether they are equal, the difference in nats per token, and its paired-bootstrap 95 %
        interval. They are equal where the whole interval lies within the margin: one that only
        reaches zero would be met by any pair of noisy runs.
    """
    from swe_scaffold.metrics.bootstrap import bootstrap_confidence_interval

    low, high = bootstrap_confidence_interval(found, paired=right, weights=targets)
    difference = (math.fsum(found) - math.fsum(right)) / sum(targets)
    return max(abs(low), abs(high)) <= HELD_OUT_MARGIN, difference, (low, high)
