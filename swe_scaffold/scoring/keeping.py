"""Predictions worth training on, as tasks whose patch is the prediction: rows for `build`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from swe_scaffold.scoring.reading import Prediction
from swe_scaffold.types import Task


def kept_row(task: Task, prediction: Prediction, resolved: bool | None) -> dict[str, Any]:
    """Return the task with the prediction in the place of its patch, and who made it.

    A summary of the gold change would answer in the prediction's place and stays behind; so does
    what is known of other attempts. `resolved` becomes the row's label where it is known.
    """
    row: dict[str, Any] = {
        "instance_id": task.instance_id,
        "repo": task.repo,
        "base_commit": task.base_commit,
        "problem_statement": task.problem_statement,
        "patch": prediction.patch,
        "test_patch": task.test_patch,
        "created_at": task.created_at,
        "group": task.group,
    }
    row = {name: value for name, value in row.items() if value}
    if task.context:
        row["context"] = [asdict(piece) for piece in task.context]
    if resolved is not None:
        row["resolved"] = resolved
    return {
        **task.extra,
        **row,
        "predicted_by": prediction.model,
        "sample": prediction.sample,
    }
