"""What a model answers to some of the prompts, and whether that looks like an answer at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from swe_scaffold.cache import key_of
from swe_scaffold.config import EvaluationConfig
from swe_scaffold.engine.sampling import Sampling
from swe_scaffold.evaluation.parts import Part
from swe_scaffold.evaluation.scoring import Pair, Scorer, Subject
from swe_scaffold.metrics.health import FLAGS, health, health_of, summarise_health, wants_patch
from swe_scaffold.types import ExampleScore, Verdict


def chosen(scores: Sequence[ExampleScore], count: int, *, seed: int) -> list[int]:
    """Return the numbers of `count` rows, drawn from those not seen in training if there are any.

    Rows are ranked by a hash of the seed, their id and their content: models that were trained on
    other rows still answer the same prompts, as far as none has seen them.
    """
    unseen = [index for index, row in enumerate(scores) if not row.seen_in_training]

    def rank(index: int) -> str:
        return key_of(seed, scores[index].instance_id, scores[index].sha256)

    return sorted(sorted(unseen or range(len(scores)), key=rank)[:count])


def answer(
    subject: Subject,
    pairs: Sequence[Pair],
    rows: Sequence[int],
    scorer: Scorer,
    part: Part,
) -> list[dict[str, Any]]:
    """Return the greedy answer to each row's prompt and its health; `part` keeps them as they come.

    A row whose prompt leaves no room for an answer is left out.
    """
    settings = scorer.settings
    prompts = _prompts(subject, pairs, rows, settings)
    found = {row: part.found[row] for row in prompts if _is_whole(part.found.get(row))}
    left = [row for row in prompts if row not in found]
    with scorer.reporter.progress("answering", len(prompts), unit="prompts") as track:
        track.advance(len(found))
        for row, text, stopped in _generated(subject, pairs, left, prompts, scorer):
            example, _ = pairs[row]
            found[row] = {
                "instance_id": example.instance_id,
                "sha256": pairs[row][1].sha256,
                "text": text,
                **asdict(health(text, stopped=stopped, expects_patch=wants_patch(example))),
            }
            part.add(row, found[row])
            track.advance()
    return [found[row] for row in prompts]


def _prompts(
    subject: Subject, pairs: Sequence[Pair], rows: Sequence[int], settings: EvaluationConfig
) -> dict[int, tuple[int, ...]]:
    limit, context = subject.model.max_length, subject.files.context_length
    if context:
        limit = max(1, min(limit, context - settings.max_new_tokens))
    prompts = {}
    for row in rows:
        encoded = subject.renderer.prompt(
            pairs[row][0],
            max_length=limit,
            min_prompt_tokens=subject.model.min_prompt_tokens,
        )
        if not isinstance(encoded, Verdict):
            prompts[row] = encoded.ids
    return prompts


def _generated(
    subject: Subject,
    pairs: Sequence[Pair],
    left: Sequence[int],
    prompts: Mapping[int, tuple[int, ...]],
    scorer: Scorer,
) -> Any:
    if not left:
        return
    from swe_scaffold.engine.generation import generate

    loaded = scorer.last_base.take(subject.model, subject.files)
    for one in generate(
        loaded.module,
        [prompts[row] for row in left],
        sampling=Sampling(max_new_tokens=scorer.settings.max_new_tokens),
        keys=[pairs[row][0].instance_id for row in left],
        stop_ids=subject.renderer.stop_ids,
        pad_id=subject.renderer.pad_id,
        device=loaded.base.device,
        tokens_per_batch=scorer.settings.tokens_per_batch,
    ):
        yield left[one.index], subject.renderer.decode(one.ids), one.stopped


def _is_whole(row: Mapping[str, Any] | None) -> bool:
    return row is not None and {"instance_id", "sha256", "text", *FLAGS} == set(row)


def health_report(
    rows: Sequence[Mapping[str, Any]], asked: int, settings: EvaluationConfig
) -> dict[str, Any]:
    """Return the share of each flag with its interval, and how many prompts went unanswered."""
    flags = [health_of(row) for row in rows]
    shares = summarise_health(flags, alpha=settings.alpha) if flags else {}
    return {
        "shares": {name: asdict(share) for name, share in shares.items()},
        "prompts": asked,
        "left_out": asked - len(rows),
        "max_new_tokens": settings.max_new_tokens,
    }
