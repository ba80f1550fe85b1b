"""How tokens are chosen, and from which seed, for models here and behind a server; no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from swe_scaffold.errors import UsageError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: the likeliest at temperature 0, else drawn after cutting to `top_p`.

    Raises:
        UsageError: A value outside its range.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.temperature <= 100:
            raise UsageError(f"temperature must be from 0 to 100, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, not {self.top_p}")

    def require_samples(self, samples: int) -> None:
        """Refuse to answer a prompt several times in the same way.

        Raises:
            UsageError: There is nothing to draw, or no answer is wanted.
        """
        if samples < 1:
            raise UsageError("at least one answer to each prompt is needed")
        if samples > 1 and not self.temperature:
            raise UsageError(
                f"{samples} answers to each prompt, but at temperature 0 all would be the same",
                hint="give a temperature above 0",
            )


def draw_seed(seed: int, key: str, sample: int) -> int:
    """Return the seed, 0 to 2^63 - 1, from which one answer is drawn: nothing else decides it."""
    text = f"{seed}:{sample}:{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
