"""The parts of an evaluation: rows that are written as they come, and what of them is used again.

A part's key is the hash of all that decides its rows: the model, the data and the settings. Rows of
another key are never mixed in; what an interrupted run left is taken up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.files import AppendLog, remove
from swe_scaffold.scores import StoredEvaluation, read_evaluation


class Part:
    """One file of an evaluation folder while it is made.

    `found` holds the rows that an interrupted run left under the same key, by row number; `foreign`
    says that what was left is under another.
    """

    def __init__(self, folder: Path, name: str, key: str, *, fresh: bool = False) -> None:
        self.name, self.key = name, key
        self._path = folder / f"{Path(name).stem}.partial.jsonl"
        rows = None if fresh else _rows(self._path, key)
        self.found: dict[int, dict[str, Any]] = rows or {}
        self.foreign = rows is None and self._path.exists()
        self._log: AppendLog | None = None
        self._keep = None if rows is not None else 0

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        """Keep a row, whatever happens next."""
        if self._log is None:
            self._log = AppendLog(self._path, keep=self._keep)
            if self._keep == 0:
                self._log.append({"key": self.key})
        self._log.append({"row": number, **row})

    def close(self) -> None:
        """Close the file; its rows stay for the next run."""
        if self._log is not None:
            self._log.close()

    def drop(self) -> None:
        """Remove the file, once its rows stand where they belong."""
        self.close()
        remove(self._path)


def _rows(path: Path, key: str) -> dict[int, dict[str, Any]] | None:
    """Return the whole rows of this key by number; None where there is no such file."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        values = [json.loads(line) for line in lines]
        if not values or values[0] != {"key": key}:
            return None
        return {int(value.pop("row")): value for value in values[1:]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def finished(folder: Path) -> StoredEvaluation | None:
    """Return the evaluation that stands in a folder, if it can be read and verified."""
    try:
        return read_evaluation(folder)
    except (UsageError, IntegrityError):
        return None
