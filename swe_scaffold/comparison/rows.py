"""The rows that every evaluation scored, and what becomes of those that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from swe_scaffold.errors import IntegrityError
from swe_scaffold.scores import StoredEvaluation
from swe_scaffold.terminal import show
from swe_scaffold.types import ExampleScore

Seen = Literal["refuse", "drop", "include"]
_AGAIN = "score them on the same file: swe-scaffold evaluate MODEL MODEL DATA"


@dataclass(frozen=True, slots=True)
class SharedRows:
    """The scores of the same rows, one list for each evaluation, and how many rows are not here."""

    scores: tuple[tuple[ExampleScore, ...], ...]
    seen_left_out: int
    only_in_some: int


def shared_rows(evaluations: Sequence[StoredEvaluation], *, seen: Seen, common: bool) -> SharedRows:
    """Return the rows to compare, of each evaluation.

    Raises:
        IntegrityError: Other data, rows that some lack (without `common`), rows that a model was
            trained on (under "refuse"), or nothing left.
    """
    base = evaluations[0]
    for other in evaluations[1:]:
        _require_same_data(base, other, common)
    keys = [{_key(row) for row in one.scores} for one in evaluations]
    everywhere, anywhere = set.intersection(*keys), set.union(*keys)
    if everywhere != anywhere and not common:
        raise IntegrityError(
            f"{len(anywhere - everywhere)} rows are not in every evaluation, first: "
            f"{show(min(anywhere - everywhere)[0], width=80)}",
            where=str(base.folder),
            hint=f"compare the {len(everywhere)} others with --common, or {_AGAIN}",
        )
    trained = {_key(row) for one in evaluations for row in one.scores if row.seen_in_training}
    if seen == "refuse" and trained & everywhere:
        raise IntegrityError(
            f"{len(trained & everywhere)} of {len(everywhere)} rows were trained on, first: "
            f"{show(min(trained & everywhere)[0], width=80)}",
            where=_who_saw(evaluations),
            hint="leave them out with --seen drop, or ask for them with --seen include",
        )
    keep = everywhere - trained if seen == "drop" else everywhere
    if not keep:
        raise IntegrityError("there are no rows to compare", where=str(base.folder))
    return SharedRows(
        tuple(tuple(row for row in one.scores if _key(row) in keep) for one in evaluations),
        seen_left_out=len(everywhere) - len(keep),
        only_in_some=len(anywhere) - len(everywhere),
    )


def _require_same_data(base: StoredEvaluation, other: StoredEvaluation, common: bool) -> None:
    left, right = base.report["data"], other.report["data"]
    if left["sha256"] != right["sha256"] and not common:
        raise IntegrityError(
            f"scored on other data than {show(base.folder)} (sha256 {right['sha256'][:12]}, "
            f"not {left['sha256'][:12]})",
            where=str(other.folder),
            hint=f"compare the rows that both have with --common, or {_AGAIN}",
        )
    if left["rendering"] == right["rendering"] and left["max_length"] != right["max_length"]:
        raise IntegrityError(
            f"scored with prompts of at most {right['max_length']} tokens, the baseline with "
            f"{left['max_length']}",
            where=str(other.folder),
            hint=_AGAIN,
        )


def _who_saw(evaluations: Sequence[StoredEvaluation]) -> str:
    return next(one.name for one in evaluations if any(row.seen_in_training for row in one.scores))


def _key(row: ExampleScore) -> tuple[str, str]:
    return row.instance_id, row.sha256
