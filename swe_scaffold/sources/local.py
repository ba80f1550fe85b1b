"""Local files and folders: which format, which files, which split.

A file's format is decided by its content, its name only where the content leaves it open. A folder
is its data files in sorted order, or one split of a `datasets.save_to_disk` folder.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from swe_scaffold.errors import DataError, UsageError
from swe_scaffold.files import disk_errors
from swe_scaffold.inputs import InputBytes, refuse_foreign
from swe_scaffold.jsonl import MAX_ROW_BYTES, loads_strict
from swe_scaffold.sources.base import DataFile, Source
from swe_scaffold.sources.codex import looks_like_codex
from swe_scaffold.sources.codex_file import CodexFile
from swe_scaffold.sources.columnar import ArrowFile, ParquetFile
from swe_scaffold.sources.text_files import CsvFile, JsonFile, JsonlFile, sniff_text
from swe_scaffold.terminal import show

FORMATS: dict[str, type[DataFile]] = {
    "jsonl": JsonlFile,
    "json": JsonFile,
    "csv": CsvFile,
    "parquet": ParquetFile,
    "arrow": ArrowFile,
}
READ = "JSON Lines, JSON, CSV (each also .gz), Parquet, Arrow"
DATA_SUFFIXES = frozenset(
    {".jsonl", ".ndjson", ".json", ".traj", ".csv", ".tsv", ".parquet", ".arrow"}
)
_METADATA = re.compile(
    r"(dataset_infos?|dataset_dict|state|package|package-lock)\.json|.*\.(manifest\.json|skipped\.jsonl)"
    # Beside the trajectories of walkthroughs: the same once more, and reports.
    r"|walkthrough\.atif\.json|walkthroughs\.jsonl?"
)
_SPLIT_NAMES = {
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_SHARD = re.compile(r"(?P<split>\w[\w.-]*?)-\d{5}-of-\d{5}")
_WORD = re.compile(
    r"(?:^|[/._\- ])(train|training|dev|validation|valid|val|test|testing|eval|evaluation)"
    r"(?=$|[/._\- \d])"
)


def open_local(name: str, path: Path, *, split: str | None, format: str) -> Source:
    """Open a file or folder that exists.

    Raises:
        DataError: No format that is read, no data files, or no such split.
    """
    if not path.is_dir():
        if split is not None:
            raise UsageError(
                "a split can be chosen of a folder or a hub data set, not of a file", where=name
            )
        return Source(name, [open_file(path, name, format)])
    if is_saved_dataset(path):
        return _open_saved(name, path, split)
    names, others = data_files(path)
    notes = [_others_note(others)] if others else []
    if not names:
        raise DataError("no data files in the folder", where=name, hint=f"read are {READ}")
    names = _of_split(name, names, split, notes)
    root = name.rstrip("/")
    files = [open_file(path / file, f"{root}/{file}", format) for file in names]
    return Source(name, files, notes)


def open_file(path: Path, shown: str, format: str = "auto") -> DataFile:
    """Choose the format of one file.

    Raises:
        DataError: It is in none that is read.
    """
    if format != "auto":
        return FORMATS[format](path, shown)
    head = _head(path, shown)
    if head.startswith(b"PAR1"):
        return ParquetFile(path, shown)
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return ArrowFile(path, shown)
    refuse_foreign(head[:512], shown)
    if looks_like_codex(head.partition(b"\n")[0]):
        return CodexFile(path, shown)
    kind = sniff_text(head, suffix_of(path.name))
    if kind is None:
        raise DataError("not in a format that is read", where=shown, hint=f"read are {READ}")
    return kind(path, shown)


def data_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of data files below a folder and of all others, sorted, none hidden."""
    data: list[str] = []
    others: list[str] = []
    with disk_errors(folder):
        for place, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            base = Path(place).relative_to(folder)
            for file in files:
                if not file.startswith("."):
                    chosen = data if is_data_name(file) else others
                    chosen.append((base / file).as_posix())
    return sorted(data), sorted(others)


def is_data_name(name: str) -> bool:
    """Say whether a file name is that of data, not of metadata or of this project's own reports."""
    return suffix_of(name) in DATA_SUFFIXES and not _METADATA.fullmatch(name)


def suffix_of(name: str) -> str:
    """Return a name's ending in lower case, `.gz` left out."""
    return PurePosixPath(name.lower().removesuffix(".gz")).suffix


def split_of(name: str) -> str:
    """Return the split that a file's path speaks of; empty if none."""
    path = PurePosixPath(name.lower())
    shard = _SHARD.match(path.name)
    if shard:
        return _SPLIT_NAMES.get(shard["split"], shard["split"])
    found = _WORD.search(path.name) or _WORD.search(path.as_posix())
    return _SPLIT_NAMES.get(found[1], found[1]) if found else ""


def pick_split(name: str, available: Sequence[str], wanted: str | None) -> str:
    """Return the wanted split, else `train`, else `dev`, else the first.

    Raises:
        DataError: The wanted one is not there.
    """
    if wanted is None:
        return next((split for split in ("train", "dev") if split in available), available[0])
    if wanted in available:
        return wanted
    raise DataError(
        f'there is no split "{show(wanted, width=40)}"',
        where=name,
        hint=f"there is: {', '.join(available)}",
    )


def split_note(name: str, split: str, available: Sequence[str]) -> str:
    """Say which split is used and which others there are."""
    others = ", ".join(other for other in available if other != split)
    return f"using split {split} of {name}" + (f" (also there: {others})" if others else "")


def near_name(path: Path) -> str:
    """Return a hint that offers an existing name close to a missing one; empty if none is."""
    try:
        siblings = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.6)
    return f"did you mean {show(path.with_name(close[0]))}?" if close else ""


def is_saved_dataset(folder: Path) -> bool:
    """Say whether `datasets.save_to_disk` wrote the folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _open_saved(name: str, path: Path, split: str | None) -> Source:
    root = name.rstrip("/")
    notes = []
    if (path / "dataset_dict.json").is_file():
        listed = _listed_splits(path / "dataset_dict.json", f"{root}/dataset_dict.json")
        there = [item for item in listed if (path / item / "state.json").is_file()]
        if not there:
            raise DataError("none of its splits is there", where=name)
        missing = [item for item in listed if item not in there]
        if missing:
            notes.append(f"{name} lists splits that are not there: {show(', '.join(missing))}")
        chosen = pick_split(name, there, split)
        notes.append(split_note(name, chosen, there))
        path, root = path / chosen, f"{root}/{chosen}"
    elif split is not None:
        raise DataError("has no splits to choose from", where=name)
    files = sorted(file.name for file in path.iterdir() if file.suffix == ".arrow")
    if not files:
        raise DataError("no Arrow files in the folder", where=root)
    return Source(name, [ArrowFile(path / file, f"{root}/{file}") for file in files], notes)


def _listed_splits(path: Path, shown: str) -> list[str]:
    with disk_errors(path):
        value = loads_strict(path.read_bytes(), shown)
    splits = value.get("splits") if isinstance(value, dict) else None
    if not isinstance(splits, list) or not all(
        isinstance(item, str) and re.fullmatch(r"\w[\w.-]*", item) for item in splits
    ):
        raise DataError("splits must be a list of names", where=shown)
    return splits


def _of_split(name: str, names: list[str], wanted: str | None, notes: list[str]) -> list[str]:
    by_split = {file: split_of(file) for file in names}
    available = sorted({split for split in by_split.values() if split})
    if wanted is None:
        if len(available) > 1:
            notes.append(
                f"read together: splits {', '.join(available)} of {name}; --split chooses one"
            )
        return names
    if not available:
        raise DataError("its file names speak of no splits", where=name)
    chosen = pick_split(name, available, wanted)
    return [file for file in names if by_split[file] == chosen]


def _others_note(others: Sequence[str]) -> str:
    shown = ", ".join(show(name, width=60) for name in others[:3])
    more = ", ..." if len(others) > 3 else ""
    noun = "file is" if len(others) == 1 else "files are"
    return f"{len(others)} other {noun} not read: {shown}{more}"


def _head(path: Path, shown: str) -> bytes:
    """Return the first line that is not blank, no longer than a row, and some bytes after it."""
    with InputBytes(path, shown=shown) as source:
        start = b""
        while not start.strip() and (line := source.stream.readline(MAX_ROW_BYTES)):
            start = line
        more: bytes = source.stream.read(4096)
        return start + more
