"""What comes back: an answer, or why there is none; and an answer as a line of the predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from swe_scaffold.engine.sampling import Sampling
from swe_scaffold.metrics.health import Health, extract_whole, is_repetition
from swe_scaffold.patches import Extraction, ReadFile
from swe_scaffold.prediction.questions import Question


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote.

    `stopped` says that it ended by itself; `tool_calls` are those a server gives apart from the
    text, as it gives them; `prompt_cut` counts prompt tokens that were cut to fit the context.
    """

    index: int
    sample: int
    text: str
    stopped: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    prompt_cut: int = 0
    tool_calls: Sequence[Mapping[str, Any]] = field(default=())


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why a question has none, now and on every further try: a snake_case reason and its detail."""

    index: int
    sample: int
    reason: str
    detail: str


Reply = Answer | NoAnswer
Wanted = Mapping[int, Sequence[int]]


class Model(Protocol):
    """Whoever answers: a model on this machine, or one behind a server."""

    @property
    def name(self) -> str:
        """What predictions call it (`model_name_or_path`)."""

    def identity(self) -> dict[str, Any]:
        """Return all that decides its answers, beside question and sampling."""

    def answer(
        self, questions: Sequence[Question], wanted: Wanted, sampling: Sampling
    ) -> Iterator[Reply]:
        """Yield a reply for every wanted sample of every question, in any order."""


def to_row(
    answer: Answer,
    question: Question,
    *,
    model: str,
    samples: int,
    read_file: ReadFile | None = None,
) -> dict[str, Any]:
    """Return one line of the predictions: SWE-bench's three keys, then what is known beside."""
    found = _extract(answer, question, read_file)
    row: dict[str, Any] = {
        "instance_id": question.instance_id,
        "model_name_or_path": model,
        "model_patch": found.patch,
        "raw_output": answer.text,
    }
    if samples > 1:
        row["sample"] = answer.sample
    row |= {
        "form": found.form,
        "repairs": dict(sorted(found.repairs.items())),
        "problem": found.problem,
        "stopped": answer.stopped,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "prompt_cut": answer.prompt_cut,
    }
    if question.is_turn:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.tool_calls:
            message["tool_calls"] = [dict(call) for call in answer.tool_calls]
        row["message"] = message
    return row


def health_of(row: Mapping[str, Any], *, expects_patch: bool) -> Health:
    """Judge a line of the predictions as `metrics.health` judges an answer."""
    text = row["raw_output"]
    parseable = bool(row["model_patch"]) and not row["problem"]
    return Health(
        stopped=row["stopped"],
        empty=not (text.strip() or row.get("message", {}).get("tool_calls")),
        repeated=is_repetition(text),
        parseable=parseable if expects_patch else None,
    )


def _extract(answer: Answer, question: Question, read_file: ReadFile | None) -> Extraction:
    if question.is_turn:
        return Extraction("", "none", {}, "")
    return extract_whole(answer.text, stopped=answer.stopped, read_file=read_file)
