"""What an evaluation says, for people at a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_scaffold.cli.tables import counts, level, number, place, table
from swe_scaffold.numbers import precision


def evaluation_text(report: Mapping[str, Any]) -> str:
    """Return the report's table, its labels, its comparison and what to beware of."""
    data, model = report["data"], report["model"]
    part = report["unseen"] or report["trained"]
    rows = []
    for name in ("unseen", "trained", "base"):
        if report[name] is not None:
            rows += _summary_rows(name, report[name])
    unit = report["settings"]["cluster_by"]
    lines = [
        f"model: {place(model['name'])}  base: {place(model['base'])}  "
        f"{precision(model['dtype'], model.get('quantization'))} on {model['device']}",
        f"rows: {data['rows']} = scored {data['scored']} + skipped "
        f"{sum(data['skipped'].values())} ({counts(data['skipped'])})",
        "",
        table(["rows", "metric", f"value [{level(part['nll'])} interval]", "n", "clusters"], rows),
        "",
        f"labels: {counts({name: label['count'] for name, label in part['labels'].items()})}",
        f"intervals: {part['nll']['ci_method']}, by {unit}",
    ]
    small = number(part["nll_small_sample"])
    lines.append(f"NLL, interval for few or unequal clusters: {small}")
    if report["comparison"]:
        lines += ["", *comparison_lines("tuned - base", report["comparison"])]
    lines += control_lines(report["shuffled_prompts"])
    if report["health"]:
        lines += ["", *_health_lines(report["health"])]
    bewares = [part["nll"]["reason"]] if part["nll"]["reason"] else []
    return "\n".join([*lines, *(f"beware: {text}" for text in [*bewares, *report["notes"]])])


def control_lines(control: Mapping[str, Any] | None) -> list[str]:
    """Return what other prompts of the same group cost, if that was asked."""
    if control is None:
        return []
    if control["comparison"] is None:
        return ["", f"own prompt - other prompt: not compared, {control['reason']}"]
    left_out = f"  rows left out: {control['left_out']}" if control["left_out"] else ""
    lines = comparison_lines("own prompt - other prompt", control["comparison"])
    return ["", *lines, *([left_out] if left_out else [])]


def _summary_rows(name: str, summary: Mapping[str, Any]) -> list[list[object]]:
    label = {"unseen": "unseen", "trained": "seen in training", "base": "base, same rows"}[name]
    rows = []
    for key, title in (
        ("nll", "NLL, nats per response token"),
        ("perplexity", "perplexity"),
        ("bits_per_byte", "bits per byte"),
    ):
        metric = summary[key]
        rows.append([label, title, number(metric), metric["n"], metric["clusters"]])
    return rows


def comparison_lines(title: str, comparison: Mapping[str, Any]) -> list[str]:
    """Return the paired difference in words and numbers."""
    effect, rows = comparison["effect"], comparison["rows"]
    ratio = comparison["perplexity_ratio"]
    return [
        f"{title}: {number(effect)} {effect['unit']}, {comparison['verdict']}"
        + could_have_found(comparison),
        f"  rows better {rows['better']}, worse {rows['worse']}, equal {rows['equal']}"
        + (f"; perplexity ratio {number(ratio)}" if ratio else ""),
    ]


def could_have_found(difference: Mapping[str, Any]) -> str:
    """Return, beside a difference that was not shown, how large one would have been."""
    least = difference["minimum_detectable_effect"]
    if difference["verdict"] != "no difference shown" or least is None:
        return ""
    return f" (detectable: about {least:.2g})"


def _health_lines(health: Mapping[str, Any]) -> list[str]:
    left_out = f", {health['left_out']} left out" if health["left_out"] else ""
    lines = [f"answers to {health['prompts']} prompts{left_out}:"]
    for name, share in health["shares"].items():
        lines.append(f"  {name}: {number(share)} of {share['n']}")
    return lines
