"""One part of a source made ready: read, turned into examples, judged row by row, encoded.

A pure function of the part and the recipe, so that it runs in any process, on any machine. What
depends on other rows (duplicates, caps, the split, the limit) is decided in `gathering`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from swe_scaffold.config import DatasetConfig
from swe_scaffold.dataset.excluding import read_index
from swe_scaffold.dataset.pairs import source_fields, task_to_example
from swe_scaffold.dataset.trajectories import trajectory_to_example
from swe_scaffold.errors import DataError
from swe_scaffold.jsonl import encode_row
from swe_scaffold.manifest import fingerprint
from swe_scaffold.mining.code_context import CodeContexts
from swe_scaffold.quality.contamination import ContaminationIndex
from swe_scaffold.quality.stage import Subject
from swe_scaffold.quality.stages import RowRunner, StageCount, Stages, make_stages
from swe_scaffold.rows import example_to_row
from swe_scaffold.sources.base import DataFile, ReadCount, read_items
from swe_scaffold.sources.outcomes import Outcomes, read_outcomes
from swe_scaffold.sources.shapes import Item
from swe_scaffold.splits import PackedKeys, SplitKeys, pack
from swe_scaffold.types import Example, Origin, Skip, SourceFields, SpeedrunLabel, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything besides its bytes that decides what becomes of a part.

    `exclude` is the file of a contamination index; empty where nothing is excluded.
    """

    config: DatasetConfig
    exclude: str = ""


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """What is left of a row that passed the row stages; its line is apart, `line_bytes` long.

    `index_keys` are those of the index stages, in their order.
    """

    instance_id: str
    repo: str
    label: SpeedrunLabel
    origin: Origin
    split_keys: PackedKeys
    index_keys: tuple[Any, ...]
    source_fields: SourceFields
    patch_len: int
    line_bytes: int


@dataclass(slots=True)
class PreparedPart:
    """A part made ready: rows and skips in source order, the rows' lines, and the counts.

    `tallies` counts what was joined to rows or could not be, as `reports.joined`.
    """

    read: ReadCount
    counts: tuple[StageCount, ...]
    tallies: Counter[str] = field(default_factory=Counter)
    rows: list[PreparedRow | Skip] = field(default_factory=list)
    lines: bytes = b""
    size: int = 0
    sha256: str = ""


def prepare(part: DataFile, recipe: Recipe, *, alone: bool) -> PreparedPart:
    """Make one part ready; `alone` says that its source has no other file.

    Raises:
        DataError: It cannot be read, or a row of it under `on_bad_row: stop`.
    """
    work = _Preparing(recipe)
    read = ReadCount()
    lines: list[bytes] = []
    rows = [work.take(item, lines) for item in read_items(part, read, alone=alone)]
    return PreparedPart(
        read=read,
        counts=work.runner.counts,
        tallies=work.tallies,
        rows=rows,
        lines=b"".join(lines),
        size=part.size,
        sha256=part.sha256,
    )


class _Preparing:
    def __init__(self, recipe: Recipe) -> None:
        self._stop = recipe.config.on_bad_row == "stop"
        self._tools = _tools(recipe)
        self.runner, self._index = RowRunner(self._tools.stages.row), self._tools.stages.index
        self.tallies: Counter[str] = Counter()

    def take(self, item: Item, lines: list[bytes]) -> PreparedRow | Skip:
        if isinstance(item, Skip):
            return self._skipped(item)
        try:
            subject, example = _as_example(self._joined(item))
        except DataError as error:
            return self._skipped(_unusable(item, error))
        stage, verdict = self.runner.judge(example, subject)
        example = verdict.example or example
        if not verdict.keep:
            return self._skipped(_skip(example, subject, verdict.reason, stage, verdict.detail))
        try:
            line = encode_row(example_to_row(example), "")
        except DataError as error:
            bad = _skip(example, subject, "invalid_row", "writing", error.message)
            return self._skipped(bad)
        lines.append(line)
        fields, patch_len = _source_fields(subject)
        return PreparedRow(
            instance_id=example.instance_id,
            repo=example.repo,
            label=example.label,
            origin=_origin(example),
            split_keys=pack(SplitKeys.of(example)).linked(verdict.links),
            index_keys=tuple(stage.key_of(example, subject) for stage in self._index),
            source_fields=fields,
            patch_len=patch_len,
            line_bytes=len(line),
        )

    def _joined(self, item: Task | Trajectory | Example) -> Task | Trajectory | Example:
        """Add what reports know of a trajectory, and what clones show of a task."""
        tools = self._tools
        if isinstance(item, Trajectory) and tools.outcomes is not None:
            self.tallies[f"reports.{tools.outcomes.state(item)}"] += 1
            return tools.outcomes.apply(item)
        if isinstance(item, Task) and tools.contexts is not None:
            contextual = tools.contexts.add(item)
            self.tallies[f"context.{contextual.missing or 'added'}"] += 1
            return contextual.task
        return item

    def _skipped(self, skip: Skip) -> Skip:
        if self._stop and skip.reason == "invalid_row":
            place = f"{skip.origin.source}:{skip.origin.row}"
            named = skip.detail.startswith(skip.origin.source)
            raise DataError(
                skip.detail or "the row cannot be used",
                where="" if named else place,
                hint="dataset.on_bad_row skip records such rows in the skipped report instead",
            )
        return skip


@dataclass(frozen=True, slots=True)
class _Tools:
    """What a recipe needs; made once in a process, for all parts."""

    stages: Stages
    outcomes: Outcomes | None
    contexts: CodeContexts | None


_made: dict[str, _Tools] = {}


def _tools(recipe: Recipe) -> _Tools:
    key = fingerprint([asdict(recipe.config), recipe.exclude])
    if key not in _made:
        _made.clear()
        config = recipe.config
        _made[key] = _Tools(
            stages=make_stages(config, contamination=_read_index(recipe.exclude)),
            outcomes=read_outcomes(config.reports) if config.reports else None,
            contexts=_contexts(config),
        )
    return _made[key]


def _contexts(config: DatasetConfig) -> CodeContexts | None:
    if config.context == "none" or config.repos is None:
        return None
    return CodeContexts(Path(config.repos), mode=config.context, tokens=config.context_tokens)


def _read_index(path: str) -> ContaminationIndex | None:
    return read_index(Path(path)) if path else None


def _unusable(item: Task | Trajectory | Example, error: DataError) -> Skip:
    origin = item.origin if isinstance(item, Task | Trajectory) else _origin(item)
    subject = item if isinstance(item, Task | Trajectory) else None
    fields, patch_len = _source_fields(subject)
    detail = f"{origin.source}:{origin.row}: {error}"
    return Skip(item.instance_id, "invalid_row", fields, patch_len, "joining", origin, detail)


def _as_example(item: Task | Trajectory | Example) -> tuple[Subject, Example]:
    if isinstance(item, Task):
        return item, task_to_example(item)
    if isinstance(item, Trajectory):
        return item, trajectory_to_example(item)
    # A row without any answer shows no success, whatever it says.
    if item.messages or item.response.strip():
        return None, item
    return None, replace(item, label=SpeedrunLabel.FAILURE)


def _source_fields(subject: Subject) -> tuple[SourceFields, int]:
    if isinstance(subject, Task):
        return source_fields(subject), len(subject.patch)
    if isinstance(subject, Trajectory):
        return SourceFields(has_patch=bool(subject.patch.strip())), len(subject.patch)
    return SourceFields(), 0


def _origin(example: Example) -> Origin:
    return Origin(str(example.meta["source"]), int(example.meta["row"]))


def _skip(example: Example, subject: Subject, reason: str, stage: str, detail: str) -> Skip:
    fields, patch_len = _source_fields(subject)
    return Skip(
        instance_id=example.instance_id,
        reason=reason,
        source_fields=fields,
        patch_len=patch_len,
        stage=stage,
        origin=_origin(example),
        detail=detail,
    )


def skip_of(row: PreparedRow, reason: str, stage: str, detail: str) -> Skip:
    """Return the skip of a row that an index stage does not keep."""
    return Skip(
        instance_id=row.instance_id,
        reason=reason,
        source_fields=row.source_fields,
        patch_len=row.patch_len,
        stage=stage,
        origin=row.origin,
        detail=detail,
    )


def lines_of(part: PreparedPart) -> Iterator[tuple[PreparedRow | Skip, bytes]]:
    """Yield each row with its line, and each skip with none."""
    start = 0
    for row in part.rows:
        if isinstance(row, Skip):
            yield row, b""
        else:
            yield row, part.lines[start : start + row.line_bytes]
            start += row.line_bytes
