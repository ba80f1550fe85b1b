"""Which rows are scored: rendered, of which language, and with another's prompt of the group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from swe_scaffold.cache import Cache
from swe_scaffold.changed_paths import main_language
from swe_scaffold.diffs import files_touched
from swe_scaffold.errors import DataError
from swe_scaffold.models import ModelReference
from swe_scaffold.rendering import Renderer, render_rows
from swe_scaffold.sources.examples import ExampleFile
from swe_scaffold.types import Example, TokenizedExample, Verdict


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


def language_of(example: Example) -> str:
    """Return the language of most code files that a response changes; empty if it is no patch."""
    return "" if example.messages else main_language(files_touched(example.response))


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
