"""The likelihood of examples under a model, independent of batch size and order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from swe_scaffold.engine.batches import make_batch
from swe_scaffold.engine.devices import Device, out_of_memory
from swe_scaffold.engine.loss import token_nll
from swe_scaffold.errors import OutOfMemory
from swe_scaffold.types import TokenizedExample


@dataclass(frozen=True, slots=True)
class RowNll:
    """The NLL of a row's targets in token order, float32 nats; `index` is its place in the rows."""

    index: int
    nll: np.ndarray

    @property
    def total(self) -> float:
        """Sum in float64."""
        return float(self.nll.astype(np.float64).sum())


def score(
    model: Any,
    rows: Sequence[TokenizedExample],
    *,
    batch_size: int,
    pad_id: int,
    device: Device,
    without_adapter: bool = False,
) -> Iterator[RowNll]:
    """Yield the token NLL of every row, longest rows first, without touching any random state.

    Args:
        model: A causal language model, or a PEFT model around one.
        rows: Rendered examples.
        batch_size: Rows per pass; similar lengths go together.
        pad_id: Token that fills the padding.
        device: Where the model is.
        without_adapter: Score the base below a PEFT model.

    Raises:
        OutOfMemory: A single row does not fit; larger batches are halved first.
    """
    model.eval()
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].input_ids))
    start = 0
    while start < len(order):
        part = order[start : start + batch_size]
        batch = [rows[index] for index in part]
        try:
            # Left before anything is yielded: the caller does not run without gradients or adapter.
            context: AbstractContextManager[Any] = (
                model.disable_adapter() if without_adapter else nullcontext()
            )
            with context, torch.no_grad():
                parts = _score_batch(model, batch, pad_id=pad_id, device=device)
        except OutOfMemory:
            if len(part) == 1:
                raise
            batch_size = len(part) // 2
            continue
        for index, nll in zip(part, parts, strict=True):
            yield RowNll(index, nll)
        start += len(part)


def _score_batch(
    model: Any, rows: Sequence[TokenizedExample], *, pad_id: int, device: Device
) -> list[np.ndarray]:
    longest = max(len(row.input_ids) for row in rows)
    with out_of_memory(f"scoring {len(rows)} rows, longest {longest} tokens"):
        batch = make_batch(rows, pad_id=pad_id, device=device.name)
        nll = token_nll(model, batch).cpu().numpy()
    return np.split(nll, np.cumsum(batch.counts)[:-1])
