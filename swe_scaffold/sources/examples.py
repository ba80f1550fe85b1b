"""A JSON Lines file of examples, read strictly: any row that is none stops with its line.

For `train`, `evaluate`, `audit` and `show`; `build` reads anything through `open_source`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swe_scaffold.errors import DataError
from swe_scaffold.inputs import require_file
from swe_scaffold.jsonl import BadLine, JsonlReader
from swe_scaffold.sources.local import near_name
from swe_scaffold.sources.shapes import read_row
from swe_scaffold.terminal import show
from swe_scaffold.types import Example, Origin, Task, Trajectory


@dataclass(frozen=True, slots=True)
class ExampleFile:
    """All examples of one file, and the file's identity (bytes on disk)."""

    examples: tuple[Example, ...]
    sha256: str
    size: int
    rows: int
    path: str


def read_examples(path: Path | str) -> ExampleFile:
    """Read every row of a built file, or of rows with messages or prompt + response.

    Raises:
        DataError: At `path:line` for the first row that is no example, or there are no rows.
        EnvironmentFailure: The file cannot be read.
    """
    name = str(path)
    build = f"build it first: swe-scaffold build --dataset {name}"
    try:
        require_file(Path(path))
    except DataError as error:
        raise DataError(
            error.message, where=error.where, hint=error.hint or near_name(Path(path))
        ) from None
    reader = JsonlReader(path)
    examples: list[Example] = []
    try:
        for line in reader:
            where = f"{name}:{line.number}"
            if isinstance(line, BadLine):
                # Where already the first line is no row, the file is probably in another format.
                raise DataError(line.message, where=where, hint="" if examples else build)
            examples.append(_example(line.value, Origin(name, line.number), where, build))
    except DataError as error:
        if error.message.startswith("looks like a") and not error.hint:
            raise DataError(error.message, where=error.where, hint=build) from None
        raise
    if not examples:
        raise DataError("no usable rows (0 read)", where=name)
    return ExampleFile(tuple(examples), reader.sha256, reader.size, reader.rows, name)


def _example(value: dict[str, object], origin: Origin, where: str, build: str) -> Example:
    try:
        row = read_row(value, origin)
    except DataError as error:
        raise DataError(str(error), where=where) from None
    if isinstance(row, Task | Trajectory):
        kind = "task" if isinstance(row, Task) else "trajectory"
        raise DataError(
            f"a {kind}, not a training row: {show(row.instance_id, width=60)}",
            where=where,
            hint=build,
        )
    return row
