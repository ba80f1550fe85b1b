"""Rows to tensors, and the order of rows over a run: a function of the seed and the step alone."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from swe_scaffold.types import TokenizedExample


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows on a device: right-padded, or one after the other as a stream.

    `input_ids` has shape (rows, longest), or (1, tokens) for a stream. `where` indexes the
    positions whose logits predict a target, `targets` (targets,) are the ids there, row by row;
    `counts` is the number of targets of each row. `stream` is what a model must be told of a
    stream, which needs `attention.within_documents`.
    """

    input_ids: torch.Tensor
    where: tuple[torch.Tensor, torch.Tensor]
    targets: torch.Tensor
    counts: tuple[int, ...]
    stream: Mapping[str, Any] = field(default_factory=dict)


def make_batch(rows: Sequence[TokenizedExample], *, pad_id: int, device: str) -> Batch:
    """Pad rows to the longest of them."""
    longest = max(len(row.input_ids) for row in rows)
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    lines: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    for index, row in enumerate(rows):
        ids[index, : len(row.input_ids)] = row.input_ids
        # The first token of a sequence is never scored: nothing predicts it.
        columns.append(row.target_positions - 1)
        lines.append(np.full(len(columns[-1]), index))
    line, column = np.concatenate(lines), np.concatenate(columns)
    return Batch(
        input_ids=torch.from_numpy(ids).to(device),
        where=(torch.from_numpy(line).to(device), torch.from_numpy(column).to(device)),
        targets=torch.from_numpy(ids[line, column + 1]).to(device),
        counts=tuple(len(part) for part in columns),
    )


def make_stream(rows: Sequence[TokenizedExample], *, device: str) -> Batch:
    """Join rows to one stream, without padding: positions start anew with each row."""
    lengths = tuple(len(row.input_ids) for row in rows)
    ids = np.concatenate([row.input_ids.astype(np.int64) for row in rows])
    mask = np.concatenate([np.append(row.loss_mask[1:], False) for row in rows])
    where = np.flatnonzero(mask)
    positions = np.concatenate([np.arange(length) for length in lengths])
    return Batch(
        input_ids=torch.from_numpy(ids[None]).to(device),
        where=(
            torch.zeros(len(where), dtype=torch.int64, device=device),
            torch.from_numpy(where).to(device),
        ),
        targets=torch.from_numpy(ids[where + 1]).to(device),
        counts=tuple(len(row.target_positions) for row in rows),
        stream={
            "position_ids": torch.from_numpy(positions[None]).to(device),
            "documents": lengths,
        },
    )


@dataclass(frozen=True, slots=True)
class RowOrder:
    """Which rows each optimizer step sees: a seeded permutation per epoch, no row twice in one.

    The last step of an epoch takes what is left, so that every row is seen once per epoch.
    """

    rows: int
    rows_per_step: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the rows."""
        return -(-self.rows // self.rows_per_step)

    def at(self, step: int) -> list[int]:
        """Return the row numbers of optimizer step `step` (0-based)."""
        epoch, within = divmod(step, self.steps_per_epoch)
        start = within * self.rows_per_step
        return [int(row) for row in self.epoch(epoch)[start : start + self.rows_per_step]]

    def epoch(self, number: int) -> np.ndarray:
        """Return every row number once, in the order of an epoch (0-based)."""
        return np.random.default_rng([self.seed, number]).permutation(self.rows)


def micro_batches(lengths: Sequence[int], *, tokens: int) -> tuple[tuple[int, ...], ...]:
    """Pack rows into as few streams as best fit finds, none longer than `tokens`.

    A pure function of its arguments: the longest row first, each into the stream that it fills
    most; rows of one length keep their order. A row longer than `tokens` goes alone.

    Args:
        lengths: Tokens of each row.
        tokens: Most tokens of a stream.

    Returns:
        Row numbers of each stream.
    """
    packed: list[list[int]] = []
    # Room left and stream, in order: the first that is large enough is filled most.
    room: list[tuple[int, int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        place = bisect_left(room, (lengths[row], 0))
        if place == len(room):
            packed.append([row])
            left, stream = tokens - lengths[row], len(packed) - 1
        else:
            left, stream = room.pop(place)
            packed[stream].append(row)
            left -= lengths[row]
        if left > 0:
            insort(room, (left, stream))
    return tuple(tuple(rows) for rows in packed)
