"""Success or failure: one rule for tasks and trajectories.

An explicit outcome decides; else thresholds on what a trajectory reports (those present must hold,
absent ones are ignored); else whether there is a summary or a patch. A label that is already set is
never recomputed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.types import Outcome, SpeedrunLabel

__all__ = [
    "LabelThresholds",
    "SpeedrunLabel",
    "label_conversation",
    "label_outcome",
    "read_outcome",
]

_TRUE = {"true", "yes", "1", "resolved", "success", "passed", "pass"}
_FALSE = {"false", "no", "0", "unresolved", "failure", "failed", "fail"}
_RESOLVED_KEYS = ("resolved", "outcome", "is_resolved", "success")


@dataclass(frozen=True, slots=True)
class LabelThresholds:
    """Bounds a successful trajectory keeps."""

    min_pass_rate: float = 0.6
    max_turns: int = 18
    max_response_tokens: int = 2048


DEFAULT_THRESHOLDS = LabelThresholds()


def label_conversation(
    conversation: Mapping[str, Any], thresholds: LabelThresholds = DEFAULT_THRESHOLDS
) -> SpeedrunLabel:
    """Label one row given as a mapping (a task, a trajectory summary, or a built row).

    Args:
        conversation: May hold `label`; `resolved` or `outcome`; `pass_rate`, `turns`,
            `response_tokens`; `change_summary`, `patch`, `response`.
        thresholds: Bounds for the trajectory fields.

    Raises:
        DataError: A field is present with a value that cannot be read.
    """
    given = conversation.get("label")
    if given is not None:
        return read_label(given)
    texts = (conversation.get(key) for key in ("change_summary", "patch", "response"))
    has_answer = any(isinstance(text, str) and text.strip() for text in texts)
    return label_outcome(read_outcome(conversation), has_answer=has_answer, thresholds=thresholds)


def label_outcome(
    outcome: Outcome, *, has_answer: bool, thresholds: LabelThresholds = DEFAULT_THRESHOLDS
) -> SpeedrunLabel:
    """Label a row from what is known of its outcome and whether it has a summary or patch."""
    if outcome.resolved is not None:
        return SpeedrunLabel.SUCCESS if outcome.resolved else SpeedrunLabel.FAILURE
    checks = [
        outcome.pass_rate is None or outcome.pass_rate >= thresholds.min_pass_rate,
        outcome.turns is None or outcome.turns <= thresholds.max_turns,
        outcome.response_tokens is None
        or outcome.response_tokens <= thresholds.max_response_tokens,
    ]
    known = (outcome.pass_rate, outcome.turns, outcome.response_tokens)
    success = all(checks) if any(value is not None for value in known) else has_answer
    return SpeedrunLabel.SUCCESS if success else SpeedrunLabel.FAILURE


def read_label(value: object) -> SpeedrunLabel:
    """Read a label as written in a row.

    Raises:
        DataError: Neither `success` nor `failure`.
    """
    try:
        return SpeedrunLabel(str(value))
    except ValueError:
        raise DataError(f"label must be success or failure, got {str(value)[:40]!r}") from None


def read_outcome(row: Mapping[str, Any]) -> Outcome:
    """Read the outcome fields of a row; absent and null fields stay unknown.

    Raises:
        DataError: A field is present with a value that cannot be read.
    """
    resolved: bool | None = None
    for key in _RESOLVED_KEYS:
        if row.get(key) not in (None, ""):
            resolved = _flag(key, row[key])
            break
    turns, tokens = _number("turns", row), _number("response_tokens", row)
    return Outcome(
        resolved=resolved,
        pass_rate=_number("pass_rate", row),
        turns=None if turns is None else math.ceil(turns),
        response_tokens=None if tokens is None else math.ceil(tokens),
    )


def _flag(key: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    text = str(value).strip().lower()
    if text in _TRUE | _FALSE:
        return text in _TRUE
    raise DataError(f"{key} must be true or false, got {str(value)[:40]!r}")


def _number(key: str, row: Mapping[str, Any]) -> float | None:
    value = row.get(key)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{key} must be a number, got {str(value)[:40]!r}") from None
    return number
