"""How fast a run goes: a line a step, and a summary. Nothing here is deterministic."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.types import TokenizedExample

if TYPE_CHECKING:
    from swe_scaffold.engine.flops import StepWork
    from swe_scaffold.engine.loop import Loop, StepMetrics


@dataclass(frozen=True, slots=True)
class Speed:
    """A run in numbers, with what came before an interruption; rates are over the steps' seconds.

    `first_step_seconds` is from the start of the process to the end of its first step,
    `batch_share` the share of the steps in which rows were made into tensors. `mfu` is the work
    that exact training needs over what a large product does in the same time (`gemm_flops`
    operations a second, of all processes together), of the steps in which it was asked for; both
    are None unless asked for.
    """

    steps: int
    tokens_per_second: float
    targets_per_second: float
    first_step_seconds: float
    batch_share: float
    peak_memory_bytes: int
    mfu: float | None
    gemm_flops: float | None


class Telemetry:
    """Collects the speed of a run's steps.

    Args:
        loop: The loop whose steps are watched.
        measured: Whether to measure a large product first, for about a second, and report MFU.
    """

    def __init__(self, loop: Loop, *, measured: bool) -> None:
        from swe_scaffold.engine.flops import StepWork, measure_gemm

        self._device = loop.device
        self._work: StepWork | None = StepWork.of(loop.model) if measured else None
        self._gemm = loop.processes.size * measure_gemm(loop.device) if measured else None
        self._steps = self._tokens = self._targets = self._peak = 0
        self._seconds = self._making = self._first = 0.0
        # Of the steps whose work is known: those of an earlier start may have been taken without.
        self._flops = self._worked = 0.0

    def go_on(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Take in the steps that were taken before an interruption, as their lines have them."""
        for line in lines:
            try:
                seconds, making = float(line["wall_seconds"]), float(line["batch_seconds"])
                tokens = round(seconds * line["tokens_per_second"])
                targets = round(seconds * line["targets_per_second"])
                first, peak = float(line["since_start_seconds"]), int(line["peak_memory_bytes"])
                mfu = float(line["mfu"]) if "mfu" in line else None
            except (KeyError, TypeError, ValueError, OverflowError):
                continue  # this log is no part of what a run vouches for
            self._steps += 1
            self._tokens += tokens
            self._targets += targets
            self._seconds += seconds
            self._making += making
            self._first, self._peak = self._first or first, max(self._peak, peak)
            if mfu is not None and self._gemm is not None:
                self._flops += mfu * seconds * self._gemm
                self._worked += seconds

    def line(self, metrics: StepMetrics, rows: Sequence[TokenizedExample]) -> dict[str, Any]:
        """Take a step in, and return its line."""
        from swe_scaffold.engine.devices import peak_memory_bytes

        seconds = max(metrics.wall_seconds, 1e-9)
        flops = self._work.flops(rows) if self._work else 0.0
        since_start = seconds_since_start()
        self._first = self._first or since_start
        self._peak = max(self._peak, peak_memory_bytes(self._device))
        self._steps += 1
        self._tokens += metrics.tokens
        self._targets += metrics.targets
        self._seconds += seconds
        self._making += metrics.batch_seconds
        self._flops += flops
        self._worked += seconds
        line: dict[str, Any] = {
            "step": metrics.step,
            "wall_seconds": round(seconds, 4),
            "batch_seconds": round(metrics.batch_seconds, 4),
            "since_start_seconds": round(since_start, 3),
            "tokens_per_second": round(metrics.tokens / seconds, 1),
            "targets_per_second": round(metrics.targets / seconds, 1),
            "peak_memory_bytes": self._peak,
        }
        return (
            line if self._gemm is None else {**line, "mfu": round(flops / seconds / self._gemm, 4)}
        )

    def summary(self) -> dict[str, Any]:
        """Return what the steps so far came to, as JSON values."""
        seconds = max(self._seconds, 1e-9)
        worked = max(self._worked, 1e-9)
        mfu = None if self._gemm is None else round(self._flops / worked / self._gemm, 4)
        return asdict(
            Speed(
                steps=self._steps,
                tokens_per_second=round(self._tokens / seconds, 1),
                targets_per_second=round(self._targets / seconds, 1),
                first_step_seconds=round(self._first, 3),
                batch_share=round(self._making / seconds, 4),
                peak_memory_bytes=self._peak,
                mfu=mfu,
                gemm_flops=self._gemm,
            )
        )


_IMPORTED = time.monotonic()


def seconds_since_start() -> float:
    """Return the seconds since this process began; where nothing says it, since this import."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text("ascii").split()[0]) - began
    return time.monotonic() - _IMPORTED
