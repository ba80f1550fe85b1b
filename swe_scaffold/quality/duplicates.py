"""Was this row seen before: the same task again, or the same text again.

A task is known by its id, any other row by its content. Different tasks with one prompt or one
patch are kept; the split puts them on one side.
"""

from __future__ import annotations

from swe_scaffold.quality.stage import IndexStage, RowKey, Subject
from swe_scaffold.types import KEEP, Example, Task, Verdict


def duplicate_stage() -> IndexStage:
    """Return the stage; it remembers every row it keeps, so it judges one build only."""
    return IndexStage("duplicate", _key, _Seen().judge)


def _key(example: Example, subject: Subject) -> tuple[bytes, bool]:
    return bytes.fromhex(str(example.meta["sha256"]))[:16], isinstance(subject, Task)


class _Seen:
    def __init__(self) -> None:
        self._tasks: dict[str, tuple[str, bytes]] = {}
        self._contents: dict[bytes, str] = {}

    def judge(self, row: RowKey) -> Verdict:
        digest, is_task = row.key
        if is_task:
            if row.instance_id in self._tasks:
                first, seen = self._tasks[row.instance_id]
                same = "identical" if seen == digest else "different"
                return Verdict("duplicate", f"same id as {first}, {same} content")
            self._tasks[row.instance_id] = (row.place, digest)
        elif digest in self._contents:
            return Verdict("duplicate", f"same content as {self._contents[digest]}")
        self._contents.setdefault(digest, row.place)
        return KEEP
