"""The build in memory: sources -> examples -> quality -> sides -> limit, and a ledger that adds up.

read = dev + test + skipped + beyond the limit, always. Files and manifests are left to `dataset`,
Hugging Face objects to `conversations`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swe_scaffold.config import DatasetConfig
from swe_scaffold.dataset.pairs import source_fields, task_to_example
from swe_scaffold.errors import DataError, ScaffoldError, UsageError
from swe_scaffold.jsonl import encode_row
from swe_scaffold.quality.stages import StageCount, StageRunner, default_stages
from swe_scaffold.rows import example_to_row
from swe_scaffold.sources import InputFile, open_source
from swe_scaffold.splits import Assignment, Side, SplitKeys, assign
from swe_scaffold.terminal import Reporter, Track
from swe_scaffold.types import Example, Origin, Skip, SourceFields, SpeedrunLabel, Task


@dataclass(frozen=True, slots=True)
class BuiltRows:
    """What a build keeps, what it does not, and why.

    `sides` and `prompts` cover all kept rows, those beyond the limit included.
    """

    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    skips: tuple[Skip, ...]
    beyond_limit: int
    read: int
    assignment: Assignment
    sides: Mapping[str, Side]
    test_prompts: tuple[str, ...]
    dev_repos: tuple[str, ...]
    stages: tuple[StageCount, ...]
    inputs: tuple[InputFile, ...]
    notes: tuple[str, ...]

    @property
    def kept(self) -> int:
        """Rows that passed every stage, those beyond the limit included."""
        return len(self.dev) + len(self.test) + self.beyond_limit

    def reasons(self) -> dict[str, int]:
        """Number of skipped rows by reason."""
        return dict(sorted(Counter(skip.reason for skip in self.skips).items()))


def build_rows(
    config: DatasetConfig,
    *,
    sources: Sequence[str],
    offline: bool,
    reporter: Reporter,
    known: Mapping[str, Side] | None = None,
) -> BuiltRows:
    """Read, judge, split and limit the rows of all sources, in order.

    Args:
        config: Filters, split and limit.
        sources: Names as `open_source` takes them.
        offline: Ask no hub.
        reporter: Gets progress.
        known: Sides from an earlier manifest, see `splits.assign`.

    Raises:
        DataError: A source that cannot be used, or an unreadable row under `on_bad_row: stop`.
        ScaffoldError: The ledger does not add up.
    """
    if len(set(sources)) != len(sources):
        raise UsageError("a source is given twice", where=", ".join(sources))
    reading = _Reading(config)
    with reporter.progress("reading", None) as track:
        for name in sources:
            reading.read(name, offline=offline, track=track)
    keys = [SplitKeys.of(example) for example in reading.examples]
    assignment = _split(keys, config, known)
    dev, test = _limit(reading.examples, assignment.sides, config)
    built = BuiltRows(
        dev=tuple(dev),
        test=tuple(test),
        skips=tuple(reading.skips),
        beyond_limit=len(keys) - len(dev) - len(test),
        read=reading.count,
        assignment=assignment,
        sides={e.instance_id: s for e, s in zip(reading.examples, assignment.sides, strict=True)},
        test_prompts=_test_prompts(keys, assignment.sides),
        dev_repos=_dev_repos(keys, assignment),
        stages=reading.runner.counts,
        inputs=tuple(reading.inputs),
        notes=(*reading.notes, *_split_notes(assignment, config)),
    )
    if built.read != built.kept + len(built.skips):
        raise ScaffoldError(
            f"the ledger does not add up: {built.read} read, {built.kept} kept, "
            f"{len(built.skips)} skipped"
        )
    return built


class _Reading:
    """Rows as they arrive: kept examples and skips in source order, and how many there were."""

    def __init__(self, config: DatasetConfig) -> None:
        self._config = config
        self.runner = StageRunner(
            default_stages(
                min_patch_chars=config.min_patch_chars, include_empty=config.include_empty
            )
        )
        self.examples: list[Example] = []
        self.skips: list[Skip] = []
        self.inputs: list[InputFile] = []
        self.notes: list[str] = []
        self.count = 0

    def read(self, name: str, *, offline: bool, track: Track) -> None:
        config = self._config
        source = open_source(name, split=config.split, revision=config.revision, offline=offline)
        for item in source:
            self.count += 1
            self._take(item)
            track.advance()
        self.inputs.extend(source.inputs)
        self.notes.extend(source.notes)

    def _take(self, item: Task | Example | Skip) -> None:
        if isinstance(item, Skip):
            self._skip(item)
            return
        task = item if isinstance(item, Task) else None
        example = task_to_example(item) if isinstance(item, Task) else _without_false_success(item)
        stage, verdict = self.runner.judge(example, task)
        if verdict.keep:
            try:
                encode_row(example_to_row(example), "")
            except DataError as error:
                self._skip(_skip(example, task, "invalid_row", "writing", error.message))
                return
            self.examples.append(example)
        else:
            self._skip(_skip(example, task, verdict.reason, stage, verdict.detail))

    def _skip(self, skip: Skip) -> None:
        if self._config.on_bad_row == "stop" and skip.reason == "invalid_row":
            place = f"{skip.origin.source}:{skip.origin.row}"
            named = skip.detail.startswith(skip.origin.source)
            raise DataError(
                skip.detail or "the row cannot be used",
                where="" if named else place,
                hint="dataset.on_bad_row skip records such rows in the skipped report instead",
            )
        self.skips.append(skip)


def _skip(example: Example, task: Task | None, reason: str, stage: str, detail: str) -> Skip:
    return Skip(
        instance_id=example.instance_id,
        reason=reason,
        source_fields=source_fields(task) if task else SourceFields(),
        patch_len=len(task.patch) if task else 0,
        stage=stage,
        origin=Origin(str(example.meta["source"]), int(example.meta["row"])),
        detail=detail,
    )


def _without_false_success(example: Example) -> Example:
    """A row without any answer shows no success, whatever it says."""
    if example.messages or example.response.strip():
        return example
    return replace(example, label=SpeedrunLabel.FAILURE)


def _split(
    keys: Sequence[SplitKeys], config: DatasetConfig, known: Mapping[str, Side] | None
) -> Assignment:
    assignment = assign(
        keys,
        dev_split=config.dev_split,
        split_by=config.split_by,
        seed=config.seed,
        known=known,
    )
    if keys and known is None and not assignment.count("dev"):
        note = "nothing is held out: the rows are too few, or all linked to each other"
        sides: tuple[Side, ...] = tuple("dev" for _ in keys)
        return replace(assignment, sides=sides, note=note, held_out_repos=())
    return assignment


def _limit(
    examples: Sequence[Example], sides: Sequence[Side], config: DatasetConfig
) -> tuple[list[Example], list[Example]]:
    """Return the first dev rows up to the limit, and test rows in proportion, in source order."""
    dev, test = (
        [example for example, own in zip(examples, sides, strict=True) if own == side]
        for side in ("dev", "test")
    )
    limit = config.max_examples
    if limit is None:
        return dev, test
    share = (1 - config.dev_split) / config.dev_split
    return dev[:limit], test[: max(1, round(limit * share))]


def _test_prompts(keys: Sequence[SplitKeys], sides: Sequence[Side]) -> tuple[str, ...]:
    hashes = {
        link.removeprefix("prompt:")
        for key, side in zip(keys, sides, strict=True)
        if side == "test"
        for link in key.links
        if link.startswith("prompt:")
    }
    return tuple(sorted(hashes))


def _dev_repos(keys: Sequence[SplitKeys], assignment: Assignment) -> tuple[str, ...]:
    if not assignment.held_out_repos:
        return ()
    return tuple(sorted({key.repo for key in keys} - set(assignment.held_out_repos)))


def _split_notes(assignment: Assignment, config: DatasetConfig) -> Iterator[str]:
    rows, test = len(assignment.sides), assignment.count("test")
    if assignment.note:
        yield assignment.note
    if not rows or config.dev_split >= 1:
        return
    if not test and not assignment.note:
        yield "the hold-out is empty: too few rows, or too many of them linked to each other"
    elif assignment.method == "repo" and abs(test / rows - (1 - config.dev_split)) > 0.03:
        yield f"whole repositories hold out {test} of {rows} rows, not {1 - config.dev_split:.0%}"


def split_record(built: BuiltRows, config: DatasetConfig) -> dict[str, Any]:
    """Return the split as a manifest keeps it; `known_sides` reads it back."""
    return {
        "method": built.assignment.method,
        "note": built.assignment.note,
        "seed": config.seed,
        "dev_split": config.dev_split,
        "held_out_repos": list(built.assignment.held_out_repos),
        "dev_repos": list(built.dev_repos),
        "content_groups": len(set(built.assignment.content_groups)),
        "assignment": dict(built.sides),
        "test_prompts": list(built.test_prompts),
    }


def known_sides(manifest: Mapping[str, Any]) -> dict[str, Side]:
    """Return the links whose side an earlier manifest decided.

    Raises:
        DataError: The manifest records no split.
    """
    split = manifest.get("split")
    assignment = split.get("assignment") if isinstance(split, Mapping) else None
    if not isinstance(split, Mapping) or not isinstance(assignment, Mapping):
        raise DataError("the manifest records no split; give the manifest of a built dataset")
    known: dict[str, Side] = {}
    for name, side in assignment.items():
        known[f"id:{name}"] = "test" if side == "test" else "dev"
    held, dev = split.get("held_out_repos") or (), split.get("dev_repos") or ()
    known.update({f"repo:{name}": "dev" for name in dev} if held else {})
    known.update({f"repo:{name}": "test" for name in held})
    known.update({f"prompt:{digest}": "test" for digest in split.get("test_prompts") or ()})
    return known
