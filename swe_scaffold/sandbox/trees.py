"""What a tree holds, as one hash: every file, link and mode of it, so that a change is seen."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A tree at one moment.

    Attributes:
        sha256: Of all entries: path, kind, mode, and content or target.
        files: Regular files.
        size: Bytes of them.
        unread: Entries that could not be read; that they are there counts, not what is in them.
        pipes: Named pipes.
        sockets: Unix sockets.
        devices: Devices.
    """

    sha256: str
    files: int
    size: int
    unread: int
    pipes: tuple[bytes, ...]
    sockets: tuple[bytes, ...]
    devices: tuple[bytes, ...]
    entries: Mapping[bytes, bytes] = field(repr=False)

    def changes(self, later: Snapshot) -> list[str]:
        """Return the paths that differ, sorted; other bytes than UTF-8 as surrogates."""
        names = self.entries.keys() | later.entries.keys()
        changed = [name for name in names if self.entries.get(name) != later.entries.get(name)]
        return sorted(os.fsdecode(name) for name in changed)


def take_snapshot(root: Path) -> Snapshot:
    """Look at a folder and all below it; no link is followed, and only regular files are opened.

    Raises:
        OSError: The folder itself cannot be listed.
    """
    top = os.fsencode(root)
    prefix = top.rstrip(b"/") + b"/"
    os.scandir(top).close()
    entries: dict[bytes, bytes] = {}
    files = size = unread = 0
    pipes, sockets, devices = [], [], []
    waiting = [top]
    while waiting:
        path = waiting.pop()
        name = path[len(prefix) :] or b"."
        try:
            info = os.lstat(path)
            known = hashlib.sha256(f"{info.st_mode:o}\0".encode())
            if stat.S_ISLNK(info.st_mode):
                known.update(os.readlink(path))
            elif stat.S_ISDIR(info.st_mode):
                with os.scandir(path) as listing:
                    waiting += [entry.path for entry in listing]
            elif stat.S_ISREG(info.st_mode):
                files += 1
                size += _read(path, known)
            elif stat.S_ISFIFO(info.st_mode):
                pipes.append(name)
            elif stat.S_ISSOCK(info.st_mode):
                sockets.append(name)
            elif info.st_rdev:
                devices.append(name)
        except OSError as error:
            unread += 1
            known = hashlib.sha256(f"unread {error.errno}".encode())
        entries[name] = known.digest()
    whole = hashlib.sha256()
    for name in sorted(entries):
        whole.update(len(name).to_bytes(8, "big") + name + entries[name])
    return Snapshot(
        sha256=whole.hexdigest(),
        files=files,
        size=size,
        unread=unread,
        pipes=tuple(sorted(pipes)),
        sockets=tuple(sorted(sockets)),
        devices=tuple(sorted(devices)),
        entries=entries,
    )


def _read(path: bytes, known: hashlib._Hash) -> int:
    """Add what a file holds, and return its size; a mebibyte of zeros is told by its absence."""
    # What is a regular file now may be a pipe when it is opened.
    place = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    offset = 0
    try:
        while chunk := _chunk(place, offset):
            if chunk == _ZEROS:
                offset = _next_data(place, offset + _CHUNK)
                continue
            known.update(offset.to_bytes(8, "big"))
            known.update(chunk)
            offset += len(chunk)
    finally:
        os.close(place)
    known.update(offset.to_bytes(8, "big"))
    return offset


def _chunk(place: int, offset: int) -> bytes:
    chunk = os.pread(place, _CHUNK, offset)
    while 0 < len(chunk) < _CHUNK and (
        more := os.pread(place, _CHUNK - len(chunk), offset + len(chunk))
    ):
        chunk += more
    return chunk


def _next_data(place: int, offset: int) -> int:
    """Return where to read on: a file may have a hole that would take days to read."""
    end = os.fstat(place).st_size
    try:
        data = os.lseek(place, offset, os.SEEK_DATA)
    except OSError as error:
        data = end if error.errno == errno.ENXIO else offset
    return max(offset, min(data, end) // _CHUNK * _CHUNK)
