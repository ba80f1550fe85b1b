"""Evaluations on disk, made of scores without any model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swe_scaffold.files import write_bytes, write_json
from swe_scaffold.jsonl import write_jsonl
from swe_scaffold.manifest import SCHEMA, file_entries
from swe_scaffold.scores import (
    GENERATIONS,
    KIND,
    REPORT,
    SCORES,
    TOKEN_NLL,
    score_row,
    token_nll_bytes,
)
from swe_scaffold.types import ExampleScore, SpeedrunLabel


def score(number: int, nll_sum: float, **fields: Any) -> ExampleScore:
    """A row of one of ten repositories."""
    made = ExampleScore(
        instance_id=f"row-{number:03d}",
        repo=f"owner/repo{number % 10}",
        group=f"owner/repo{number % 10}",
        label=SpeedrunLabel.SUCCESS,
        nll_sum=nll_sum,
        tokens=20,
        bytes=80,
        prompt_tokens=50,
        sha256=f"sha-{number}",
        nll_by_class={"added": (nll_sum / 2, 10), "end": (nll_sum / 2, 10)},
        response_source="patch",
        language="python" if number % 2 else "rust",
        seen_in_training=False,
    )
    return replace(made, **fields)


@pytest.fixture
def write_evaluation(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of evaluation folders."""

    def write(
        name: str,
        scores: Sequence[ExampleScore],
        *,
        answers: Sequence[dict[str, Any]] = (),
        data: dict[str, Any] | None = None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_jsonl(folder / SCORES, map(score_row, scores))
        token_nll = [np.full(row.tokens, row.nll_sum / row.tokens, np.float32) for row in scores]
        write_bytes(folder / TOKEN_NLL, token_nll_bytes(token_nll))
        names = [SCORES, TOKEN_NLL]
        if answers:
            write_jsonl(folder / GENERATIONS, answers)
            names.append(GENERATIONS)
        report = {
            "schema": SCHEMA,
            "kind": KIND,
            "key": f"key of {name}",
            "model": {"name": name, "dtype": "float32", "device": "cpu"},
            "data": {
                "sha256": "d" * 64,
                "rendering": "r" * 64,
                "max_length": 128,
                "prompts_shortened": 0,
                **(data or {}),
            },
            "shuffled_prompts": None,
            "notes": [],
            "files": file_entries(folder, names),
        }
        write_json(folder / REPORT, report)
        return folder

    return write


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
