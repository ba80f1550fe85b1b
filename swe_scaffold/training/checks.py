"""What can be wrong with a run before its first step: ends, prompts, tokens. No model runs here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from swe_scaffold.rendering import Renderer
from swe_scaffold.rendering.formats import TOOLS_BEFORE
from swe_scaffold.terminal import show
from swe_scaffold.training.data import RunData
from swe_scaffold.types import TokenizedExample

if TYPE_CHECKING:
    from swe_scaffold.engine.model import BaseModel

_ID_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know before training; `stop` means that training would be pointless."""

    level: Literal["stop", "warning"]
    name: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class MaskCheck:
    """What is trained: the proof's counts, and ends and padding over every row of the run.

    `end_is_stop` is None where the model's folder does not say where generation stops.
    `system_prompts` counts the different system turns, none at all being one.
    """

    proof: Mapping[str, int]
    rows: int
    spans: int
    targets: int
    spans_without_end: int
    end_id: int
    end: str
    end_is_stop: bool | None
    stop_ids: tuple[int, ...]
    pad_id: int
    pad_targets: int
    default_system: str
    rows_with_default: int
    system_prompts: int


@dataclass(frozen=True, slots=True)
class VocabularyCheck:
    """Ids and lengths against the model: all below `embeddings` and within `context`."""

    highest_id: int
    tokenizer_size: int
    embeddings: int
    longest_row: int
    context: int | None
    max_length: int
    prompts_shortened: int
    over_length: int
    end_twins: int
    end_row_is_zero: bool


def check_mask(data: RunData, renderer: Renderer) -> MaskCheck:
    """Look at ends, padding and system turns of every trained row."""
    rows = data.trained
    ends = [
        int(row.input_ids[stop - 1]) for row in rows for _, stop, trained in row.spans if trained
    ]
    pad = renderer.pad_id
    stops = renderer.tokenizer.stop_ids
    system = Counter(_system_turn(row, renderer) for row in rows)
    defaults = sum(n for ids, n in system.items() if _is_default(_decoded(renderer, ids), renderer))
    return MaskCheck(
        proof=data.proof,
        rows=len(rows),
        spans=len(ends),
        targets=sum(row.targets for row in rows),
        spans_without_end=sum(token != renderer.end_id for token in ends),
        end_id=renderer.end_id,
        end=renderer.format.end,
        end_is_stop=renderer.end_id in stops if stops else None,
        stop_ids=tuple(sorted(stops)),
        pad_id=pad,
        pad_targets=0 if pad == renderer.end_id else sum(_targets_of(row, pad) for row in rows),
        default_system=renderer.format.default_system,
        rows_with_default=defaults,
        system_prompts=len(system),
    )


def check_vocabulary(
    data: RunData, renderer: Renderer, base: BaseModel, *, max_length: int
) -> VocabularyCheck:
    """Compare the rows with the model that was loaded for them."""
    from swe_scaffold.engine.probe import head_twins

    rows: Sequence[TokenizedExample] = (*data.trained, *data.held_out)
    twins, zero = head_twins(base.module, renderer.end_id)
    return VocabularyCheck(
        highest_id=max(int(row.input_ids.max()) for row in rows),
        tokenizer_size=renderer.vocab_size,
        embeddings=base.vocab_size,
        longest_row=max(row.length for row in rows),
        context=base.context_length,
        max_length=max_length,
        prompts_shortened=data.prompts_cut,
        over_length=sum(row.reason == "over_length" for row in data.skipped),
        end_twins=twins,
        end_row_is_zero=zero,
    )


def findings_of(mask: MaskCheck, vocabulary: VocabularyCheck) -> Iterator[Finding]:
    """Yield what is wrong with ends, prompts and tokens."""
    end = show(mask.end, width=_ID_WIDTH)
    if mask.spans_without_end:
        yield Finding(
            "stop",
            "end_not_trained",
            f"{mask.spans_without_end} of {mask.spans} trained spans do not end in {end}: the "
            "model would not learn to stop",
        )
    if vocabulary.end_twins:
        yield Finding(
            "stop",
            "end_cannot_be_learned",
            f"{end} has the same output row as {vocabulary.end_twins} other tokens, so that it can "
            f"never be likelier than 1 in {vocabulary.end_twins + 1}, and LoRA leaves the head as "
            "it is: the base was never trained to end a turn",
            hint="use the model's chat variant (names often end in -Instruct)",
        )
    elif vocabulary.end_row_is_zero:
        yield Finding(
            "warning",
            "end_never_trained",
            f"the output row of {end} is all zeros: the base was never trained to end a turn",
            hint="use the model's chat variant (names often end in -Instruct)",
        )
    if mask.end_is_stop is False:
        stops = ", ".join(map(str, mask.stop_ids))
        yield Finding(
            "warning",
            "never_stops",
            f"answers are trained to end in {end} (id {mask.end_id}), but the model's own "
            f"generation stops at {stops} only: other tools would let it run on",
            hint=f"add {mask.end_id} to eos_token_id in generation_config.json where you serve it",
        )
    if mask.pad_targets:
        yield Finding(
            "warning",
            "padding_is_trained",
            f"the padding token is a target {mask.pad_targets} times",
        )
    if mask.rows_with_default not in (0, mask.rows):
        yield Finding(
            "warning",
            "mixed_system_prompts",
            f"{mask.rows_with_default} of {mask.rows} rows have the template's default system "
            "prompt, the others their own: what is asked at inference is only one of them",
        )


def _targets_of(row: TokenizedExample, token: int) -> int:
    return int((row.input_ids[row.loss_mask] == token).sum())


def _system_turn(row: TokenizedExample, renderer: Renderer) -> tuple[int, ...]:
    """Return the ids up to the first end token, if they are a system turn."""
    ends = (row.input_ids == renderer.end_id).nonzero()[0]
    if not len(ends):
        return ()
    ids = tuple(row.input_ids[: ends[0] + 1].tolist())
    role = _decoded(renderer, ids[:8])
    return ids if role.startswith(f"{renderer.format.start}system\n") else ()


def _is_default(turn: str, renderer: Renderer) -> bool:
    """Say whether a system turn is what the template writes where a chat has none of its own."""
    default = renderer.format.default_system
    if not default or not turn:
        return turn == default
    rest = turn.removeprefix(f"{renderer.format.start}system\n{default}")
    return rest != turn and rest.startswith((renderer.format.end, TOOLS_BEFORE))


def _decoded(renderer: Renderer, ids: Sequence[int]) -> str:
    official: Any = renderer.tokenizer.official
    return str(
        official.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )
