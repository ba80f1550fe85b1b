"""What rows of tasks say about tests, beside what makes a `Task`: names of tests, a planted bug."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swe_scaffold.jsonl import BadLine
from swe_scaffold.sources import open_source
from swe_scaffold.sources.tasks import REVERSED

FAIL, PASS = "FAIL_TO_PASS", "PASS_TO_PASS"
_COLUMNS = ("source_path", "mutant_sha256")


@dataclass(frozen=True, slots=True)
class NamedTests:
    """The tests a row names, and the file in which a bug was planted, with the hash it then has.

    `fault` says why the names cannot be used.
    """

    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    source_path: str = ""
    mutant_sha256: str = ""
    fault: str = ""


def read_named_tests(
    name: str, *, split: str | None = None, offline: bool = False
) -> dict[str, NamedTests]:
    """Read the rows of a source of tasks once more; of two with one id the first counts.

    Rows without an id name no tests that could be told apart, and are left out.

    Raises:
        DataError: It cannot be read.
    """
    found: dict[str, NamedTests] = {}
    for file in open_source(name, split=split, offline=offline).files:
        for line in file.rows():
            if isinstance(line, BadLine):
                continue
            instance_id = line.value.get("instance_id")
            if isinstance(instance_id, str) and instance_id not in found:
                found[instance_id] = _named(line.value)
    return found


def _named(row: Mapping[str, Any]) -> NamedTests:
    lists = [_names(row.get(key)) for key in (FAIL, PASS)]
    source_path, mutant = (value if isinstance(value := row.get(k), str) else "" for k in _COLUMNS)
    fault = f"{FAIL} or {PASS} is no list of names" if None in lists else ""
    if mutant and row.get(REVERSED):
        fault = "a planted bug whose patch is reversed"
    return NamedTests(lists[0] or (), lists[1] or (), source_path, mutant, fault)


def _names(value: object) -> tuple[str, ...] | None:
    """Return a list of names, plain or as JSON; None for what is neither."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError):
            return None
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return None
    return tuple(dict.fromkeys(value))
