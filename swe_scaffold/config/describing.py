"""Keys in words: what each takes, its default, and what someone who missed it probably meant."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from swe_scaffold.config.keys import SpeedrunConfig, dump_config

UNKNOWN = object()
PAGE = "docs/configuration.md lists every key with its type and default"
# What older files and other tools call a key.
_ALIASES = {
    "source_dataset": "dataset.dataset",
    "train_split": "dataset.dev_split",
    "limit": "dataset.max_examples",
    "lr": "training.learning_rate",
    "epochs": "training.num_train_epochs",
    "evaluation_strategy": "training.eval_strategy",
    "max_seq_length": "training.max_length",
    "bf16": "training.dtype",
    "fp16": "training.dtype",
    "lora_r": "training.lora.r",
    "lora_alpha": "training.lora.alpha",
    "lora_dropout": "training.lora.dropout",
}
_NUMBERS = {"integer": "int", "number": "float"}
_SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def describe_config() -> Iterator[tuple[str, str, str, str]]:
    """Yield (key path, type, default as JSON, explanation) for every key, in file order."""
    for key, entry in schema().items():
        text = " ".join(entry.get("description", "").split())
        yield key, _type_name(entry), json.dumps(default_of(key), allow_nan=False), text


@functools.cache
def _defaults() -> dict[str, Any]:
    return dump_config(SpeedrunConfig())


def default_of(key: str) -> Any:
    """Return a key's default, an object for a group of keys ("" is the whole), or UNKNOWN."""
    node: Any = _defaults()
    for part in key.split(".") if key else ():
        node = node.get(part, UNKNOWN) if isinstance(node, dict) else UNKNOWN
    return node


@functools.cache
def schema() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of every key path, in file order."""
    whole = TypeAdapter(SpeedrunConfig).json_schema()

    def walk(
        group: Mapping[str, Any], properties: Mapping[str, Any], prefix: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, value in group.items():
            if isinstance(value, dict):
                inner = whole["$defs"][properties[name]["$ref"].rpartition("/")[2]]
                yield from walk(value, inner["properties"], f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", properties[name]

    return dict(walk(_defaults(), whole["properties"], ""))


def expected(key: str) -> str:
    """Say in words what a key takes."""
    return _expected(schema()[key])


def shown(value: Any) -> str:
    """Return a value as JSON of a length that fits into a message."""
    try:
        text = json.dumps(value, allow_nan=False, default=lambda _: "?")
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:79]}…"


def value_hint(key: str, value: Any) -> str:
    """Say how to write the value that was probably meant."""
    options = schema()[key].get("anyOf", [schema()[key]])
    types = {option.get("type") for option in options}
    entries = [entry for option in options for entry in (option, option.get("items", {}))]
    choices = [text for entry in entries for text in _choices(entry)]
    if not isinstance(value, str):
        quote = "string" in types and not choices and value is not None
        return (
            f"write text in quotes: {json.dumps(shown(value), allow_nan=False)}" if quote else PAGE
        )
    if "array" in types and value in choices:
        return f"write a list: {json.dumps([value], allow_nan=False)}"
    if near := difflib.get_close_matches(value.lower(), choices, n=1):
        return f'did you mean "{near[0]}"?'
    if "array" in types:
        return f"write a list: {json.dumps([value], allow_nan=False)}"
    if "boolean" in types:
        return "JSON writes true and false in lower case, without quotes"
    if types & set(_NUMBERS):
        return "JSON writes numbers without quotes, as 8 or 2e-4"
    return PAGE


def unknown_hint(name: str, group: str) -> str:
    """Say what an unknown key of a group ("" is the top level) probably means."""
    prefix = f"{group}." if group else ""
    siblings = list(default_of(group))
    if "." in name and default_of(f"{prefix}{name}") is not UNKNOWN:
        return 'groups are nested objects, as in {"training": {"seed": 1}}'
    if name in _ALIASES:
        return f"did you mean {_ALIASES[name]}?"
    near = [other for other in siblings if len(name) > 3 and name in other]
    near = near or difflib.get_close_matches(name, siblings, n=1)
    groups = {key.rpartition(".")[0] for key in schema()}
    same = [key for key in (*schema(), *groups) if key.rpartition(".")[2] == name]
    offers = list(dict.fromkeys([*(f"{prefix}{other}" for other in near), *same]))[:3]
    return f"did you mean {_either(offers)}?" if offers else f"known keys: {', '.join(siblings)}"


def _type_name(entry: Mapping[str, Any]) -> str:
    if "anyOf" in entry:
        return " | ".join(map(_type_name, entry["anyOf"]))
    if choices := _choices(entry):
        return " | ".join(choices)
    if entry["type"] == "array":
        return f"list of {_type_name(entry['items'])}"
    names = {**_NUMBERS, "string": "str", "boolean": "bool", "null": "null"}
    return " ".join([names[entry["type"]], *_bounds(entry)])


def _expected(entry: Mapping[str, Any]) -> str:
    if "anyOf" in entry:
        return " or ".join(map(_expected, entry["anyOf"]))
    if choices := _choices(entry):
        return _either([f'"{choice}"' for choice in choices])
    if entry["type"] == "array":
        return f"a list of {'one or more ' if entry.get('minItems') else ''}names"
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    words |= {"string": "text that is not blank", "null": "null"}
    return f"{words[entry['type']]} {' and '.join(_bounds(entry))}".rstrip()


def _choices(entry: Mapping[str, Any]) -> list[str]:
    return [entry["const"]] if "const" in entry else list(entry.get("enum", []))


def _bounds(entry: Mapping[str, Any]) -> list[str]:
    return [f"{sign} {entry[key]}" for key, sign in _SIGNS.items() if key in entry]


def _either(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
