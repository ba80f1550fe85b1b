"""The files of a task before any patch: from a clone at its base commit, or from a folder.

Only the files that are asked for are read. What cannot be known is told apart from what is not
there, so that nobody calls a patch wrong for want of a file.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from swe_scaffold.errors import DataError
from swe_scaffold.files import disk_errors
from swe_scaffold.git import EXECUTABLE, MAX_BLOB_BYTES, REGULAR, Blob, Repository
from swe_scaffold.git.trial import is_safe_path
from swe_scaffold.mining.clones import NoCodeError, find_clone
from swe_scaffold.types import Task

_TREES = 4


@dataclass(frozen=True, slots=True)
class FilesBefore:
    """What is known of some files.

    Attributes:
        files: Content by path.
        odd: Paths that are there and cannot be used: `link`, `too_large`, `unreadable`.
        whole: Whether what is in neither certainly does not exist.
        unknown: Why nothing is known: `no_clone`, `no_commit`, `no_folder`, `unreadable`.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    unknown: str = ""

    def texts(self, paths: Iterable[str]) -> dict[str, str]:
        """Return those of some files that are UTF-8 text; what does not exist has no lines."""
        absent = set(paths) - self.files.keys() - self.odd.keys() if self.whole else ()
        found = dict.fromkeys(absent, "")
        for path, data in self.files.items():
            try:
                found[path] = data.decode("utf-8")
            except UnicodeDecodeError:
                continue
        return found


class Trees(Protocol):
    """Where the files of tasks are."""

    def read(self, task: Task, paths: Sequence[str]) -> FilesBefore:
        """Return what is known of these paths of a task."""


class ClonedTrees:
    """Files out of the clones below a folder; the last trees are remembered."""

    def __init__(self, repos: Path) -> None:
        self._repos = repos
        self._trees: OrderedDict[tuple[str, str], tuple[Repository, dict[str, Blob]]] = (
            OrderedDict()
        )

    def read(self, task: Task, paths: Sequence[str]) -> FilesBefore:
        """Return the files as they are in the task's base commit."""
        try:
            repository, tree = self._tree(task)
        except NoCodeError as problem:
            return FilesBefore(unknown=problem.reason)
        except DataError:
            return FilesBefore(unknown="unreadable")
        wanted = [path for path in _with_parents(paths) if path in tree and is_safe_path(path)]
        files: dict[str, bytes] = {}
        odd: dict[str, str] = {}
        blobs = [tree[path] for path in wanted]
        for path, blob, data in zip(wanted, blobs, repository.read_blobs(blobs), strict=True):
            if blob.mode not in (REGULAR, EXECUTABLE):
                odd[path] = "link"
            elif data is None:
                odd[path] = "too_large" if blob.size > MAX_BLOB_BYTES else "unreadable"
            else:
                files[path] = data
        return FilesBefore(files, odd, whole=True)

    def _tree(self, task: Task) -> tuple[Repository, dict[str, Blob]]:
        key = (task.repo, task.base_commit)
        if key not in self._trees:
            repository = find_clone(self._repos, task)
            self._trees[key] = repository, repository.tree(task.base_commit)
        self._trees.move_to_end(key)
        while len(self._trees) > _TREES:
            self._trees.popitem(last=False)
        return self._trees[key]


class FolderTrees:
    """Files below `FOLDER/INSTANCE_ID/`; a file that is not there is not known to be missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, task: Task, paths: Sequence[str]) -> FilesBefore:
        """Return the files that are there; no link is followed below the task's folder."""
        name = task.instance_id
        root = self._folder / name
        if "/" in name or not is_safe_path(name) or not root.is_dir():
            return FilesBefore(unknown="no_folder")
        files: dict[str, bytes] = {}
        odd: dict[str, str] = {}
        for path in filter(is_safe_path, _with_parents(paths)):
            data = _read_below(root, path)
            if isinstance(data, str):
                odd[path] = data
            elif data is not None:
                files[path] = data
        return FilesBefore(files, odd)


def _with_parents(paths: Iterable[str]) -> list[str]:
    """Return the paths and whatever might stand as a file where they need a folder."""
    found = dict.fromkeys(paths)
    for path in paths:
        found.update({str(parent): None for parent in PurePosixPath(path).parents})
    return [path for path in found if path not in (".", "/", "")]


def _read_below(root: Path, path: str) -> bytes | str | None:
    """Return a regular file's bytes, None where there is none, or why it cannot be used."""
    place = root
    mode = 0
    with disk_errors(place):
        for part in path.split("/"):
            place = place / part
            try:
                mode = os.lstat(place).st_mode
            except (FileNotFoundError, NotADirectoryError):
                return None
            if stat.S_ISLNK(mode):
                return "link"
        if stat.S_ISDIR(mode):
            return None
        if not stat.S_ISREG(mode):
            return "unreadable"
        with place.open("rb") as stream:
            data = stream.read(MAX_BLOB_BYTES + 1)
    return data if len(data) <= MAX_BLOB_BYTES else "too_large"
