"""From a task to a prompt/response pair: which text answers it, and what the label is.

Reading tasks, and what they ask, is left to `sources`, judging the result to `quality`.
"""

from __future__ import annotations

import json
from typing import Any

from swe_scaffold.labels import label_outcome
from swe_scaffold.rows import make_example
from swe_scaffold.sources.prompts import make_prompt
from swe_scaffold.splits import text_hash
from swe_scaffold.types import Example, SourceFields, SpeedrunLabel, Task

# Larger extra fields (lists of thousands of test names) stay in the source.
MAX_EXTRA_CHARS = 400


def choose_response(task: Task) -> tuple[str, str]:
    """Return the first of change_summary, patch and test_patch that is not blank, and its name."""
    for name in ("change_summary", "patch", "test_patch"):
        text: str = getattr(task, name)
        if text.strip():
            return text, name
    return "", "none"


def label_task(task: Task) -> SpeedrunLabel:
    """Return the label a task brings or deserves; without any response it is failure."""
    if choose_response(task)[1] == "none":
        return SpeedrunLabel.FAILURE
    if task.label is not None:
        return task.label
    fields = source_fields(task)
    return label_outcome(task.outcome, has_answer=fields.has_change_summary or fields.has_patch)


def task_to_example(task: Task) -> Example:
    """Return the task as a prompt/response pair with its label; nothing is judged yet."""
    response, response_source = choose_response(task)
    return make_example(
        instance_id=task.instance_id,
        repo=task.repo,
        prompt=make_prompt(task),
        response=response,
        response_source=response_source,
        label=label_task(task),
        origin=task.origin,
        group=task.group,
        meta=_meta(task, response_source),
    )


def source_fields(task: Task | None) -> SourceFields:
    """Return which response fields a task has; a row that is no task has none."""
    if task is None:
        return SourceFields()
    return SourceFields(
        has_change_summary=bool(task.change_summary.strip()),
        has_patch=bool(task.patch.strip()),
        has_test_patch=bool(task.test_patch.strip()),
    )


def _meta(task: Task, response_source: str) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if task.base_commit:
        meta["base_commit"] = task.base_commit
    if task.created_at:
        meta["created_at"] = task.created_at
    if task.context:
        meta["context"] = task.extra.get("context", "oracle")
    if task.patch.strip() and response_source != "patch":
        meta["patch_hash"] = text_hash(task.patch.strip())
    small = {
        key: value for key, value in task.extra.items() if key not in meta and _is_small(value)
    }
    return {**meta, **small}


def _is_small(value: object) -> bool:
    try:
        return len(json.dumps(value, allow_nan=False)) <= MAX_EXTRA_CHARS
    except (TypeError, ValueError, RecursionError):
        return False
