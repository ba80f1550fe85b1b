"""Read the Python files of a folder, in sorted order, without tests, caches or installed packages.

Used where a tree is raw material: synthetic tasks, and text to train a small model on. Links are
never followed and only regular files are opened; what was left out is counted by reason. Nothing is
parsed, and nothing of the tree is imported or run.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swe_scaffold.errors import DataError

Include = Callable[[str], bool] | Sequence[str] | None

MAX_FILE_BYTES = 1_000_000

_TEST_FOLDERS = frozenset(("test", "tests", "idle_test"))
_JUNK_FOLDERS = frozenset(("__pycache__", "site-packages", "dist-packages", "node_modules", "venv"))
_TEST_FILES = frozenset(("conftest.py", "test.py", "tests.py"))


@dataclass(slots=True)
class ReadCounts:
    """What a reading met: files seen = files read + files skipped, by reason."""

    files_seen: int = 0
    files_read: int = 0
    files_skipped: Counter[str] = field(default_factory=Counter)
    folders_skipped: Counter[str] = field(default_factory=Counter)

    def count(self, reason: str) -> None:
        """Count a file, skipped where there is a reason."""
        self.files_seen += 1
        if reason:
            self.files_skipped[reason] += 1
        else:
            self.files_read += 1


def python_files(
    root: Path, include: Include = None, *, counts: ReadCounts | None = None
) -> Iterator[tuple[str, str]]:
    """Yield (path below `root` with forward slashes, text) of every Python file worth reading.

    The text is the file's bytes as UTF-8, unchanged (line ends and a byte order mark included).

    Args:
        root: A folder; its own path may be a link.
        include: Names of top-level packages and modules, or a predicate on the relative path.
        counts: Where to count what was seen, read and skipped.

    Raises:
        DataError: `root` is not a folder.
    """
    counts = ReadCounts() if counts is None else counts
    for relative, path in find_python_files(root, include, counts=counts):
        text, reason = read_python_file(path)
        counts.count(reason)
        if not reason:
            yield relative, text


def find_python_files(
    root: Path, include: Include = None, *, counts: ReadCounts
) -> Iterator[tuple[str, Path]]:
    """Yield (path below `root` with forward slashes, path) of every Python file, none opened yet.

    Raises:
        DataError: `root` is not a folder.
    """
    if not root.is_dir():
        hint = "give the folder that holds the packages"
        raise DataError("not a folder", where=str(root), hint=hint)
    yield from _walk(root, _predicate(include), counts)


def top_level(relative: str) -> str:
    """Name the package or module a relative path belongs to."""
    return relative.split("/", 1)[0].removesuffix(".py")


def _predicate(include: Include) -> Callable[[str], bool]:
    if include is None:
        return lambda relative: True
    if callable(include):
        return include
    names = frozenset([include] if isinstance(include, str) else include)
    return lambda relative: top_level(relative) in names


def _walk(
    root: Path, wanted: Callable[[str], bool], counts: ReadCounts
) -> Iterator[tuple[str, Path]]:
    """Yield the wanted files below `root`, sorted by path component, with a stack of our own."""
    stack = [("", root, True)]
    while stack:
        relative, path, is_folder = stack.pop()
        if not is_folder:
            if wanted(relative):
                yield relative, path
            continue
        prefix = f"{relative}/" if relative else ""
        for entry in reversed(_entries(path, counts)):
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if reason := _junk_reason(entry):
                    counts.folders_skipped[reason] += 1
                else:
                    stack.append((name, path / entry.name, True))
            elif entry.name.endswith(".py"):
                stack.append((name, path / entry.name, False))


def _entries(folder: Path, counts: ReadCounts) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        counts.folders_skipped["unreadable"] += 1
        return []


def _junk_reason(entry: os.DirEntry[str]) -> str:
    if not entry.name.isprintable():
        return "odd_name"
    if entry.name.startswith("."):
        return "hidden"
    if entry.name in _TEST_FOLDERS:
        return "tests"
    return "junk" if entry.name in _JUNK_FOLDERS else ""


def read_python_file(path: Path) -> tuple[str, str]:
    """Return (text, "") or ("", why the file is left out)."""
    name = path.name
    if not name.isprintable():
        return "", "odd_name"
    if name in _TEST_FILES or name.startswith("test_") or name.endswith("_test.py"):
        return "", "test_file"
    try:
        data, reason = regular_bytes(path)
        return data.decode("utf-8"), reason
    except OSError:
        return "", "symlink" if path.is_symlink() else "unreadable"
    except UnicodeDecodeError:
        return "", "not_utf8"


def regular_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> tuple[bytes, str]:
    """Return (bytes, "") or (b"", a reason); no link is followed and no pipe's writer waited for.

    Raises:
        OSError: It cannot be opened, a link among other reasons.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            return b"", "not_regular"
        if state.st_size > limit:
            return b"", "too_large"
        return file.read(limit), ""
