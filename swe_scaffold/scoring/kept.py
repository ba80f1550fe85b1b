"""What runs of tests showed, kept from one command to the next by the hash of what decides it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swe_scaffold.cache import Cache
from swe_scaffold.files import AppendLog
from swe_scaffold.jsonl import JsonlReader, Line
from swe_scaffold.scoring.verdicts import Check, Verdict, read_check, read_verdict

_KIND = "execution"


class Kept:
    """What was found before, by key: in the log beside the report and, of tasks, in the cache."""

    def __init__(self, path: Path, cache: Cache | None) -> None:
        self._cache = cache
        self._found: dict[tuple[str, str], Mapping[str, Any]] = {}
        if path.is_file():
            for line in JsonlReader(path):
                # A line that a killed process left half-written is dropped by the log.
                value = line.value if isinstance(line, Line) else {}
                kind, key, found = (value.get(name) for name in ("kind", "key", "found"))
                if isinstance(kind, str) and isinstance(key, str) and isinstance(found, Mapping):
                    self._found[kind, key] = found
        self._log = AppendLog(path, keep=None)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def check(self, key: str) -> Check | None:
        """Return what is known of a task."""
        found = self._found.get(("check", key))
        if found is None and self._cache and (entry := self._cache.find(_KIND, key)):
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(entry.body.read_bytes())
        with contextlib.suppress(TypeError):
            return None if found is None else read_check(found)
        return None

    def verdict(self, key: str) -> Verdict | None:
        """Return what is known of a prediction."""
        found = self._found.get(("verdict", key))
        with contextlib.suppress(TypeError):
            return None if found is None else read_verdict(found)
        return None

    def add(self, kind: str, key: str, found: Check | Verdict) -> None:
        """Keep what was found."""
        value = found.as_dict()
        self._log.append({"kind": kind, "key": key, "found": value})
        if kind == "check" and self._cache:
            body = json.dumps(value, allow_nan=False).encode("ascii")
            self._cache.keep(_KIND, key, {}, body)
