"""The files of a commit as a folder, written from the objects of a clone.

Git itself checks nothing out: no filter, hook or attribute of the repository has a say. There is no
history beside the files, as a task's history holds what it asks for.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from swe_scaffold.errors import DataError
from swe_scaffold.files import atomic_write, disk_errors
from swe_scaffold.git import EXECUTABLE, MAX_BLOB_BYTES, REGULAR, Blob, Repository
from swe_scaffold.git.trial import is_safe_path
from swe_scaffold.process import MIB

MAX_FILE_BYTES, MAX_TREE_BYTES = 32 * MIB, 2048 * MIB
_LINK = "120000"


@dataclass(frozen=True, slots=True)
class Checkout:
    """What was written: files in the tree = `files` + `links` + all of `left_out`.

    `left_out` counts by reason: `unsafe_path`, `too_large` (over MAX_FILE_BYTES), `unreadable` (the
    clone lacks it), `in_the_way` (a file where another needs a folder). Submodules are no files.
    """

    files: int
    links: int
    left_out: Mapping[str, int]


def write_tree(repository: Repository, commit: str, folder: Path) -> Checkout:
    """Write the files of a commit into a folder that is empty.

    Raises:
        DataError: The commit cannot be listed, or is larger than MAX_TREE_BYTES.
        EnvironmentFailure: The disk says no.
    """
    tree = repository.tree(commit)
    left_out: Counter[str] = Counter()
    wanted: dict[str, Blob] = {}
    for path, blob in tree.items():
        if reason := _unwritable(path, blob, tree):
            left_out[reason] += 1
        else:
            wanted[path] = blob
    if (size := sum(blob.size for blob in wanted.values())) > MAX_TREE_BYTES:
        message = f"{commit} has {size // MIB} MiB of files, more than {MAX_TREE_BYTES // MIB}"
        raise DataError(message, where=repository.shown)
    links: dict[str, bytes] = {}
    files = 0
    for path, data in _contents(repository, wanted):
        if data is None:
            left_out["unreadable"] += 1
        elif wanted[path].mode == _LINK:
            links[path] = data
        else:
            _write(folder / path, data, executable=wanted[path].mode == EXECUTABLE)
            files += 1
    # Last, so that nothing is written through one.
    for path, target in links.items():
        with disk_errors(folder / path):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(os.fsdecode(target))
    return Checkout(files, len(links), dict(sorted(left_out.items())))


def _unwritable(path: str, blob: Blob, tree: Mapping[str, Blob]) -> str:
    if not is_safe_path(path) or blob.mode not in (REGULAR, EXECUTABLE, _LINK):
        return "unsafe_path"
    if blob.size > MAX_FILE_BYTES:
        return "too_large"
    above = path.split("/")[:-1]
    if any("/".join(above[:count]) in tree for count in range(1, len(above) + 1)):
        return "in_the_way"
    return ""


def _contents(
    repository: Repository, wanted: Mapping[str, Blob]
) -> Iterator[tuple[str, bytes | None]]:
    """Yield the content of files; those too large to be read with others one by one."""
    small = {path: blob for path, blob in wanted.items() if blob.size <= MAX_BLOB_BYTES}
    yield from zip(small, repository.read_blobs(list(small.values())), strict=True)
    for path in sorted(wanted.keys() - small.keys()):
        yield path, repository.ask("cat-file", "blob", wanted[path].id)


def _write(path: Path, data: bytes, *, executable: bool) -> None:
    with atomic_write(path, durable=False) as stream:
        stream.write(data)
    if executable:
        with disk_errors(path):
            path.chmod(0o755)
