"""What was made once need not be made again: files named by the hash of all that decides them.

An entry is a header (JSON) and a body. Its name is the SHA-256 of everything its content depends
on, this package's own source among it; times and paths decide nothing. What is read back is checked
against the hashes in its header; an entry that fails is removed and counts as absent. Losing the
folder loses time only, so nothing here ends a run: what cannot be kept is not kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.files import atomic_write, sha256_file
from swe_scaffold.strict_json import Malformed, encode, parse

VARIABLE = "SWE_SCAFFOLD_CACHE"
MAX_BYTES = 8 << 30
_OFF = {"off", "none", "0", "no"}
# Their answers are part of what is kept.
_LIBRARIES = ("detect-secrets", "numpy", "orjson", "pyarrow", "rensa", "tokenizers", "transformers")


@dataclass(frozen=True, slots=True)
class Cached:
    """An entry: what its header says, and the file of its body."""

    header: dict[str, Any]
    body: Path


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of entries, shared by all runs of one user.

    `max_bytes` is what `trim` leaves; entries used last stay.
    """

    folder: Path
    max_bytes: int = MAX_BYTES

    def find(self, kind: str, key: str) -> Cached | None:
        """Return the entry of this key, if it is there and whole."""
        head, body = self._paths(kind, key)
        try:
            digest, _, content = head.read_bytes().partition(b"\n")
            if hashlib.sha256(content).hexdigest().encode() != digest:
                raise Malformed("the header was changed")
            header = parse(content, max_depth=99)
            if sha256_file(body) != header["sha256"]:
                raise Malformed("the body was changed")
            os.utime(head)
        except (Malformed, EnvironmentFailure, LookupError, TypeError):
            self._drop(head, body)
            return None
        except OSError:
            return None
        return Cached(header["about"], body)

    def keep(
        self,
        kind: str,
        key: str,
        about: Mapping[str, Any],
        body: Path | bytes | Iterable[memoryview],
    ) -> None:
        """Keep an entry.

        A body that is a file is linked where the file system allows, else copied; it must not be
        written to afterwards. A body of many parts is written part by part. An older body of this
        key is replaced, not overwritten, so that whoever has it mapped keeps what it said.
        """
        head, kept = self._paths(kind, key)
        with contextlib.suppress(OSError, EnvironmentFailure, Malformed):
            head.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if isinstance(body, Path):
                take_over(body, kept)
            else:
                with atomic_write(kept, durable=False) as stream:
                    stream.writelines([body] if isinstance(body, bytes) else body)
            content = encode({"about": dict(about), "sha256": sha256_file(kept)}, max_depth=99)
            with atomic_write(head, durable=False) as stream:
                stream.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def trim(self) -> None:
        """Remove the entries that were not used for the longest time, until the rest fits."""
        with contextlib.suppress(OSError):
            entries = sorted(self._entries())
            size = sum(entry[1] for entry in entries)
            for _, own, head in entries:
                if size <= self.max_bytes:
                    break
                self._drop(head, head.with_suffix(".body"))
                size -= own

    def _paths(self, kind: str, key: str) -> tuple[Path, Path]:
        head = self.folder / kind / key[:2] / f"{key}.head"
        return head, head.with_suffix(".body")

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        for head in self.folder.glob("*/??/*.head"):
            body = head.with_suffix(".body")
            with contextlib.suppress(OSError):
                used = head.stat()
                yield used.st_mtime, used.st_size + body.stat().st_size, head

    def _drop(self, head: Path, body: Path) -> None:
        # The header first: a body alone is nothing, a header alone would be looked at again.
        for path in (head, body):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def take_over(source: Path, path: Path) -> None:
    """Let `path` have the content of `source`: the same file where that can be, else a copy.

    Raises:
        EnvironmentFailure: The disk says no.
        OSError: `source` cannot be read.
    """
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        os.link(source, path)
        return
    with source.open("rb") as content, atomic_write(path, durable=False) as stream:
        shutil.copyfileobj(content, stream, 1 << 20)


def user_cache(environment: Mapping[str, str] = os.environ) -> Cache | None:
    """Return the user's cache; None where SWE_SCAFFOLD_CACHE is `off` or there is no place for one.

    The folder is what that variable names, else `swe-scaffold` where the system keeps caches.
    """
    named = environment.get(VARIABLE, "").strip()
    if named.lower() in _OFF:
        return None
    with contextlib.suppress(OSError, RuntimeError):
        base = environment.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        folder = Path(named or Path(base) / "swe-scaffold").absolute()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return Cache(folder)
    return None


@functools.cache
def code_version() -> str:
    """Return the SHA-256 of this package's source and of what it is run with."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            digest.update(f"{name}=={importlib.metadata.version(name)}\0".encode())
    digest.update(repr(sys.version_info[:2]).encode())
    return digest.hexdigest()


def key_of(*parts: object) -> str:
    """Return the hex SHA-256 of values that JSON can hold, in order."""
    # Names of files may hold lone surrogates, which only escapes can say.
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
