"""One row under one or two evaluations: its tokens, the NLL of each, its place among the others.

The row is rendered again as the evaluation rendered it; where that does not come to the tokens that
were scored, nothing is shown. Reading evaluations is left to `scores`, colours to `shades`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from swe_scaffold.cache import key_of
from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.metrics.standing import Standing, standing
from swe_scaffold.rendering import Renderer, target_classes, token_texts
from swe_scaffold.scores import StoredEvaluation, is_evaluation, read_evaluation
from swe_scaffold.terminal import show
from swe_scaffold.types import Example, ExampleScore, TokenizedExample, Verdict

Role = Literal["before", "after", "model"]
BASE = "base"
_AGAIN = "evaluate the row with both: swe-scaffold evaluate MODEL MODEL DATA"


@dataclass(frozen=True, slots=True)
class Token:
    """One response token; `nll` has one number for each side, in nats."""

    text: str
    token_class: str
    nll: tuple[float, ...]

    @property
    def change(self) -> float | None:
        """After - before; None where there is one side."""
        return self.nll[1] - self.nll[0] if len(self.nll) > 1 else None


@dataclass(frozen=True, slots=True)
class Side:
    """What one model makes of the row."""

    role: Role
    model: str
    score: ExampleScore

    @property
    def per_token(self) -> float:
        """NLL per response token, in nats."""
        return self.score.nll_sum / self.score.tokens


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the rendered row: text that is not trained, or the tokens `start` to `stop`."""

    text: str
    start: int = 0
    stop: int = 0

    @property
    def trained(self) -> bool:
        """Whether these are response tokens."""
        return self.stop > self.start


@dataclass(frozen=True, slots=True)
class RowScores:
    """A row as it was scored."""

    sides: tuple[Side, ...]
    tokens: tuple[Token, ...]
    spans: tuple[Span, ...]
    standing: Standing
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON, every token included."""
        return {
            "sides": [_side_value(side) for side in self.sides],
            "standing": {
                "value": self.standing.value,
                "place": self.standing.place,
                "of": self.standing.of,
                "among": self.standing.among,
                "by": "change of NLL per token" if len(self.sides) > 1 else "NLL per token",
            },
            "tokens": [
                {
                    "text": token.text,
                    "class": token.token_class,
                    **{side.role: value for side, value in zip(self.sides, token.nll, strict=True)},
                }
                for token in self.tokens
            ],
            "notes": list(self.notes),
        }


class Evaluations:
    """One evaluation, with the one of the base below it where there is one, or two of them."""

    def __init__(
        self, sides: Sequence[tuple[Role, StoredEvaluation]], notes: Sequence[str] = ()
    ) -> None:
        self._sides, self._notes = tuple(sides), tuple(notes)
        self._token_nll = [stored.token_nll() for _, stored in self._sides]
        self._rows = [
            {(row.instance_id, row.sha256): number for number, row in enumerate(stored.scores)}
            for _, stored in self._sides
        ]
        self.report = self._sides[-1][1].report

    @classmethod
    def read(cls, places: Sequence[Path]) -> Evaluations:
        """Read one evaluation, or two, the first as what was before.

        Raises:
            UsageError: There is none, or more than two are named.
            IntegrityError: Files were changed, or the two did not score the same tokens.
        """
        if len(places) > 2:
            raise UsageError("takes one evaluation or two", where="--eval")
        stored = [read_evaluation(place) for place in places]
        if len(stored) == 2:
            _require_same_tokens(*stored)
            return cls([("before", stored[0]), ("after", stored[1])])
        below = stored[0].folder / BASE
        if not is_evaluation(below):
            return cls([("model", stored[0])])
        base = read_evaluation(below)
        if base.report.get("key") != key_of(stored[0].report.get("key"), BASE):
            note = "the base's evaluation below it is of another model or other data: left out"
            return cls([("model", stored[0])], [note])
        return cls([("before", base), ("after", stored[0])])

    @property
    def stored(self) -> tuple[tuple[Role, StoredEvaluation], ...]:
        """The evaluations that are read, with their roles."""
        return self._sides

    @property
    def max_length(self) -> int:
        """The length limit of the rows."""
        return int(self.report["data"]["max_length"])

    def min_prompt_tokens(self, given: int) -> int:
        """Return what a cut text kept at least; `given` where the evaluation does not say."""
        return int(self.report["data"].get("min_prompt_tokens", given))

    @property
    def data_path(self) -> str:
        """The file that was scored."""
        return str(self.report["data"]["path"])

    def renderer(
        self, name: str | None, *, offline: bool = False, trust_template: bool = False
    ) -> Renderer:
        """Return the renderer that the evaluation used, of a tokenizer named or of its model.

        Raises:
            IntegrityError: It comes to other tokens.
        """
        model = self.report["model"]
        known = [str(model.get(key, "")) for key in ("base", "name")]
        here = [one for one in known if (Path(one) / "tokenizer.json").is_file()]
        chosen = name or (here or known)[0]
        renderer = Renderer.load(chosen, offline=offline, trust_template=trust_template)
        if renderer.digest() != self.report["data"]["rendering"]:
            raise IntegrityError(
                "this tokenizer or template is not the one of the evaluation: its tokens cannot be "
                "told apart with it",
                where=show(chosen),
                hint="name the one that was used with --model",
            )
        return renderer

    def has(self, example: Example) -> bool:
        """Whether every evaluation has a score of the row."""
        return all(_key(example) in rows for rows in self._rows)

    def scores_of(
        self, example: Example, renderer: Renderer, *, min_prompt_tokens: int
    ) -> RowScores:
        """Return a row that `has` is true of, token by token.

        Raises:
            IntegrityError: It renders to other tokens than were scored.
        """
        tokenized = renderer.render(
            example,
            max_length=self.max_length,
            min_prompt_tokens=self.min_prompt_tokens(min_prompt_tokens),
        )
        numbers = [rows[_key(example)] for rows in self._rows]
        scores = [stored.scores[n] for (_, stored), n in zip(self._sides, numbers, strict=True)]
        _require_scored(tokenized, scores, example)
        assert isinstance(tokenized, TokenizedExample)
        columns = [nll[n].tolist() for nll, n in zip(self._token_nll, numbers, strict=True)]
        classes = target_classes(renderer, example, tokenized)
        spans, texts = _spans(tokenized, renderer)
        rows = zip(texts, classes, zip(*columns, strict=True), strict=True)
        tokens = tuple(Token(text, name, nll) for text, name, nll in rows)
        before = self._sides[0][1].scores if len(self._sides) > 1 else None
        return RowScores(
            sides=tuple(
                Side(role, stored.name, score)
                for (role, stored), score in zip(self._sides, scores, strict=True)
            ),
            tokens=tokens,
            spans=tuple(spans),
            standing=standing(scores[-1], self._sides[-1][1].scores, before),
            notes=self._notes,
        )


def lines_of(tokens: Sequence[Token], spans: Sequence[Span]) -> list[list[tuple[int, str]]]:
    """Return the response line by line, as token numbers and their texts; turns start anew."""
    lines: list[list[tuple[int, str]]] = []
    for span in spans:
        if not span.trained:
            continue
        lines.append([])
        for number in range(span.start, span.stop):
            first, *others = tokens[number].text.split("\n")
            lines[-1].append((number, first + ("\n" if others else "")))
            for place, text in enumerate(others, start=1):
                lines.append([])
                if text or place < len(others):
                    lines[-1].append((number, text + ("\n" if place < len(others) else "")))
        if not lines[-1]:
            lines.pop()
    return lines


def mean_nll(tokens: Sequence[Token], numbers: Sequence[int], side: int) -> float:
    """Return the mean NLL of some of the tokens, each once."""
    chosen = dict.fromkeys(numbers)
    return math.fsum(tokens[number].nll[side] for number in chosen) / len(chosen)


def _key(example: Example) -> tuple[str, str]:
    return example.instance_id, str(example.meta.get("sha256", ""))


def _require_same_tokens(before: StoredEvaluation, after: StoredEvaluation) -> None:
    left, right = before.report["data"], after.report["data"]
    if left["rendering"] != right["rendering"]:
        raise IntegrityError(
            f"scored with another tokenizer or template than {show(before.folder)}: their tokens "
            "cannot stand side by side",
            where=str(after.folder),
            hint="show one at a time",
        )
    if left["max_length"] != right["max_length"]:
        raise IntegrityError(
            f"scored with max_length {right['max_length']}, not {left['max_length']} as "
            f"{show(before.folder)}",
            where=str(after.folder),
            hint=_AGAIN,
        )


def _require_scored(
    row: TokenizedExample | Verdict, scores: Sequence[ExampleScore], example: Example
) -> None:
    where = show(example.instance_id, width=80)
    if isinstance(row, Verdict):
        raise IntegrityError(
            f"was scored, but renders to nothing now: {row.reason} {show(row.detail)}", where=where
        )
    found = (row.targets, row.length - row.targets, row.prompt_cut)
    for score in scores:
        scored = (score.tokens, score.prompt_tokens, score.prompt_cut)
        if scored != found:
            raise IntegrityError(
                f"scored as {scored[0]} response and {scored[1]} prompt tokens, {scored[2]} of "
                f"them cut; rendered as {found[0]}, {found[1]} and {found[2]}",
                where=where,
                hint="give the --min-prompt-tokens of the training, or evaluate again",
            )


def _spans(row: TokenizedExample, renderer: Renderer) -> tuple[list[Span], list[str]]:
    """Return the row in pieces, and the text of each response token."""
    spans: list[Span] = []
    texts: list[str] = []
    for start, stop, trained in row.spans:
        ids = row.input_ids[start:stop].tolist()
        if trained:
            found = token_texts(renderer, ids)
            spans.append(Span("", len(texts), len(texts) + len(found)))
            texts += found
        else:
            spans.append(Span(renderer.decode(ids)))
    return spans, texts


def _side_value(side: Side) -> dict[str, Any]:
    score = side.score
    return {
        "role": side.role,
        "model": side.model,
        "nll_sum": score.nll_sum,
        "tokens": score.tokens,
        "nll_per_token": side.per_token,
        "bytes": score.bytes,
        "prompt_tokens": score.prompt_tokens,
        "prompt_cut": score.prompt_cut,
        "seen_in_training": score.seen_in_training,
        "nll_by_class": {name: list(pair) for name, pair in score.nll_by_class.items()},
    }
