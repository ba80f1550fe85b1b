"""The table of stages in order, and the runner that judges rows and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from swe_scaffold.quality.duplicates import DuplicateJudge
from swe_scaffold.quality.responses import judge_empty, judge_short
from swe_scaffold.types import KEEP, Example, Task, Verdict

Judge = Callable[[Example, Task | None], Verdict]


@dataclass(frozen=True, slots=True)
class Stage:
    """One named judge; `judge` gets the row and, where it was made from one, its task."""

    name: str
    judge: Judge


@dataclass(slots=True)
class StageCount:
    """How many rows a stage saw and what it skipped, by reason."""

    name: str
    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, object]:
        """The counts as JSON values."""
        return {"name": self.name, "rows": self.rows, "skipped": dict(sorted(self.skipped.items()))}


class StageRunner:
    """Sends rows through stages until one of them skips."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)
        self.counts = tuple(StageCount(stage.name) for stage in self._stages)

    def judge(self, example: Example, task: Task | None = None) -> tuple[str, Verdict]:
        """Return the verdict and the name of the stage that gave it (empty where the row stays)."""
        for stage, count in zip(self._stages, self.counts, strict=True):
            count.rows += 1
            verdict = stage.judge(example, task)
            if not verdict.keep:
                count.skipped[verdict.reason] += 1
                return stage.name, verdict
        return "", KEEP


def default_stages(*, min_patch_chars: int | None, include_empty: bool) -> tuple[Stage, ...]:
    """Return the stages of a build, in order; duplicates come last so that only kept rows count."""
    table = [
        ("empty_response", None if include_empty else judge_empty),
        ("short_patch", judge_short(min_patch_chars) if min_patch_chars else None),
        ("duplicate", DuplicateJudge()),
    ]
    return tuple(Stage(name, judge) for name, judge in table if judge is not None)
