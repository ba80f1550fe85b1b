"""Rows to train with: prompts and diff-shaped responses cut from Python's own library.

Row `n` depends on the seed, the tokenizer, the installed library and `n` alone. Lengths are like
those of real rows: lognormal, median 350 and 90th percentile 1,500 tokens on each side.
"""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SEED = 7
MEDIAN, NINTH_DECILE = 350, 1500
# Standard normal quantile of 0.9.
_DECILE = 1.2815515655446004
_LEAST = 24
_LEAST_BYTES = 8_000
# No tokenizer here needs more characters for a token, on average.
_CHARACTERS = 6

Cut = Callable[[str, int], str]


def library_texts() -> list[str]:
    """Return the larger modules of the standard library, by name."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(folder.glob("*.py")) if path.stat().st_size >= _LEAST_BYTES]
    return [path.read_text("utf-8", "replace") for path in files]


def token_length(draw: np.random.Generator) -> int:
    """Draw the number of tokens of one side of a row."""
    spread = math.log(NINTH_DECILE / MEDIAN) / _DECILE
    return max(_LEAST, int(MEDIAN * math.exp(spread * draw.standard_normal())))


def synthetic_row(number: int, texts: Sequence[str], cut: Cut) -> dict[str, Any]:
    """Return one row; `cut` returns the first so many tokens of a text."""
    draw = np.random.default_rng([SEED, number])
    prompt_tokens, response_tokens = token_length(draw), token_length(draw)
    prompt = cut(_excerpt(draw, texts, prompt_tokens * _CHARACTERS), prompt_tokens)
    lines = _excerpt(draw, texts, response_tokens * _CHARACTERS).split("\n")
    signs = draw.choice([" ", " ", "+", "-"], len(lines))
    changed = "\n".join(sign + line for sign, line in zip(signs, lines, strict=True))
    name = f"src/part_{number}.py"
    heading = f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -1,9 +1,9 @@\n"
    return {
        "instance_id": f"owner__name-{number}",
        "repo": f"owner/name-{number % 8}",
        "prompt": prompt,
        "response": cut(heading + changed, response_tokens),
    }


def _excerpt(draw: np.random.Generator, texts: Sequence[str], characters: int) -> str:
    """Return whole lines from a random place on, of as many files as it takes."""
    found = ""
    while len(found) < characters:
        lines = texts[int(draw.integers(len(texts)))].split("\n")
        found += "\n".join(lines[int(draw.integers(max(1, len(lines) - 50))) :]) + "\n"
    return found[:characters]


def spread_evenly(lengths: Sequence[int], wanted: int, *, held_out: int) -> tuple[list[int], ...]:
    """Choose rows evenly over the order of their lengths: those to train, and others to hold out.

    Returns:
        Two lists of places in `lengths`, without a place in common, each ascending.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    trained = order[_even(len(order), wanted)]
    rest = np.array([place for place in order if place not in set(trained)], int)
    held = rest[_even(len(rest), held_out)]
    return sorted(map(int, trained)), sorted(map(int, held))


def _even(count: int, wanted: int) -> np.ndarray:
    """Return the middles of `wanted` equal parts of `count` places."""
    return ((np.arange(wanted) + 0.5) * count / max(wanted, 1)).astype(int)
