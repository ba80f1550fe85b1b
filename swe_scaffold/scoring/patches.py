"""One prediction against its task's gold patch: everything that needs no test to run.

Each number is made in `metrics`; git says whether a patch applies. A row is flat, so that it can be
filtered by its fields, and says beside every null why it is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from swe_scaffold.changed_paths import is_test
from swe_scaffold.diffs import DEV_NULL, FilePatch, parse_patch
from swe_scaffold.git.trial import Trial, is_safe_path, try_patch
from swe_scaffold.metrics.localisation import Overlap, localisation
from swe_scaffold.metrics.places import paths_of, places_of
from swe_scaffold.metrics.similarity import change_similarity, same_lines, same_patch
from swe_scaffold.quality.patches import patch_faults
from swe_scaffold.scoring.files_before import FilesBefore, Trees
from swe_scaffold.scoring.reading import Prediction
from swe_scaffold.types import Task

# Of these only the lists cannot be used in a filter.
LISTS = ("files", "gold_files")
FIELDS = (
    *("instance_id", "repo", "group", "model", "sample"),
    *("empty", "parses", "problem", "applies", "applies_reason", "applies_detail", "resolved"),
    *("file_precision", "file_recall", "file_f1"),
    *("hunk_precision", "hunk_recall", "hunk_f1"),
    *("function_precision", "function_recall", "function_f1", "functions_by"),
    *("similarity", "similarity_reason", "exact_match", "same_lines"),
    *("lines_added", "lines_removed", "gold_lines_added", "gold_lines_removed", "size_ratio"),
    *("touches_tests", "only_tests", *LISTS),
)
_UNREADABLE = ("unparsable", "incomplete")
_PROBLEMS = (*_UNREADABLE, "empty", "binary")


class PatchScorer:
    """Scores patches; whether a task's gold patch applies is asked once.

    Args:
        trees: Where the files of tasks are; without them nothing is known of `applies`.
    """

    def __init__(self, trees: Trees | None) -> None:
        self._trees = trees
        self._gold_fits: dict[str, Trial] = {}

    def score(
        self, task: Task, prediction: Prediction | None, resolved: bool | None
    ) -> dict[str, Any]:
        """Return the row of a prediction, or of an empty one where a task has none."""
        text = prediction.patch if prediction else ""
        patch, gold = parse_patch(text), parse_patch(task.patch)
        before = self._before(task, (*patch, *gold))
        applies = self._applies(task, text, patch, before)
        row = {
            "instance_id": task.instance_id,
            "repo": task.repo,
            "group": task.group or task.repo or task.instance_id,
            "model": prediction.model if prediction else "",
            "sample": prediction.sample if prediction else 0,
            **_form(text, patch),
            "applies": applies.applies,
            "applies_reason": applies.reason or None,
            "applies_detail": applies.detail or None,
            "resolved": resolved,
            **_found(patch, gold, before),
            **_likeness(text, task.patch, patch, gold),
            **_size(patch, gold),
            "touches_tests": any(map(is_test, paths_of(patch))),
            "only_tests": bool(patch) and all(map(is_test, paths_of(patch))),
            "files": list(paths_of(patch)),
            "gold_files": list(paths_of(gold)),
        }
        return {name: row[name] for name in FIELDS}

    def _before(self, task: Task, files: Sequence[FilePatch]) -> FilesBefore:
        if self._trees is None:
            return FilesBefore(unknown="no_files_given")
        return self._trees.read(task, paths_of(files))

    def _applies(
        self, task: Task, text: str, patch: Sequence[FilePatch], before: FilesBefore
    ) -> Trial:
        """Ask git, if the files are known and are those that the gold patch was made for."""
        if before.unknown:
            return Trial(None, before.unknown)
        if task.instance_id not in self._gold_fits:
            fits = _try(task.patch, parse_patch(task.patch), before)
            self._gold_fits[task.instance_id] = fits
        if task.patch.strip() and self._gold_fits[task.instance_id].applies is False:
            return Trial(None, "gold_does_not_apply", self._gold_fits[task.instance_id].detail)
        return _try(text, patch, before)


def _try(text: str, patch: Sequence[FilePatch], before: FilesBefore) -> Trial:
    if not text.strip():
        return Trial(False, "empty")
    paths = paths_of(patch)
    if not all(map(is_safe_path, paths)):
        return Trial(False, "unsafe_path")
    if odd := next((before.odd[path] for path in paths if path in before.odd), ""):
        return Trial(None, odd)
    needed = [file.old_path for file in patch if file.old_path != DEV_NULL]
    if not before.whole and not all(path in before.files for path in needed):
        return Trial(None, "not_given")
    return try_patch(text, before.files)


def _form(text: str, patch: Sequence[FilePatch]) -> dict[str, Any]:
    empty = not text.strip()
    faults = ["no_patch"] if empty else patch_faults(text)
    problem = next((fault for fault in faults if fault in (*_PROBLEMS, "no_patch")), None)
    return {
        "empty": empty,
        "parses": bool(patch) and not any(fault in faults for fault in _UNREADABLE),
        # In a row `empty` says that there is no patch; this one has one that changes no line.
        "problem": "no_changes" if problem == "empty" else problem,
    }


def _found(
    patch: Sequence[FilePatch], gold: Sequence[FilePatch], before: FilesBefore
) -> dict[str, Any]:
    places = places_of(patch, gold, before.texts(paths_of((*patch, *gold))))
    scores = localisation(*places)
    named = {"file": scores.files, "hunk": scores.lines, "function": scores.functions}
    numbers = [pair for name, overlap in named.items() for pair in _numbers(name, overlap)]
    return {**dict(numbers), "functions_by": places[1].functions_by}


def _numbers(name: str, overlap: Overlap | None) -> Iterator[tuple[str, float | None]]:
    for kind in ("precision", "recall", "f1"):
        yield f"{name}_{kind}", None if overlap is None else getattr(overlap, kind)


def _likeness(
    text: str, gold_text: str, patch: Sequence[FilePatch], gold: Sequence[FilePatch]
) -> dict[str, Any]:
    same: bool | None
    exact: bool | None
    similarity, reason = None, "no_gold"
    if any(file.hunks for file in gold):
        similarity = change_similarity(patch, gold)
        reason = "too_costly" if similarity is None else ""
    if not gold:
        same = exact = None
    elif any(not file.hunks for file in (*patch, *gold)):
        # What is binary, or a mere change of mode, cannot be compared but as it is written.
        same = exact = text.strip() == gold_text.strip()
    else:
        same, exact = same_lines(patch, gold), same_patch(patch, gold)
    return {
        "similarity": similarity,
        "similarity_reason": reason or None,
        "exact_match": exact,
        "same_lines": same,
    }


def _size(patch: Sequence[FilePatch], gold: Sequence[FilePatch]) -> dict[str, Any]:
    added, removed = _lines(patch, "+"), _lines(patch, "-")
    gold_added, gold_removed = _lines(gold, "+"), _lines(gold, "-")
    whole = gold_added + gold_removed
    return {
        "lines_added": added,
        "lines_removed": removed,
        "gold_lines_added": gold_added,
        "gold_lines_removed": gold_removed,
        "size_ratio": (added + removed) / whole if whole else None,
    }


def _lines(patch: Sequence[FilePatch], mark: str) -> int:
    return sum(
        line.startswith(mark) for file in patch for hunk in file.hunks for line in hunk.lines
    )
