"""What a stage is. A row stage looks at one row alone; an index stage compares rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swe_scaffold.types import Example, Task, Trajectory, Verdict

Subject = Task | Trajectory | None
RowJudge = Callable[[Example, Subject], Verdict]


@dataclass(frozen=True, slots=True)
class RowStage:
    """A judge of single rows; it gets the row and what it was made from, and keeps no state."""

    name: str
    judge: RowJudge


@dataclass(frozen=True, slots=True)
class RowKey:
    """What an index stage sees of a row: `key` is its own, `place` the row's as in messages."""

    instance_id: str
    repo: str
    label: str
    place: str
    key: Any


@dataclass(frozen=True, slots=True)
class IndexStage:
    """A judge of rows against all rows before them, for one build.

    `key_of` runs where the row is read: its value must be small, and picklable. `judge` is called
    in source order, once for every row that is still kept, and may keep state.
    """

    name: str
    key_of: Callable[[Example, Subject], Any]
    judge: Callable[[RowKey], Verdict]
