"""Hugging Face hub data sets: the files of one split, read like local files.

Which files make up a split is read from the repository's own card, else from the file names.
Contact, cache and offline mode are left to `swe_scaffold.hub`; no loading script is ever run.
"""

from __future__ import annotations

import fnmatch
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.errors import DataError, EnvironmentFailure, MissingExtra, ScaffoldError
from swe_scaffold.hub import is_offline, resolve_snapshot
from swe_scaffold.jsonl import loads_strict
from swe_scaffold.sources.base import DataFile, Source
from swe_scaffold.sources.local import (
    READ,
    is_data_name,
    open_file,
    pick_split,
    split_note,
    split_of,
    suffix_of,
)
from swe_scaffold.terminal import show, wants_style

CONTACT_SECONDS = 13.0
STALL_SECONDS = 30.0
_CARD = "README.md"
_MAX_CARD_BYTES = 1 << 20
_NO_NETWORK_HINT = (
    "fetch its data files elsewhere and name the file or folder instead, for example: "
    "--dataset path/to/tasks.jsonl (also JSON, CSV, Parquet)"
)
_SCRIPT_HINT = "if the hub converted it, try: --revision refs/convert/parquet"
# One data set often comes in several formats; the first of these that is there is read.
_PREFERRED = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".arrow")


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What is known of the repository at one commit: its files, and their SHA-256 where listed."""

    folder: Path
    commit: str
    files: Mapping[str, str]
    complete: bool


def open_hub(
    name: str, *, split: str | None, revision: str | None, offline: bool, format: str
) -> Source:
    """Fetch the files of one split, or take them from the cache, and open them.

    Raises:
        EnvironmentFailure: Neither the hub nor the cache has them; within 15 seconds.
        DataError: The repository holds no data files, or no such split.
    """
    snapshot = _contact(name, revision, offline)
    splits = _splits(name, snapshot)
    chosen = pick_split(name, list(splits), split)
    wanted = splits[chosen]
    notes = [f"{split_note(name, chosen, list(splits))}, revision {snapshot.commit[:12]}"]
    if not snapshot.complete:
        _require_shards(name, wanted)
        notes.append(f"{name} comes from the cache, without a look at the hub")
    folder = _fetch(name, snapshot, wanted, offline)
    files = [_open(folder, name, file, snapshot, format) for file in wanted]
    return Source(name, files, notes)


def _open(folder: Path, name: str, file: str, snapshot: _Snapshot, format: str) -> DataFile:
    opened = open_file(folder / file, f"{name}/{file}", format)
    opened.expected_sha256 = snapshot.files[file]
    return opened


def _contact(name: str, revision: str | None, offline: bool) -> _Snapshot:
    """Find the commit and its file list; the card is all that is fetched."""

    def resolve() -> Path:
        return _resolve(name, [_CARD], offline, revision)

    _hush(bars=False)
    try:
        folder = _supervised(resolve, name, CONTACT_SECONDS, lambda: 0)
    except EnvironmentFailure as failure:
        try:
            folder = _resolve(name, [_CARD], True, revision)
        except EnvironmentFailure:
            raise failure from None
    commit = folder.name
    listing = folder.parent.parent / "trees" / f"{commit}.json"
    if listing.is_file():
        tree = loads_strict(listing.read_bytes(), str(listing))
        files = {path: str(entry.get("lfs_sha256") or "") for path, entry in tree["files"].items()}
        return _Snapshot(folder, commit, files, complete=True)
    found = (file for file in folder.rglob("*") if file.is_file())
    names = {file.relative_to(folder).as_posix(): "" for file in found}
    return _Snapshot(folder, commit, names, complete=False)


def _fetch(name: str, snapshot: _Snapshot, files: Sequence[str], offline: bool) -> Path:
    if all((snapshot.folder / file).is_file() for file in files):
        return snapshot.folder
    store = snapshot.folder.parent.parent

    def resolve() -> Path:
        return _resolve(name, [_literal(file) for file in files], offline, snapshot.commit)

    _hush(bars=wants_style(sys.stderr))
    folder = _supervised(resolve, name, STALL_SECONDS, lambda: _bytes_below(store))
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise _failure(name, f"the cache lacks {show(missing[0], width=80)}")
    return folder


def _resolve(name: str, patterns: list[str], offline: bool, revision: str | None) -> Path:
    try:
        return resolve_snapshot(
            name,
            repo_type="dataset",
            patterns=patterns,
            offline=is_offline(offline),
            revision=revision,
        )
    except MissingExtra:
        raise MissingExtra("huggingface_hub", "data") from None
    except EnvironmentFailure as error:
        raise EnvironmentFailure(error.message, hint=_NO_NETWORK_HINT) from None


def _hush(*, bars: bool) -> None:
    """Keep the library's own messages off the screen, and its bars where they could not move."""
    try:
        from huggingface_hub import utils
    except ImportError:
        return
    utils.logging.set_verbosity_error()
    if not bars:
        utils.disable_progress_bars()
    elif not os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        utils.enable_progress_bars()


def _supervised(
    work: Callable[[], Path], name: str, patience: float, progress: Callable[[], int]
) -> Path:
    """Run `work` in a thread; give up when `progress` stands still for `patience` seconds.

    The library retries for most of a minute and a hanging name look-up obeys no timeout at all.
    """
    outcome: list[Path | ScaffoldError] = []

    def run() -> None:
        try:
            outcome.append(work())
        except ScaffoldError as error:
            outcome.append(error)
        except Exception as error:  # noqa: BLE001  any failure becomes one line for the user
            reason = str(error).strip().split("\n")[0]
            outcome.append(_failure(name, show(reason, width=160) or type(error).__name__))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    last, since = progress(), time.monotonic()
    while thread.is_alive() and time.monotonic() - since < patience:
        thread.join(0.5)
        if (now := progress()) != last:
            last, since = now, time.monotonic()
    if not outcome:
        raise _failure(name, f"the hub sends nothing for {patience:.0f} s")
    if isinstance(outcome[0], ScaffoldError):
        raise outcome[0]
    return outcome[0]


def _failure(name: str, reason: str) -> EnvironmentFailure:
    return EnvironmentFailure(f"cannot get {name}: {reason}", hint=_NO_NETWORK_HINT)


def _splits(name: str, snapshot: _Snapshot) -> dict[str, list[str]]:
    """Map split names, in the repository's order, to their data files."""
    names = sorted(file for file in snapshot.files if is_data_name(file.rsplit("/", 1)[-1]))
    # The names are the hub's word: hidden, absolute and climbing ones are not looked at.
    visible = [f for f in names if all(part and part[0] != "." for part in f.split("/"))]
    splits = _card_splits(snapshot.folder / _CARD, visible) or _named_splits(visible)
    if not splits:
        scripts = any(file.endswith(".py") for file in snapshot.files)
        raise DataError(
            "the data set holds no files in a format that is read",
            where=name,
            hint=_SCRIPT_HINT if scripts else f"read are {READ}",
        )
    return splits


def _named_splits(files: Sequence[str]) -> dict[str, list[str]]:
    suffix = next((one for one in _PREFERRED if any(suffix_of(f) == one for f in files)), "")
    splits: dict[str, list[str]] = {}
    for file in files:
        if suffix_of(file) == suffix:
            splits.setdefault(split_of(file) or "train", []).append(file)
    return splits


def _card_splits(card: Path, files: Sequence[str]) -> dict[str, list[str]]:
    """Read the splits of the card's default configuration; empty where it names none."""
    configs = _card_data(card).get("configs")
    if not isinstance(configs, list):
        return {}
    known = [config for config in configs if isinstance(config, dict)]
    chosen = next(
        (c for c in known if c.get("default") is True),
        next((c for c in known if c.get("config_name") == "default"), known[0] if known else {}),
    )
    splits: dict[str, list[str]] = {}
    for split, patterns in _patterns(chosen.get("data_files")):
        matched = [f for f in files if any(_matches(f, pattern) for pattern in patterns)]
        if matched:
            splits[split] = matched
    return splits


def _card_data(card: Path) -> dict[str, Any]:
    try:
        if not card.is_file() or card.stat().st_size > _MAX_CARD_BYTES:
            return {}
        import huggingface_hub

        data = huggingface_hub.metadata_load(card)
    except Exception:  # noqa: BLE001  a card that cannot be read says nothing of splits
        return {}
    return data if isinstance(data, dict) else {}


def _patterns(value: object) -> list[tuple[str, list[str]]]:
    """Bring the card's ways to write `data_files` to (split, patterns)."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, dict):
        value = [{"split": split, "path": path} for split, path in value.items()]
    if not isinstance(value, list):
        return []
    if all(isinstance(item, str) for item in value):
        return [("train", list(value))]
    found = []
    for item in value:
        if isinstance(item, dict) and isinstance(item.get("split"), str):
            paths = item.get("path")
            paths = [paths] if isinstance(paths, str) else paths
            if isinstance(paths, list):
                found.append((item["split"], [path for path in paths if isinstance(path, str)]))
    return found


def _matches(file: str, pattern: str) -> bool:
    pattern = pattern.removeprefix("./")
    if not any(mark in pattern for mark in "*?["):
        return file == pattern or file.startswith(pattern.rstrip("/") + "/")
    # In a card `*` stays within a folder and `**` does not; fnmatch knows only the latter.
    same_depth = "**" in pattern or file.count("/") == pattern.count("/")
    return same_depth and fnmatch.fnmatchcase(file, pattern.replace("**/", "*"))


def _require_shards(name: str, files: Sequence[str]) -> None:
    """Refuse a cached split of which numbered files are missing."""
    for file in files:
        head, found, total = file.rpartition("-of-")
        number = total.split(".")[0]
        if found and number.isdigit():
            have = sum(1 for other in files if other.startswith(head[:-5]) and found in other)
            if have < int(number):
                raise _failure(name, f"the cache holds {have} of {int(number)} files")


def _literal(file: str) -> str:
    return "".join(f"[{mark}]" if mark in "*?[" else mark for mark in file)


def _bytes_below(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.lstat().st_size
        except OSError:
            continue
    return total
