"""From a file, `--set` and flags to a checked configuration; every error names place, key, value.

Unknown and duplicate keys, "2e-4", "false" and true-as-int are refused. What a key takes is
declared in `keys` and said in words by `describing`; here is only the way there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from swe_scaffold.config.describing import (
    PAGE,
    UNKNOWN,
    default_of,
    expected,
    shown,
    unknown_hint,
    value_hint,
)
from swe_scaffold.config.keys import SpeedrunConfig
from swe_scaffold.errors import ConfigError

MAX_FILE_BYTES = 1 << 20
MAX_INTEGER = 1 << 53
# Flags whose name is not the key's.
_FLAGS = {"dataset.max_examples": "--limit", "training.output_dir": "--output"}
_DUPLICATE = object()
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
Where = Callable[[str], str]


def load_config(
    path: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> SpeedrunConfig:
    """Resolve the configuration from a file, `key.path=value` overrides and flags.

    Args:
        path: JSON file; None starts from the defaults.
        overrides: `--set` arguments; the value is JSON, or text where it is not JSON.
        flags: Dotted key to value; None values are flags that were not given.

    Raises:
        ConfigError: Unreadable file, unknown or duplicate key, wrong type or range.
    """
    tree = {} if path is None else _read_tree(path)
    origins: list[tuple[str, str]] = []

    def where(key: str) -> str:
        labels = [label for name, label in origins if _related(name, key)]
        return f"{labels[-1] if labels else path or 'defaults'}: {key}"

    _check_keys(tree, "", where)
    for text in overrides:
        key, value = _parse_override(text)
        origins.append((key, "--set"))
        _put(tree, key, value, where)
    for key, value in (flags or {}).items():
        if value is not None:
            origins.append((key, _flag(key)))
            _put(tree, key, value, where)
    return _check(tree, where)


def config_origins(
    path: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return who decided each key that is not left at its default: the file, `--set` or a flag.

    Takes what `load_config` took, once that has accepted it.
    """
    origins = dict.fromkeys(_leaves({} if path is None else _read_tree(path), ""), "file")
    for text in overrides:
        key, value = _parse_override(text)
        origins |= dict.fromkeys(_leaves(value, key), "--set")
    for key, value in (flags or {}).items():
        if value is not None:
            origins[key] = _flag(key)
    return origins


def _leaves(value: Any, key: str) -> Iterator[str]:
    """Yield the keys of the values below a group, under the names they have today."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else name)
    else:
        yield "training.dtype" if key == "training.fp16" else key


def _flag(key: str) -> str:
    return _FLAGS.get(key, f"--{key.rpartition('.')[2].replace('_', '-')}")


def check_config(tree: Mapping[str, Any], origin: str) -> SpeedrunConfig:
    """Validate a configuration tree; `origin` names it in errors.

    Raises:
        ConfigError: The first thing that is wrong, with its key path.
    """
    return _check(tree, lambda key: f"{origin}: {key}")


def _read_tree(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        tree = json.loads(text, object_pairs_hook=_mark_duplicates)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise ConfigError("is empty", where=str(path), hint="{} takes every default") from None
        problem = error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
        raise ConfigError(
            f"is not JSON: {problem} at column {error.colno}",
            where=f"{path}:{error.lineno}",
            hint="JSON has no comments, no trailing commas and no single quotes",
        ) from None
    except RecursionError:
        raise ConfigError("is nested too deeply", where=str(path)) from None
    except ValueError:  # Python's limit on the digits of an integer
        raise ConfigError("has a number with too many digits", where=str(path)) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"should be a JSON object, got {shown(tree)}", where=str(path))
    return tree


def _read_text(path: Path) -> str:
    hint = ""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) <= MAX_FILE_BYTES:
            return data.decode("utf-8-sig")
        problem = f"is larger than {MAX_FILE_BYTES >> 20} MiB, which no configuration is"
    except FileNotFoundError:
        problem, hint = "no such file", "the defaults stand in configs/speedrun.json"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
    except OSError as error:
        problem = f"cannot be read: {(error.strerror or str(error)).lower()}"
    except ValueError:
        problem = "is not a file name"
    raise ConfigError(problem, where=str(path), hint=hint)


def _mark_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # The parser knows no key paths; the mark travels to `_check_keys`, which does.
    result: dict[str, Any] = {}
    for key, value in pairs:
        result[key] = _DUPLICATE if key in result else value
    return result


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"expected key.path=value, got {shown(text)}", where="--set")
    try:
        return key, json.loads(value, object_pairs_hook=_mark_duplicates)
    except (ValueError, RecursionError):
        return key, value.strip()


def _related(name: str, key: str) -> bool:
    return f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.")


def _put(tree: dict[str, Any], key: str, value: Any, where: Where) -> None:
    """Set one key; an object given for a group of keys is merged into it."""
    if isinstance(value, dict) and isinstance(default_of(key), dict):
        for name, item in value.items():
            _put(tree, f"{key}.{name}", item, where)
        return
    *parents, last = key.split(".")
    node: Any = tree
    for depth, part in enumerate(parents, 1):
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            group = ".".join(parents[:depth])
            raise ConfigError("is a value, not a group of keys", where=where(group))
    if parents == ["training"]:
        node.pop({"fp16": "dtype", "dtype": "fp16"}.get(last), None)
    node[last] = value


def _check(tree: Mapping[str, Any], where: Where) -> SpeedrunConfig:
    _check_keys(tree, "", where)
    text = json.dumps(_without_fp16(tree, where), allow_nan=False)
    try:
        return TypeAdapter(SpeedrunConfig).validate_json(text)
    except ValidationError as error:
        raise _explain(error.errors(include_url=False)[0], where) from None


def _check_keys(node: Any, group: str, where: Where) -> None:
    """Refuse unknown and duplicate keys, and values that no key takes."""
    if not isinstance(node, Mapping):
        raise ConfigError(
            f"should be an object with keys, got {shown(node)}", where=where(group or "top level")
        )
    for name, value in node.items():
        key = f"{group}.{name}" if group else name
        known = UNKNOWN if "." in name else default_of(key)
        if value is _DUPLICATE:
            raise ConfigError("is given twice", where=where(key))
        if isinstance(known, dict):
            _check_keys(value, key, where)
        elif known is not UNKNOWN or key == "training.fp16":
            _check_value(value, key, where)
        else:
            raise ConfigError("unknown key", where=where(key), hint=unknown_hint(name, group))


def _check_value(value: Any, key: str, where: Where) -> None:
    if isinstance(value, Mapping):
        raise ConfigError("is a value, not a group of keys", where=where(key))
    items = value if isinstance(value, list) else [value]
    problem = ""
    for item in items:
        if isinstance(item, list | Mapping):
            problem = "holds a list or object inside its list"
        elif isinstance(item, float) and not math.isfinite(item):
            problem = f"should be a finite number, got {item}"
        elif isinstance(item, int) and abs(item) > MAX_INTEGER:
            problem = "is too large: whole numbers go up to 2^53"
        elif isinstance(item, str) and _UNPRINTABLE.search(item):
            problem = f"has a control character or a lone surrogate: {shown(item)}"
        if problem:
            raise ConfigError(problem, where=where(key), hint=PAGE)


def _without_fp16(tree: Mapping[str, Any], where: Where) -> Mapping[str, Any]:
    training = tree.get("training", {})
    if "fp16" not in training:
        return tree
    rest = {key: value for key, value in training.items() if key != "fp16"}
    fp16, place = training["fp16"], where("training.fp16")
    if not isinstance(fp16, bool):
        raise ConfigError(f"should be true or false, got {shown(fp16)}", where=place)
    if "dtype" in rest:
        raise ConfigError("give fp16 or dtype, not both", where=place)
    return {**tree, "training": {**rest, "dtype": "float16" if fp16 else "auto"}}


def _explain(error: Mapping[str, Any], where: Where) -> ConfigError:
    """Turn pydantic's error into ours: the key, what it takes, what it got."""
    if error["type"] == "together":
        group = ".".join(error["loc"])
        places = [where(f"{group}.{name}") for name in error["ctx"]["keys"]]
        place = next((place for place in places if place.startswith("--")), places[0])
        return ConfigError(error["msg"], where=place, hint=PAGE)
    key = ""
    for part in map(str, error["loc"]):  # keys, then branches of a union and positions
        longer = f"{key}.{part}" if key else part
        key = longer if default_of(longer) is not UNKNOWN else key
    value = error["input"]
    position = next((part for part in error["loc"] if isinstance(part, int)), None)
    got = ", got" if position is None else f"; item {position + 1} is"
    return ConfigError(
        f"should be {expected(key)}{got} {shown(value)}",
        where=where(key),
        hint=value_hint(key, value),
    )
