"""Runs: what is encoded in one go. From labelled pieces to ids and targets, and back to none.

A run is text between control tokens. It never crosses the edge between an assistant header and the
answer, so that training sees the answer's first token as generation will.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from swe_scaffold.errors import IntegrityError
from swe_scaffold.rendering.formats import Piece
from swe_scaffold.types import Message

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Run(NamedTuple):
    """Text encoded in one go, or one control token (`control` is its id, else -1)."""

    text: str
    control: int
    answer: bool
    target: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """One chat as training sees it: its messages after shortening, its pieces, ids and targets."""

    messages: tuple[Message, ...]
    pieces: tuple[Piece, ...]
    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    prompt_cut: int = 0


def to_runs(
    pieces: Iterable[Piece], controls: Mapping[str, int], *, split_answers: bool = True
) -> list[Run]:
    """Join pieces into runs; tags the tokenizer holds no token for are text like any other.

    Without `split_answers` header and answer are one run, as a tokenizer fed the whole text has it.
    """
    runs: list[Run] = []
    texts: list[str] = []
    answer = target = False

    def close() -> None:
        text = "".join(texts)
        if text:
            runs.append(Run(text, -1, answer, target))
        texts.clear()

    for piece in pieces:
        control = controls.get(piece.text, -1) if piece.control else -1
        if control >= 0 or (split_answers and piece.answer != answer):
            close()
        answer, target = piece.answer, piece.target
        if control >= 0:
            runs.append(Run(piece.text, control, answer, target))
        else:
            texts.append(piece.text)
    close()
    return runs


def encode_texts(
    plain: Tokenizer, texts: Iterable[str], forbidden: frozenset[int]
) -> dict[str, list[int]]:
    """Encode each distinct text once.

    Raises:
        IntegrityError: A text became one of the forbidden control tokens.
    """
    distinct = list(dict.fromkeys(texts))
    encodings = plain.encode_batch_fast(distinct, add_special_tokens=False)
    table = {text: encoding.ids for text, encoding in zip(distinct, encodings, strict=True)}
    for ids in table.values():
        if not forbidden.isdisjoint(ids):
            raise IntegrityError("text was encoded as a control token; this tokenizer is not safe")
    return table


def join(
    runs: Sequence[Run], ids_of: Mapping[str, list[int]]
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return the ids of all runs in order, and which of them are targets."""
    ids: list[int] = []
    mask: list[bool] = []
    for run in runs:
        new = ids_of[run.text] if run.control < 0 else [run.control]
        ids += new
        mask += [run.target] * len(new)
    return tuple(ids), tuple(mask)
