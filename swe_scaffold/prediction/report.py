"""Predictions in order, and what a manifest says of them: every row's fate, patches, health."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from swe_scaffold.errors import ScaffoldError
from swe_scaffold.metrics.health import summarise_health
from swe_scaffold.prediction.answers import health_of
from swe_scaffold.prediction.questions import Question, Questions
from swe_scaffold.prediction.record import Place


@dataclass(frozen=True, slots=True)
class Ordered:
    """Rows by question and sample; (id, reason, detail) of every row that is skipped."""

    pairs: tuple[tuple[Question, dict[str, Any]], ...]
    skipped: tuple[tuple[str, str, str], ...]

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """The lines of the predictions."""
        return tuple(row for _, row in self.pairs)


def in_order(
    questions: Questions, entries: Mapping[Place, Mapping[str, Any]], samples: int
) -> Ordered:
    """Return the rows of the questions that have all their answers, and why others have not."""
    pairs: list[tuple[Question, dict[str, Any]]] = []
    skipped = list(questions.skipped)
    for question in questions.asked:
        found = [entries[question.index, sample] for sample in range(samples)]
        refused = next((entry["skip"] for entry in found if "skip" in entry), None)
        if refused is None:
            pairs += [(question, entry["row"]) for entry in found]
        else:
            skipped.append((question.instance_id, refused["reason"], refused["detail"]))
    return Ordered(tuple(pairs), tuple(skipped))


def describe(questions: Questions, ordered: Ordered) -> dict[str, Any]:
    """Return the ledger of a run and the numbers of its predictions, as strict JSON.

    Raises:
        ScaffoldError: The ledger does not add up.
    """
    predicted = len({question.index for question, _ in ordered.pairs})
    if questions.rows != predicted + len(ordered.skipped) + questions.beyond_limit:
        raise ScaffoldError("the ledger does not add up", where="predictions")
    rows = [row for question, row in ordered.pairs if not question.is_turn]
    repairs: Counter[str] = Counter()
    for row in rows:
        repairs.update(row["repairs"])
    health = summarise_health(
        [health_of(row, expects_patch=question.expects_patch) for question, row in ordered.pairs]
    )
    return {
        "inputs": [asdict(file) for file in questions.inputs],
        "counts": {
            "rows": questions.rows,
            "predicted": predicted,
            "skipped": _counted(Counter(reason for _, reason, _ in ordered.skipped)),
            "beyond_limit": questions.beyond_limit,
            "predictions": len(ordered.pairs),
            "prompts_shortened": sum(1 for row in ordered.rows if row["prompt_cut"]),
        },
        "tokens": {name: _sum(ordered, f"{name}_tokens") for name in ("prompt", "completion")},
        "forms": _counted(Counter(row["form"] for row in rows)),
        "repairs": _counted(repairs),
        "problems": _counted(Counter(row["problem"] for row in rows if row["problem"])),
        "health": {name: asdict(metric) for name, metric in health.items()},
        "skipped": [
            {"instance_id": name, "reason": reason, "detail": detail}
            for name, reason, detail in ordered.skipped
        ],
    }


def code_found(entries: Mapping[Place, Mapping[str, Any]]) -> dict[str, int]:
    """Return of how many answered rows the code was found, and why not of the others."""
    return _counted(
        Counter(e["code"] for (_, sample), e in entries.items() if not sample and "code" in e)
    )


def _counted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))


def _sum(ordered: Ordered, key: str) -> int | None:
    """Add up a count; None where one is not known."""
    values = [row[key] for row in ordered.rows]
    return None if None in values else sum(values)
