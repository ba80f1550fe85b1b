"""A base model's files, read and hashed beside other work; without torch, which takes a second.

Nothing is judged here: what cannot be read is left to those who need it, and they say why.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from swe_scaffold.errors import ScaffoldError
from swe_scaffold.files import sha256_file
from swe_scaffold.hub import resolve_model_folder

# Between two chunks the interpreter is waited for; within one it is not needed.
_CHUNK_BYTES = 1 << 24
_CONFIG, _WHOLE, _SHARDS = "config.json", "model.safetensors", "model-*.safetensors"
Sha256 = Callable[[Path], str]


@contextlib.contextmanager
def hashing_ahead(name: str) -> Iterator[Sha256]:
    """Hash a base's files that are on this machine; yield what `sha256_file` would return of each.

    A file that was changed since, or that was not here, is hashed when it is asked for. Leaving the
    block ends the reading.

    Args:
        name: Folder or hub id.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1, "hashing-ahead") as beside:
        hashed = beside.submit(_hash_files, name, stop)

        def sha256(path: Path) -> str:
            with contextlib.suppress(OSError):
                if digest := hashed.result().get(_state(path)):
                    return digest
            return sha256_file(path)

        try:
            yield sha256
        finally:
            stop.set()


def _hash_files(name: str, stop: threading.Event) -> dict[tuple[str, int, int], str]:
    """Return the hash of each file by its name, size and time of change."""
    hashes: dict[tuple[str, int, int], str] = {}
    with contextlib.suppress(OSError, ValueError, ScaffoldError):
        folder = resolve_model_folder(name, patterns=(_CONFIG, _WHOLE, _SHARDS), offline=True)
        whole = folder / _WHOLE
        weights = [whole] if whole.is_file() else sorted(folder.glob(_SHARDS))
        for path in (folder / _CONFIG, *weights):
            state = _state(path)
            if digest := _hash(path, stop):
                hashes[state] = digest
    return hashes


def _state(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path), found.st_size, found.st_mtime_ns


def _hash(path: Path, stop: threading.Event) -> str | None:
    """Return the hex SHA-256 of a file, or None where it was stopped."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as stream:
        while not stop.is_set():
            if not (size := stream.readinto(buffer)):
                return digest.hexdigest()
            digest.update(buffer[:size])
    return None
