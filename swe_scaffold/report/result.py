"""The sections about an evaluation: the result, token classes, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swe_scaffold.numbers import (
    Estimate,
    branch,
    count,
    counted,
    finite,
    percent,
    pick,
    point,
    shown,
    whole,
    wording,
)
from swe_scaffold.report.charts import Words, figure
from swe_scaffold.report.html import (
    NOTHING,
    Html,
    code,
    details,
    element,
    join,
    paragraph,
    section,
    table,
)
from swe_scaffold.report.material import Material
from swe_scaffold.report.plots import Bars, Dot, bar_plot, dot_plot
from swe_scaffold.report.slices import CLASSES, cell, p_text
from swe_scaffold.report.verdict import (
    CONTROL,
    DIFFERENCE,
    UNIT,
    control,
    headline,
    the_part,
    warnings,
)

GROUPS_DRAWN, GROUPS_LISTED = 40, 200
SIDES = ("← tuned better", "tuned worse →")
_QUANTITIES = (
    ("nll", "NLL, nats per response token"),
    ("perplexity", "Perplexity per response token"),
    ("bits_per_byte", "Bits per byte of response"),
)


def result(material: Material) -> Html:
    """Return the headline, the paired differences and the table of likelihoods."""
    report = material.evaluation
    top = headline(material)
    sentence = element(
        "p", element("strong", top.lead), " ", top.text, class_=f"verdict {top.kind}"
    )
    if not report:
        hint = paragraph(
            "An evaluation adds the comparison with the base, token classes and groups.",
            kind="note",
        )
        return section("result", "Result", sentence, hint)
    return section(
        "result",
        "Result",
        sentence,
        *(
            paragraph(element("strong", "Beware. "), text, kind="note")
            for text in warnings(material)
        ),
        _likelihoods(report),
        _differences(report),
        _other_intervals(report),
        paragraph(
            "NLL is the negative log-likelihood of the reference responses, end token included. "
            "It says how well they are predicted, not whether generated patches would work.",
            kind="note",
        ),
    )


def token_classes(material: Material) -> Html:
    """Return NLL by token class, base against tuned."""
    report = material.evaluation
    part, _ = the_part(report)
    tuned, base = branch(part, "by_class"), branch(report, "base", "by_class")
    paired = branch(report, "comparison", "slices", "token_class")
    rows, lines = [], []
    for name in sorted(tuned, key=_class_order):
        label = CLASSES.get(name, name)
        after, before = Estimate.read(tuned[name]), Estimate.read(base.get(name))
        if after is None:
            continue
        bars = [("base", "base", before)] if before else []
        rows.append(Bars(label, [*bars, ("tuned", "tuned", after)]))
        change = Estimate.read(pick(paired, name, "effect"))
        cells = [cell(before), cell(after), cell(change, signed=True)]
        lines.append([label, "" if after.tokens is None else count(after.tokens), *cells])
    if not rows:
        return NOTHING
    words = Words(
        "classes",
        "NLL by token class",
        "Bars of NLL per token with intervals: " + ", ".join(row.label for row in rows) + ".",
        x=UNIT.replace("response token", "token"),
    )
    headers = ["Token class", "Tokens", "Base", "Tuned", "Tuned − base"]
    legend = [("base", "base")] if base else []
    return section(
        "classes",
        "Where in the response",
        figure(
            lambda width: bar_plot(rows, words, width=width),
            caption="NLL per token by the kind of line a token stands in; lines are intervals. "
            "A gain on diff headers is one in syntax; one on added lines is closer to the repair.",
            legend=[*legend, ("tuned", "tuned")],
            behind=table(headers, lines, caption="NLL per token by token class, with intervals"),
        ),
    )


def groups(material: Material) -> Html:
    """Return the difference in each group beside the overall one."""
    comparison = branch(material.evaluation, "comparison")
    drawn = by_group(comparison, key="groups", difference=DIFFERENCE, unit=UNIT, sides=SIDES)
    if not drawn:
        return NOTHING
    return section("groups", "Group by group", drawn, worst(comparison, "from base to tuned"))


def by_group(
    comparison: Mapping[str, Any],
    *,
    key: str,
    difference: str,
    unit: str,
    sides: tuple[str, str],
) -> Html:
    """Return the difference in each group, drawn beside the overall one; nothing without groups.

    Args:
        comparison: What `compare` found.
        key: Id of the chart on the page.
        difference: What is subtracted from what.
        unit: What it is measured in.
        sides: What lies left and right of zero.
    """
    overall = Estimate.read(comparison.get("effect"))
    found = []
    for name, entry in branch(comparison, "slices", "group").items():
        effect = Estimate.read(pick(entry, "effect"))
        if effect is not None:
            found.append((effect, str(name), branch(entry, "rows")))
    if overall is None or not found:
        return NOTHING
    found.sort(key=lambda one: (-(one[0].tokens or 0), one[1]))
    drawn = sorted(found[:GROUPS_DRAWN], key=lambda one: (one[0].value, one[1]))
    rows = [Dot("all rows", overall, head=True)]
    rows += [Dot(f"{name} ({effect.n})" if effect.n else name, effect) for effect, name, _ in drawn]
    words = Words(
        key,
        f"{difference} in each group",
        f"Differences in {unit} with intervals: all rows, then "
        f"{counted(len(drawn), 'group')}, the lowest first.",
        x=f"{difference}, {unit}",
    )
    better = sum(effect.value < 0 for effect, _, _ in found)
    caption = (
        f"The difference is below zero in {better} of {counted(len(found), 'group')}. "
        "Intervals of one group treat its rows as independent; in brackets the number of rows. "
        "Filled: the interval excludes zero; hollow: it does not, or there is none; an arrow head: "
        "it goes on beyond the axis."
    )
    if len(found) > len(drawn):
        caption += f" Drawn are the {len(drawn)} groups with the most tokens."
    return figure(
        lambda width: dot_plot(rows, words, width=width, sides=sides),
        caption=caption,
        behind=_group_table(found, difference, unit),
    )


def _group_table(
    found: Sequence[tuple[Estimate, str, Mapping[str, Any]]], difference: str, unit: str
) -> Html:
    lines = []
    for effect, name, rows in sorted(found[:GROUPS_LISTED], key=lambda one: (one[0].value, one[1])):
        moved = [whole(rows.get(key)) for key in ("better", "worse", "equal")]
        cells = ["" if many is None else count(many) for many in (effect.n, *moved)]
        lines.append([code(name), cell(effect, signed=True), *cells])
    left = len(found) - len(lines)
    note = f"; {counted(left, 'group')} with fewer tokens not listed" if left else ""
    headers = ["Group", difference.capitalize(), "Rows", "Better", "Worse", "Equal"]
    return table(headers, lines, caption=f"Difference by group, {unit}{note}")


def worst(comparison: Mapping[str, Any], how: str) -> Html:
    """Return the rows that got worse most, folded; `how` says between which models."""
    lines = []
    rows = comparison.get("worst")
    for row in rows if isinstance(rows, list | tuple) else ():
        change, tokens = finite(pick(row, "difference")), whole(pick(row, "tokens"))
        if change is None or change <= 0 or not tokens:
            continue
        each = point(change / tokens, signed=True)
        name, group = wording(row, "instance_id"), wording(row, "group")
        lines.append([code(name), code(group), count(tokens), point(change, signed=True), each])
    if not lines:
        return NOTHING
    headers = ["Row", "Group", "Tokens", "Nats", "Per token"]
    caption = f"Rows whose NLL rose most {how}"
    return details("Rows that got worse", table(headers, lines, caption=caption, text_columns=2))


def _differences(report: Mapping[str, Any]) -> Html:
    """Return the paired differences: a small plot around zero and the table behind it."""
    rows, lines = [], []
    for name, label in (("comparison", DIFFERENCE), ("shuffled_prompts", f"{CONTROL} prompt")):
        found = branch(report, name)
        found = branch(found, "comparison") if name == "shuffled_prompts" else found
        effect = Estimate.read(found.get("effect"))
        if effect is None:
            continue
        rows.append(Dot(label, effect, head=name == "comparison"))
        lines.append([label, *_difference_cells(effect, found)])
    words = Words(
        "differences",
        "Paired differences of NLL",
        "; ".join(f"{row.label}: {' '.join(shown(row.estimate, signed=True))}" for row in rows),
        x=f"difference, {UNIT}",
    )
    if not rows:
        return NOTHING
    headers = ["Difference", "Nats per token", "Perplexity ratio", "Better / worse / equal", "p"]
    prompts = control(report)
    return join(
        [
            element("h3", "Paired differences"),
            figure(
                lambda width: dot_plot(rows, words, width=width, sides=("← lower NLL", "higher →"))
            ),
            paragraph(element("strong", prompts.lead), " ", prompts.text) if prompts else NOTHING,
            table(headers, lines, caption="Rows better, worse, equal; p by sign flips of clusters"),
        ]
    )


def _difference_cells(effect: Estimate, comparison: Mapping[str, Any]) -> list[object]:
    moved = [whole(pick(comparison, "rows", key)) for key in ("better", "worse", "equal")]
    p = finite(pick(comparison, "sign_flip", "p_value"))
    ratio = Estimate.read(comparison.get("perplexity_ratio"))
    return [
        cell(effect, signed=True),
        cell(ratio),
        " / ".join("?" if many is None else count(many) for many in moved),
        p_text(p),
    ]


def _likelihoods(report: Mapping[str, Any]) -> Html:
    """Return NLL, perplexity and bits per byte of base and tuned model."""
    part, name = the_part(report)
    base = branch(report, "base")
    columns = [("Base", base)] if base else []
    columns.append(("Tuned" if base else "Model", part))
    if name == "unseen" and (seen := branch(report, "trained")):
        columns.append(("Tuned, rows seen in training", seen))
    lines = []
    for key, label in _QUANTITIES:
        cells = [cell(Estimate.read(column.get(key))) for _, column in columns]
        lines.append([label, *cells])
    nll = Estimate.read(part.get("nll"))
    if nll is None:
        return NOTHING
    what = "unseen rows" if name == "unseen" else "rows seen in training"
    unit = wording(report, "settings", "cluster_by") or "group"
    caption = f"{'' if nll.n is None else f'{nll.n:,} '}{what}"
    if nll.tokens is not None:
        caption += f", {count(nll.tokens)} response tokens"
    caption += f"; {percent(nll.level)} intervals" + (
        f", {nll.method}, by {unit}" if nll.method else ""
    )
    return table(["", *(label for label, _ in columns)], lines, caption=caption)


def _other_intervals(report: Mapping[str, Any]) -> Html:
    """Return the same numbers with the intervals that are not the headline."""
    part, _ = the_part(report)
    lines = []
    for label, tree, keys in (
        ("NLL, tuned", part, ("nll", "nll_small_sample", "nll_bootstrap", "nll_naive")),
        (
            "tuned − base",
            branch(report, "comparison"),
            ("effect", "effect_small_sample", "effect_bootstrap"),
        ),
    ):
        for key in keys:
            estimate = Estimate.read(tree.get(key))
            if estimate is not None and estimate.interval:
                value, interval = shown(estimate, signed=label != "NLL, tuned")
                lines.append([label, estimate.method, f"{value} {interval}"])
    quantiles = branch(part, "quantiles")
    spread = [finite(quantiles.get(key)) for key in ("mean", "p05", "median", "p95")]
    if all(one is not None for one in spread):
        mean, low, middle, high = (f"{one:.3f}" for one in spread if one is not None)
        lines.append(
            [
                "NLL per example",
                "mean; 5 %, 50 %, 95 % quantile",
                f"{mean}; {low}, {middle}, {high}",
            ]
        )
    if not lines:
        return NOTHING
    headers = ["Quantity", "Interval", UNIT]
    caption = "The first interval of each quantity is the headline"
    return details("Other intervals", table(headers, lines, caption=caption, text_columns=2))


def _class_order(name: str) -> tuple[int, str]:
    order = list(CLASSES)
    return (order.index(name) if name in order else len(order), str(name))
