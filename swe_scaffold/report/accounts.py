"""The sections that account for a run: rows and their lengths, labels, configuration, commands."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from swe_scaffold.config import EvaluationConfig
from swe_scaffold.numbers import (
    Estimate,
    branch,
    count,
    counted,
    finite,
    pick,
    texts,
    whole,
    wording,
)
from swe_scaffold.report.charts import Words, figure, histogram
from swe_scaffold.report.html import (
    NOTHING,
    Html,
    code,
    details,
    element,
    escape,
    join,
    paragraph,
    section,
    table,
)
from swe_scaffold.report.material import Material
from swe_scaffold.report.plots import Bars, Share, bar_plot, share_bar
from swe_scaffold.report.verdict import PARTS

_LISTED = 400


def lengths(material: Material) -> Html:
    """Return how long the rows are, in tokens."""
    found = material.lengths
    if found is None:
        return NOTHING
    whole_rows = [a + b for a, b in zip(found.prompt, found.response, strict=True)]
    most = whole(pick(material.evaluation, "data", "max_length")) or whole(
        material.training.get("max_length")
    )
    limit = (float(most), f"max_length {count(most)}") if most else None
    lines = []
    for name, values in (
        ("Prompt", found.prompt),
        ("Response", found.response),
        ("Both", whole_rows),
    ):
        ordered = sorted(values)
        picked = [ordered[round(share * (len(ordered) - 1))] for share in (0, 0.5, 0.95, 1)]
        lines.append([name, *map(count, picked), count(sum(ordered))])
    headers = ["Tokens", "Shortest", "Median", "95\u00a0%", "Longest", "Sum"]
    caption = f"Tokens per row over {counted(len(whole_rows), found.origin.removesuffix('s'))}"
    return section(
        "lengths",
        "Length of the rows",
        figure(
            lambda width: histogram(
                whole_rows,
                Words("both", "Tokens per row", caption, x="tokens, prompt and response", y="rows"),
                width=width,
                limit=limit,
            ),
        ),
        figure(
            lambda width: histogram(
                found.response,
                Words(
                    "responses", "Response tokens per row", caption, x="response tokens", y="rows"
                ),
                width=width,
                height=150.0,
            ),
        ),
        table(headers, lines, caption=caption),
    )


def ledger(material: Material) -> Html:
    """Return where every row went: rows in = trained + held out + skipped, by reason."""
    counts = branch(material.manifest, "counts")
    parts = [
        _account("training", "rows of the file", counts, ("trained", "held_out")),
        _account("evaluation", "rows given", branch(material.evaluation, "data"), ("scored",)),
        _account("built", "rows read", branch(material.facts, "ledger"), _BUILT),
    ]
    if not any(parts):
        return NOTHING
    return section("ledger", "Where every row went", *parts, _remarks(material))


def labels(material: Material) -> Html:
    """Return how many rows carry each label, with Wilson intervals."""
    report = material.evaluation
    part = next((one for one in PARTS if branch(report, one)), None)
    rows, lines = [], []
    for name, entry in branch(report, part or "", "labels").items():
        share, many = Estimate.read(pick(entry, "share")), whole(pick(entry, "count"))
        if share is None or many is None:
            continue
        scaled = _hundredfold(share)
        rows.append(Bars(str(name), [("tuned", "share", scaled)]))
        interval = (
            f"{scaled.low:.1f} to {scaled.high:.1f} %"
            if scaled.low is not None and scaled.high is not None
            else ""
        )
        lines.append([code(name), count(many), f"{scaled.value:.1f} %", interval])
    if not rows:
        return NOTHING
    what = "unseen rows" if part == "unseen" else "rows seen in training"
    words = Words("labels", "Labels", f"Share of each label among the {what}.", x=f"% of {what}")
    headers = ["Label", "Rows", "Share", "Wilson interval"]
    return section(
        "labels",
        "Labels",
        figure(
            lambda width: bar_plot(rows, words, width=width, top_value=100.0),
            behind=table(headers, lines, caption=f"Labels of the {what}, as if independent"),
        ),
    )


def configuration(material: Material) -> Html:
    """Return configuration, provenance and hashes, folded."""
    manifest, report = material.manifest, material.evaluation
    facts = {key: value for key, value in material.facts.items() if key not in _TOLD_ELSEWHERE}
    tool = {key: manifest.get(key) or report.get(key) for key in _PROVENANCE}
    parts = [
        listing("Facts", facts),
        listing("Configuration of the run", branch(manifest, "config")),
        listing("Settings of the evaluation", branch(report, "settings")),
        listing("Data of the evaluation", _without(branch(report, "data"), "skipped")),
        listing("Model", branch(report, "model")),
        listing("Base", branch(manifest, "base")),
        listing("Fingerprint of the run", branch(manifest, "fingerprint")),
        listing("Files", _hashes(branch(manifest, "files"))),
        listing("Made with", {key: value for key, value in tool.items() if value}),
    ]
    if not any(parts):
        return NOTHING
    return section(
        "configuration", "Configuration and hashes", details("Every key and every hash", *parts)
    )


def commands(material: Material) -> Html:
    """Return how to compute the numbers again."""
    lines = texts(material.facts.get("commands"))
    note = ""
    if not lines and material.evaluation:
        lines = _evaluate(material.evaluation)
        note = "The same rows and the same weights give the same numbers, at any batch size."
    elif not lines:
        lines = command_lines(
            ["swe-scaffold", "evaluate", str(material.folder), "ROWS.jsonl"], _FULL
        )
        note = "ROWS.jsonl are rows that were not trained on, such as the hold-out."
    shown = Html("\n".join(escape(one) for one in lines))
    heading = "To compute it again" if material.evaluation else "To evaluate it"
    block = element("pre", shown, tabindex=0)
    return section("commands", heading, block, paragraph(note, kind="note"))


_BUILT = ("dev", "test", "kept", "beyond_limit")
_FULL = (("--compare-base",), ("--shuffled-control",))
# They change the speed and no number.
_SPEED = ("tokens_per_batch", "batch_size")
_TOLD_ELSEWHERE = ("lengths", "ledger", "commands", "notes")
_PROVENANCE = ("tool", "version", "git_revision", "python", "platform", "packages", "environment")


def _account(key: str, noun: str, counts: Mapping[str, Any], kept: Sequence[str]) -> Html:
    """Return one equation of rows as sentence, bar and table."""
    total = next((n for key in ("rows", "read") if (n := whole(counts.get(key))) is not None), None)
    if total is None:
        return NOTHING
    parts = [(name, whole(counts.get(name))) for name in kept]
    told = [(name.replace("_", " "), many) for name, many in parts if many is not None]
    skipped = [
        (str(reason), many)
        for reason, number in (
            branch(counts, "skipped") or branch(counts, "skipped_by_reason")
        ).items()
        if (many := whole(number)) is not None
    ]
    left = sum(many for _, many in skipped)
    terms = [*(f"{count(many)} {name}" for name, many in told), f"{count(left)} skipped"]
    adds_up = total == sum(many for _, many in told) + left
    kinds = ("tuned", "soft", "third", "base")
    shares = [Share(name, many, kind) for (name, many), kind in zip(told, kinds, strict=False)]
    shares.append(Share("skipped", left, "hold"))
    equation = f"{count(total)} {noun} = {' + '.join(terms)}"
    words = Words(f"ledger-{key}", equation, "One bar, divided into these parts.")
    lines = [[name, "", count(many)] for name, many in told]
    lines += [["skipped", code(reason), count(many)] for reason, many in skipped]
    return join(
        [
            element("h3", f"{key.capitalize()}: {equation}"),
            NOTHING
            if adds_up
            else paragraph(element("strong", "This does not add up."), kind="note"),
            figure(
                lambda width: share_bar(shares, words, width=width),
                legend=[(share.kind, share.name) for share in shares if share.amount],
            ),
            table(["Part", "Reason", "Rows"], lines, caption="Every row once", text_columns=2)
            if skipped
            else NOTHING,
        ]
    )


def _remarks(material: Material) -> Html:
    counts = branch(material.manifest, "counts")
    told = []
    shortened, targets = whole(counts.get("prompts_shortened")), whole(counts.get("target_tokens"))
    if targets is not None and (tokens := whole(counts.get("tokens"))) is not None:
        told.append(
            f"{count(targets)} of {count(tokens)} tokens in the trained rows are trained on."
        )
    if shortened is not None:
        told.append(f"{counted(shortened, 'prompt')} shortened to fit; responses never are.")
    proven, same = (whole(pick(counts, "proof", key)) for key in ("rows", "identical"))
    if proven is not None and same is not None:
        told.append(
            f"Masks proven on {counted(proven, 'row')} before the first step, {count(same)} "
            "with the ids of the tokenizer's own template."
        )
    return paragraph(" ".join(told), kind="note")


def _evaluate(report: Mapping[str, Any]) -> list[str]:
    """Return the command that makes this report, one option a line."""
    model, rows = wording(report, "model", "name"), wording(report, "data", "path")
    parts = [report.get(key) for key in ("comparison", "shuffled_prompts")]
    options: list[Sequence[str]] = [one for one, part in zip(_FULL, parts, strict=True) if part]
    if prompts := whole(pick(report, "health", "prompts")):
        options.append(("--generate", str(prompts)))
    options += settings_options(branch(report, "settings"))
    return command_lines(
        ["swe-scaffold", "evaluate", model or "RUN", rows or "ROWS.jsonl"], options
    )


def settings_options(settings: Mapping[str, Any]) -> list[Sequence[str]]:
    """Return the options that set what is not the default, but for what only changes the speed."""
    options: list[Sequence[str]] = []
    for key, default in asdict(EvaluationConfig()).items():
        value = settings.get(key, default)
        told = isinstance(value, str) or finite(value) is not None
        if told and value != default and key not in _SPEED:
            options.append(("--set", f"evaluation.{key}={value}"))
    return options


def command_lines(words: Sequence[str], options: Sequence[Sequence[str]]) -> list[str]:
    """Return a command for a shell, one option a line."""
    lines = [shlex.join(words), *(f"    {shlex.join(option)}" for option in options)]
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def listing(heading: str, tree: Mapping[str, Any]) -> Html:
    """Return a tree of values as a table of keys and values."""
    lines = [[code(key), code(value)] for key, value in _leaves(tree)]
    if not lines:
        return NOTHING
    left = len(lines) - _LISTED
    caption = heading + (f" ({counted(left, 'key')} more not listed)" if left > 0 else "")
    return table(["Key", "Value"], lines[:_LISTED], caption=caption, text_columns=2)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(_plain, value)) or "none"
        else:
            yield name, _plain(value)


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    return str(value)


def _hashes(files: Mapping[str, Any]) -> dict[str, str]:
    return {name: wording(entry, "sha256") for name, entry in files.items()}


def _without(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name != key}


def _hundredfold(share: Estimate) -> Estimate:
    low, high = (None if end is None else 100 * end for end in (share.low, share.high))
    return Estimate(100 * share.value, low, high, n=share.n, level=share.level)
