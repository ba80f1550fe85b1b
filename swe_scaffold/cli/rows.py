"""Rows as `show` prints them: fields, or the rendered text with its trained tokens marked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from swe_scaffold.cli.help import did_you_mean
from swe_scaffold.errors import DataError
from swe_scaffold.rendering import Renderer
from swe_scaffold.rows import example_to_row
from swe_scaffold.sources.examples import read_examples
from swe_scaffold.terminal import show, show_block, wants_style
from swe_scaffold.types import Example, TokenizedExample, Verdict

GREEN, DIM, RESET = "\x1b[1;32m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class View:
    """How rows are rendered to be shown."""

    renderer: Renderer
    max_length: int
    min_prompt_tokens: int

    def render(self, example: Example) -> TokenizedExample | Verdict:
        """Render one row as training would."""
        return self.renderer.render(
            example, max_length=self.max_length, min_prompt_tokens=self.min_prompt_tokens
        )


def chosen_rows(file: Path, instance_id: str | None, limit: int) -> list[Example]:
    """Return the rows with an id, or the first `limit`.

    Raises:
        DataError: No row has that id.
    """
    examples = read_examples(file).examples
    if instance_id is None:
        return list(examples[:limit])
    found = [example for example in examples if example.instance_id == instance_id]
    if not found:
        ids = [example.instance_id for example in examples]
        first = "the first ids: " + ", ".join(show(name, width=60) for name in ids[:3])
        raise DataError(
            f"no row has the id {show(instance_id, width=60)}",
            where=str(file),
            hint=did_you_mean(instance_id, ids) or first,
        )
    return found


def row_value(example: Example, view: View | None) -> dict[str, Any]:
    """Return the row as JSON values, with its trained spans where a view is given."""
    value = example_to_row(example)
    if view is None:
        return value
    result = view.render(example)
    if isinstance(result, Verdict):
        return {**value, "rendered": None, "reason": result.reason, "detail": result.detail}
    spans = [{"text": text, "train": trained} for text, trained in _spans(result, view.renderer)]
    return {
        **value,
        "rendered": {
            "tokens": result.length,
            "targets": result.targets,
            "prompt_cut": result.prompt_cut,
            "spans": spans,
        },
    }


def row_text(example: Example, view: View | None, *, width: int | None = None) -> str:
    """Return the row for people; without colour, trained text stands between «« and »».

    Args:
        example: The row.
        view: How its tokens are made; without it prompt and response are shown.
        width: Most characters of a text, or of a run of tokens; None shows all.
    """
    head = f"{show(example.instance_id)}  repo {show(example.repo) or '-'}  label {example.label}"
    if view is None:
        return (
            f"{head}\n--- prompt\n{block(example.prompt, width)}"
            f"\n--- response ({show(example.response_source)})\n{block(example.response, width)}"
        )
    result = view.render(example)
    if isinstance(result, Verdict):
        return f"{head}\nnot trained: {result.reason}: {show(result.detail)}"
    spans = _spans(result, view.renderer)
    cut = f", {result.prompt_cut} prompt tokens cut" if result.prompt_cut else ""
    counted = f"{result.length} tokens, {result.targets} trained{cut}"
    return f"{head}\n{counted}\n{''.join(_marked(text, trained, width) for text, trained in spans)}"


def block(text: str, width: int | None) -> str:
    """Return text over several lines, safe, its middle left out where it is longer than `width`."""
    if width is None or len(text) <= width:
        return show_block(text)
    end = width // 4
    left = f"… {len(text) - width} characters more …"
    return f"{show_block(text[: width - end])}{left}{show_block(text[-end:])}"


def _marked(text: str, trained: bool, width: int | None) -> str:
    safe = block(text, width)
    if wants_style(sys.stdout):
        return f"{GREEN if trained else DIM}{safe}{RESET}"
    return f"««{safe}»»" if trained else safe


def _spans(row: TokenizedExample, renderer: Renderer) -> list[tuple[str, bool]]:
    """Return decoded runs of trained and untrained tokens."""
    return [
        (_decode(renderer, row.input_ids[start:stop].tolist()), trained)
        for start, stop, trained in row.spans
    ]


def _decode(renderer: Renderer, ids: Sequence[int]) -> str:
    names = {number: text for text, number in renderer.tokenizer.added.items()}
    parts = []
    for added, run in groupby(ids, key=lambda number: number in names):
        numbers = list(run)
        text = "".join(names[number] for number in numbers) if added else None
        parts.append(text if text is not None else renderer.tokenizer.plain.decode(numbers))
    return "".join(parts)
