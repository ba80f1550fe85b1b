"""From a task to a prompt/response pair: which text answers, what is asked, what the label is.

Reading tasks is left to `sources`, judging the result to `quality`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from swe_scaffold.labels import label_outcome
from swe_scaffold.rows import make_example
from swe_scaffold.splits import text_hash
from swe_scaffold.types import CodeContext, Example, SourceFields, SpeedrunLabel, Task

# Larger extra fields (lists of thousands of test names) stay in the source.
MAX_EXTRA_CHARS = 400


def choose_response(task: Task) -> tuple[str, str]:
    """Return the first of change_summary, patch and test_patch that is not blank, and its name."""
    for name in ("change_summary", "patch", "test_patch"):
        text: str = getattr(task, name)
        if text.strip():
            return text, name
    return "", "none"


def make_prompt(task: Task) -> str:
    """Return the problem statement, and after it the code the task brings along."""
    if not task.context:
        return task.problem_statement
    pieces = [task.problem_statement.rstrip(), *(_show_code(piece) for piece in task.context)]
    return "\n\n".join(piece for piece in pieces if piece)


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


def _show_code(piece: CodeContext) -> str:
    """Return a header line and the code in a fence that no line inside can close."""
    text = piece.text if piece.text.endswith("\n") else piece.text + "\n"
    last = piece.start_line + max(text.count("\n") - 1, 0)
    fence = "`" * (1 + max(2, _longest(re.findall(r"`+", text))))
    path = " ".join(piece.path.split())
    return f"{path}, lines {piece.start_line}-{last}:\n{fence}\n{text}{fence}"


def _longest(runs: Sequence[str]) -> int:
    return max(map(len, runs), default=0)
