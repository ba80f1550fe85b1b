"""What a comparison says, for people at a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_scaffold.cli.evaluation_text import comparison_lines, control_lines
from swe_scaffold.cli.tables import number, place, table
from swe_scaffold.numbers import precision

MOST_LINES = 15
TITLES = {
    "group": "by {unit}",
    "label": "by label",
    "response_source": "by response source",
    "length": "by length of the response",
    "language": "by language",
    "token_class": "by token class",
}


def comparison_text(report: Mapping[str, Any]) -> str:
    """Return every model's difference from the baseline, its tables, and the gate's word."""
    data = report["data"]
    lines = [f"baseline: {_model(report['baseline'])}", f"rows: {data['rows']}"]
    if data["seen_left_out"]:
        lines.append(f"  {data['seen_left_out']} that a model was trained on are left out")
    if data["only_in_some"]:
        lines.append(f"  {data['only_in_some']} that some lack are left out")
    if data["per"] == "byte":
        lines.append("beware: the tokenizers differ, so that only bits per byte can be compared")
    for model in report["models"]:
        lines += ["", *_model_lines(model, report)]
    lines += [f"beware: {text}" for text in _bewares(report)]
    return "\n".join(lines)


def _model(about: Mapping[str, Any]) -> str:
    model = about["model"]
    numbers = precision(model["dtype"], model.get("quantization"))
    return f"{place(model['name'])}, {numbers} on {model['device']}"


def _model_lines(model: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    comparison = model["comparison"]
    effect, flip = comparison["effect"], comparison["sign_flip"]
    adjusted = "" if len(report["models"]) == 1 else f", adjusted (Holm) {p_text(model['p_holm'])}"
    lines = [f"model: {_model(model)}"]
    lines += comparison_lines("model - baseline", comparison)
    lines += [
        f"  {effect['ci_method']}, {effect['clusters']} clusters by {comparison['cluster_by']}",
        f"  for few or unequal clusters: {number(comparison['effect_small_sample'])}; "
        f"cluster bootstrap {number(comparison['effect_bootstrap'])}",
        f"  sign flip of clusters: p {p_text(flip['p_value'])}{adjusted} "
        f"(at best {p_text(flip['smallest_p'])})",
    ]
    for name, entries in comparison["slices"].items():
        lines += ["", *_slice_lines(name, entries, comparison["cluster_by"])]
    lines += _worst_lines(comparison)
    control = control_lines(model["shuffled_prompts"])
    lines += control
    if model["health"]:
        lines += ["", *_health_lines(model["health"])]
    if model["gate"]:
        lines += ["", *_gate_lines(model["gate"])]
    return lines


def _slice_lines(name: str, entries: Mapping[str, Any], unit: str) -> list[str]:
    if len(entries) < 2:
        only = next(iter(entries), "none")
        return [f"{TITLES[name].format(unit=unit)}: all are {place(only)}"]
    # The deciles of length have an order of their own.
    shown = list(entries.items())
    if name != "length":
        shown.sort(key=lambda item: (-item[1]["effect"]["tokens"], item[0]))
    rows = [
        [
            key,
            entry["effect"]["n"],
            number(entry["effect"]),
            _least(entry),
            p_text(entry["p_holm"]),
            entry["verdict"],
        ]
        for key, entry in shown[:MOST_LINES]
    ]
    headers = [
        TITLES[name].format(unit=unit),
        "rows",
        "difference",
        "detectable",
        "p (Holm)",
        "verdict",
    ]
    left = len(shown) - len(rows)
    return [table(headers, rows), *([f"and {left} more, in --json"] if left else [])]


def _least(entry: Mapping[str, Any]) -> str:
    least = entry["minimum_detectable_effect"]
    return "none" if least is None else f"{least:.2g}"


def _worst_lines(comparison: Mapping[str, Any]) -> list[str]:
    rows = [
        [row["instance_id"], row["tokens"], f"{row['difference'] / row['tokens']:+.4f}"]
        for row in comparison["worst"]
        if row["difference"] > 0
    ]
    return ["", table(["rows that got worse most", "tokens", "per token"], rows)] if rows else []


def _health_lines(health: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            name,
            number(pair["base"]),
            number(pair["tuned"]),
            pair["only_base"],
            pair["only_tuned"],
            "" if pair["p_value"] is None else p_text(pair["p_value"]),
        ]
        for name, pair in health.items()
    ]
    headers = ["answers", "baseline", "model", "only baseline", "only model", "p (McNemar)"]
    return [table(headers, rows)]


def _gate_lines(gate: Mapping[str, Any]) -> list[str]:
    word = "passes" if gate["passes"] else "does not pass"
    return [f"gate {gate['wanted']}: {word}", *(f"  {reason}" for reason in gate["reasons"])]


def _bewares(report: Mapping[str, Any]) -> list[str]:
    found = []
    for model in report["models"]:
        effect = model["comparison"]["effect"]
        found += [effect["reason"]] if effect["reason"] else []
        found += [f"{place(model['model']['name'])}: {note}" for note in model["notes"]]
    return list(dict.fromkeys(found))


def p_text(value: float | None) -> str:
    """Return a p-value, never as zero; empty where there is none."""
    if value is None:
        return ""
    if value < 1e-6:
        return "< 1e-06"
    if value >= 0.995:
        return "1"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"
