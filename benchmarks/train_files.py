"""What travels between the processes of `bench_train`: rows, adapters under plain names, figures.

Of swe_scaffold nothing is imported here: the peers' environments read this too.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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


def put(module: Any, path: Path) -> None:
    """Copy an adapter into a PEFT model, found by the plain names of its tensors."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in adapter(module.named_parameters()).items():
            parameter.copy_(tensors[name])


def seconds_since_start() -> float:
    """Return how long this process has been there, to a hundredth, imports and all."""
    fields = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
    ticks = int(fields[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / 100


@dataclass
class Clock:
    """Seconds from the begin of the first step to the end of the last, whatever lies between.

    Attributes:
        device: Where it computes; what is still to be done there is waited for.
        ends: Seconds from the begin to the end of each step.
        cpu_seconds: Processor seconds of this process in the same time.
        first_step_at: Seconds from the start of the process to the end of the first step.
    """

    device: str = "cpu"
    ends: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    first_step_at: float = 0.0

    def begin(self) -> None:
        """Training begins: model, rows and optimizer are there."""
        self._wait()
        self._began, self._cpu_began = time.perf_counter(), time.process_time()

    def step(self) -> None:
        """An optimizer step has ended."""
        self._wait()
        self.ends.append(time.perf_counter() - self._began)
        self.cpu_seconds = time.process_time() - self._cpu_began
        self.first_step_at = self.first_step_at or seconds_since_start()

    def _wait(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()


def write_results(out: Path, clock: Clock, losses: Sequence[float], **more: float) -> None:
    """Write what the run measured of itself, and what it computed."""
    if not clock.ends:
        raise SystemExit("no optimizer step was taken")
    inside = {
        "training_seconds": clock.ends[-1],
        "training_cpu_seconds": clock.cpu_seconds,
        "first_step_seconds": clock.first_step_at,
        **more,
    }
    (out / "inside.json").write_text(json.dumps(inside), "ascii")
    (out / "found.json").write_text(
        json.dumps({"losses": list(losses), "step_ends": clock.ends}), "ascii"
    )


def given() -> tuple[str, Path, Path, Path, Mapping[str, str]]:
    """Return of a command line NAME MODEL FILE [OPTION=VALUE ...] FOLDER its parts."""
    name, model, source, *options, out = sys.argv[1:]
    chosen = dict(option.split("=", 1) for option in options)
    return name, Path(model), Path(source), Path(out), chosen
