"""Predictions and the tasks they are for, every row of either accounted for.

Predictions are what SWE-bench's harness takes: `instance_id`, `model_name_or_path`, `model_patch`
(null or blank where the model gave none), as JSON Lines, a JSON list or a JSON object by id, here
also with `sample`, a number from 0, for several answers to one task. Of two lines for one sample of
one task the later counts, as in that harness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.jsonl import BadLine, type_name
from swe_scaffold.sources import InputFile, open_source
from swe_scaffold.sources.fields import text
from swe_scaffold.sources.local import open_file
from swe_scaffold.terminal import show
from swe_scaffold.types import Task

_PATCH = "model_patch"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer: the patch as it stands in the file, empty where there is none."""

    instance_id: str
    sample: int
    model: str
    patch: str
    row: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that is not scored, and why: `invalid_row`, `duplicate`, `unknown_instance`."""

    row: int
    instance_id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class PredictionFile:
    """What a file holds: rows = predictions + refused."""

    input: InputFile
    predictions: tuple[Prediction, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True, slots=True)
class TaskFile:
    """Tasks by id, in order: rows = tasks + what is left out, counted by reason."""

    name: str
    inputs: tuple[InputFile, ...]
    tasks: Mapping[str, Task]
    left_out: Mapping[str, int]


def read_predictions(path: Path, tasks: Mapping[str, Task]) -> PredictionFile:
    """Read a file of predictions for these tasks.

    Raises:
        DataError: The file cannot be read, or has no prediction for any of the tasks.
        EnvironmentFailure: The disk says no.
    """
    file = open_file(path, str(path))
    found: dict[tuple[str, int], Prediction] = {}
    refused: list[Refused] = []
    rows = 0
    for line in file.rows():
        rows += 1
        try:
            if isinstance(line, BadLine):
                raise DataError(line.message)
            prediction = _prediction(line.value, line.number)
        except DataError as error:
            refused.append(Refused(line.number, "", "invalid_row", error.message))
            continue
        key = prediction.instance_id, prediction.sample
        if prediction.instance_id not in tasks:
            detail = "there is no such task"
            refused.append(Refused(line.number, key[0], "unknown_instance", detail))
            continue
        # The later line takes its own place in the order.
        if earlier := found.pop(key, None):
            refused.append(_replaced(earlier, prediction))
        found[key] = prediction
    if not found:
        first = f"; row {refused[0].row}: {refused[0].detail}" if refused else ""
        raise DataError(
            f"no prediction for any of the {len(tasks)} tasks among {rows} rows{first}",
            where=file.shown,
            hint="each has instance_id, model_name_or_path and model_patch, as SWE-bench takes it",
        )
    read = InputFile(file.shown, file.size, file.sha256, rows)
    return PredictionFile(read, tuple(found.values()), tuple(sorted(refused, key=_row)))


def read_tasks(name: str, *, split: str | None = None, offline: bool = False) -> TaskFile:
    """Read the tasks of any source; of two with one id the first counts.

    Raises:
        DataError: It cannot be read, or holds no task.
    """
    source = open_source(name, split=split, offline=offline)
    tasks: dict[str, Task] = {}
    left_out: Counter[str] = Counter()
    for item in source:
        if not isinstance(item, Task):
            left_out["not_a_task"] += 1
        elif item.instance_id in tasks:
            left_out["duplicate"] += 1
        else:
            tasks[item.instance_id] = item
    if not tasks:
        raise DataError("has no tasks", where=show(name), hint=f"it holds {source.kind}")
    return TaskFile(name, tuple(source.inputs), tasks, dict(sorted(left_out.items())))


def _row(refused: Refused) -> int:
    return refused.row


def _replaced(earlier: Prediction, later: Prediction) -> Refused:
    same = "the same patch" if earlier.patch == later.patch else "another patch"
    detail = f"row {later.row} is for the same task and sample, with {same}, and counts"
    return Refused(earlier.row, earlier.instance_id, "duplicate", detail)


def _prediction(row: Mapping[str, Any], number: int) -> Prediction:
    instance_id = text(row, "instance_id")
    if not instance_id:
        raise DataError("has no instance_id")
    if _PATCH not in row:
        raise DataError(f"has no {_PATCH}")
    sample = row.get("sample")
    sample = 0 if sample is None else sample
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
        told = type_name(sample) if not isinstance(sample, int) else show(sample, width=30)
        raise DataError(f"sample must be a number from 0, not {told}")
    return Prediction(
        instance_id, sample, text(row, "model_name_or_path"), text(row, _PATCH), number
    )
