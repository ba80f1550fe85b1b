"""The only room that writes files: atomically, and one writer per folder.

A file appears whole or not at all (temporary file in the same folder, flush, fsync, rename, fsync
of the folder), a folder likewise (`atomic_folder`). No symbolic link is followed on the way out: a
link that stands at the destination is replaced. What the bytes mean is left to the rooms above.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from swe_scaffold.errors import EnvironmentFailure, IntegrityError, LockedError, UsageError

TEMPORARY_PREFIX = ".tmp-"
_ASIDE = re.compile(r"\.tmp-~old~[0-9a-f]{16}~(.+)", re.DOTALL)
_SPACE, _ACCESS = "free some space or choose another place", "check the permissions of its folder"
_PROBLEMS = {
    errno.ENOSPC: ("no space left on device", _SPACE),
    errno.EDQUOT: ("disk quota exceeded", _SPACE),
    errno.EFBIG: ("file size limit reached", _SPACE),
    errno.EROFS: ("the file system is read-only", "choose another place"),
    errno.EACCES: ("permission denied", _ACCESS),
    errno.EPERM: ("operation not permitted", _ACCESS),
    errno.ENOTDIR: ("part of this path is a file, not a folder", ""),
    errno.EEXIST: ("a file is in the way of this folder", ""),
    errno.EISDIR: ("is a folder, not a file", ""),
    errno.ELOOP: ("a symbolic link is in the way", ""),
}


@contextlib.contextmanager
def atomic_write(path: Path | str, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` when the block ends well; otherwise nothing changes.

    Errors of the block pass through. What can be made again need not be `durable`, forced to disk.

    Raises:
        EnvironmentFailure: No space, no permission or any other failure of the file system.
    """
    path = Path(path)
    with disk_errors(path):
        _require_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        output = _Output(temporary, path)
        with io.BufferedWriter(output, 1 << 18) as stream:
            try:
                yield stream
                stream.flush()
                if durable:
                    with disk_errors(path):
                        os.fsync(output.fileno())
            except BaseException:
                output.given_up = True
                raise
        with disk_errors(path):
            temporary.replace(path)
            if durable:
                _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


class _Output(io.FileIO):
    """A new file whose failures name `path`; mode bits come from the umask."""

    def __init__(self, temporary: Path, path: Path) -> None:
        # Once given up, what a buffer still holds is dropped instead of failing once more.
        self._path, self.given_up = path, False
        with disk_errors(path):
            super().__init__(_create(temporary, os.O_WRONLY | os.O_EXCL), "wb")

    def write(self, data: Any, /) -> int:
        if self.given_up:
            return memoryview(data).nbytes
        with disk_errors(self._path):
            return super().write(data)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` atomically."""
    with atomic_write(path) as stream:
        stream.write(data)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 atomically, line ends untouched."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: Any) -> None:
    """Write strict, indented JSON (keys in the given order) and a final newline, atomically."""
    write_bytes(path, _json_bytes(value, indent=2))


class AppendLog:
    """A file of JSON lines that grows: each line is whole and handed to the system at once.

    A killed process loses at most the line under way, a power failure what came after `sync`.
    `keep` is the number of leading bytes that stay when the log is reopened (a resumed run drops
    what came after its checkpoint); None keeps every whole line.

    Raises:
        IntegrityError: The file is shorter than `keep`, or no line ends there.
        EnvironmentFailure: It cannot be opened or written.
    """

    def __init__(self, path: Path, *, keep: int | None = 0) -> None:
        self.path = path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = io.FileIO(_create(path, os.O_RDWR), "r+b")
            try:
                self._size = self._whole_lines(keep)
                self._stream.truncate(self._size)
                self._stream.seek(self._size)
            except BaseException:
                self._stream.close()
                raise

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line; a line that does not fit is taken back."""
        data = _json_bytes(row)
        rest = memoryview(data)
        with disk_errors(self.path):
            try:
                while rest:
                    rest = rest[self._stream.write(rest) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._stream.truncate(self._size)
                    self._stream.seek(self._size)
                raise
        self._size += len(data)

    def sync(self) -> int:
        """Force the lines to disk and return the file's size in bytes."""
        with disk_errors(self.path):
            os.fsync(self._stream.fileno())
            _sync_folder(self.path.parent)
        return self._size

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _whole_lines(self, keep: int | None) -> int:
        data = self._stream.read() if keep != 0 else b""
        if keep is None:
            return data.rfind(b"\n") + 1
        _require_line_end(data, keep, self.path)
        return keep


def require_lines(path: Path, size: int) -> None:
    """Make sure that a log's first `size` bytes are there, and whole lines.

    Raises:
        IntegrityError: They are not.
    """
    with disk_errors(path):
        data = path.read_bytes() if size and path.is_file() else b""
    _require_line_end(data, size, path)


def _require_line_end(data: bytes, size: int, path: Path) -> None:
    if len(data) < size:
        problem = f"has {len(data)} bytes, {size} were recorded"
    elif size and data[size - 1] != ord("\n"):
        problem = f"no line ends at byte {size}"
    else:
        return
    raise IntegrityError(problem, where=str(path))


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its name when the block ends well.

    An older folder of that name is moved aside, replaced and only then removed; where a kill falls
    between the two, `remove_leftovers` puts it back. All is forced to disk before the rename.
    """
    temporary = _beside(path)
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            for file in (*sorted(temporary.rglob("*")), temporary):
                _sync(file)
            _take_place(temporary, path)
    except EnvironmentFailure as error:
        # People know what the block wrote by the name it would have had.
        place = error.where.replace(str(temporary), str(path))
        raise EnvironmentFailure(error.message, where=place, hint=error.hint) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(new: Path, path: Path) -> None:
    if not os.path.lexists(path):
        new.rename(path)
        _sync_folder(path.parent)
        return
    aside = path.with_name(f"{TEMPORARY_PREFIX}~old~{os.urandom(8).hex()}~{path.name}")
    path.rename(aside)
    try:
        new.rename(path)
    finally:
        if not os.path.lexists(path):
            aside.rename(path)
    _sync_folder(path.parent)
    with contextlib.suppress(
        EnvironmentFailure
    ):  # the new one stands: `remove_leftovers` tries again
        remove(aside)


def remove(path: Path) -> None:
    """Remove a file or folder if it is there; a folder is never seen half removed."""
    with disk_errors(path):
        if path.is_dir() and not path.is_symlink():
            hidden = path.name.startswith(TEMPORARY_PREFIX)
            shutil.rmtree(path if hidden else path.rename(_beside(path)))
        else:
            path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> list[str]:
    """Remove temporary files that a killed run left in `folder`; call only under its lock.

    A folder that `atomic_folder` was about to replace takes its name again.

    Returns:
        The names that were removed.
    """
    names = []
    for path in sorted(folder.glob(f"{TEMPORARY_PREFIX}*")):
        aside = _ASIDE.fullmatch(path.name)
        if aside and not os.path.lexists(folder / aside[1]):
            with disk_errors(path):
                path.rename(folder / aside[1])
        else:
            remove(path)
            names.append(path.name)
    return names


@contextlib.contextmanager
def folder_lock(folder: Path, *, name: str = ".lock") -> Iterator[None]:
    """Hold `folder` for one writer; the lock dies with its process.

    Raises:
        LockedError: Another process holds it; the message has its pid and start time.
        EnvironmentFailure: The folder cannot be made or written.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _create(folder / name, os.O_RDWR)
    try:
        with disk_errors(folder / name):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _locked(folder, os.pread(handle, 200, 0)) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"pid {os.getpid()}, since {utc_now()}".encode(), 0)
        yield
    finally:
        os.close(handle)


def _locked(folder: Path, holder: bytes) -> LockedError:
    name = holder.decode("utf-8", "replace").strip() or "unknown"
    return LockedError(
        f"another run holds this folder ({name})",
        where=str(folder),
        hint="wait for it to end, or choose another output folder",
    )


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with disk_errors(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_writable(folder: Path) -> None:
    """Make sure that `folder` can be created and written, before any work is done.

    Raises:
        EnvironmentFailure: It cannot.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = _beside(folder / "probe")
        os.close(_create(probe, os.O_WRONLY | os.O_EXCL))
        probe.unlink()


def require_different(output: Path, inputs: list[Path]) -> None:
    """Refuse an output path that is one of the inputs.

    Raises:
        UsageError: It is.
    """
    for path in inputs:
        with disk_errors(path):
            same = path.exists() and output.exists() and path.samefile(output)
        if same:
            raise UsageError("would overwrite its own input", where=str(output))


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into `EnvironmentFailure` naming `path` or the file at fault.

    Other errors pass, a broken pipe and a lost connection among them.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError):
            raise
        known = _PROBLEMS.get(error.errno)
        message, hint = known or ((error.strerror or str(error)).lower(), "")
        raise EnvironmentFailure(message, where=_place(error, path), hint=hint) from error


def _place(error: OSError, path: Path) -> str:
    """The file at fault, unless it is a temporary one or a name without its folder."""
    name = error.filename
    if not isinstance(name, str) or (os.sep not in name and Path(name) not in path.parents):
        return str(path)
    temporary = any(part.startswith(TEMPORARY_PREFIX) for part in Path(name).parts)
    return str(path) if temporary else name


def _beside(path: Path) -> Path:
    """Return an unpredictable temporary name in the same folder."""
    return path.with_name(f"{TEMPORARY_PREFIX}{path.name[:40]}-{os.urandom(8).hex()}")


def _create(path: Path, flags: int) -> int:
    """Open a file, made with the umask's mode bits where it is missing; links are not followed."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _require_replaceable(path: Path) -> None:
    """Refuse folders, devices and pipes, also behind a link: a rename would destroy them."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is not a regular file and would be replaced", str(path))


def _json_bytes(value: Any, indent: int | None = None) -> bytes:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, indent=indent)
    # Lone surrogates (file names that are not UTF-8) become JSON's own \uXXXX escapes.
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    try:
        _sync(folder)
    except OSError as error:
        # Some file systems refuse fsync of a folder; some folders may be written but not read.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}:
            raise
