"""Was this row seen before: the same task again, or the same text again.

A task is known by its id, any other row by its content. Different tasks with one prompt or one
patch are kept; the split puts them on one side.
"""

from __future__ import annotations

from swe_scaffold.types import KEEP, Example, Task, Verdict


class DuplicateJudge:
    """Skips rows that came before; it remembers every row it keeps, so it judges one build only."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[str, str]] = {}
        self._contents: dict[str, str] = {}

    def __call__(self, example: Example, task: Task | None) -> Verdict:
        """Judge one row; `task` is None for rows that are no tasks."""
        sha256 = str(example.meta["sha256"])
        place = f"{example.meta['source']}:{example.meta['row']}"
        if task is not None:
            if example.instance_id in self._tasks:
                first, seen = self._tasks[example.instance_id]
                same = "identical" if seen == sha256 else "different"
                return Verdict("duplicate", f"same id as {first}, {same} content")
            self._tasks[example.instance_id] = (place, sha256)
        elif sha256 in self._contents:
            return Verdict("duplicate", f"same content as {self._contents[sha256]}")
        self._contents.setdefault(sha256, place)
        return KEEP
