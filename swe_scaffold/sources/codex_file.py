"""A Codex event stream on disk: the lines of one file gathered into one row.

What the events mean is left to `codex`. This is a module of its own because files import row
shapes, and row shapes import the readers of formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from swe_scaffold.jsonl import BadLine, JsonlReader, Line
from swe_scaffold.sources.base import DataFile

MAX_STREAM_BYTES = 64 << 20


class CodexFile(DataFile):
    """A file of events, one a line, all of them one trajectory."""

    kind: ClassVar[str] = "Codex events"

    def rows(self) -> Iterator[Line | BadLine]:
        """Yield one row `{"events": [...]}`, or the first bad line: half a stream is none."""
        reader = JsonlReader(self.path, shown=self.shown)
        events: list[dict[str, Any]] = []
        size = 0
        bad: BadLine | None = None
        # Read to the end in any case, which is where size and SHA-256 are known.
        for line in reader:
            if bad is None and isinstance(line, BadLine):
                bad = line
            elif bad is None and isinstance(line, Line):
                size += line.raw_len
                events.append(line.value)
                if size > MAX_STREAM_BYTES:
                    limit = f"the stream is over the limit of {MAX_STREAM_BYTES >> 20} MiB"
                    bad = BadLine(line.number, limit, 0)
            if bad is not None:
                events.clear()
        self.size, self.sha256 = reader.size, reader.sha256
        if bad is not None:
            yield bad
        elif events:
            yield Line(1, {"events": events}, size)
