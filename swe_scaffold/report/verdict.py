"""What the intervals allow to be said, in sentences; never more than they show.

The interval decides, not a word recorded beside it: where the two disagree, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swe_scaffold.models import is_of
from swe_scaffold.numbers import (
    EQUAL_WITHIN,
    Estimate,
    Kind,
    branch,
    claim,
    counted,
    decimals,
    finite,
    fixed,
    percent,
    pick,
    point,
    shown,
    whole,
    wording,
)
from swe_scaffold.report.material import HoldOut, Material

UNIT = "nats per response token"
# Spaces that do not break keep an expression on one line.
DIFFERENCE, CONTROL = "tuned\u00a0−\u00a0base", "own\u00a0−\u00a0other"
MODEL_DIFFERENCE = "model\u00a0−\u00a0baseline"
PARTS = ("unseen", "trained")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A statement: `lead` first, then `text`; `kind` is what it claims."""

    kind: Kind
    lead: str
    text: str


def the_part(report: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return the summary that base and comparison belong to, and its name."""
    name = next((one for one in PARTS if branch(report, one)), PARTS[0])
    return branch(report, name), name


def headline(material: Material) -> Sentence:
    """Return the one sentence at the top of a run's page."""
    report = material.evaluation
    if not report:
        return _without_evaluation(material)
    comparison = branch(report, "comparison")
    effect = Estimate.read(comparison.get("effect"))
    if effect is None:
        return _without_comparison(report)
    seen = report.get("compared_rows") != "unseen"
    kind = claim(comparison)
    rows = _rows(effect, report, seen=seen)
    text = f"On {rows}, {_difference(effect, kind, comparison)}"
    text += _room(effect, kind, comparison)
    if seen:
        text += " This says nothing about new rows."
    return Sentence(kind, _lead(kind, seen=seen), text)


def compared(comparison: Mapping[str, Any], *, unit: str, several: bool) -> Sentence:
    """Return the one sentence about a model and a baseline.

    Args:
        comparison: What `compare` found.
        unit: What the difference is measured in.
        several: Whether other models are compared with the same baseline.
    """
    effect = Estimate.read(comparison.get("effect"))
    if effect is None:
        return Sentence("silent", "No result.", "There is no number that can be shown.")
    kind = claim(comparison)
    leads: dict[Kind, str] = {
        "better": "Lower loss than the baseline.",
        "worse": "Higher loss than the baseline.",
        "none": "No difference from the baseline shown.",
        "silent": "No claim: there is no interval.",
    }
    rows = "" if effect.n is None else f"Over {_clustered(effect, comparison.get('cluster_by'))}, "
    text = rows + _difference(effect, kind, comparison, name=MODEL_DIFFERENCE, unit=unit)
    text += _room(effect, kind, comparison)
    if several and kind in ("better", "worse"):
        text += " Several models were compared: see the p-value that allows for that."
    return Sentence(kind, leads[kind], text)


def control(report: Mapping[str, Any]) -> Sentence | None:
    """Return what the shuffled prompts show; None where that control was not run."""
    part = branch(report, "shuffled_prompts")
    if not part:
        return None
    comparison = branch(part, "comparison")
    effect = Estimate.read(comparison.get("effect"))
    if effect is None:
        reason = wording(part, "reason") or "there is no result"
        return Sentence("silent", "Prompt control: no result.", f"{_capital(reason)}.")
    kind = claim(comparison)
    leads: dict[Kind, str] = {
        "better": "Responses are likelier after their own prompt.",
        "worse": "Responses are less likely after their own prompt.",
        "none": "No use of the prompt is shown.",
        "silent": "Prompt control: no interval.",
    }
    text = (
        f"The same responses after their own prompt and after another prompt of the same group, "
        f"under the tuned model: {CONTROL} is {_numbers(effect)}"
        f"{_over(effect)}."
    )
    seen, left_out = whole(report.get("rows_seen_in_training")), whole(part.get("left_out"))
    if seen and not whole(report.get("rows_unseen")):
        text += " All of these rows had been seen in training."
    if left_out:
        text += f" Left out: {counted(left_out, 'row')} without such a partner."
    return Sentence(kind, leads[kind], text)


def warnings(material: Material) -> list[str]:
    """Return what a reader must know before believing the numbers."""
    report, found = material.evaluation, []
    if is_of(report, material.manifest) is False:
        found.append("This evaluation is of other weights than those in this folder.")
    unseen, seen = whole(report.get("rows_unseen")), whole(report.get("rows_seen_in_training"))
    if unseen == 0 and seen and not report.get("comparison"):
        found.append("Every scored row was trained on: this says nothing about new rows.")
    comparison = branch(report, "comparison")
    told = wording(comparison, "effect", "reason")
    for reason in (wording(report, part, "nll", "reason") for part in PARTS):
        if reason and reason != told:
            found.append(f"{_capital(reason)}.")
    recorded = comparison.get("verdict")
    if recorded in ("better", "worse") and claim(comparison) == "none":
        found.append("The recorded verdict goes beyond the recorded interval and is not repeated.")
    return list(dict.fromkeys(found))


def _room(effect: Estimate, kind: Kind, comparison: Mapping[str, Any]) -> str:
    """Return why an interval is weak, or else what could have been found where nothing was."""
    least = finite(comparison.get("minimum_detectable_effect"))
    if effect.reason and kind != "silent":
        return f" {_capital(effect.reason)}."
    if kind == "none" and least:
        often = "in 80\u00a0% of such comparisons"
        return f" A true difference of {rough(least)} would be found {often}."
    return ""


def _difference(
    effect: Estimate,
    kind: Kind,
    comparison: Mapping[str, Any],
    *,
    name: str = DIFFERENCE,
    unit: str = UNIT,
) -> str:
    if kind == "silent":
        reason = f": {effect.reason}" if effect.reason else ""
        value, _ = shown(effect, signed=True)
        return f"{name} is {value} {unit}, without an interval{reason}. Nothing is claimed."
    other = withheld_by(comparison)
    reading = _reading(effect, kind) if other is None else _withheld(effect, other)
    return f"{name} is {_numbers(effect, unit)}{reading}"


def withheld_by(comparison: Mapping[str, Any]) -> Estimate | None:
    """Return the interval for few or unequal clusters where it alone includes zero."""
    effect = Estimate.read(comparison.get("effect"))
    small = Estimate.read(comparison.get("effect_small_sample"))
    if effect is None or small is None or small.interval is None:
        return None
    return small if effect.excludes_zero and not small.excludes_zero else None


def _withheld(effect: Estimate, other: Estimate) -> str:
    side = "below" if effect.value < 0 else "above"
    _, interval = shown(other, signed=True)
    return (
        f", which lies {side} zero; the interval for few or unequal clusters, "
        f"{_unbroken(interval)}, includes it, so nothing is claimed."
    )


def _reading(effect: Estimate, kind: Kind) -> str:
    if kind in ("better", "worse"):
        return f", which lies {'below' if kind == 'better' else 'above'} zero."
    if effect.low is not None and effect.high is not None and effect.low <= 0 <= effect.high:
        return ", which includes zero."
    if abs(effect.value) <= EQUAL_WITHIN:
        return ": less than scoring can tell apart."
    return "; value, interval and recorded verdict do not agree, so nothing is claimed."


def _numbers(effect: Estimate, unit: str = UNIT) -> str:
    value, interval = shown(effect, signed=True)
    if not interval:
        return f"{value} {unit}, without an interval"
    return f"{value} {unit}, {percent(effect.level)} interval {_unbroken(interval)}"


def _unbroken(interval: str) -> str:
    return interval.replace(" ", "\u00a0")


def rough(value: float) -> str:
    """Return two significant digits: more would be false precision."""
    return fixed(value, decimals(value))


def _over(effect: Estimate) -> str:
    return "" if effect.n is None else f", over {counted(effect.n, 'row')}"


def _lead(kind: Kind, *, seen: bool) -> str:
    where = "the rows it was trained on" if seen else "unseen rows"
    return {
        "better": f"Lower loss than the base on {where}.",
        "worse": f"Higher loss than the base on {where}.",
        "none": f"No difference from the base shown on {where}.",
        "silent": "No claim: there is no interval.",
    }[kind]


def _rows(estimate: Estimate, report: Mapping[str, Any], *, seen: bool) -> str:
    if estimate.n is None:
        amount = "rows it was trained on" if seen else "unseen rows"
    elif seen:
        amount = f"{counted(estimate.n, 'row')} it was trained on"
    else:
        amount = counted(estimate.n, "unseen row")
    return amount + _of_clusters(estimate, pick(report, "settings", "cluster_by"))


def _clustered(estimate: Estimate, unit: object) -> str:
    return counted(estimate.n or 0, "row") + _of_clusters(estimate, unit)


def _of_clusters(estimate: Estimate, unit: object) -> str:
    if estimate.clusters is None or unit not in ("group", "repo"):
        return ""
    if unit == "group":
        return f" in {counted(estimate.clusters, 'group')}"
    return f" of {estimate.clusters:,} repositor{'y' if estimate.clusters == 1 else 'ies'}"


def _without_comparison(report: Mapping[str, Any]) -> Sentence:
    for part in PARTS:
        nll = Estimate.read(pick(report, part, "nll"))
        if nll is not None:
            value, interval = shown(nll)
            ends = (
                f", {percent(nll.level)} interval {_unbroken(interval)}"
                if interval
                else ", no interval"
            )
            rows = _rows(nll, report, seen=part == "trained")
            text = f"On {rows} the model's loss is {value} {UNIT}{ends}."
            return Sentence("silent", "Not compared with the base.", text)
    return Sentence("silent", "No result.", "The evaluation holds no number that can be shown.")


def _without_evaluation(material: Material) -> Sentence:
    lead = "Not evaluated yet."
    if not material.hold_out:
        return Sentence("silent", lead, "There is no hold-out number either.")
    first, last = material.hold_out[0], material.hold_out[-1]
    text = f"The hold-out loss was {_at(last)}"
    if first.step < last.step:
        text = f"The hold-out loss went from {_at(first)} to {_at(last)}"
    return Sentence("silent", lead, f"{text}: single numbers without an interval.")


def _at(row: HoldOut) -> str:
    return f"{point(row.nll)} at step {row.step:,}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
