"""All that is known of one row: itself, its scores, what models answered to it.

What is gathered here is shown by `row_page` and by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.rendering import Renderer
from swe_scaffold.report.row_predictions import Prediction, answers_of, predictions_of
from swe_scaffold.report.row_scores import Evaluations, RowScores
from swe_scaffold.terminal import show
from swe_scaffold.types import Example


@dataclass(frozen=True, slots=True)
class RowFacts:
    """A row with its scores (None without an evaluation) and its predictions."""

    example: Example
    scores: RowScores | None
    predictions: tuple[Prediction, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON of what is known besides the row itself."""
        return {
            "scores": self.scores.to_dict() if self.scores else None,
            "predictions": [one.to_dict() for one in self.predictions],
            "notes": list(self.notes),
        }


def gather_rows(
    examples: Sequence[Example],
    evaluations: Evaluations | None,
    renderer: Renderer | None,
    *,
    predictions: Path | None = None,
    min_prompt_tokens: int,
) -> list[RowFacts]:
    """Return what is known of each row that was scored; of all where nothing was.

    Args:
        examples: Rows with the id that was asked for.
        evaluations: Where they were scored.
        renderer: What made their tokens, as `Evaluations.renderer` returns it.
        predictions: Predictions (JSON Lines).
        min_prompt_tokens: What a cut text kept, where the evaluation does not say.

    Raises:
        DataError: None of the rows was scored, or a prediction cannot be read.
        IntegrityError: A row renders to other tokens than were scored.
    """
    chosen = [one for one in examples if evaluations is None or evaluations.has(one)]
    if evaluations is not None and not chosen:
        named = show(examples[0].instance_id, width=80) if examples else "a row that was skipped"
        raise DataError(
            f"the evaluation has no score of {named}",
            where=show(evaluations.stored[-1][1].folder),
            hint=f"it scored rows of {show(evaluations.data_path)}",
        )
    found = []
    for example in chosen:
        scores = None
        answers: list[Prediction] = []
        if evaluations is not None and renderer is not None:
            scores = evaluations.scores_of(example, renderer, min_prompt_tokens=min_prompt_tokens)
            answers = answers_of(example, [stored for _, stored in evaluations.stored])
        notes = []
        if predictions is not None:
            own = predictions_of(example, predictions)
            answers += own
            if not own:
                notes.append(f"{show(predictions.name)} holds no prediction of this row")
        found.append(RowFacts(example, scores, tuple(answers), tuple(notes)))
    return found
