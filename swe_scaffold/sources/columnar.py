"""Column formats: Parquet and Arrow (as `datasets.save_to_disk` writes it), read in small batches.

Texts stay dictionary-encoded until their decoded size is known, so that a small file cannot unfold
into gigabytes. Only columns that rows are made of are read. Needs pyarrow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from datetime import date, datetime
from typing import Any, ClassVar

from swe_scaffold.errors import DataError, MissingExtra
from swe_scaffold.files import disk_errors, sha256_file
from swe_scaffold.inputs import MAX_RATIO, MAX_TOTAL_BYTES, RATIO_FROM, changed, require_file
from swe_scaffold.jsonl import MAX_ROW_BYTES, BadLine, Line
from swe_scaffold.sources.base import DataFile, NoRowsError
from swe_scaffold.sources.shapes import ROW_KEYS, can_be_rows, explain
from swe_scaffold.terminal import show

_BATCH_ROWS = 256


class ColumnFile(DataFile):
    """A file of record batches."""

    counts: ClassVar[str] = "row"

    def rows(self) -> Iterator[Line | BadLine]:
        """Yield every row.

        Raises:
            DataError: Damaged, without usable columns, over budget, or changed while it was read.
            MissingExtra: pyarrow is not installed.
        """
        require_file(self.path, self.shown)
        with disk_errors(self.path):
            before = self.path.stat()
        produced = 0
        for number, (row, size) in enumerate(self._unfolded(), 1):
            produced += size
            self._check_budget(produced, before.st_size)
            if isinstance(row, str):
                yield BadLine(number, row, 0)
            else:
                yield Line(number, row, size)
        self.size, self.sha256 = before.st_size, sha256_file(self.path)
        after = self.path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise changed(self.shown)

    def _unfolded(self) -> Iterator[tuple[dict[str, Any] | str, int]]:
        """Yield what `_unfold` does, errors of the library turned into DataError."""
        arrow = _pyarrow()
        with contextlib.closing(self._open()) as batches:
            rows = (row for batch in batches for row in _unfold(batch))
            while True:
                try:
                    row = next(rows, None)
                except (arrow.ArrowException, OSError, ValueError, NotImplementedError) as error:
                    if isinstance(error, DataError):
                        raise
                    reason = show(str(error).split("\n")[0], width=120)
                    raise DataError(
                        f"not a readable {self.kind} file: {reason}", where=self.shown
                    ) from None
                if row is None:
                    return
                yield row

    def _open(self) -> Generator[Any, None, None]:
        raise NotImplementedError

    def _columns(self, names: Sequence[str]) -> list[str]:
        if not can_be_rows(names):
            raise NoRowsError(explain(names), where=self.shown)
        return [name for name in names if name in ROW_KEYS]

    def _check_budget(self, produced: int, size: int) -> None:
        if produced > MAX_TOTAL_BYTES:
            raise DataError(
                f"holds more than {MAX_TOTAL_BYTES >> 30} GiB of text", where=self.shown
            )
        if produced > RATIO_FROM and produced > MAX_RATIO * size:
            raise DataError(f"unfolds to more than {MAX_RATIO} times its size", where=self.shown)


class ParquetFile(ColumnFile):
    """Parquet, row group by row group."""

    kind: ClassVar[str] = "Parquet"

    def _open(self) -> Generator[Any, None, None]:
        from pyarrow import parquet

        with parquet.ParquetFile(self.path) as plain:
            schema = plain.schema
            texts = [
                schema.column(index).path
                for index in range(len(schema))
                if schema.column(index).physical_type == "BYTE_ARRAY"
            ]
            columns = self._columns(plain.schema_arrow.names)
        options = {"read_dictionary": texts, "buffer_size": 1 << 20, "pre_buffer": False}
        with parquet.ParquetFile(self.path, **options) as file:
            for group in range(file.num_row_groups):
                yield from file.iter_batches(
                    batch_size=_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False
                )


class ArrowFile(ColumnFile):
    """Arrow, the stream or the file form; the batches are checked before they are believed."""

    kind: ClassVar[str] = "Arrow"

    def _open(self) -> Generator[Any, None, None]:
        arrow = _pyarrow()
        with arrow.memory_map(str(self.path)) as mapped:
            if mapped.read(6) == b"ARROW1":
                mapped.seek(0)
                file = arrow.ipc.open_file(mapped)
                batches = (file.get_batch(index) for index in range(file.num_record_batches))
                names = file.schema.names
            else:
                mapped.seek(0)
                stream = arrow.ipc.open_stream(mapped)
                batches, names = iter(stream), stream.schema.names
            columns = self._columns(names)
            for batch in batches:
                batch.validate(full=True)
                yield batch.select(columns)


def text_bytes(array: Any) -> int:
    """Return the bytes that an Arrow array takes once its dictionaries are unfolded."""
    import pyarrow.compute as compute
    from pyarrow import types

    kind = array.type
    if types.is_dictionary(kind):
        if not (types.is_string(kind.value_type) or types.is_large_string(kind.value_type)):
            return int(array.nbytes)
        lengths = compute.binary_length(array.dictionary)
        return int(compute.sum(lengths.take(array.indices)).as_py() or 0)
    if types.is_struct(kind):
        return sum(text_bytes(field) for field in array.flatten())
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return text_bytes(array.flatten())
    if types.is_map(kind):
        return text_bytes(array.keys) + text_bytes(array.items)
    return int(array.nbytes)


def _unfold(batch: Any) -> Iterator[tuple[dict[str, Any] | str, int]]:
    """Yield rows (or what is wrong) and sizes, unfolding no more than one row may hold at once."""
    size = sum(text_bytes(column) for column in batch.columns)
    problem, rows = "", []
    if size > MAX_ROW_BYTES:
        problem = f"row is over the limit of {MAX_ROW_BYTES >> 20} MiB"
    else:
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:
            problem = "a text is not valid UTF-8"
    if problem and batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _unfold(batch.slice(0, half))
        yield from _unfold(batch.slice(half))
    elif problem:
        yield problem, size
    else:
        yield from ((_plain(row), size // len(rows)) for row in rows)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Make a row what JSON would have given: times as text, no nulls that only fill up a struct."""
    return {key: _value(value) for key, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise MissingExtra("pyarrow", "data") from None
    return pyarrow
