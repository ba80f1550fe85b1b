"""Which of a peer's settings is its best: each takes the gate's steps, and is timed.

The fastest of those that compute what the plain loop does is taken. One run may be lucky, most of
all one whose threads spin, so the fastest three run again before one is taken. Where none is right,
the first that ran is taken, so that the gate fails on it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from measuring import Run
from pages import MB
from train_contenders import Peer
from train_judging import Agreement

FINALISTS, MORE_RUNS = 3, 2
LEGEND = (
    "Each setting takes the gate's steps once, the fastest three of a peer twice more (on "
    "a CPU); of three the median counts. Expected s are for the steps of the measured run: "
    "the first, which compiles and warms up, and the mean of the others for each other. With "
    "packing all rows of the gate are one step. Of those that compute what the plain loop does "
    "the fastest is taken."
)
UNTUNED = "Nothing was tried: each peer's first setting is the fastest of an earlier day."


@dataclass(frozen=True)
class Trial:
    """What became of one setting; without a run it failed, and `trouble` says how."""

    setting: str
    peer: Peer
    trouble: str = ""
    run: Run | None = None
    found: Agreement | None = None
    seconds: tuple[float, ...] = ()

    @property
    def expected(self) -> float:
        """What the measured run would take."""
        return statistics.median(self.seconds)

    def and_again(self, other: Trial) -> Trial:
        """Return this with the seconds of one more run; one that then fails is what counts."""
        return replace(other, seconds=self.seconds + other.seconds) if other.ran else other

    @property
    def ran(self) -> bool:
        """Whether it came to its end."""
        return self.run is not None


def expected_seconds(folder: Path, run: Run, steps: int, *, whole: bool) -> float:
    """Return what so many steps would take, or the whole process with them."""
    ends = json.loads((folder / "found.json").read_bytes())["step_ends"]
    later = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else 0.0
    training: float = ends[0] + (steps - 1) * later
    return training + (run.wall_seconds - ends[-1] if whole else 0.0)


def finalists(trials: Sequence[Trial]) -> list[int]:
    """Return the places of those that run again; none where there is nothing to choose from."""
    right = [place for place, trial in enumerate(trials) if trial.ran and not trial.trouble]
    fastest = sorted(right, key=lambda place: trials[place].expected)[:FINALISTS]
    return fastest if len(fastest) > 1 else []


def best(trials: Sequence[Trial]) -> Trial | None:
    """Return the setting to measure; None where all failed."""
    ran = [trial for trial in trials if trial.ran]
    right = [trial for trial in ran if not trial.trouble]
    if right:
        return min(right, key=lambda trial: trial.expected)
    return ran[0] if ran else None


def table(tried: Mapping[str, Sequence[Trial]]) -> list[list[str]]:
    """Return every setting with what it took, heading first."""
    heading = ["", "setting", "expected s", "process s", "peak MB"]
    lines = [[*heading, "loss off by", "gradient off by", ""]]
    for name, trials in tried.items():
        chosen = best(trials)
        for trial in trials:
            words = "**taken**" if trial is chosen else ""
            told = ", ".join(filter(None, [trial.trouble, words]))
            lines.append([name, trial.setting, *_figures(trial), told])
    return lines


def _figures(trial: Trial) -> list[str]:
    if trial.run is None or trial.found is None:
        return [""] * 5
    errors = (trial.found.loss_error, trial.found.gradient_error)
    return [
        f"{trial.expected:.2f}" + (f" ({_range(trial.seconds)})" if trial.seconds[1:] else ""),
        f"{trial.run.wall_seconds:.1f}",
        f"{trial.run.peak_pss / MB:,.0f}",
        *(f"{error:.1e}" for error in errors),
    ]


def _range(seconds: Sequence[float]) -> str:
    return f"{min(seconds):.2f} to {max(seconds):.2f}"
