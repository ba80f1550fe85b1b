"""What a run's manifest says of its data and configuration, for a card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from swe_scaffold.cards.markdown import MISSING, counts, digest, plain, table
from swe_scaffold.config import SpeedrunConfig, dump_config
from swe_scaffold.hub import is_hub_id
from swe_scaffold.numbers import branch, pick, texts, whole

# Places of one machine; the base has a line of its own.
_PLACES = ("model_name", "output_dir")


def configuration(manifest: Mapping[str, Any]) -> list[str]:
    """Return every training key: those that differ from their default, then the rest."""
    given = branch(manifest, "config", "training")
    if not given:
        return [f"Configuration: {MISSING}.", ""]
    defaults = dict(_flat(dump_config(SpeedrunConfig())["training"]))
    differing, same = [], []
    without = "lora." if given.get("finetuning") == "full" else None
    for key, value in _flat(given):
        if key in _PLACES or (without and key.startswith(without)):
            continue
        shown = plain(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))
        if key not in defaults:
            differing.append([plain(key), shown, "no key of this version"])
        elif value != defaults[key]:
            default = plain(json.dumps(defaults[key], allow_nan=False))
            differing.append([plain(key), shown, default])
        else:
            same.append([plain(key), shown])
    lines = ["Keys that differ from their default:"] if differing else ["No key differs."]
    lines += table(["training key", "value", "default"], differing) if differing else [""]
    return lines + (["As by default:", *table(["training key", "value"], same)] if same else [])


def ledger(manifest: Mapping[str, Any]) -> list[str]:
    """Return the run's own account of its rows."""
    found = branch(manifest, "counts")
    rows = [
        ("rows of the file and its hold-out", found.get("rows")),
        ("trained", found.get("trained")),
        ("held out", found.get("held_out")),
        ("prompts shortened to fit", found.get("prompts_shortened")),
        ("response tokens trained", found.get("target_tokens")),
    ]
    lines = [[name, amount(value)] for name, value in rows]
    lines.insert(3, ["skipped, by reason", counts(found.get("skipped"))])
    prints = branch(manifest, "fingerprint")
    lines.append(["SHA-256 of the training file", digest(prints.get("data"))])
    lines.append(["hold-out", _hold_out(prints)])
    notes = [f"- {plain(note)}" for note in texts(manifest.get("notes"))]
    return [*table(["", ""], lines), *notes, ""]


def data_ledger(data: Mapping[str, Any]) -> list[str]:
    """Return a built data set's account of its rows: read = dev + test + skipped + beyond."""
    found = branch(data, "counts")
    split = branch(data, "split")
    read, dev, test, skipped, beyond = (
        whole(found.get(key)) for key in ("read", "dev", "test", "skipped", "beyond_limit")
    )
    parts = (dev, test, skipped, beyond or 0)
    lines = [
        ["rows read", amount(read)],
        ["dev (training)", amount(dev)],
        ["test (hold-out)", amount(test)],
        ["skipped", amount(skipped)],
        ["beyond the limit", amount(beyond)],
        ["skipped, by reason", counts(found.get("skipped_by_reason"))],
        ["labels of dev", counts(found.get("dev_labels"))],
        ["labels of test", counts(found.get("test_labels"))],
        ["repositories in dev", amount(found.get("dev_repos"))],
        ["repositories in test", amount(found.get("test_repos"))],
        ["split by", plain(split.get("method") or "") or MISSING],
        ["seed of the split", amount(split.get("seed"))],
        ["share of dev asked for", plain(pick(split, "dev_split"))],
    ]
    held = texts(split.get("held_out_repos"))
    if held:
        lines.append(["repositories held out", ", ".join(plain(name) for name in held[:50])])
    lines_ = table(["", ""], lines)
    known = [part for part in parts if part is not None]
    if read is not None and len(known) == len(parts) and sum(known) != read:
        lines_.append(
            "The ledger of this manifest does not add up; its numbers are repeated as is."
        )
    return [*lines_, ""]


def hub_sources(data: Mapping[str, Any]) -> list[str]:
    """Return the hub ids among a build's sources: a note names the revision of each."""
    notes = texts(data.get("notes"))
    return [
        name
        for name in texts(data.get("sources"))
        if is_hub_id(name) and any(_revision_of(name).fullmatch(note) for note in notes)
    ]


def _revision_of(name: str) -> re.Pattern[str]:
    return re.compile(
        rf"using split .* of {re.escape(name)}( \(also there: .*\))?, revision [0-9a-f]{{7,40}}"
    )


def amount(value: object) -> str:
    """Return a count, or that it is missing."""
    number = whole(value)
    return MISSING if number is None else f"{number:,}"


def _hold_out(prints: Mapping[str, Any]) -> str:
    given = prints.get("holdout")
    if not isinstance(given, str):
        return MISSING
    if not given:
        return "none"
    if ":" in given:
        _, method, *rest = given.split(":")
        return f"a part of the training file, split by {plain(method)} ({plain(' '.join(rest))})"
    return f"SHA-256 {digest(given)}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
