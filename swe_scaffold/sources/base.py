"""What every source is: data files in a known format, read row by row into items.

An item is a `Task`, an `Example`, or a `Skip` for a row that cannot be used: what is read is what
is yielded, always. Formats live in `text_files` and `columnar`, row shapes in `shapes`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from swe_scaffold.errors import DataError, IntegrityError
from swe_scaffold.jsonl import BadLine, Line
from swe_scaffold.sources.shapes import Item, read_item
from swe_scaffold.types import Origin

_NOUNS = {"Task": "task", "Example": "example", "Skip": "unusable row"}


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file that was read to its end: as named, and the bytes on disk."""

    path: str
    size: int
    sha256: str
    rows: int


class NoRowsError(DataError):
    """A table whose columns make no rows; beside other files it is left out with a note."""


class DataFile(ABC):
    """One file in one format.

    `rows` yields lines whose number is the 1-based line or row (`counts` says which) and fills
    `size` and `sha256` when it ends. Whole-file problems raise DataError.
    """

    kind: ClassVar[str]
    counts: ClassVar[str] = "line"

    def __init__(self, path: Path, shown: str) -> None:
        self.path, self.shown = path, shown
        self.size, self.sha256 = 0, ""
        self.expected_sha256 = ""

    @abstractmethod
    def rows(self) -> Iterator[Line | BadLine]:
        """Yield every row of the file."""

    def where(self, number: int) -> str:
        """The place of a row, for messages."""
        return f"{self.shown}:{number}" if self.counts == "line" else f"{self.shown}: row {number}"


class Source:
    """An iterable of items; `inputs` is complete once the iteration has ended.

    Attributes:
        name: As the user gave it.
        notes: How the name was understood, and what was left out by the end of an iteration.
        inputs: The files read to their end, in order.
    """

    def __init__(self, name: str, files: Sequence[DataFile], notes: Sequence[str] = ()) -> None:
        self.name = name
        self.notes = list(notes)
        self._told = tuple(notes)
        self.inputs: list[InputFile] = []
        self._files = tuple(files)
        self._seen: Counter[str] = Counter()

    @property
    def kind(self) -> str:
        """What it holds, as far as it was read, and in which format: "300 tasks, Parquet"."""
        formats = ", ".join(dict.fromkeys(file.kind for file in self._files))
        counts = ((self._seen[key], noun) for key, noun in _NOUNS.items())
        items = ", ".join(f"{n} {noun}{'s' * (n != 1)}" for n, noun in counts if n)
        return f"{items}, {formats}" if items else formats

    def __iter__(self) -> Iterator[Item]:
        self.inputs.clear()
        self._seen.clear()
        self.notes = list(self._told)
        for file in self._files:
            try:
                yield from self._items(file)
            except NoRowsError as error:
                if len(self._files) == 1:
                    raise
                self.notes.append(f"{file.shown} is not read: {error.message}")

    def _items(self, file: DataFile) -> Iterator[Item]:
        count = 0
        for line in file.rows():
            count += 1
            item = read_item(line, Origin(file.shown, line.number), file.where(line.number))
            self._seen[type(item).__name__] += 1
            yield item
        if file.expected_sha256 not in ("", file.sha256):
            raise IntegrityError(
                "does not match the SHA-256 that the hub lists",
                where=file.shown,
                hint="remove it from the hub cache and fetch it again",
            )
        self.inputs.append(InputFile(file.shown, file.size, file.sha256, count))
