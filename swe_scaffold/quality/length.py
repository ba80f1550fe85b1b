"""How long texts are, and what cutting them at a length would cost.

Trainers differ in what they do with a row longer than their limit. By default TRL cuts its tail,
axolotl drops it (and cuts its tail when told to truncate), LLaMA-Factory shares the room between
prompt and answer and cuts both. That is counted here from loss masks alone; our own way, which cuts
prompts only, is `rendering`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby

Mask = bytes


@dataclass(frozen=True, slots=True)
class Lengths:
    """The distribution of a length: nearest-rank quantiles, rounded mean, sum."""

    count: int
    mean: float
    minimum: int
    p50: int
    p90: int
    p99: int
    maximum: int
    total: int

    def to_dict(self) -> dict[str, float | int]:
        """The same as JSON values."""
        return asdict(self)


def measure(values: Iterable[int]) -> Lengths:
    """Return the distribution of some lengths; all zeros where there are none."""
    ordered = sorted(values)
    if not ordered:
        return Lengths(0, 0.0, 0, 0, 0, 0, 0, 0)

    def quantile(share: float) -> int:
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]

    total = sum(ordered)
    return Lengths(
        count=len(ordered),
        mean=round(total / len(ordered), 1),
        minimum=ordered[0],
        p50=quantile(0.5),
        p90=quantile(0.9),
        p99=quantile(0.99),
        maximum=ordered[-1],
        total=total,
    )


@dataclass(frozen=True, slots=True)
class CutCost:
    """What one way to deal with long rows does to a file at one length.

    `answers_cut`: rows that keep a part of their answer, without its end. `answers_lost`: rows that
    keep no target at all, dropped ones included. `targets_lost`: target tokens gone, of `targets`.
    `prompts_shortened`: rows whose answer stays whole while other text is cut.
    """

    policy: str
    max_length: int
    rows: int
    answers_cut: int
    answers_lost: int
    prompts_shortened: int
    targets: int
    targets_lost: int

    @property
    def share_lost(self) -> float:
        """Share of the target tokens that is lost."""
        return self.targets_lost / self.targets if self.targets else 0.0

    def to_dict(self) -> dict[str, object]:
        """The same as JSON values, with the share."""
        return {**asdict(self), "share_lost": round(self.share_lost, 6)}


def count_cut(policy: str, masks: Iterable[Mask], max_length: int) -> CutCost:
    """Count what a policy of `POLICIES` costs.

    Args:
        policy: `tail`, `ratio` or `drop`.
        masks: For every row, 1 where a token is a target and 0 elsewhere, before any cut.
        max_length: Most tokens a row may have.
    """
    keep = POLICIES[policy]
    rows = cut = lost = shortened = targets = gone = 0
    for mask in masks:
        rows += 1
        own = sum(mask)
        kept = own if len(mask) <= max_length else keep(mask, max_length)
        targets, gone = targets + own, gone + own - kept
        cut += 0 < kept < own
        lost += kept == 0 < own
        shortened += len(mask) > max_length and kept == own
    return CutCost(policy, max_length, rows, cut, lost, shortened, targets, gone)


def _tail(mask: Mask, max_length: int) -> int:
    return sum(mask[:max_length])


def _drop(mask: Mask, max_length: int) -> int:
    return sum(mask) if len(mask) <= max_length else 0


def _ratio(mask: Mask, max_length: int) -> int:
    """LLaMA-Factory's rule: turn by turn, prompt and answer share the room that is left.

    Answers under half of it stay whole, else prompts under half of it do, else both are cut in
    proportion.
    """
    left, kept = max_length, 0
    for source, target in _turns(mask):
        if left <= 0:
            break
        if 2 * target < left:
            room = left
        elif 2 * source < left:
            room = left - source
        else:
            room = left * target // (source + target)
        answer = min(room, target)
        kept += answer
        left -= answer + min(max(left - answer, 0), source)
    return kept


def _turns(mask: Mask) -> Iterator[tuple[int, int]]:
    """Yield (tokens before, targets) for every trained span."""
    before = 0
    for trained, run in groupby(mask):
        length = sum(1 for _ in run)
        if trained:
            yield before, length
        before = 0 if trained else length


POLICIES = {"tail": _tail, "ratio": _ratio, "drop": _drop}
