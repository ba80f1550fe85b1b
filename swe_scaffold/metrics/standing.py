"""Where one row stands among others by one number, and the number itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swe_scaffold.errors import IntegrityError
from swe_scaffold.types import ExampleScore


@dataclass(frozen=True, slots=True)
class Standing:
    """The place of a row: 1 is the lowest `value`, equal values share a place.

    `value` is NLL per response token, or its change from one model to another (nats). `among` says
    which rows are compared: "unseen" or "trained" ones, as the row itself is.
    """

    value: float
    place: int
    of: int
    among: str


def standing(
    row: ExampleScore, after: Sequence[ExampleScore], before: Sequence[ExampleScore] | None = None
) -> Standing:
    """Return where a row stands among those of its kind by its NLL, or by the change of it.

    Args:
        row: One of `after`.
        after: Scores of the model.
        before: Scores of another model to measure the change from; rows that it lacks are left out.

    Raises:
        IntegrityError: The row itself is not among those that can be compared.
    """
    seen = bool(row.seen_in_training)
    own = (row.instance_id, row.sha256)
    base = {(one.instance_id, one.sha256): _per_token(one) for one in before or ()}
    values = {}
    for one in after:
        key = (one.instance_id, one.sha256)
        if bool(one.seen_in_training) == seen and (before is None or key in base):
            values[key] = _per_token(one) - base.get(key, 0.0)
    if own not in values:
        raise IntegrityError(f"no score of the row {row.instance_id!r} to compare with others")
    value = values[own]
    place = 1 + sum(other < value for other in values.values())
    return Standing(value, place, len(values), "trained" if seen else "unseen")


def _per_token(row: ExampleScore) -> float:
    return row.nll_sum / row.tokens
