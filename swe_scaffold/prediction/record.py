"""Predictions on disk: line by line while a run goes on, then in order and with a manifest.

A run that was interrupted goes on where it stopped, if it is the same: model, data and settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.files import AppendLog, disk_errors, remove
from swe_scaffold.jsonl import JsonlReader, Line, WrittenFile, write_jsonl
from swe_scaffold.manifest import SCHEMA, fingerprint, provenance, write_manifest

KIND = "predictions"
_HINT = "--overwrite begins anew, --output FILE chooses another place"
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PredictionFiles:
    """The files of one run: predictions, what there is of them so far, manifest."""

    output: Path
    partial: Path
    manifest: Path

    @classmethod
    def of(cls, output: Path) -> PredictionFiles:
        """Return the paths that belong to an output.

        Raises:
            UsageError: Its name would not be taken for JSON Lines.
        """
        if output.suffix != ".jsonl":
            problem = "predictions are JSON Lines: the name must end in .jsonl"
            raise UsageError(problem, where=str(output))
        return cls(
            output,
            output.with_name(f"{output.stem}.partial.jsonl"),
            output.with_name(f"{output.stem}.manifest.json"),
        )

    def refuse_finished(self, *, overwrite: bool) -> None:
        """Refuse to replace finished predictions without being asked to.

        Raises:
            UsageError: There are some.
        """
        if self.output.exists() and not self.partial.is_file() and not overwrite:
            raise UsageError("there are predictions already", where=str(self.output), hint=_HINT)


class Record:
    """What was answered so far; a context manager that keeps the log open.

    Args:
        files: Where it is.
        identity: All that decides the predictions, by part.
        overwrite: Replace whatever was there.

    Raises:
        UsageError: There are unfinished predictions of another run.
        IntegrityError: The unfinished ones are damaged.
    """

    def __init__(
        self, files: PredictionFiles, identity: Mapping[str, Any], *, overwrite: bool
    ) -> None:
        self._files = files
        prints = {part: fingerprint(value) for part, value in identity.items()}
        self._header = {"schema": SCHEMA, "kind": KIND, "fingerprint": prints}
        self.entries: dict[Place, dict[str, Any]] = {}
        if overwrite:
            for path in (files.partial, files.output, files.manifest):
                remove(path)
        if files.partial.is_file():
            self._take_up(prints)
        self._worth_keeping = bool(self.entries)
        self._log = AppendLog(files.partial, keep=None)
        if not files.partial.stat().st_size:
            self._log.append(self._header)

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        if not self._worth_keeping:
            remove(self._files.partial)

    def add(self, index: int, sample: int, entry: Mapping[str, Any]) -> None:
        """Keep one reply: its `row`, or `skip` with the reason why there is none."""
        self._log.append({"index": index, "sample": sample, **entry})
        self._worth_keeping = True

    def finish(self, rows: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> WrittenFile:
        """Write the predictions, then their manifest, and let go of the unfinished ones."""
        self._log.sync()
        written = write_jsonl(self._files.output, rows)
        outputs = {
            self._files.output.name: {
                "size": written.size,
                "sha256": written.sha256,
                "rows": written.rows,
            }
        }
        content = {"kind": KIND, **provenance(), **facts, "outputs": outputs}
        write_manifest(self._files.manifest, content)
        remove(self._files.partial)
        return written

    def _take_up(self, prints: Mapping[str, str]) -> None:
        where = str(self._files.partial)
        lines = list(JsonlReader(self._files.partial))
        if not lines:
            return
        # A line that a killed process left half-written is dropped by the log.
        torn = not self._ends_with_a_line()
        whole = [line.value for line in lines[: len(lines) - torn] if isinstance(line, Line)]
        if len(whole) != len(lines) - torn:
            raise IntegrityError("is damaged", where=where, hint=_HINT)
        if not whole:
            return
        if whole[0].get("kind") != KIND or whole[0].get("schema") != SCHEMA:
            raise IntegrityError("holds no unfinished predictions", where=where, hint=_HINT)
        before = whole[0].get("fingerprint")
        before = before if isinstance(before, Mapping) else {}
        if other := [part for part in prints if before.get(part) != prints[part]]:
            raise UsageError(
                f"unfinished predictions of another run: not the same {', '.join(other)}",
                where=where,
                hint=_HINT,
            )
        for value in whole[1:]:
            place, entry = _entry(value, where)
            self.entries[place] = entry

    def _ends_with_a_line(self) -> bool:
        with disk_errors(self._files.partial), self._files.partial.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read() == b"\n"


def _entry(value: Mapping[str, Any], where: str) -> tuple[Place, dict[str, Any]]:
    index, sample = value.get("index"), value.get("sample")
    entry: dict[str, Any] = {
        key: value[key] for key in ("row", "skip") if isinstance(value.get(key), Mapping)
    }
    if type(index) is not int or type(sample) is not int or len(entry) != 1:
        raise IntegrityError("is damaged", where=where, hint=_HINT)
    if isinstance(code := value.get("code"), str):
        entry["code"] = code
    return (index, sample), entry
