"""What `evaluation.json` says of one model, and of the base below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from swe_scaffold.config import EvaluationConfig
from swe_scaffold.evaluation.rows import Rendered
from swe_scaffold.evaluation.scoring import Subject
from swe_scaffold.manifest import SCHEMA, provenance
from swe_scaffold.metrics.comparison import compare
from swe_scaffold.metrics.likelihood import summarise
from swe_scaffold.scores import KIND
from swe_scaffold.sources.examples import ExampleFile
from swe_scaffold.types import ExampleScore

UNKNOWN_PAST = "there is no record of what this model was trained on: any row may have been seen"
ALL_SEEN = "every row of this file was trained on: this says nothing about new rows"


@dataclass(frozen=True, slots=True)
class Facts:
    """What every part of the report speaks of."""

    subject: Subject
    file: ExampleFile
    rendered: Rendered
    settings: EvaluationConfig


def report_of(facts: Facts, scores: Sequence[ExampleScore], *, key: str) -> dict[str, Any]:
    """Return the report of one model, without what compares it with its base or other prompts."""
    from swe_scaffold.engine.devices import choose_device

    subject, file, rendered = facts.subject, facts.file, facts.rendered
    device = choose_device(facts.settings.dtype)
    unseen, trained = _parted(scores)
    known = bool(subject.model.trained)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        **provenance(),
        "key": key,
        "model": {
            "name": subject.model.name,
            "adapter_sha256": subject.model.adapter_sha256,
            "base": subject.model.base,
            "base_sha256": subject.files.sha256,
            "device": device.name,
            "dtype": device.dtype_name,
            "quantization": subject.model.quantization,
        },
        "data": {
            "path": str(file.path),
            "sha256": file.sha256,
            "rows": rendered.rows,
            "scored": len(scores),
            "skipped": dict(sorted(rendered.skipped.items())),
            "prompts_shortened": sum(1 for row in scores if row.prompt_cut),
            "max_length": subject.model.max_length,
            "min_prompt_tokens": subject.model.min_prompt_tokens,
            "rendering": subject.renderer.digest(),
        },
        "settings": asdict(facts.settings),
        "rows_seen_in_training": len(trained),
        "rows_unseen": len(unseen),
        "unseen": _summary(unseen, facts.settings),
        "trained": _summary(trained, facts.settings),
        "base": None,
        "comparison": None,
        "compared_rows": None,
        "shuffled_prompts": None,
        "shuffled_key": None,
        "health": None,
        "answers_key": None,
        "notes": [UNKNOWN_PAST] if not known else [] if unseen else [ALL_SEEN],
    }


def comparison_with_base(
    facts: Facts, scores: Sequence[ExampleScore], below: Sequence[ExampleScore]
) -> dict[str, Any]:
    """Return the parts of the report that pair a model with its base, on unseen rows if any."""
    unseen, trained = _parted(scores)
    keep = {row.sha256 for row in unseen or trained}
    base, tuned = ([row for row in rows if row.sha256 in keep] for rows in (below, scores))
    return {
        "base": _summary(base, facts.settings),
        "comparison": asdict(_compare(base, tuned, facts.settings)),
        "compared_rows": "unseen" if unseen else "trained",
    }


def control(
    facts: Facts, scores: Sequence[ExampleScore], others: Mapping[int, ExampleScore]
) -> dict[str, Any]:
    """Return what other prompts of the same group cost, by row number, under the model."""
    unseen, trained = _parted(scores)
    left_out = len(unseen or trained) - len(others)
    if not others:
        reason = "no group has two prompts"
        return {"comparison": None, "left_out": left_out, "reason": reason}
    own = [replace(scores[index], nll_by_class={}) for index in others]
    return {
        "comparison": asdict(_compare(list(others.values()), own, facts.settings)),
        "left_out": left_out,
        "note": "tuned = own prompt, base = another row's prompt of the same group",
    }


def _parted(scores: Sequence[ExampleScore]) -> tuple[list[ExampleScore], list[ExampleScore]]:
    """Return the rows the model was not trained on, and those it was."""
    unseen = [row for row in scores if not row.seen_in_training]
    return unseen, [row for row in scores if row.seen_in_training]


def _compare(
    base: Sequence[ExampleScore], tuned: Sequence[ExampleScore], settings: EvaluationConfig
) -> Any:
    return compare(
        base,
        tuned,
        cluster_by=settings.cluster_by,
        iterations=settings.iterations,
        alpha=settings.alpha,
        seed=settings.seed,
    )


def _summary(scores: Sequence[ExampleScore], settings: EvaluationConfig) -> dict[str, Any] | None:
    if not scores:
        return None
    return asdict(
        summarise(
            scores,
            cluster_by=settings.cluster_by,
            iterations=settings.iterations,
            alpha=settings.alpha,
            seed=settings.seed,
        )
    )
