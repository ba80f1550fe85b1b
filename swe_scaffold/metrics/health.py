"""Whether what a model wrote looks like an answer at all, told from the text alone.

A good likelihood does not show that a model stops, or says more than `!!!!`. What an answer is
worth is left to the scoring of its patch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.clustered import Settings
from swe_scaffold.metrics.shares import exact_binomial, wilson_share
from swe_scaffold.patches import Extraction, ReadFile, extract_patch
from swe_scaffold.types import Example, Metric

LONGEST_UNIT = 500
TIMES = 4
# A loop that fills so much needs no more to be seen; what stands before it is not looked at.
LOOKED_AT = 100_000
FLAGS = ("stopped", "empty", "repeated", "parseable")
_PATCHES = ("patch", "test_patch")
_DIFF_STARTS = ("diff --git ", "--- ")


@dataclass(frozen=True, slots=True)
class Health:
    """One answer: stopped by itself, blank, mostly a repetition, a patch that can be read.

    `parseable` is None where no patch was asked for.
    """

    stopped: bool
    empty: bool
    repeated: bool
    parseable: bool | None


@dataclass(frozen=True, slots=True)
class HealthPair:
    """One flag of two models over the same rows: both shares, and the rows in which they differ.

    `p_value` is McNemar's, exact; None where no row could have the flag.
    """

    base: Metric
    tuned: Metric
    only_base: int
    only_tuned: int
    p_value: float | None


def health(text: str, *, stopped: bool, expects_patch: bool) -> Health:
    """Judge one answer, in time linear in its length.

    Args:
        text: What the model wrote, without its end token.
        stopped: Whether it ended by itself.
        expects_patch: Whether a patch was asked for, as the gold response shows.
    """
    parseable = None
    if expects_patch:
        found = extract_whole(text, stopped=stopped)
        parseable = bool(found.patch.strip()) and not found.problem
    return Health(stopped, not text.strip(), is_repetition(text), parseable)


def health_of(row: Mapping[str, Any]) -> Health:
    """Return the flags that a row on disk holds."""
    return Health(**{name: row[name] for name in FLAGS})


def wants_patch(example: Example) -> bool:
    """Say whether a row asks for a patch, as its gold response is one."""
    if example.messages:
        return False
    gold = example.response.lstrip()
    return example.response_source in _PATCHES or gold.startswith(_DIFF_STARTS)


def extract_whole(text: str, *, stopped: bool, read_file: ReadFile | None = None) -> Extraction:
    """Return what `extract_patch` finds, but no patch in whose last line an answer was cut.

    Args:
        text: What the model wrote.
        stopped: Whether it ended by itself; if not, nobody knows how the last line goes on.
        read_file: See `extract_patch`.
    """
    found = extract_patch(text, read_file)
    if stopped or "final_newline" not in found.repairs:
        return found
    return Extraction("", found.form, {}, "truncated", "the answer was cut within the patch")


def is_repetition(text: str) -> bool:
    """Say whether more than half of a text is one unit, said four times or more without a break.

    The unit has at most 500 characters, its last repetition may be cut short, and white space
    around the text does not count. Of a long text the last 100,000 characters are looked at.
    """
    body = text.strip()[-LOOKED_AT:]
    codes = np.frombuffer(body.encode("utf-32-le", "surrogatepass"), np.uint32)
    for unit in range(1, min(LONGEST_UNIT, len(codes) // TIMES) + 1):
        # So many characters in a row that equal the one a unit before make a stretch of
        # `unit` characters more.
        stretch = _longest_run(codes[unit:] == codes[:-unit]) + unit
        if stretch >= TIMES * unit and 2 * stretch > len(codes):
            return True
    return False


def summarise_health(rows: Sequence[Health], *, alpha: float = 0.05) -> dict[str, Metric]:
    """Return the share of each flag with its Wilson interval, in the order of `FLAGS`."""
    return {name: _share(rows, name, alpha) for name in FLAGS}


def compare_health(
    base: Sequence[Health], tuned: Sequence[Health], *, alpha: float = 0.05
) -> dict[str, HealthPair]:
    """Return two models' shares side by side, and how many rows have a flag with one model only.

    Raises:
        UsageError: They are not as many, or one was asked for patches where the other was not.
    """
    expects = [[row.parseable is not None for row in rows] for rows in (base, tuned)]
    if expects[0] != expects[1]:
        raise UsageError("the answers of two models can be compared on the same rows only")
    pairs = {}
    for name in FLAGS:
        flag = _flag(name)
        both = [(flag(b), flag(t)) for b, t in zip(base, tuned, strict=True)]
        only = both.count((True, False)), both.count((False, True))
        shares = _share(base, name, alpha), _share(tuned, name, alpha)
        p_value = exact_binomial(only[0], sum(only)) if shares[0].n else None
        pairs[name] = HealthPair(*shares, *only, p_value)
    return pairs


def _longest_run(same: np.ndarray) -> int:
    """Return the length of the longest run of True."""
    breaks = np.flatnonzero(np.concatenate(([True], ~same, [True])))
    return int(np.diff(breaks).max()) - 1


def _flag(name: str) -> Callable[[Health], bool | None]:
    def read(row: Health) -> bool | None:
        value: bool | None = getattr(row, name)
        return value

    return read


def _share(rows: Sequence[Health], name: str, alpha: float) -> Metric:
    values = [value for value in map(_flag(name), rows) if value is not None]
    return wilson_share(name, values, Settings(alpha=alpha), unit="share of answers")
