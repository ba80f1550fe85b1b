"""What travels between the processes of `bench_train`: rows, adapters under plain names, figures.

Of swe_scaffold nothing is imported here: the peers' environments read this too.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IGNORED = -100
_ADAPTER = re.compile(r"layers\.(\d+)\.self_attn\.([qkvo])_proj\.lora_([AB])")


@dataclass(frozen=True)
class Row:
    """Token ids of one row, and which of them are targets."""

    key: str
    input_ids: list[int]
    mask: list[int]

    @property
    def labels(self) -> list[int]:
        """Ids where they are targets, else what every loss here ignores."""
        pairs = zip(self.input_ids, self.mask, strict=True)
        return [token if wanted else IGNORED for token, wanted in pairs]

    @property
    def targets(self) -> int:
        """Tokens that something predicts and that are scored."""
        return sum(self.mask[1:])


def read_rows(path: Path | str) -> list[Row]:
    """Return the rows of a file in the order they are trained in."""
    with Path(path).open("rb") as file:
        return [Row(**json.loads(line)) for line in file]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, one a line."""
    path.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows), "ascii")


def parts(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    """Cut rows into optimizer steps or micro-batches."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def plain_name(name: str) -> str | None:
    """Return `LAYER.PROJECTION.MATRIX` for a LoRA tensor as PEFT calls it, else None."""
    found = _ADAPTER.search(name)
    return ".".join(found.groups()) if found else None


def adapter(named: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """Return the LoRA tensors among named ones under their plain names."""
    return {plain: tensor for name, tensor in named if (plain := plain_name(name))}


def seconds_since_start() -> float:
    """Return how long this process has been there, to a hundredth, imports and all."""
    fields = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
    ticks = int(fields[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / 100


@dataclass
class Clock:
    """Seconds of the training itself, of its steps, and from process start to the first step."""

    began: float = 0.0
    first_step_at: float = 0.0
    steps: int = 0
    seconds: float = 0.0

    def begin(self) -> None:
        """Training begins: model, rows and optimizer are there."""
        self.began = time.perf_counter()

    def step(self) -> None:
        """An optimizer step has ended."""
        self.steps += 1
        self.seconds = time.perf_counter() - self.began
        if self.steps == 1:
            self.first_step_at = seconds_since_start()


def write_results(out: Path, clock: Clock, losses: Sequence[float], **more: float) -> None:
    """Write what the run measured of itself, and what it computed."""
    if not clock.seconds:
        raise SystemExit("no optimizer step was taken")
    inside = {
        "training_seconds": clock.seconds,
        "first_step_seconds": clock.first_step_at,
        **more,
    }
    (out / "inside.json").write_text(json.dumps(inside), "ascii")
    (out / "found.json").write_text(
        json.dumps({"losses": list(losses), "steps": clock.steps}), "ascii"
    )


def given() -> tuple[str, Path, Path, Path, Mapping[str, str]]:
    """Return of a command line NAME MODEL FILE [OPTION=VALUE ...] FOLDER its parts."""
    name, model, source, *options, out = sys.argv[1:]
    chosen = dict(option.split("=", 1) for option in options)
    return name, Path(model), Path(source), Path(out), chosen
