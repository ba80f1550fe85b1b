"""The card of a built data set, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_scaffold.cards.facts import amount, data_ledger
from swe_scaffold.cards.markdown import (
    MISSING,
    command,
    counts,
    digest,
    fence,
    front_matter,
    page,
    plain,
    table,
    told,
)
from swe_scaffold.cards.places import published
from swe_scaffold.numbers import branch, pick, texts, whole, wording

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def data_card(data: Mapping[str, Any], *, run: Mapping[str, Any]) -> str:
    """Return a data card; an empty manifest gives one that says what is missing.

    Args:
        data: The manifest that `build` wrote, or an empty mapping.
        run: The manifest of the run that trained on it.
    """
    data, run = published(data), published(run)
    name = wording(run, "data", "name") or dev_name(data)
    sha256 = pick(run, "fingerprint", "data")
    lines = [
        *front_matter(_metadata(data)),
        f"# {plain(name) or 'data'}",
        "",
        "Rows that a software-engineering model was trained on: a prompt, a response, and where "
        "both came from. The rows themselves are not part of this folder.",
        "",
        f"SHA-256 of the training file: {digest(sha256)}.",
        "",
        "License: not recorded. Rows hold text and code of the repositories they name, under "
        "licences that this card does not know.",
        "",
    ]
    if not data:
        lines += [
            "No manifest of a build was found beside the training file. Sources, rows skipped and "
            "why, labels, repositories and the split are therefore not recorded here.",
            "",
        ]
    else:
        lines += _built(data)
    return page([*lines, *_lengths(run)])


def _metadata(data: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"task_categories": ["text-generation"], "language": ["en", "code"]}
    kept = [whole(pick(data, "counts", side)) for side in ("dev", "test")]
    rows = sum(count or 0 for count in kept)
    if any(count is not None for count in kept):
        size = next((text for limit, text in _SIZES if rows < limit), "n>10M")
        values["size_categories"] = [size]
    return {**values, "tags": ["software-engineering"]}


def _built(data: Mapping[str, Any]) -> list[str]:
    return [
        "## Rows",
        "",
        "Every row that was read has one fate.",
        *data_ledger(data),
        *(f"- {plain(note)}" for note in texts(data.get("notes"))),
        "",
        "## Sources",
        *_inputs(data),
        "## Stages",
        "",
        "Each row passed these in order; a row that is skipped goes no further.",
        *_stages(data),
        "## Files",
        *_outputs(data),
        "## How to recompute",
        *_commands(data),
        "## Provenance",
        *table(
            ["", ""],
            [
                ["built with", f"{told(data, 'tool')} {told(data, 'version')}"],
                ["revision", digest(data.get("git_revision"))],
            ],
        ),
    ]


def _inputs(data: Mapping[str, Any]) -> list[str]:
    found = data.get("inputs")
    entries = _mappings(found)
    if not entries:
        return ["", f"Inputs: {MISSING}.", ""]
    rows = [
        [told(entry, "path"), amount(entry.get("rows")), digest(entry.get("sha256"))]
        for entry in entries[:100]
    ]
    rest = len(entries) - len(rows)
    return [*table(["input", "rows", "SHA-256"], rows), f"And {rest} more." if rest else "", ""]


def _stages(data: Mapping[str, Any]) -> list[str]:
    found = pick(data, "counts", "stages")
    stages = _mappings(found)
    if not stages:
        return ["", f"Stages: {MISSING}.", ""]
    rows = [
        [told(stage, "name"), amount(stage.get("rows")), counts(stage.get("skipped"))]
        for stage in stages
    ]
    return table(["stage", "rows in", "skipped"], rows)


def _outputs(data: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            plain(name),
            told(entry, "role"),
            amount(pick(entry, "rows")),
            "not written" if pick(entry, "written") is False else digest(pick(entry, "sha256")),
        ]
        for name, entry in branch(data, "outputs").items()
    ]
    if not rows:
        return ["", f"Files: {MISSING}.", ""]
    return table(["file", "role", "rows", "SHA-256"], rows)


def _commands(data: Mapping[str, Any]) -> list[str]:
    sources = [word for name in texts(data.get("sources"))[:20] for word in ("--dataset", name)]
    return [
        *fence(
            [command("swe-scaffold", "build", *sources, "--output", dev_name(data), "--emit-test")]
        ),
        "with the dataset configuration that the manifest holds.",
        "",
    ]


def dev_name(data: Mapping[str, Any]) -> str:
    """Return the name of the file that a build wrote for training."""
    outputs = branch(data, "outputs")
    return next((name for name in outputs if wording(outputs, name, "role") == "dev"), "rows.jsonl")


def _lengths(run: Mapping[str, Any]) -> list[str]:
    found = branch(run, "counts")
    rows, tokens, targets = (
        whole(found.get(key)) for key in ("trained", "tokens", "target_tokens")
    )
    lines = ["## Lengths", ""]
    if not rows or tokens is None or targets is None:
        return [*lines, f"Lengths in tokens: {MISSING}.", ""]
    table_rows = [
        ["prompt and response", f"{tokens:,}", f"{tokens / rows:,.0f}"],
        ["response, trained", f"{targets:,}", f"{targets / rows:,.0f}"],
    ]
    about = f"Tokens of the {rows:,} rows that were trained, in the base model's tokenizer:"
    return [*lines, about, *table(["", "total", "mean of a row"], table_rows)]


def _mappings(value: object) -> list[Mapping[str, Any]]:
    values = value if isinstance(value, list) else []
    return [entry for entry in values if isinstance(entry, Mapping)]
