"""Prepared parts brought together: what compares rows is judged here, in source order.

Lines of rows wait in a spill file; of each row only its place there, its id, its label and its
split keys stay in memory, beside what the index stages remember. Sides and the limit are decided
once all rows are known.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from swe_scaffold.config import DatasetConfig
from swe_scaffold.dataset.preparing import PreparedPart, PreparedRow, lines_of, skip_of
from swe_scaffold.files import disk_errors
from swe_scaffold.jsonl import LineWriter, encode_row
from swe_scaffold.quality.stage import RowKey
from swe_scaffold.quality.stages import StageCount, make_stages
from swe_scaffold.rows import skip_to_row
from swe_scaffold.splits import SplitTable
from swe_scaffold.types import KEEP, Skip, SpeedrunLabel, Verdict


class Gathering:
    """Rows as their parts arrive, in source order.

    Attributes:
        read: Rows read.
        reasons: Skipped rows by reason.
        tallies: What was joined to rows, or could not be.
        first_skip: The first of them.
        table: Split keys of the kept rows.
    """

    def __init__(self, config: DatasetConfig, kept: LineWriter, skipped: LineWriter) -> None:
        self._row_counts: tuple[StageCount, ...] = ()
        self._index = tuple((stage, StageCount(stage.name)) for stage in make_stages(config).index)
        self._kept, self._skipped = kept, skipped
        self.read = 0
        self.reasons: Counter[str] = Counter()
        self.tallies: Counter[str] = Counter()
        self.first_skip: Skip | None = None
        self.table = SplitTable()
        self.stops = array("q")
        self.labels = bytearray()
        self._ids, self._id_stops = bytearray(), array("q")

    @property
    def counts(self) -> tuple[StageCount, ...]:
        """What each stage saw and did, in order."""
        return (*self._row_counts, *(count for _, count in self._index))

    def __len__(self) -> int:
        """Number of kept rows."""
        return len(self.stops)

    def take(self, part: PreparedPart) -> None:
        """Judge and store the rows of the next part."""
        self.read += part.read.rows
        self.tallies += part.tallies
        self._row_counts = self._row_counts or tuple(StageCount(c.name) for c in part.counts)
        for count, more in zip(self._row_counts, part.counts, strict=True):
            count.merge(more)
        for row, line in lines_of(part):
            if isinstance(row, Skip):
                self._skip(row)
                continue
            stage, verdict = self._judge(row)
            if verdict.keep:
                self._keep(row, line, verdict)
            else:
                self._skip(skip_of(row, verdict.reason, stage, verdict.detail))

    def ids(self) -> Iterator[str]:
        """Yield the ids of the kept rows."""
        start = 0
        for stop in self._id_stops:
            yield self._ids[start:stop].decode("utf-8", "surrogatepass")
            start = stop

    def _judge(self, row: PreparedRow) -> tuple[str, Verdict]:
        place = f"{row.origin.source}:{row.origin.row}"
        links: list[str] = []
        for (stage, count), key in zip(self._index, row.index_keys, strict=True):
            seen = RowKey(row.instance_id, row.repo, str(row.label), place, key)
            verdict = stage.judge(seen)
            count.add(verdict, 0.0)
            if not verdict.keep:
                return stage.name, verdict
            links += verdict.links
        return "", Verdict(links=tuple(links)) if links else KEEP

    def _keep(self, row: PreparedRow, line: bytes, verdict: Verdict) -> None:
        self._kept.write(line)
        self.stops.append((self.stops[-1] if self.stops else 0) + len(line))
        self.labels.append(row.label is SpeedrunLabel.SUCCESS)
        self._ids += row.instance_id.encode("utf-8", "surrogatepass")
        self._id_stops.append(len(self._ids))
        self.table.append_packed(row.split_keys.linked(verdict.links))

    def _skip(self, skip: Skip) -> None:
        self.reasons[skip.reason] += 1
        self.first_skip = self.first_skip or skip
        self._skipped.write(encode_row(skip_to_row(skip), ""))


def read_lines(path: Path, stops: Any, rows: Iterable[int]) -> Iterator[bytes]:
    """Yield lines of the spill file, in its order; line `n` ends at `stops[n]`."""
    with disk_errors(path), path.open("rb") as file:
        place = 0
        for row in rows:
            start = stops[row - 1] if row else 0
            if start != place:
                file.seek(start)
            place = stops[row]
            yield file.read(place - start)
