"""Reading single fields of foreign rows: the right type, or a DataError that names the key."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.jsonl import loads_strict, type_name
from swe_scaffold.labels import label_outcome, read_label, read_outcome
from swe_scaffold.strict_json import MAX_DEPTH
from swe_scaffold.terminal import show
from swe_scaffold.types import SpeedrunLabel

EXTRA_KEYS = (
    "operator",
    "validated",
    "validation",
    "message_source",
    "language",
    "version",
    "category",
    "difficulty",
    "source_path",
    "function",
    "predicted_by",
    "sample",
)
OUTCOME_KEYS = (
    "label",
    "resolved",
    "outcome",
    "is_resolved",
    "success",
    "pass_rate",
    "turns",
    "response_tokens",
)
MAX_EXTRA_CHARS = 200
# Arguments and tools sit some levels down in a built row, which must stay within MAX_DEPTH itself.
MAX_VALUE_DEPTH = MAX_DEPTH - 16
MAX_ID_CHARS = 300
# SWE-bench names a task owner__name-123, SWE-smith owner__name.1a2b3c4d.what
_MIRROR = re.compile(r"swesmith/([\w-]+?)__((?:(?!__)[\w.-])+)\.[0-9a-f]{8}", re.ASCII)
_ID = re.compile(r"([\w-]+?)__((?:(?!__)[\w.-])+?)(?:-\d+|\.[0-9a-f]{8}\..+)", re.ASCII)


def text(row: Mapping[str, Any], key: str, where: str = "") -> str:
    """Return a text field; absent and null are empty.

    Raises:
        DataError: Any other type.
    """
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}{key} is {type_name(value)}, not text")
    return value


def first_text(row: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return the first of several fields that is not blank; empty if all are."""
    return next((value for key in keys if (value := text(row, key)).strip()), "")


def objects(row: Mapping[str, Any], key: str, where: str = "") -> list[Mapping[str, Any]]:
    """Return a list of objects, given as such or as JSON text; absent, null and blank are empty.

    Raises:
        DataError: Anything else.
    """
    value = row.get(key)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = parse_text(value, f"{where}{key}")
    if not isinstance(value, list):
        raise DataError(f"{where}{key} is {type_name(value)}, not a list")
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise DataError(f"{where}{key}[{index}] is {type_name(item)}, not an object")
    return value


def parse_text(value: str, key: str) -> Any:
    """Parse a field that holds JSON as text.

    Raises:
        DataError: It does not.
    """
    try:
        return loads_strict(value, "", max_depth=MAX_VALUE_DEPTH)
    except DataError as error:
        raise DataError(f"{key}: {error.message}") from None


def plain_json(value: Any, key: str, *, depth: int = MAX_VALUE_DEPTH) -> Any:
    """Return `value` if it is JSON all through.

    Raises:
        DataError: A date, bytes, NaN or the like, or nested too deeply.
    """
    if depth == 0:
        raise DataError(f"{key} is nested deeper than {MAX_VALUE_DEPTH}")
    if isinstance(value, Mapping):
        return {name: plain_json(item, key, depth=depth - 1) for name, item in value.items()}
    if isinstance(value, list):
        return [plain_json(item, key, depth=depth - 1) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise DataError(f"{key} holds {show(value, width=40)}, which JSON cannot say")


def extra(row: Mapping[str, Any], keys: Sequence[str] = EXTRA_KEYS) -> dict[str, Any]:
    """Return the small known columns that travel along; long or structured ones stay behind."""
    return {key: row[key] for key in keys if key in row and _is_small(row[key])}


def repository(row: Mapping[str, Any]) -> str:
    """Return `owner/name`: the field, with `org` for a missing owner, else what the id says.

    SWE-smith's mirrors, `swesmith/owner__name.1a2b3c4d`, are the repositories they were made of.
    """
    repo, owner = text(row, "repo"), text(row, "org")
    if mirror := _MIRROR.fullmatch(repo[:MAX_ID_CHARS]):
        return f"{mirror[1]}/{mirror[2]}"
    if repo:
        return f"{owner}/{repo}" if owner and "/" not in repo else repo
    instance_id = text(row, "instance_id")
    match = _ID.fullmatch(instance_id) if len(instance_id) <= MAX_ID_CHARS else None
    return f"{match[1]}/{match[2]}" if match else ""


def explicit_label(row: Mapping[str, Any]) -> SpeedrunLabel | None:
    """Return the label a row itself gives, `success`/`failure` or true/false; None without one."""
    value = row.get("label")
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return SpeedrunLabel.SUCCESS if value else SpeedrunLabel.FAILURE
    return read_label(value)


def label_of(row: Mapping[str, Any], answer: str) -> SpeedrunLabel:
    """Return the row's label, or judge its outcome fields and whether there is an answer."""
    return explicit_label(row) or label_outcome(
        read_outcome(not_blank(row)), has_answer=bool(answer.strip())
    )


def not_blank(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome fields of a row that hold something."""
    return {key: row[key] for key in OUTCOME_KEYS if row.get(key) not in (None, "")}


def _is_small(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= MAX_EXTRA_CHARS
    return isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
