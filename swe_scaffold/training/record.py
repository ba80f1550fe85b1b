"""What a run came to: its result, the rows it trained, what `--allow-change` let differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.files import write_json
from swe_scaffold.terminal import show
from swe_scaffold.training.folder import TRAINED_ROWS
from swe_scaffold.types import TokenizedExample

TrainedRow = tuple[str, str]


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished run produced; `eval_nll` is None without a hold-out.

    `wall_seconds` are those since it was last started, `speed` is that of all its steps.
    """

    folder: Path
    steps: int
    epochs: float
    train_loss: float
    eval_nll: float | None
    best_step: int | None
    counts: Mapping[str, Any]
    wall_seconds: float
    speed: Mapping[str, Any]
    notes: tuple[str, ...]


class NoLog:
    """What a process that does not write has in place of a log."""

    def append(self, row: Mapping[str, Any]) -> None:
        """Drop a line."""

    def sync(self) -> int:
        """Return 0: nothing was written."""
        return 0


def as_number(fingerprint: Mapping[str, str]) -> int:
    """Return a number below 2^62 that tells two fingerprints apart."""
    text = json.dumps(fingerprint, sort_keys=True, allow_nan=False).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 2


def require_known(keys: Collection[str], known: Collection[str]) -> None:
    """Refuse keys that name no part of a run's fingerprint.

    Raises:
        UsageError: Names the key and the nearest one.
    """
    for key in keys:
        if key not in known:
            near = get_close_matches(key, sorted(known), 1)
            raise UsageError(
                f"{show(key)} is no part of what a resumed run must share",
                where="--allow-change",
                hint=f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}",
            )


def changes(before: Mapping[str, Any], now: Mapping[str, Any], step: int) -> list[dict[str, Any]]:
    """Return each key at which two records differ, as what changed after `step`."""
    return [
        {"step": step, "key": key, "was": before.get(key), "is": now.get(key)}
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def in_words(change: Mapping[str, Any]) -> str:
    """Return a change as `learning_rate was 0.02, is 0.03`."""
    return f"{show(change['key'])} was {show(change['was'])}, is {show(change['is'])}"


def refuse_trained(
    held_out: Sequence[TokenizedExample], trained: Collection[TrainedRow], *, where: str
) -> None:
    """Refuse a hold-out with rows that the run has trained: a change of data may do that.

    Raises:
        IntegrityError: Names one.
    """
    hashes = {digest for _, digest in trained}
    again = [row.instance_id for row in held_out if row.sha256 in hashes]
    if again:
        raise IntegrityError(
            f"{len(again)} held-out rows are trained in this run, such as "
            f"{show(again[0], width=60)}",
            where=where,
            hint="keep the run's hold-out, or start a new run",
        )


def write_trained_rows(folder: Path, rows: Iterable[TrainedRow]) -> None:
    """Write the ids and content hashes of the rows that a run trains."""
    write_json(folder / TRAINED_ROWS, sorted(rows))


def read_trained_rows(folder: Path) -> set[TrainedRow]:
    """Read them.

    Raises:
        IntegrityError: The list is missing or damaged.
    """
    path = folder / TRAINED_ROWS
    try:
        rows: Any = json.loads(path.read_bytes())
        return {(str(name), str(digest)) for name, digest in rows}
    except (OSError, ValueError, TypeError) as error:
        raise IntegrityError("is missing or damaged", where=str(path)) from error
