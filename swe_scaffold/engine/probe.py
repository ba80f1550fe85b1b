"""What a run will need, measured before it: its largest pass, its speed, the base's first words.

The steps taken here are real; whoever asks for them throws the weights away afterwards. What the
numbers mean for a run is decided in `training.preflight`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from swe_scaffold.engine.batches import RowOrder
from swe_scaffold.engine.devices import (
    Device,
    forget_peak_memory,
    memory_limit_bytes,
    out_of_memory,
    peak_memory_bytes,
)
from swe_scaffold.engine.loop import Loop
from swe_scaffold.engine.passes import MicroBatches, part_of
from swe_scaffold.engine.products import fast_float32
from swe_scaffold.errors import OutOfMemory
from swe_scaffold.types import TokenizedExample

SHORTEST = 16


@dataclass(frozen=True, slots=True)
class RunShape:
    """Every pass of a run as numbers, in order: arrays of one length.

    `step` (0-based) and `place` say which pass it is, `rows`, `longest` (tokens) and `tokens` how
    large; tokens count padding where there is any.
    """

    step: np.ndarray
    place: np.ndarray
    rows: np.ndarray
    longest: np.ndarray
    tokens: np.ndarray

    def largest(self) -> list[int]:
        """Return the pass with the most tokens and, where another, that of the longest row."""
        most = int(np.lexsort((self.longest, self.tokens))[-1])
        deepest = int(np.lexsort((self.tokens, self.longest))[-1])
        same = self.longest[most] == self.longest[deepest]
        return [most] if same else [most, deepest]

    def at_quantiles(self, shares: Sequence[float]) -> list[int]:
        """Return the passes whose tokens are at these shares of all passes, the least is 0."""
        order = np.argsort(self.tokens, kind="stable")
        return [int(order[round(share * (len(order) - 1))]) for share in shares]


def run_shape(
    order: RowOrder, lengths: Sequence[int], *, steps: int, cut: MicroBatches
) -> RunShape:
    """Return the passes of `steps` optimizer steps over rows of these lengths."""
    found: list[tuple[int, int, int, int, int]] = []
    for step in range(steps):
        of_step = sorted((lengths[row] for row in order.at(step)), reverse=True)
        for place, numbers in enumerate(cut.numbers(of_step)):
            sizes = [of_step[number] for number in numbers]
            tokens = sum(sizes) if cut.packs else len(sizes) * max(sizes)
            found.append((step, place, len(sizes), max(sizes), tokens))
    return RunShape(*(np.array(column, dtype=np.int64) for column in zip(*found, strict=True)))


def pass_rows(
    rows: Sequence[TokenizedExample],
    order: RowOrder,
    shape: RunShape,
    number: int,
    *,
    cut: MicroBatches,
) -> list[TokenizedExample]:
    """Return the rows of one pass of the run."""
    chosen = [rows[row] for row in order.at(int(shape.step[number]))]
    return list(cut.of(chosen))[int(shape.place[number])]


@dataclass(frozen=True, slots=True)
class PassCost:
    """One pass, forward, backward and optimizer step: its size and what it took."""

    rows: int
    longest: int
    tokens: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryProbe:
    """Whether the largest pass fits.

    `needed_bytes` is its measured peak, or where it was not run (`foreseen`) an estimate from parts
    of it; None where memory ran out first. `fitting` is the largest part of it that was run,
    the pass itself where it fits.
    """

    fits: bool
    rows: int
    longest: int
    tokens: int
    needed_bytes: int | None
    limit_bytes: int
    foreseen: bool
    fitting: PassCost | None


def measure_pass(loop: Loop, rows: Sequence[TokenizedExample]) -> PassCost:
    """Take one optimizer step over the rows of one micro-batch.

    Raises:
        DivergedError: The loss, a gradient or a weight is not finite.
        OutOfMemory: It does not fit.
    """
    forget_peak_memory(loop.device)
    taken = loop.take(rows)
    peak = peak_memory_bytes(loop.device)
    return PassCost(len(rows), _longest(rows), tokens_of(loop, rows), taken.wall_seconds, peak)


def tokens_of(loop: Loop, rows: Sequence[TokenizedExample]) -> int:
    """Return the tokens of a pass over these rows, padding included."""
    lengths = [row.length for row in rows]
    return sum(lengths) if loop.cut.packs else len(lengths) * max(lengths)


def probe_memory(loop: Loop, rows: Sequence[TokenizedExample]) -> MemoryProbe:
    """Run a pass; where it does not fit, halves of it (rows, then tokens), until one does.

    Running out of a CUDA device's memory is an error that can be caught; running out of a machine's
    ends the process. There a pass is first run with a quarter and with half of its tokens, and
    where the line through the two peaks passes the limit, the whole is not tried.

    Raises:
        DivergedError: The loss, a gradient or a weight is not finite.
    """
    limit = memory_limit_bytes(loop.device)
    cost, needed, foreseen = _try(loop, rows, limit)
    fitting, part = cost, list(rows)
    while fitting is None and (len(part) > 1 or _longest(part) >= 2 * SHORTEST):
        part = _half(part)
        fitting, _, _ = _try(loop, part, limit)
    return MemoryProbe(
        fits=cost is not None,
        rows=len(rows),
        longest=_longest(rows),
        tokens=tokens_of(loop, rows),
        needed_bytes=needed,
        limit_bytes=limit,
        foreseen=foreseen,
        fitting=fitting,
    )


def _try(
    loop: Loop, rows: Sequence[TokenizedExample], limit: int
) -> tuple[PassCost | None, int | None, bool]:
    """Return a pass's cost if it fits, its need if that is known, and whether it was foreseen."""
    try:
        if loop.device.name != "cuda":
            needed = _foresee(loop, rows)
            if needed > limit:
                return None, needed, True
        cost = measure_pass(loop, rows)
    except OutOfMemory:
        cost = None
    if cost is None:
        # Outside of the handler, whose traceback keeps the failed pass's tensors alive.
        loop.optimizer.zero_grad(set_to_none=True)
        if loop.device.name == "cuda":
            torch.cuda.empty_cache()
        return None, None, False
    fits = cost.peak_bytes <= limit
    return (cost if fits else None), cost.peak_bytes, False


def _foresee(loop: Loop, rows: Sequence[TokenizedExample]) -> int:
    """Return the peak of a pass on the line through those of a quarter and a half of its tokens.

    Activations and logits grow in proportion to the tokens, or faster.
    """
    quarter, half = (measure_pass(loop, _thinned(rows, every)) for every in (4, 2))
    grown = half.tokens - quarter.tokens
    if grown <= 0:
        return half.peak_bytes
    slope = (half.peak_bytes - quarter.peak_bytes) / grown
    return half.peak_bytes + math.floor(slope * (tokens_of(loop, rows) - half.tokens))


def _half(rows: list[TokenizedExample]) -> list[TokenizedExample]:
    """Return half of the rows, the longest among them, or one row at half of its length."""
    if len(rows) > 1:
        return rows[: len(rows) // 2]
    return _shortened(rows, _longest(rows) // 2)


def _shortened(rows: Sequence[TokenizedExample], length: int) -> list[TokenizedExample]:
    """Return the ends of the rows, as shorter prompts would leave them."""
    return [part_of(row, slice(-length, None)) for row in rows]


def _thinned(rows: Sequence[TokenizedExample], every: int) -> list[TokenizedExample]:
    """Return every so many tokens of the rows: fewer, with as large a share of targets."""
    return [part_of(row, slice(None, None, every)) for row in rows]


def _longest(rows: Sequence[TokenizedExample]) -> int:
    return max(row.length for row in rows)


def time_passes(
    loop: Loop, chosen: Sequence[Sequence[TokenizedExample]], *, most_seconds: float
) -> list[PassCost]:
    """Measure passes one after the other; none begins after `most_seconds`, but the first.

    Raises:
        DivergedError: The loss, a gradient or a weight is not finite.
        OutOfMemory: One does not fit.
    """
    start = time.monotonic()
    costs: list[PassCost] = []
    for rows in chosen:
        if not costs or time.monotonic() - start < most_seconds:
            costs.append(measure_pass(loop, rows))
    return costs


def likeliest_first(
    model: Any,
    rows: Sequence[TokenizedExample],
    *,
    device: Device,
    most: int,
    without_adapter: bool = False,
) -> Iterator[tuple[tuple[int, float], ...]]:
    """Yield the tokens a model would put at each row's first target: ids, probabilities.

    Rows go alone and end before that target, so that nothing is padded and logits exist for one
    position only; the softmax is float32.

    Args:
        model: A causal language model, or a PEFT model around one.
        rows: Rendered examples.
        device: Where the model is.
        most: How many tokens of each row, the likeliest first.
        without_adapter: Ask the base below a PEFT model.

    Raises:
        OutOfMemory: A row does not fit.
    """
    model.eval()
    for row in rows:
        prompt = row.input_ids[None, : first_target(row)]
        ids = torch.tensor(prompt, dtype=torch.int64, device=device.name)
        off: AbstractContextManager[Any] = (
            model.disable_adapter() if without_adapter else nullcontext()
        )
        with (
            off,
            torch.no_grad(),
            fast_float32(),
            out_of_memory(f"a prompt of {ids.shape[1]} tokens"),
        ):
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
            top = logits[0, -1].float().softmax(-1).topk(min(most, logits.shape[-1]))
            values, tokens = top.values.cpu().tolist(), top.indices.cpu().tolist()
        yield tuple(zip(tokens, values, strict=True))


def first_target(row: TokenizedExample) -> int:
    """Return the place of the first target that something predicts."""
    return int(row.target_positions[0])


def head_twins(module: Any, token: int) -> tuple[int, bool]:
    """Return how many other tokens always get this token's logit, and whether its row is zero.

    Rows of the head (and its bias) that are equal bit by bit give equal logits whatever the model
    computes before them.
    """
    head = module.get_output_embeddings()
    if head is None:
        return 0, False
    same = (head.weight == head.weight[token]).all(dim=1)
    if getattr(head, "bias", None) is not None:
        same &= head.bias == head.bias[token]
    return int(same.sum()) - 1, not bool(head.weight[token].any())
