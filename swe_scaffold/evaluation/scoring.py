"""Rows rendered and scored, with their own prompts and with another's of the same group."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from swe_scaffold.cache import Cache
from swe_scaffold.config import EvaluationConfig
from swe_scaffold.errors import DataError, IntegrityError
from swe_scaffold.models import ModelReference
from swe_scaffold.rendering import Renderer, render_rows, target_classes
from swe_scaffold.sources.examples import ExampleFile
from swe_scaffold.terminal import Reporter
from swe_scaffold.types import Example, ExampleScore, TokenizedExample, Verdict

if TYPE_CHECKING:
    from swe_scaffold.engine.model import BaseModel


@dataclass(frozen=True, slots=True)
class Rendered:
    """Rows that can be scored, and how many cannot, by reason."""

    pairs: tuple[tuple[Example, TokenizedExample], ...]
    skipped: Counter[str]
    rows: int


def render(
    file: ExampleFile, target: ModelReference, renderer: Renderer, cache: Cache | None = None
) -> Rendered:
    """Render every row that has a response.

    Raises:
        DataError: None can be scored.
    """
    skipped: Counter[str] = Counter()
    chosen = []
    for example in file.examples:
        if example.messages or example.response.strip():
            chosen.append(example)
        else:
            skipped["empty_response"] += 1
    results = render_rows(
        renderer,
        chosen,
        max_length=target.max_length,
        min_prompt_tokens=target.min_prompt_tokens,
        cache=cache,
    )
    pairs = []
    for example, result in zip(chosen, results, strict=True):
        if isinstance(result, Verdict):
            skipped[result.reason] += 1
        else:
            pairs.append((example, result))
    if not pairs:
        raise DataError(
            f"no rows to score ({len(file.examples)} read, skipped: {dict(skipped)})",
            where=str(file.path),
        )
    return Rendered(tuple(pairs), skipped, len(file.examples))


class Scorer:
    """Scores rows with a loaded model, batch by batch."""

    def __init__(
        self,
        module: Any,
        base: BaseModel,
        renderer: Renderer,
        settings: EvaluationConfig,
        reporter: Reporter,
    ) -> None:
        self.module, self.base, self.renderer = module, base, renderer
        self.settings, self.reporter = settings, reporter

    def run(
        self,
        title: str,
        pairs: Sequence[tuple[Example, TokenizedExample]],
        *,
        without_adapter: bool = False,
        classes: bool = True,
    ) -> tuple[ExampleScore, ...]:
        """Return one score per row, in the order of the rows."""
        from swe_scaffold.engine.scoring import plan_passes, score

        rows = [tokenized for _, tokenized in pairs]
        highest = max(max(row.input_ids) for row in rows)
        if highest >= self.base.vocab_size:
            raise IntegrityError(
                f"token id {highest} is beyond the model's {self.base.vocab_size} embeddings",
                where=self.base.name,
            )
        scores: dict[int, ExampleScore] = {}
        with self.reporter.progress(title, len(rows)) as track:
            passes = plan_passes(
                [len(row.input_ids) for row in rows],
                tokens_per_pass=self.settings.tokens_per_batch,
                rows_per_pass=self.settings.batch_size,
            )
            scored = score(
                self.module,
                rows,
                passes=passes,
                pad_id=self.renderer.pad_id,
                device=self.base.device,
                without_adapter=without_adapter,
            )
            for result in chain.from_iterable(scored):
                example, row = pairs[result.index]
                names = target_classes(self.renderer, example, row) if classes else []
                scores[result.index] = _example_score(row, result.nll, names)
                track.advance()
        return tuple(scores[index] for index in range(len(rows)))


def _example_score(
    row: TokenizedExample, nll: np.ndarray[Any, Any], classes: Sequence[str]
) -> ExampleScore:
    by_class: dict[str, list[float]] = {}
    for name, value in zip(classes, nll, strict=True) if classes else ():
        by_class.setdefault(name, []).append(float(value))
    return ExampleScore(
        instance_id=row.instance_id,
        repo=row.repo,
        group=row.group,
        label=row.label,
        nll_sum=float(nll.astype(np.float64).sum()),
        tokens=len(nll),
        bytes=row.response_bytes,
        prompt_tokens=len(row.input_ids) - len(nll),
        sha256=row.sha256,
        nll_by_class={
            name: (math.fsum(values), len(values)) for name, values in sorted(by_class.items())
        },
    )


def shuffled_pairs(
    pairs: Sequence[tuple[Example, TokenizedExample]],
    chosen: Iterable[int] | None = None,
    *,
    seed: int,
) -> list[tuple[int, Example]]:
    """Give each row another row's prompt of the same group: (index, example with that prompt).

    Within each group a seeded order is shifted by one, so that no row keeps its own. Rows alone in
    their group, chats, and rows whose neighbour has the same prompt are left out; `chosen` limits
    the rows that take part.
    """
    groups: dict[str, list[int]] = {}
    for index in range(len(pairs)) if chosen is None else chosen:
        example = pairs[index][0]
        if not example.messages:
            groups.setdefault(example.group, []).append(index)
    generator = np.random.default_rng(seed)
    result = []
    for name in sorted(groups):
        order = [groups[name][i] for i in generator.permutation(len(groups[name]))]
        for own, other in zip(order, [*order[1:], order[0]], strict=True):
            prompt = pairs[other][0].prompt
            if prompt != pairs[own][0].prompt:
                result.append((own, replace(pairs[own][0], prompt=prompt)))
    return sorted(result, key=lambda pair: pair[0])
