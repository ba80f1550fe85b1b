"""An evaluation's numbers for a card, each with its interval, n and clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from swe_scaffold.cards.markdown import MISSING, digest, plain, table, told
from swe_scaffold.numbers import (
    Estimate,
    branch,
    claim,
    counted,
    finite,
    percent,
    pick,
    point,
    precision,
    shown,
    texts,
    whole,
    wording,
)

_METRICS = {
    "nll": "NLL, nats per response token",
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
}
_PARTS = {
    "unseen": "unseen rows",
    "trained": "rows seen in training",
    "base": "base model, same rows",
}
_CLAIMS = {
    "better": "better: the interval lies below zero",
    "worse": "worse: the interval lies above zero",
    "none": "no difference shown, which is not the same as no difference",
    "silent": "nothing is claimed, there is no interval",
}


def results(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the section on evaluations, one after the other."""
    if not evaluations:
        return [
            "No evaluation of these weights is on record; `swe-scaffold evaluate` makes one. The",
            "hold-out NLL below, where there is one, was computed in training and has no interval.",
            "",
        ]
    lines: list[str] = []
    for report in evaluations:
        lines += _report(report)
    return lines


def model_index(name: str, evaluations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the hub's `model-index`: point values, which is all that it can hold."""
    found = []
    for report in evaluations:
        part = next((part for part in ("unseen", "trained") if branch(report, part)), None)
        metrics = [
            {"type": key, "name": f"{title} ({_PARTS[part]})", "value": estimate.value}
            for key, title in _METRICS.items()
            if part and (estimate := Estimate.read(pick(report, part, key)))
        ]
        if metrics:
            about = {"name": file_name(report), "type": wording(report, "data", "sha256")[:16]}
            task = {"type": "text-generation"}
            found.append({"task": task, "dataset": about, "metrics": metrics})
    return [{"name": name, "results": found}] if found else []


def file_name(report: Mapping[str, Any]) -> str:
    """Return the last part of the evaluated file's path."""
    return PurePath(wording(report, "data", "path")).name or "rows"


def weak_points(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what limits these numbers, as sentences of Markdown."""
    found = []
    for report in evaluations:
        for part in ("unseen", "trained"):
            if reason := wording(report, part, "nll", "reason"):
                found.append(f"{plain(file_name(report))}, {_PARTS[part]}: {plain(reason)}.")
        seen, unseen = (whole(report.get(f"rows_{k}")) for k in ("seen_in_training", "unseen"))
        if seen:
            rest = "none was unseen" if not unseen else f"{counted(unseen, 'row')} were unseen"
            found.append(
                f"{plain(file_name(report))}: {counted(seen, 'row')} had been seen in training, "
                f"{rest}."
            )
        found += [f"{plain(file_name(report))}: {plain(note)}." for note in _notes(report)]
    return list(dict.fromkeys(found))


def _notes(report: Mapping[str, Any]) -> list[str]:
    return texts(report.get("notes"))


def _precision(report: Mapping[str, Any]) -> str:
    quantization = wording(report, "model", "quantization") or None
    return precision(told(report, "model", "dtype"), quantization and plain(quantization))


def _report(report: Mapping[str, Any]) -> list[str]:
    unit = pick(report, "settings", "cluster_by")
    rows, scored = (whole(pick(report, "data", key)) for key in ("rows", "scored"))
    ledger = (
        f"{counted(rows, 'row')}, {scored} scored"
        if rows is not None and scored is not None
        else f"rows {MISSING}"
    )
    lines = [
        f"### On {plain(file_name(report))}",
        "",
        f"{ledger}; SHA-256 of the file {digest(pick(report, 'data', 'sha256'))}; "
        f"{_precision(report)} on {told(report, 'model', 'device')}. "
        f"Intervals: clusters are each row's {plain(unit) if unit else MISSING}.",
    ]
    found = [
        _metric_row(_PARTS[part], title, estimate)
        for part in _PARTS
        for key, title in _METRICS.items()
        if (estimate := Estimate.read(pick(report, part, key)))
    ]
    if found:
        lines += table(
            ["rows", "metric", "value", "interval", "n", "tokens", "clusters", "method"], found
        )
    else:
        lines += ["", "This report holds no likelihoods that could be read.", ""]
    lines += ["", _comparison(report), "", _control(report), ""]
    return lines


def _metric_row(part: str, title: str, estimate: Estimate) -> list[str]:
    value, interval = shown(estimate)
    ends = f"{percent(estimate.level)} {plain(interval)}" if interval else "none"
    numbers = (estimate.n, estimate.tokens, estimate.clusters)
    amounts = [MISSING if number is None else f"{number:,}" for number in numbers]
    return [part, title, value, ends, *amounts, plain(estimate.method) or MISSING]


def _comparison(report: Mapping[str, Any]) -> str:
    comparison = branch(report, "comparison")
    effect = Estimate.read(comparison.get("effect"))
    if effect is None:
        return "**Tuned against base:** not compared in this evaluation."
    rows = branch(comparison, "rows")
    sides = ", ".join(
        f"{key} {MISSING if (n := whole(rows.get(key))) is None else n}"
        for key in ("better", "worse", "equal")
    )
    text = f"**Tuned − base**, on {plain(report.get('compared_rows') or 'the same')} rows: "
    text += f"{_difference(effect)}. Verdict: {_CLAIMS[claim(comparison)]}. Rows: {sides}."
    least = finite(comparison.get("minimum_detectable_effect"))
    if least is not None:
        text += f" A true difference of about {point(least)} would be found in most repetitions."
    flip = finite(pick(comparison, "sign_flip", "p_value"))
    if flip is not None:
        smallest = finite(pick(comparison, "sign_flip", "smallest_p"))
        text += f" Sign-flip test of whole clusters: p = {point(flip)}"
        text += "." if smallest is None else f" (the smallest possible here: {point(smallest)})."
    return text


def _difference(effect: Estimate) -> str:
    value, interval = shown(effect, signed=True)
    if not interval:
        return f"{value} nats per response token, without an interval"
    amount = "" if effect.n is None else f", n = {effect.n:,}"
    clusters = "" if effect.clusters is None else f", {counted(effect.clusters, 'cluster')}"
    return (
        f"{value} nats per response token, {percent(effect.level)} interval {plain(interval)}"
        f"{amount}{clusters}, {plain(effect.method) or 'method ' + MISSING}"
    )


def _control(report: Mapping[str, Any]) -> str:
    part = branch(report, "shuffled_prompts")
    if not part:
        return "**Shuffled-prompt control:** not run in this evaluation."
    comparison = branch(part, "comparison")
    effect = Estimate.read(comparison.get("effect"))
    if effect is None:
        return f"**Shuffled-prompt control:** no result ({told(part, 'reason')})."
    kind = claim(comparison)
    meaning = {
        "better": "responses are likelier after their own prompt",
        "worse": "responses are less likely after their own prompt",
    }.get(kind, "no use of the prompt is shown")
    left_out = whole(part.get("left_out"))
    rest = "" if not left_out else f" Left out: {counted(left_out, 'row')}."
    return (
        f"**Shuffled-prompt control** (own prompt − another row's): {_difference(effect)}; "
        f"{meaning}.{rest}"
    )
