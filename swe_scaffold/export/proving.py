"""The proof of a merge: which rows are asked, and the refusal of files that answer otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swe_scaffold.cache import Cache
from swe_scaffold.errors import DataError, IntegrityError, UsageError
from swe_scaffold.export.material import Material
from swe_scaffold.models import ModelReference
from swe_scaffold.rendering import Renderer, render_rows
from swe_scaffold.sources.examples import read_examples
from swe_scaffold.terminal import Reporter, show
from swe_scaffold.types import TokenizedExample

if TYPE_CHECKING:
    from swe_scaffold.engine.equality import Equality
    from swe_scaffold.engine.loading import LoadedModel

# Above it, what rounding does to the logits is not small beside what the adapter does.
_NOTABLE = 0.25


@dataclass(frozen=True, slots=True)
class ProofRows:
    """Rendered rows, and the file they come from; `available` counts those it could give."""

    name: str
    sha256: str
    rows: tuple[TokenizedExample, ...]
    available: int
    notes: tuple[str, ...]

    def entry(self) -> dict[str, object]:
        """How a manifest names them."""
        chosen = [row.instance_id for row in self.rows]
        return {
            "name": self.name,
            "sha256": self.sha256,
            "available": self.available,
            "chosen": chosen,
        }


@dataclass(frozen=True, slots=True)
class Proof:
    """What the files answered; `model_sha256` covers the merged config and weights."""

    equality: Equality
    model_sha256: str
    notes: tuple[str, ...]


def choose_rows(
    target: ModelReference,
    renderer: Renderer,
    material: Material,
    *,
    most: int,
    cache: Cache | None = None,
) -> ProofRows:
    """Choose rows that the run has not trained, spread by their hashes; the rest only if none.

    Raises:
        UsageError: The run's hold-out is not where it was, and no rows were given.
        DataError: Rows that cannot be read, or none that can be rendered.
    """
    if material.rows is None:
        raise UsageError(
            "the run's hold-out is not where its manifest says, or is another file now",
            where=target.name,
            hint="the proof needs rows: name a file of them with --data FILE",
        )
    file = read_examples(material.rows)
    answered = [row for row in file.examples if row.messages or row.response.strip()]
    unseen = [row for row in answered if row.meta.get("sha256") not in target.trained]
    chosen = sorted(unseen or answered, key=lambda row: str(row.meta.get("sha256")))
    rendered = render_rows(
        renderer,
        chosen,
        max_length=target.max_length,
        min_prompt_tokens=target.min_prompt_tokens,
        cache=cache,
    )
    rows = [row for row in rendered if isinstance(row, TokenizedExample)]
    if not rows:
        raise DataError(f"no rows for the proof ({len(file.examples)} read)", where=file.path)
    return ProofRows(
        name=Path(file.path).name,
        sha256=file.sha256,
        rows=tuple(_spread(rows, most)),
        available=len(rows),
        notes=() if unseen else ("every row of the proof was trained on",),
    )


def prove(
    reference: LoadedModel, folder: Path, dtype: str, rows: ProofRows, reporter: Reporter
) -> Proof:
    """Read the written model again and compare it with base + adapter.

    Raises:
        IntegrityError: A weight or a logit differs by more than rounding.
        OutOfMemory: The two models do not fit.
    """
    from swe_scaffold.engine.devices import choose_device
    from swe_scaffold.engine.equality import compare_logits, compare_weights
    from swe_scaffold.engine.model import load_base

    _require_known_tokens(reference, rows)
    merged = load_base(str(folder), choose_device(dtype), offline=True)
    where = "the merged model"
    weights = compare_weights(reference.module, merged.module, where=where)
    with reporter.progress("comparing", len(rows.rows)) as track:
        equality = compare_logits(
            reference.module,
            merged.module,
            rows.rows,
            devices=(reference.base.device, merged.device),
            weights=weights,
            compared=track.advance,
        )
    if not equality.holds:
        raise IntegrityError(
            f"its logits differ from base + adapter by {equality.difference:.2g} of the largest "
            f"({equality.tolerance:.2g} allowed), {equality.difference_rms:.2g} in the root mean "
            f"square ({equality.tolerance_rms:.2g} allowed)",
            where=where,
            hint="nothing was written; --dtype float32 rounds least",
        )
    reporter.say(
        f"equal to base + adapter: {weights[0]} tensors, and the logits of "
        f"{equality.positions} positions within {equality.difference:.1e} of the largest"
    )
    return Proof(equality, merged.sha256, tuple(_notes(equality)))


def _notes(equality: Equality) -> list[str]:
    if equality.effect_rms == 0:
        return ["the adapter changes no logit of these rows"]
    share = equality.difference_rms / equality.effect_rms
    if share < _NOTABLE:
        return []
    return [
        f"rounding to {equality.dtype} moves the logits by {share:.0%} of what the adapter does "
        "(root mean squares): float32 would keep it"
    ]


def _require_known_tokens(reference: LoadedModel, rows: ProofRows) -> None:
    highest = max(int(row.input_ids.max()) for row in rows.rows)
    if highest >= reference.base.vocab_size:
        raise IntegrityError(
            f"token id {highest} is beyond the model's {reference.base.vocab_size} embeddings",
            where=show(reference.base.name),
        )


def _spread(rows: Sequence[TokenizedExample], most: int) -> list[TokenizedExample]:
    """Return at most so many rows, at even distances."""
    count = min(most, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]
