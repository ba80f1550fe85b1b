"""The likelihood of examples under a model, independent of batch size and order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from swe_scaffold.engine.attention import (
    positions_shared_beyond,
    stream_refusal,
    within_documents,
)
from swe_scaffold.engine.batches import Batch, make_batch, make_stream
from swe_scaffold.engine.devices import Device, out_of_memory
from swe_scaffold.engine.loss import token_nll
from swe_scaffold.engine.products import fast_float32
from swe_scaffold.errors import IntegrityError, OutOfMemory
from swe_scaffold.types import TokenizedExample

# More at once is slower on a CPU: what one layer leaves is no longer in the cache for the next.
CPU_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class RowNll:
    """The NLL of a row's targets in token order, float32 nats; `index` is its place in the rows."""

    index: int
    nll: np.ndarray

    @property
    def total(self) -> float:
        """Sum in float64."""
        return float(self.nll.astype(np.float64).sum())


def plan_passes(
    lengths: Sequence[int], *, tokens_per_pass: int, rows_per_pass: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """Cut rows into forward passes: row numbers, the longest first, as many as fit the budget.

    A pure function of its arguments. Rows of one length keep their order, and a row longer than
    the budget goes alone.

    Args:
        lengths: Tokens of each row.
        tokens_per_pass: Most tokens of a pass as a padded batch: rows times the longest of them.
        rows_per_pass: Most rows of a pass; None leaves that to the tokens.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    cut: list[tuple[int, ...]] = []
    start = 0
    while start < len(order):
        fitting = max(1, tokens_per_pass // max(1, lengths[order[start]]))
        rows = fitting if rows_per_pass is None else min(fitting, rows_per_pass)
        cut.append(tuple(order[start : start + rows]))
        start += rows
    return tuple(cut)


def score(
    model: Any,
    rows: Sequence[TokenizedExample],
    *,
    passes: Sequence[Sequence[int]],
    pad_id: int,
    device: Device,
    without_adapter: bool = False,
    packed: bool | None = None,
) -> Iterator[list[RowNll]]:
    """Yield the token NLL of the rows, one pass after the other, without touching random state.

    A pass that does not fit the memory is computed in halves and yielded whole. So is, on a CPU,
    one whose activations would not stay in the cache, and one whose rows would change each other's
    positions.

    Args:
        model: A causal language model, or a PEFT model around one.
        rows: Rendered examples.
        passes: Row numbers of each forward pass, as `plan_passes` cuts them.
        pad_id: Token that fills the padding.
        device: Where the model is.
        without_adapter: Score the base below a PEFT model.
        packed: Whether the rows of a pass travel as one stream, without padding; None does it in
            each pass for which `packing_refusal` has nothing to say.

    Raises:
        IntegrityError: The rows were to be packed and cannot be.
        OutOfMemory: A single row does not fit.
    """
    if packed and (refusal := packing_refusal(model, rows)) is not None:
        raise IntegrityError(f"rows cannot travel as one stream: {refusal}")
    model.eval()
    for part in passes:
        # All that is decided here depends on the pass alone: it comes out the same in any company.
        chosen = [rows[row] for row in part]
        packs = packed is not False and packing_refusal(model, chosen) is None
        most = _most_tokens(model, chosen, device)
        # Left before anything is yielded: the caller's model keeps gradients, adapter, attention.
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(fast_float32())
            if without_adapter:
                stack.enter_context(model.disable_adapter())
            if packs:
                stack.enter_context(within_documents(_causal(model)))
                make = partial(make_stream, device=device.name)
            else:
                make = partial(make_batch, pad_id=pad_id, device=device.name)
            parts = _score_pass(model, chosen, make, most)
        yield [RowNll(row, nll) for row, nll in zip(part, parts, strict=True)]


def packing_refusal(model: Any, rows: Sequence[TokenizedExample]) -> str | None:
    """Return why passes of these rows are padded, or None where all are packed."""
    return stream_refusal(_causal(model), max((row.length for row in rows), default=0))


def _causal(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _most_tokens(model: Any, rows: Sequence[TokenizedExample], device: Device) -> int | None:
    """Return how many tokens several rows may have to be computed together; None is no limit."""
    limit = positions_shared_beyond(_causal(model).config)
    if limit is not None and any(row.length > limit for row in rows):
        return 1
    return CPU_TOKENS if device.name == "cpu" else None


def _score_pass(
    model: Any,
    rows: Sequence[TokenizedExample],
    make: Callable[[Sequence[TokenizedExample]], Batch],
    most: int | None,
) -> list[np.ndarray]:
    """Score the rows of a pass, in halves where they have too many tokens or do not fit."""
    longest = max(row.length for row in rows)
    if most is None or len(rows) == 1 or len(rows) * longest <= most:
        try:
            with out_of_memory(f"scoring {len(rows)} rows, longest {longest} tokens"):
                batch = make(rows)
                nll = token_nll(model, batch).cpu().numpy()
        except OutOfMemory:
            if len(rows) == 1:
                raise
        else:
            return np.split(nll, np.cumsum(batch.counts)[:-1])
    # Outside of the handler, whose traceback would keep the failed pass's tensors alive.
    middle = len(rows) // 2
    halves = (rows[:middle], rows[middle:])
    return [nll for half in halves for nll in _score_pass(model, half, make, most)]
