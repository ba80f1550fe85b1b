"""Built rows as Hugging Face datasets, and a cache of them on disk.

Only this room of the data side needs the `datasets` package; it is imported where it is used.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.config import DatasetConfig
from swe_scaffold.dataset.building import build_rows
from swe_scaffold.errors import IntegrityError, MissingExtra, UsageError
from swe_scaffold.files import atomic_folder
from swe_scaffold.rows import row_to_example
from swe_scaffold.sources.examples import read_examples
from swe_scaffold.splits import SplitKeys, assign
from swe_scaffold.terminal import SILENT, Reporter
from swe_scaffold.types import Example, Origin

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("instance_id", "repo", "prompt", "response", "response_source", "label")
_MARKER = "dataset_dict.json"


@dataclass(frozen=True, slots=True)
class DatasetSplit:
    """The dev (training) and test (hold-out) rows as Hugging Face datasets."""

    dev: Dataset
    test: Dataset


class SpeedrunDatasetBuilder:
    """Splits a JSONL file and keeps the result in a `save_to_disk` folder.

    The cache knows nothing of the file it came from: name another `cache_path` for other rows.

    Args:
        cache_path: Folder of the cache.
        seed: Seed of the split's hash.
    """

    def __init__(self, cache_path: Path | str, seed: int = 42) -> None:
        self.cache_path, self.seed = Path(cache_path), seed

    def from_jsonl(self, path: Path | str) -> DatasetSplit:
        """Read prompt/response (or chat) rows and hold a tenth of their content groups out.

        Labels that rows carry stay as they are; rows without one are labelled.

        Raises:
            DataError: The file cannot be read, or the first bad row.
        """
        examples = read_examples(Path(path)).examples
        keys = [SplitKeys.of(example) for example in examples]
        sides = assign(keys, dev_split=0.9, split_by="row", seed=self.seed).sides
        dev, test = (
            [example for example, own in zip(examples, sides, strict=True) if own == side]
            for side in ("dev", "test")
        )
        return DatasetSplit(dev=to_dataset(dev), test=to_dataset(test))

    def hydrate_cache(self, split: DatasetSplit) -> None:
        """Write the cache, whole or not at all.

        Raises:
            UsageError: The cache path holds something else.
        """
        taken = self.cache_path.is_dir() and any(self.cache_path.iterdir())
        if self.cache_path.is_file() or (taken and not (self.cache_path / _MARKER).is_file()):
            raise UsageError(
                "holds something that is not a dataset cache", where=str(self.cache_path)
            )
        library = _datasets()
        with atomic_folder(self.cache_path) as folder:
            splits = library.DatasetDict({"dev": split.dev, "test": split.test})
            splits.save_to_disk(str(folder))

    def load_or_build(self, builder: Callable[[], DatasetSplit]) -> DatasetSplit:
        """Return the cached split, or build and cache it where there is none.

        Raises:
            IntegrityError: There is a cache, but it is damaged or has no dev and test.
        """
        if not (self.cache_path / _MARKER).is_file():
            split = builder()
            self.hydrate_cache(split)
            return split
        try:
            splits = _datasets().load_from_disk(str(self.cache_path))
            return DatasetSplit(dev=splits["dev"], test=splits["test"])
        except MissingExtra:
            raise
        except Exception as error:
            raise IntegrityError(
                f"the dataset cache is damaged: {error}",
                where=str(self.cache_path),
                hint="remove the folder to build it again",
            ) from error


def load_conversation_dataset(  # noqa: PLR0913 the public signature of the package
    name: str,
    *,
    split: str | None = None,
    dev_split: float = 0.9,
    limit: int | None = None,
    min_patch_chars: int | None = None,
    include_empty: bool = False,
    seed: int = 42,
    offline: bool = False,
    reporter: Reporter = SILENT,
) -> DatasetSplit:
    """Return a hub data set or local file as dev and test rows, as `build` would write them.

    Args:
        name: Hub id, file or folder.
        split: Split of a hub data set; None takes `train`, else `dev`, else the first.
        dev_split: Share of rows in dev; 1 leaves test empty.
        limit: Most dev rows; None keeps all.
        min_patch_chars: Skip shorter patches.
        include_empty: Keep rows without a response, labelled failure.
        seed: Seed of the split's hash.
        offline: Ask no hub.
        reporter: Gets progress.

    Raises:
        DataError: The source cannot be used.
    """
    config = DatasetConfig(
        dataset=name,
        split=split,
        dev_split=dev_split,
        max_examples=limit,
        min_patch_chars=min_patch_chars,
        include_empty=include_empty,
        seed=seed,
    )
    _datasets()
    with tempfile.TemporaryDirectory() as folder:
        built = build_rows(
            config, sources=[name], folder=Path(folder), offline=offline, reporter=reporter
        )
        dev, test = (
            [row_to_example(json.loads(line), Origin(name, 0)) for line in built.lines(rows)]
            for rows in (built.dev, built.test)
        )
    return DatasetSplit(dev=to_dataset(dev), test=to_dataset(test))


def to_dataset(examples: Sequence[Example]) -> Dataset:
    """Return examples as a Hugging Face dataset of text columns (`COLUMNS`)."""
    library = _datasets()
    features = library.Features({name: library.Value("string") for name in COLUMNS})
    values = {name: [str(getattr(example, name)) for example in examples] for name in COLUMNS}
    return library.Dataset.from_dict(values, features=features)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "data") from error
    return datasets
