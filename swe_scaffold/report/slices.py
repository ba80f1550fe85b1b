"""Tables by repository, label, response source, length and language; and the health of answers.

One model's numbers, or two models' paired differences; both reports hold the same slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_scaffold.numbers import (
    Estimate,
    branch,
    claim,
    count,
    counted,
    finite,
    pick,
    shown,
    whole,
)
from swe_scaffold.report.html import (
    NOTHING,
    Html,
    code,
    element,
    join,
    paragraph,
    section,
    table,
)
from swe_scaffold.report.material import Material
from swe_scaffold.report.verdict import UNIT, rough, the_part, withheld_by

# Repositories have a chart of their own.
TITLES = {
    "label": "Label",
    "response_source": "Response source",
    "length": "Length of the response",
    "language": "Language",
}
CLASSES = {
    "header": "diff header",
    "context": "context line",
    "removed": "removed line (−)",
    "added": "added line (+)",
    "other": "other text",
    "text": "chat text",
    "end": "end token",
}
FLAGS = {
    "stopped": "Stopped by itself",
    "empty": "Empty",
    "repeated": "Mostly a repetition",
    "parseable": "A patch that can be read",
}
MOST_SLICES = 40
_WORDS = {"better": "better", "worse": "worse", "none": "no difference shown", "silent": "no claim"}


def run_slices(material: Material) -> Html:
    """Return one model's tables, each that has more than one slice."""
    part, _ = the_part(material.evaluation)
    changes = branch(material.evaluation, "comparison", "slices")
    parts = [
        _run_table(name, branch(part, "slices", name), branch(changes, name)) for name in TITLES
    ]
    return section("slices", "By kind of row", *parts) if any(parts) else NOTHING


def difference_table(name: str, entries: Mapping[str, Any], *, unit: str) -> Html:
    """Return the paired differences of one table's slices; nothing where there is but one.

    Args:
        name: The table's name in the report.
        entries: Differences by slice.
        unit: What they are measured in.
    """
    found = [(key, entry, effect) for key, entry in entries.items() if (effect := _effect(entry))]
    if len(found) < 2:
        return NOTHING
    title = TITLES.get(name, "Token class" if name == "token_class" else name.capitalize())
    lines = []
    for key, entry, effect in _in_order(name, found)[:MOST_SLICES]:
        label: object = CLASSES.get(key, key) if name == "token_class" else code(key)
        cells = [count(effect.n) if effect.n is not None else "", cell(effect, signed=True)]
        lines.append([label, *cells, p_text(finite(entry.get("p_holm"))), what_is_shown(entry)])
    left = len(found) - len(lines)
    note = f"; {counted(left, 'slice')} with fewer tokens not listed" if left else ""
    headers = [title, "Rows", "Difference", "p (Holm)", "What is shown"]
    return table(headers, lines, caption=f"By {title.lower()}, {unit}{note}")


def only_slices(slices: Mapping[str, Any]) -> str:
    """Return in words which tables have but one slice."""
    alone = [
        f"{title.lower()} {next(iter(branch(slices, name)))}"
        for name, title in TITLES.items()
        if len(branch(slices, name)) == 1
    ]
    return f"The same for all rows: {', '.join(alone)}." if alone else ""


def what_is_shown(entry: Mapping[str, Any]) -> Html:
    """Return what an interval shows, and beside "no difference" what could have been found."""
    kind = claim(entry)
    told: list[object] = [_WORDS[kind]]
    if (other := withheld_by(entry)) is not None:
        told.append(
            element("span", f"for few clusters {shown(other, signed=True)[1]}", class_="ci")
        )
    least = finite(entry.get("minimum_detectable_effect"))
    if kind not in ("better", "worse") and least:
        told.append(element("span", f"detectable: about {rough(least)}", class_="ci"))
    return join(told)


def health_table(shares: Mapping[str, Any], *, prompts: int | None) -> Html:
    """Return the share of each flag with its interval, of one model."""
    lines = [
        [FLAGS.get(name, name), share_cell(Estimate.read(share)), _of(share)]
        for name, share in shares.items()
    ]
    asked = "" if prompts is None else f" to {counted(prompts, 'prompt')}"
    caption = f"Answers{asked}, with Wilson intervals, as if independent"
    return table(["Answers", "Share", "Of"], lines, caption=caption) if lines else NOTHING


def run_health(material: Material) -> Html:
    """Return what the model's answers look like, if it was asked."""
    found = branch(material.evaluation, "health")
    shown_ = health_table(branch(found, "shares"), prompts=whole(found.get("prompts")))
    if not shown_:
        return NOTHING
    note = paragraph(
        "Greedy answers to some of the prompts. A good likelihood does not show that a model "
        "stops, or says anything of use.",
        kind="note",
    )
    return section("health", "Do its answers look like answers?", shown_, note)


def cell(estimate: Estimate | None, *, signed: bool = False) -> Html:
    """Return a number with its interval below."""
    if estimate is None:
        return NOTHING
    value, interval = shown(estimate, signed=signed)
    return join([value, element("span", interval or "no interval", class_="ci")])


def share_cell(share: Estimate | None) -> Html:
    """Return a share in percent with its interval below."""
    if share is None:
        return NOTHING
    ends = "no interval"
    if share.low is not None and share.high is not None:
        ends = f"[{100 * share.low:.0f}, {100 * share.high:.0f}]"
    return join([f"{100 * share.value:.0f} %", element("span", ends, class_="ci")])


def p_text(p: float | None) -> str:
    """Return a p-value, never as zero."""
    if p is None:
        return ""
    if p >= 0.9995:
        return "1"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.5f}" if p >= 1e-5 else "< 0.00001"


def _run_table(name: str, entries: Mapping[str, Any], changes: Mapping[str, Any]) -> Html:
    found = [
        (key, entry, nll)
        for key, entry in entries.items()
        if (nll := Estimate.read(pick(entry, "nll"))) is not None
    ]
    if len(found) < 2:
        return NOTHING
    lines = []
    for key, _, nll in _in_order(name, found)[:MOST_SLICES]:
        effect = _effect(branch(changes, key))
        cells: list[object] = ["" if nll.n is None else count(nll.n), cell(nll)]
        if changes:
            cells += [cell(effect, signed=True), what_is_shown(branch(changes, key))]
        lines.append([code(key), *cells])
    left = len(found) - len(lines)
    note = f"; {counted(left, 'slice')} with fewer tokens not listed" if left else ""
    headers = [TITLES[name], "Rows", "NLL", *(["Tuned − base", "What is shown"] if changes else [])]
    return table(headers, lines, caption=f"By {TITLES[name].lower()}, {UNIT}{note}")


def _in_order(name: str, found: list[Any]) -> list[Any]:
    """Return slices by tokens, most first; lengths and classes have an order of their own."""
    if name == "length":
        return found
    if name == "token_class":
        order = list(CLASSES)
        return sorted(found, key=lambda one: order.index(one[0]) if one[0] in order else len(order))
    return sorted(found, key=lambda one: (-(one[2].tokens or 0), one[0]))


def _effect(entry: object) -> Estimate | None:
    return Estimate.read(pick(entry, "effect"))


def _of(share: Mapping[str, Any]) -> str:
    n = whole(pick(share, "n"))
    return "" if n is None else count(n)
