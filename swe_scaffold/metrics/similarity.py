"""How alike two patches are: the text similarity that SWE-RL rewards, and exact agreement.

SWE-RL (arXiv 2502.18449) compares the change of every file in either patch, as text, by difflib's
ratio, and averages; a file that only one side changes counts 0. It makes those texts anew from
whole files with three lines of context; here they are the hunks as the patches have them. Its
reward is -1 where there is no patch to read and the similarity otherwise; here that case is 0.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from swe_scaffold.diffs import FilePatch, Hunk
from swe_scaffold.metrics.places import Run, runs

# difflib's work in steps of its inner loop, for one pair of patches: seconds, not hours.
MAX_STEPS = 50_000_000


def change_similarity(
    predicted: Sequence[FilePatch], gold: Sequence[FilePatch], *, max_steps: int = MAX_STEPS
) -> float | None:
    """Return the mean similarity of the files' changes, 0 to 1.

    None where neither patch changes a line, and where the comparison would take more than
    `max_steps`: its time can grow with the cube of the patch, and a cut text is another text.
    The first argument is difflib's first sequence; its ratio is not symmetric.
    """
    ours, theirs = _texts(predicted), _texts(gold)
    paths = sorted(ours.keys() | theirs.keys())
    if not paths:
        return None
    budget = _Budget(max_steps)
    try:
        ratios = [
            _ratio(ours[path], theirs[path], budget) if path in ours and path in theirs else 0.0
            for path in paths
        ]
    except _TooLongError:
        return None
    return sum(ratios) / len(ratios)


def same_patch(predicted: Sequence[FilePatch], gold: Sequence[FilePatch]) -> bool:
    """Whether two patches make the same changes at the same lines of the same files.

    Context, hunk borders, headings, hashes and the order of files do not matter.
    """
    return bool(gold) and _located(predicted) == _located(gold)


def same_lines(predicted: Sequence[FilePatch], gold: Sequence[FilePatch]) -> bool:
    """Whether two patches remove and add the same lines per file, in the same order, anywhere."""
    return bool(gold) and _unlocated(predicted) == _unlocated(gold)


class _TooLongError(Exception):
    pass


class _Budget:
    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise _TooLongError


class _Counted(difflib.SequenceMatcher[str]):
    """difflib's matcher, stopped before it works longer than it may."""

    def __init__(self, a: str, b: str, budget: _Budget) -> None:
        super().__init__(None, a, b, autojunk=False)
        counts = Counter(b)
        # The inner loop visits, for each character of a, its places in b.
        self._steps = [0, *accumulate(counts[character] + 1 for character in a)]
        self._budget = budget

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> difflib.Match:
        self._budget.spend(self._steps[-1 if ahi is None else ahi] - self._steps[alo])
        return super().find_longest_match(alo, ahi, blo, bhi)


def _ratio(ours: str, theirs: str, budget: _Budget) -> float:
    return 1.0 if ours == theirs else _Counted(ours, theirs, budget).ratio()


def _texts(patch: Sequence[FilePatch]) -> dict[str, str]:
    """Return the hunks of each file as one text; a file without hunks has no text."""
    found: dict[str, list[str]] = {}
    for file in patch:
        found.setdefault(file.path, []).extend(line for hunk in file.hunks for line in _text(hunk))
    return {path: "\n".join(lines) for path, lines in found.items() if lines}


def _text(hunk: Hunk) -> list[str]:
    old, new = _range(hunk.old_start, hunk.old_count), _range(hunk.new_start, hunk.new_count)
    return [f"@@ -{old} +{new} @@", *(line for line in hunk.lines if not line.startswith("\\"))]


def _range(start: int, count: int) -> str:
    return str(start) if count == 1 else f"{start},{count}"


def _located(patch: Sequence[FilePatch]) -> list[tuple[str, str, list[Run], tuple[str, ...]]]:
    return sorted(
        (
            file.old_path,
            file.new_path,
            list(runs(file.hunks)),
            tuple(line for hunk in file.hunks for line in _with_note(hunk)),
        )
        for file in patch
    )


def _with_note(hunk: Hunk) -> list[str]:
    """Return the changed lines at which a file loses or gets its final line feed."""
    pairs = zip(hunk.lines, hunk.lines[1:], strict=False)
    return [line for line, after in pairs if after.startswith("\\") and line[:1] in ("-", "+")]


def _unlocated(patch: Sequence[FilePatch]) -> list[tuple[str, str, list[str]]]:
    return sorted(
        (file.old_path, file.new_path, [f"{mark}{line}" for mark, line in _changed(file)])
        for file in patch
    )


def _changed(file: FilePatch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for run in runs(file.hunks):
        found += [("-", line) for line in run.removed]
        found += [("+", line) for line in run.added]
    return found
