"""How the responses of a run begin, and how the base would have begun them.

The rule that tells a fight from a difference is in `metrics.positions`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from swe_scaffold.config import EvaluationConfig
from swe_scaffold.metrics.positions import (
    LISTED,
    POSITIONS,
    Fight,
    FirstToken,
    ResponseStart,
    StartSummary,
    find_fights,
    summarise_starts,
)
from swe_scaffold.rendering import Renderer
from swe_scaffold.terminal import Reporter
from swe_scaffold.types import TokenizedExample

if TYPE_CHECKING:
    from swe_scaffold.engine.devices import Device

SAMPLE_ROWS, SAMPLE_TOKENS, LEAST_ROWS = 128, 1 << 16, 16


@dataclass(frozen=True, slots=True)
class StartReport:
    """The sample and what it shows; `texts` spells the listed tokens.

    `tokens` (padded) and `seconds` are those of scoring, which an evaluation costs too.
    """

    rows: int
    of_rows: int
    seed: int
    summary: StartSummary
    fights: tuple[Fight, ...]
    texts: dict[int, str]
    tokens: int
    seconds: float


def sample(rows: Sequence[TokenizedExample], *, seed: int) -> list[TokenizedExample]:
    """Draw rows by seed: up to 128 of them and 65,536 tokens, but at least 16 where there are."""
    order = np.random.default_rng(seed).permutation(len(rows))[:SAMPLE_ROWS]
    lengths = np.cumsum([rows[row].length for row in order])
    kept = max(LEAST_ROWS, int(np.searchsorted(lengths, SAMPLE_TOKENS, side="right")))
    return [rows[row] for row in order[:kept]]


def look_at_starts(
    model: Any,
    rows: Sequence[TokenizedExample],
    renderer: Renderer,
    *,
    seed: int,
    device: Device,
    evaluation: EvaluationConfig,
    reporter: Reporter,
) -> StartReport:
    """Score a sample of rows by the base, below a PEFT model or itself, and ask for first tokens.

    Raises:
        OutOfMemory: A row does not fit.
    """
    from swe_scaffold.engine.probe import likeliest_first
    from swe_scaffold.engine.scoring import plan_passes, score

    chosen, below = sample(rows, seed=seed), hasattr(model, "disable_adapter")
    lengths = [row.length for row in chosen]
    passes = plan_passes(
        lengths,
        tokens_per_pass=evaluation.tokens_per_batch,
        rows_per_pass=evaluation.batch_size,
    )
    nll: dict[int, np.ndarray[Any, Any]] = {}
    with reporter.progress("responses under the base", 2 * len(chosen)) as track:
        began = time.monotonic()
        scored = score(
            model,
            chosen,
            passes=passes,
            pad_id=renderer.pad_id,
            device=device,
            without_adapter=below,
        )
        for result in chain.from_iterable(scored):
            nll[result.index] = result.nll
            track.advance()
        seconds = time.monotonic() - began
        likeliest = []
        for found in likeliest_first(
            model, chosen, device=device, most=LISTED, without_adapter=below
        ):
            likeliest.append(found)
            track.advance()
    starts = [
        _start(row, nll[index], found)
        for index, (row, found) in enumerate(zip(chosen, likeliest, strict=True))
    ]
    summary = summarise_starts(starts)
    texts = {entry.token: "" for entry in (*summary.of_data, *summary.of_model)}
    texts = {token: spelling(renderer, token) for token in texts}
    blank = {token for token in {start.first for start in starts} if _is_blank(renderer, token)}
    return StartReport(
        rows=len(chosen),
        of_rows=len(rows),
        seed=seed,
        summary=summary,
        fights=find_fights(starts, blank=blank),
        texts=texts,
        tokens=sum(max(lengths[row] for row in part) * len(part) for part in passes),
        seconds=seconds,
    )


def spelling(renderer: Renderer, token: int) -> str:
    """Return the text of a token, control tokens by name; empty where the tokenizer has none."""
    return str(
        renderer.tokenizer.official.decode(
            [token], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
    )


def _is_blank(renderer: Renderer, token: int) -> bool:
    text = spelling(renderer, token)
    return bool(text) and not text.strip()


def _start(
    row: TokenizedExample,
    nll: np.ndarray[Any, Any],
    likeliest: tuple[tuple[int, float], ...],
) -> ResponseStart:
    """Cut a row's NLL at the first response's first tokens; later responses are of the rest."""
    first = int(row.target_positions[0])
    stop = next(stop for _, stop, _ in row.spans if stop > first)
    head = min(POSITIONS, stop - first)
    values = nll.astype(np.float64)
    return ResponseStart(
        cluster=row.group,
        nll=tuple(map(float, values[:head])),
        rest_nll=float(values[head:].sum()),
        rest_tokens=len(values) - head,
        first=int(row.input_ids[first]),
        likeliest=likeliest,
    )


def listed(entries: Sequence[FirstToken], texts: dict[int, str]) -> list[dict[str, Any]]:
    """Return the listed tokens with their texts as JSON values."""
    return [
        {
            "token": entry.token,
            "text": texts[entry.token],
            "rows": entry.rows,
            "probability": entry.probability,
        }
        for entry in entries
    ]
