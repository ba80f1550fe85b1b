"""How the rows of one optimizer step become micro-batches: packed into streams, or padded.

The cut is a function of the rows, the budget and the model alone, and never of the order in which
the rows of a step come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from swe_scaffold.engine.attention import (
    positions_shared_beyond,
    stream_refusal,
    training_refusal,
)
from swe_scaffold.engine.batches import micro_batches
from swe_scaffold.engine.scoring import plan_passes
from swe_scaffold.types import TokenizedExample

# More at once is no faster on a CPU, and takes more memory.
CPU_TRAINING_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """The way from the rows of a step to its micro-batches.

    `causal` is the model without a PEFT wrapper. `tokens` is the most that a micro-batch holds, a
    longer row going alone, as every row does under `alone`. `refusal` says why rows are padded;
    where it is None they are packed.
    """

    causal: Any
    tokens: int
    refusal: str | None
    alone: bool = False

    @classmethod
    def through(
        cls, model: Any, *, longest: int, tokens: int = CPU_TRAINING_TOKENS
    ) -> MicroBatches:
        """Ask a model whether rows of up to `longest` tokens can travel as streams through it."""
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        limit = positions_shared_beyond(causal.config)
        if limit is not None and longest > limit:
            # One set of rotary angles for all rows of a pass, that of the longest.
            reason = f"rows beyond {limit} tokens change the positions of others"
            return cls(causal, tokens, reason, alone=True)
        refusal = stream_refusal(causal, longest) or training_refusal(causal)
        return cls(causal, tokens, refusal)

    @property
    def packs(self) -> bool:
        """Whether rows travel as streams, without padding."""
        return self.refusal is None

    def numbers(self, lengths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Cut rows of these lengths; return the row numbers of each micro-batch."""
        if self.alone:
            return tuple((row,) for row in range(len(lengths)))
        if self.packs:
            return micro_batches(lengths, tokens=self.tokens)
        return plan_passes(lengths, tokens_per_pass=self.tokens)

    def of(self, rows: Sequence[TokenizedExample]) -> Iterator[list[TokenizedExample]]:
        """Yield the micro-batches of one step, the same for every order of its rows."""
        ordered = _longest_first(rows)
        for numbers in self.numbers([row.length for row in ordered]):
            yield [ordered[number] for number in numbers]


def deal(rows: Sequence[TokenizedExample], processes: int) -> list[list[TokenizedExample]]:
    """Divide the rows of a step among processes: the longest first, to whoever has fewest tokens.

    The same for every order of the rows; with fewer rows than processes, some get none.
    """
    shares: list[list[TokenizedExample]] = [[] for _ in range(processes)]
    load = [0] * processes
    for row in _longest_first(rows):
        process = load.index(min(load))
        shares[process].append(row)
        load[process] += row.length
    return shares


def _longest_first(rows: Sequence[TokenizedExample]) -> list[TokenizedExample]:
    return sorted(rows, key=lambda row: (-row.length, row.instance_id, row.sha256))


def part_of(row: TokenizedExample, tokens: slice) -> TokenizedExample:
    """Return some tokens of a row, with at least one target that something predicts."""
    ids, mask = row.input_ids[tokens], row.loss_mask[tokens]
    if len(ids) < 2:
        ids, mask = row.input_ids[-2:], row.loss_mask[-2:]
    if not mask[1:].any():
        mask = np.append(mask[:-1], True)
    return replace(row, input_ids=ids, loss_mask=mask)
