"""Evaluations on disk whose rows were really rendered; the NLL of each token is the test's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swe_scaffold.cache import key_of
from swe_scaffold.files import write_bytes, write_json
from swe_scaffold.jsonl import write_jsonl
from swe_scaffold.manifest import SCHEMA, file_entries
from swe_scaffold.rendering import Renderer, target_classes
from swe_scaffold.rows import make_example
from swe_scaffold.scores import (
    GENERATIONS,
    KIND,
    REPORT,
    SCORES,
    TOKEN_NLL,
    score_row,
    token_nll_bytes,
)
from swe_scaffold.types import Example, ExampleScore, Origin, SpeedrunLabel, TokenizedExample

MAX_LENGTH, FLOOR = 40_000, 8
PATCH = """\
diff --git a/pkg/mod.py b/pkg/mod.py
--- a/pkg/mod.py
+++ b/pkg/mod.py
@@ -1,3 +1,3 @@
 def add(first, second):
-    return first - second
+    return first + second
 # the end
"""
Nll = Callable[[int, int], float]


def row(number: int, *, prompt: str = "add is wrong", response: str = PATCH) -> Example:
    """A row of one of three repositories."""
    return make_example(
        instance_id=f"row-{number}",
        repo=f"owner/repo{number % 3}",
        prompt=f"{prompt} {number}",
        response=response,
        response_source="patch",
        label=SpeedrunLabel.SUCCESS,
        origin=Origin("made", number),
    )


def write_evaluation(
    folder: Path,
    examples: Sequence[Example],
    tokenizer: Path,
    nll: Nll,
    *,
    key: str = "key",
    seen: Sequence[int] = (),
    answers: Sequence[dict[str, Any]] = (),
    **data: Any,
) -> Path:
    """Write an evaluation; `nll` gives a token's number from those of row and token."""
    renderer = Renderer.load(tokenizer)
    folder.mkdir(parents=True)
    scores, values = [], []
    for number, example in enumerate(examples):
        rendered = renderer.render(example, max_length=MAX_LENGTH, min_prompt_tokens=FLOOR)
        assert isinstance(rendered, TokenizedExample)
        row_nll = np.array([nll(number, n) for n in range(rendered.targets)], np.float32)
        by_class: dict[str, list[float]] = {}
        classes = target_classes(renderer, example, rendered)
        for name, value in zip(classes, row_nll.tolist(), strict=True):
            by_class.setdefault(name, []).append(value)
        values.append(row_nll)
        scores.append(
            ExampleScore(
                instance_id=example.instance_id,
                repo=example.repo,
                group=example.group,
                label=example.label,
                nll_sum=float(row_nll.astype(np.float64).sum()),
                tokens=rendered.targets,
                bytes=rendered.response_bytes,
                prompt_tokens=len(rendered.input_ids) - rendered.targets,
                sha256=rendered.sha256,
                nll_by_class={name: (sum(v), len(v)) for name, v in by_class.items()},
                response_source="patch",
                language="python",
                prompt_cut=rendered.prompt_cut,
                seen_in_training=number in seen,
            )
        )
    write_jsonl(folder / SCORES, map(score_row, scores))
    write_bytes(folder / TOKEN_NLL, token_nll_bytes(values))
    names = [SCORES, TOKEN_NLL]
    if answers:
        write_jsonl(folder / GENERATIONS, answers)
        names.append(GENERATIONS)
    report = {
        "schema": SCHEMA,
        "kind": KIND,
        "key": key,
        "model": {"name": folder.name, "base": str(tokenizer), "dtype": "float32", "device": "cpu"},
        "data": {
            "path": "rows.jsonl",
            "sha256": "d" * 64,
            "rendering": renderer.digest(),
            "max_length": MAX_LENGTH,
            "min_prompt_tokens": FLOOR,
            "prompts_shortened": 0,
            **data,
        },
        "shuffled_prompts": None,
        "notes": [],
        "files": file_entries(folder, names),
    }
    write_json(folder / REPORT, report)
    return folder


def write_pair(folder: Path, examples: Sequence[Example], tokenizer: Path, **more: Any) -> Path:
    """Write an evaluation and the base's below it: every row gains, the later ones more."""
    write_evaluation(folder, examples, tokenizer, lambda r, n: 2 - 0.1 * r + n % 7, **more)
    base = folder / "base"
    write_evaluation(base, examples, tokenizer, lambda _, n: 2.5 + n % 7, key=key_of("key", "base"))
    return folder
