"""Compare evaluations that are there: the same rows, paired, and a gate for those who must decide.

- `__init__.py`: the story: read, find the rows they share, pair each model with the first, judge.
- `rows.py`: the rows that all of them scored, and those that a model was trained on.
- `gate.py`: whether a model may take another's place.

No model is loaded here; what evaluations hold is `scores`' matter, the numbers are `metrics`'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.comparison.gate import Gate, judged
from swe_scaffold.comparison.rows import Seen, shared_rows
from swe_scaffold.config import EvaluationConfig
from swe_scaffold.errors import UsageError
from swe_scaffold.manifest import SCHEMA, provenance
from swe_scaffold.metrics.comparison import compare
from swe_scaffold.metrics.health import compare_health, health_of
from swe_scaffold.metrics.pairing import Per
from swe_scaffold.metrics.shares import holm
from swe_scaffold.scores import GENERATIONS, REPORT, StoredEvaluation, read_evaluation

__all__ = ["Comparison", "Gate", "Seen", "compare_evaluations"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The report (strict JSON), and whether the gate lets every model pass (None without one)."""

    report: dict[str, Any]
    passes: bool | None


def compare_evaluations(
    places: Sequence[Path],
    *,
    config: EvaluationConfig | None = None,
    seen: Seen = "refuse",
    common: bool = False,
    gate: Gate | None = None,
) -> Comparison:
    """Compare evaluations with the first of them, row by row.

    Args:
        places: Folders of evaluations (or their reports), the baseline first.
        config: Statistics: unit of the intervals, level, resamples, seed.
        seen: What to do with rows that one of the models was trained on: refuse them, leave them
            out, or include them.
        common: Compare the rows that all have, where some are missing in one; else that is refused.
        gate: When a model passes.

    Raises:
        UsageError: Fewer than two evaluations, or one that is none.
        IntegrityError: Other data or rows, rows that were trained on, or files that were changed.
    """
    if len(places) < 2:
        raise UsageError("takes at least two evaluations", where="compare")
    settings = config or EvaluationConfig()
    evaluations = [read_evaluation(place) for place in places]
    rows = shared_rows(evaluations, seen=seen, common=common)
    per = _unit(evaluations)
    base, *others = evaluations
    pairs = [
        compare(
            rows.scores[0],
            rows.scores[number],
            cluster_by=settings.cluster_by,
            iterations=settings.iterations,
            alpha=settings.alpha,
            seed=settings.seed,
            per=per,
        )
        for number in range(1, len(evaluations))
    ]
    adjusted = holm({str(n): pair.sign_flip.p_value for n, pair in enumerate(pairs)})
    kept = {(row.instance_id, row.sha256) for row in rows.scores[0]}
    models = []
    for number, (other, pair) in enumerate(zip(others, pairs, strict=True)):
        health = _health(base, other, kept, settings.alpha)
        p_value = adjusted[str(number)]
        models.append(
            {
                **_about(other),
                "comparison": asdict(pair),
                "p_holm": p_value,
                "health": health,
                "gate": None if gate is None else asdict(judged(gate, pair, health, settings)),
            }
        )
    passes = None if gate is None else all(model["gate"]["passes"] for model in models)
    report = {
        "schema": SCHEMA,
        "kind": "comparison",
        **provenance(),
        "settings": asdict(settings),
        "data": {
            "sha256": base.report["data"]["sha256"],
            "rows": len(rows.scores[0]),
            "seen": seen,
            "seen_left_out": rows.seen_left_out,
            "only_in_some": rows.only_in_some,
            "per": per,
        },
        "baseline": _about(base),
        "models": models,
        "passes": passes,
    }
    return Comparison(report, passes)


def _unit(evaluations: Sequence[StoredEvaluation]) -> Per:
    """Return tokens where all count them alike, else bytes."""
    renderings = {one.report["data"]["rendering"] for one in evaluations}
    return "token" if len(renderings) == 1 else "byte"


def _about(one: StoredEvaluation) -> dict[str, Any]:
    report = one.report
    return {
        "model": report["model"],
        "evaluation": str(one.folder / REPORT),
        "key": report["key"],
        "prompts_shortened": report["data"]["prompts_shortened"],
        "shuffled_prompts": report["shuffled_prompts"],
        "notes": report["notes"],
    }


def _health(
    base: StoredEvaluation,
    tuned: StoredEvaluation,
    kept: Set[tuple[str, str]],
    alpha: float,
) -> dict[str, Any] | None:
    """Return the health of answers to the prompts that both models were given, if there are any."""
    answers = [_answers(one) for one in (base, tuned)]
    both = sorted(answers[0].keys() & answers[1].keys() & kept)
    if not both:
        return None
    flags = [[health_of(side[row]) for row in both] for side in answers]
    pairs = compare_health(flags[0], flags[1], alpha=alpha)
    return {name: asdict(pair) for name, pair in pairs.items()}


def _answers(one: StoredEvaluation) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(row["instance_id"], row["sha256"]): row for row in one.rows(GENERATIONS)}
