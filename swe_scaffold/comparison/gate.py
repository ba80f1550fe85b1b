"""Whether a model may take another's place: only where the intervals say so, and its answers do.

A gate never passes for want of data: no interval, no pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from swe_scaffold.config import EvaluationConfig
from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.comparison import PairedComparison

Wanted = Literal["better", "not-worse"]
# Two per cent of perplexity: less is hardly worth a model's change, and can be shown with a few
# hundred rows.
NOT_WORSE_MARGIN = 0.02
# Which way a flag of an answer may not go.
_WORSE_WHEN_RARER = ("stopped", "parseable")


@dataclass(frozen=True, slots=True)
class Gate:
    """`better`: both intervals lie below -margin; `not-worse`: they lie below +margin.

    `margin` is in the effect's unit; None is 0 for `better` and 0.02 for `not-worse`.

    Raises:
        UsageError: A negative margin, or none for `not-worse`, which nothing could pass that is
            not better.
    """

    wanted: Wanted
    margin: float | None = None

    def __post_init__(self) -> None:
        if self.margin is not None and not 0 <= self.margin < float("inf"):
            raise UsageError(f"must be at least 0, not {self.margin}", where="--margin")
        if self.wanted == "not-worse" and self.margin == 0:
            raise UsageError(
                "a model is shown not to be worse by 0 only where it is shown to be better",
                where="--margin",
                hint="give the loss that you would accept, or use --gate better",
            )

    @property
    def limit(self) -> float:
        """What the upper ends of the intervals must lie below."""
        if self.wanted == "better":
            return 0.0 - (self.margin or 0.0)
        return NOT_WORSE_MARGIN if self.margin is None else self.margin


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether one model passes, and why (or why not)."""

    passes: bool
    wanted: str
    limit: float
    reasons: tuple[str, ...]


def judged(
    gate: Gate,
    comparison: PairedComparison,
    health: Mapping[str, Any] | None,
    settings: EvaluationConfig,
) -> Judgement:
    """Judge one model against the baseline, by its likelihoods and by the health of its answers."""
    against = []
    for effect in (comparison.effect, comparison.effect_small_sample):
        if effect.ci is None:
            against.append(f"no interval: {effect.reason} ({effect.ci_method})")
        elif effect.ci[1] >= gate.limit:
            against.append(
                f"the upper end of the difference, {effect.ci[1]:.4g} {effect.unit} "
                f"({effect.ci_method}), is not below {gate.limit:g}"
            )
    against += _worse_answers(health or {}, settings.alpha)
    fine = f"both intervals lie below {gate.limit:g} {comparison.effect.unit}"
    return Judgement(not against, gate.wanted, gate.limit, tuple(against or [fine]))


def _worse_answers(health: Mapping[str, Any], alpha: float) -> list[str]:
    """Return the flags that answers have more often (or less) than chance would have it."""
    found = []
    for name, pair in health.items():
        base, tuned, p_value = pair["base"], pair["tuned"], pair["p_value"]
        if p_value is None or p_value >= alpha:
            continue
        rarer = tuned["value"] < base["value"]
        if rarer == (name in _WORSE_WHEN_RARER):
            found.append(
                f"{tuned['value']:.0%} of its answers are {name}, {base['value']:.0%} of the "
                f"baseline's (McNemar p = {p_value:.2g})"
            )
    return found
