"""Score a model on rows: perplexity with its uncertainty, base against tuned.

- `__init__.py`: the story: find the model, render, load, score, report.
- `scoring.py`: rows rendered and scored, with their own and with other prompts.

Rows the adapter was trained on are reported apart from unseen ones. Likelihoods come from the
engine, the numbers made from them from metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.cache import Cache
from swe_scaffold.config import EvaluationConfig
from swe_scaffold.errors import UsageError
from swe_scaffold.evaluation.scoring import Rendered, Scorer, render, shuffled_pairs
from swe_scaffold.files import (
    folder_lock,
    remove_leftovers,
    require_writable,
    safe_name,
    write_json,
)
from swe_scaffold.jsonl import write_jsonl
from swe_scaffold.manifest import SCHEMA, provenance
from swe_scaffold.metrics.comparison import compare
from swe_scaffold.metrics.likelihood import summarise
from swe_scaffold.models import ModelReference, find_model, renderer_of
from swe_scaffold.sources.examples import ExampleFile, read_examples
from swe_scaffold.terminal import Reporter, show
from swe_scaffold.types import ExampleScore, TokenizedExample

if TYPE_CHECKING:
    from swe_scaffold.engine.model import BaseModel

__all__ = ["Evaluation", "evaluate_model"]

REPORT, SCORES = "evaluation.json", "scores.jsonl"
UNKNOWN_PAST = "there is no record of what this model was trained on: any row may have been seen"
ALL_SEEN = "every row of this file was trained on: this says nothing about new rows"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The report (strict JSON), the per-example scores, and where they were written."""

    report: dict[str, Any]
    scores: tuple[ExampleScore, ...]
    path: Path | None


def evaluate_model(  # noqa: PLR0913 one argument per flag of the command
    model: str | Path,
    data: Path | str,
    *,
    config: EvaluationConfig | None = None,
    base: str | None = None,
    compare_base: bool = False,
    shuffled_control: bool = False,
    output: Path | None = None,
    offline: bool = False,
    trust_template: bool = False,
    cache: Cache | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score `model` on the rows of `data` and write `evaluation.json` and `scores.jsonl`.

    Args:
        model: A run folder (or any PEFT folder with `base`), a model folder or a hub id.
        data: Rows as `train` takes them.
        config: Batch size, dtype and statistics; the batch size never changes the numbers.
        base: Overrides the base that the adapter's manifest names; its hash must still match.
        compare_base: Also score the base below the adapter and pair the two.
        shuffled_control: Also score each row's response after another prompt of the same group.
        output: Folder for the two files; default `evaluation/<data hash>` below the run folder.
        offline: Never ask the network.
        trust_template: Accept a chat template that is not a known one.
        cache: Where rendered rows are looked for and kept.
        reporter: Where messages and progress go.

    Raises:
        DataError: Rows that cannot be read, or none that can be scored.
        IntegrityError: An adapter, base or tokenizer that is not what the manifest says.
        UsageError: A comparison without an adapter.
    """
    settings = config or EvaluationConfig()
    reporter = reporter or Reporter(-1)
    target = find_model(str(model), base=base)
    if compare_base and target.adapter is None:
        raise UsageError("there is no adapter to compare with its base", where=str(model))
    file = read_examples(data)
    folder = output or _default_output(target, file.sha256)
    require_writable(folder)
    with folder_lock(folder):
        remove_leftovers(folder)
        renderer = renderer_of(target, offline=offline, trust_template=trust_template)
        from swe_scaffold.engine.loading import load_model

        whole = load_model(target, dtype=settings.dtype, offline=offline)
        target, loaded, module = whole.reference, whole.base, whole.module
        rendered = render(file, target, renderer, cache)
        base_line = f"{show(target.base)} (sha256 {loaded.sha256[:12]})"
        reporter.say(f"base: {base_line}, {loaded.device.dtype_name}")
        scorer = Scorer(module, loaded, renderer, settings, reporter)
        scores = {"tuned": scorer.run("scoring", rendered.pairs)}
        if compare_base:
            scores["base"] = scorer.run("scoring the base", rendered.pairs, without_adapter=True)
        shuffled = None
        if shuffled_control:
            shuffled = _shuffled_control(rendered, scores["tuned"], target, scorer, settings)
        report = _report(target, file, rendered, scores, shuffled, loaded, settings)
        written = write_jsonl(folder / SCORES, (_score_row(row, target) for row in scores["tuned"]))
        report["scores"] = {"name": SCORES, "rows": written.rows, "sha256": written.sha256}
        write_json(folder / REPORT, report)
    return Evaluation(report, scores["tuned"], folder)


def _shuffled_control(
    rendered: Rendered,
    scores: tuple[ExampleScore, ...],
    target: ModelReference,
    scorer: Scorer,
    settings: EvaluationConfig,
) -> dict[str, Any]:
    """Compare own prompts with other prompts of the same group, under the evaluated model.

    Rows seen in training are left out where there are unseen ones.
    """
    unseen = [index for index, row in enumerate(scores) if row.sha256 not in target.trained]
    chosen = unseen or range(len(scores))
    swapped = shuffled_pairs(rendered.pairs, chosen, seed=settings.seed)
    results = scorer.renderer.render_many(
        [example for _, example in swapped],
        max_length=target.max_length,
        min_prompt_tokens=target.min_prompt_tokens,
    )
    kept = [
        (index, example, row)
        for (index, example), row in zip(swapped, results, strict=True)
        if isinstance(row, TokenizedExample)
    ]
    left_out = len(chosen) - len(kept)
    if not kept:
        return {"comparison": None, "left_out": left_out, "reason": "no group has two prompts"}
    others = scorer.run(
        "scoring with other prompts", [(example, row) for _, example, row in kept], classes=False
    )
    own = [replace(scores[index], nll_by_class={}) for index, _, _ in kept]
    return {
        "comparison": asdict(_compare(others, own, settings)),
        "left_out": left_out,
        "note": "tuned = own prompt, base = another row's prompt of the same group",
    }


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


def _report(
    target: ModelReference,
    file: ExampleFile,
    rendered: Rendered,
    scores: Mapping[str, tuple[ExampleScore, ...]],
    shuffled: dict[str, Any] | None,
    base: BaseModel,
    settings: EvaluationConfig,
) -> dict[str, Any]:
    tuned = scores["tuned"]
    unseen = [row for row in tuned if row.sha256 not in target.trained]
    trained = [row for row in tuned if row.sha256 in target.trained]
    keep = {row.sha256 for row in unseen} or {row.sha256 for row in trained}
    below = [row for row in scores.get("base", ()) if row.sha256 in keep]
    above = [row for row in tuned if row.sha256 in keep]
    return {
        "schema": SCHEMA,
        "kind": "evaluation",
        **provenance(),
        "model": {
            "name": target.name,
            "adapter_sha256": target.adapter_sha256,
            "base": target.base,
            "base_sha256": base.sha256,
            "device": base.device.name,
            "dtype": base.device.dtype_name,
        },
        "data": {
            "path": str(file.path),
            "sha256": file.sha256,
            "rows": rendered.rows,
            "scored": len(tuned),
            "skipped": dict(sorted(rendered.skipped.items())),
            "prompts_shortened": sum(1 for _, row in rendered.pairs if row.prompt_cut),
            "max_length": target.max_length,
        },
        "settings": asdict(settings),
        "rows_seen_in_training": len(trained),
        "rows_unseen": len(unseen),
        "unseen": _summary(unseen, settings),
        "trained": _summary(trained, settings),
        "base": _summary(below, settings),
        "comparison": asdict(_compare(below, above, settings)) if below else None,
        "compared_rows": ("unseen" if unseen else "trained") if below else None,
        "shuffled_prompts": shuffled,
        "notes": [UNKNOWN_PAST] if not target.trained else [] if unseen else [ALL_SEEN],
    }


def _score_row(row: ExampleScore, target: ModelReference) -> dict[str, Any]:
    value = asdict(row)
    value["seen_in_training"] = row.sha256 in target.trained
    return value


def _default_output(target: ModelReference, data_sha256: str) -> Path:
    if target.adapter is not None:
        return target.adapter / "evaluation" / data_sha256[:16]
    return Path("artifacts/evaluation") / safe_name(target.name) / data_sha256[:16]
