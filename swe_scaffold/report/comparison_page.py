"""The page of a comparison: each model against the baseline, and what that rests on.

Everything is taken from the report of `compare`; no number is made here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_scaffold.numbers import (
    Estimate,
    branch,
    count,
    counted,
    finite,
    pick,
    point,
    precision,
    texts,
    whole,
    wording,
)
from swe_scaffold.report.accounts import command_lines, listing, settings_options
from swe_scaffold.report.html import (
    NOTHING,
    Html,
    code,
    details,
    element,
    escape,
    join_lines,
    page,
    paragraph,
    section,
    table,
)
from swe_scaffold.report.result import by_group, worst
from swe_scaffold.report.slices import (
    FLAGS,
    TITLES,
    cell,
    difference_table,
    only_slices,
    p_text,
    share_cell,
)
from swe_scaffold.report.verdict import MODEL_DIFFERENCE, UNIT, compared, control, rough

SIDES = ("← model better", "model worse →")
UNITS = {"token": UNIT, "byte": "bits per byte of response"}


def comparison_page(report: Mapping[str, Any]) -> str:
    """Return one self-contained HTML page about a comparison, as `compare` reports it."""
    models = [one for one in report.get("models") or () if isinstance(one, Mapping)]
    baseline = _name(branch(report, "baseline"))
    title = f"{_listed([_name(one) for one in models])} against {_short(baseline)}"
    data = branch(report, "data")
    rows = whole(data.get("rows"))
    about = ["" if rows is None else counted(rows, "row"), f"baseline {baseline}"]
    header = element(
        "header",
        element("p", "SWE Speedrun Scaffold · comparison", class_="kind"),
        element("h1", title),
        paragraph(" · ".join(filter(None, about)), kind="about"),
    )
    sections = [_overview(report, models) if len(models) > 1 else NOTHING]
    for number, model in enumerate(models, start=1):
        sections += _model(model, report, f"model-{number}")
    sections += [_data(report, models), _commands(report, models)]
    notes = [paragraph(note, kind="foot") for note in _notes(report, models)]
    footer = element("footer", *notes) if notes else NOTHING
    return page(title, element("main", header, join_lines(sections), footer))


def _overview(report: Mapping[str, Any], models: list[Mapping[str, Any]]) -> Html:
    lines = []
    for model in models:
        comparison = branch(model, "comparison")
        told = compared(comparison, unit=_unit(report), several=True)
        lines.append(
            [
                code(_name(model)),
                told.lead,
                cell(Estimate.read(comparison.get("effect")), signed=True),
                p_text(finite(model.get("p_holm"))),
                _gate_word(model),
            ]
        )
    headers = ["Model", "What is shown", MODEL_DIFFERENCE.capitalize(), "p (Holm)", "Gate"]
    note = f"p by sign flips of clusters, adjusted for {len(models)} models."
    caption = f"Every model against the baseline, {_unit(report)}"
    return section(
        "overview",
        "All models",
        table(headers, lines, caption=caption, text_columns=2),
        paragraph(note, kind="note"),
    )


def _model(model: Mapping[str, Any], report: Mapping[str, Any], key: str) -> Iterator[Html]:
    comparison, unit = branch(model, "comparison"), _unit(report)
    several = len(report.get("models") or ()) > 1
    told = compared(comparison, unit=unit, several=several)
    suffix = f": {_name(model)}" if several else ""
    yield section(
        key,
        f"Result{suffix}",
        element("p", element("strong", told.lead), " ", told.text, class_=f"verdict {told.kind}"),
        _gate(model),
        *(paragraph(element("strong", "Beware. "), text, kind="note") for text in _bewares(report)),
        _numbers(model, report),
        _control(model),
    )
    drawn = by_group(
        comparison, key=f"{key}-chart", difference=MODEL_DIFFERENCE, unit=unit, sides=SIDES
    )
    if drawn:
        rose = worst(comparison, "from baseline to model")
        by_repo = comparison.get("cluster_by") == "repo"
        heading = "Repository by repository" if by_repo else "Group by group"
        yield section(f"{key}-groups", f"{heading}{suffix}", drawn, rose)
    slices = branch(comparison, "slices")
    tables = [
        difference_table(name, branch(slices, name), unit=unit) for name in (*TITLES, "token_class")
    ]
    if any(tables):
        note = (
            "p-values are adjusted within each table (Holm); intervals are not. “Detectable” is "
            "about the smallest true difference that such a comparison is likely to find."
        )
        yield section(
            f"{key}-slices",
            f"By kind of row{suffix}",
            *tables,
            paragraph(f"{only_slices(slices)} {note}".strip(), kind="note"),
        )
    health = _health(branch(model, "health"))
    if health:
        yield section(f"{key}-health", f"Do the answers look like answers?{suffix}", health)


def _numbers(model: Mapping[str, Any], report: Mapping[str, Any]) -> Html:
    comparison = branch(model, "comparison")
    flip = branch(comparison, "sign_flip")
    effect = Estimate.read(comparison.get("effect"))
    lines: list[list[object]] = []
    for name, key in (
        ("Headline", "effect"),
        ("For few or unequal clusters", "effect_small_sample"),
        ("Cluster bootstrap", "effect_bootstrap"),
    ):
        estimate = Estimate.read(comparison.get(key))
        if estimate is not None:
            lines.append([f"{name}: {estimate.method}", cell(estimate, signed=True)])
    ratio = Estimate.read(comparison.get("perplexity_ratio"))
    if ratio is not None:
        lines.append(["Perplexity, model ÷ baseline", cell(ratio)])
    levels = [finite(comparison.get(key)) for key in ("base_nll", "tuned_nll")]
    if None not in levels:
        text = " → ".join(point(value) for value in levels if value is not None)
        lines.append([f"NLL, baseline → model, {UNIT}", text])
    moved = [whole(pick(comparison, "rows", key)) for key in ("better", "worse", "equal")]
    if None not in moved:
        text = " / ".join(count(many) for many in moved if many is not None)
        lines.append(["Rows better / worse / equal", text])
    lines.append(["p by sign flips of clusters", p_text(finite(flip.get("p_value")))])
    lines.append(["At best, with so many clusters", p_text(finite(flip.get("smallest_p")))])
    if len(report.get("models") or ()) > 1:
        lines.append(["p adjusted for all models (Holm)", p_text(finite(model.get("p_holm")))])
    least = finite(comparison.get("minimum_detectable_effect"))
    if least is not None:
        lines.append(["Detectable, about", rough(least)])
    by = wording(comparison, "cluster_by") or "group"
    clusters = "" if effect is None or effect.clusters is None else f"{count(effect.clusters)} "
    caption = f"{MODEL_DIFFERENCE.capitalize()}, {_unit(report)}, {clusters}clusters by {by}"
    return table(["", "Value"], lines, caption=caption)


def _control(model: Mapping[str, Any]) -> Html:
    told = control(model)
    return paragraph(element("strong", told.lead), " ", told.text) if told else NOTHING


def _gate(model: Mapping[str, Any]) -> Html:
    gate = branch(model, "gate")
    if not gate:
        return NOTHING
    word = "passes" if gate.get("passes") is True else "does not pass"
    reasons = [element("li", reason) for reason in texts(gate.get("reasons"))]
    lead = element("strong", f"The gate “{wording(gate, 'wanted')}”: {word}.")
    return element("div", paragraph(lead), element("ul", *reasons))


def _gate_word(model: Mapping[str, Any]) -> str:
    passes = pick(model, "gate", "passes")
    return "" if not isinstance(passes, bool) else "passes" if passes else "does not pass"


def _health(health: Mapping[str, Any]) -> Html:
    lines = []
    for name, pair in health.items():
        base, tuned = (Estimate.read(pick(pair, side)) for side in ("base", "tuned"))
        only = [whole(pick(pair, f"only_{side}")) for side in ("base", "tuned")]
        cells = ["" if many is None else count(many) for many in only]
        p = p_text(finite(pick(pair, "p_value")))
        lines.append([FLAGS.get(name, name), share_cell(base), share_cell(tuned), *cells, p])
    if not lines:
        return NOTHING
    headers = ["Answers", "Baseline", "Model", "Only baseline", "Only model", "p (McNemar)"]
    n = next((whole(pick(pair, "base", "n")) for pair in health.values()), None)
    asked = "" if n is None else f" to {counted(n, 'prompt')}"
    caption = f"Greedy answers{asked}, with Wilson intervals, as if independent"
    return table(headers, lines, caption=caption)


def _data(report: Mapping[str, Any], models: list[Mapping[str, Any]]) -> Html:
    data = branch(report, "data")
    facts = {
        "rows": data.get("rows"),
        "sha256 of the data": data.get("sha256"),
        "rows that a model was trained on": data.get("seen"),
        "of these left out": data.get("seen_left_out"),
        "only in some, left out": data.get("only_in_some"),
    }
    lines = [
        [
            role,
            code(_name(one)),
            f"{_scored_in(one)} on {wording(one, 'model', 'device')}",
            code(wording(one, "key")[:12]),
        ]
        for role, one in [("baseline", branch(report, "baseline")), *(("model", m) for m in models)]
    ]
    return section(
        "data",
        "What it rests on",
        table(["", "Name", "Scored in", "Key"], lines, caption="Evaluations", text_columns=4),
        details(
            "Data, settings, hashes",
            listing("Data", facts),
            listing("Settings", branch(report, "settings")),
            *(
                listing(f"{_name(one)}", branch(one, "model"))
                for one in [branch(report, "baseline"), *models]
            ),
        ),
    )


def _commands(report: Mapping[str, Any], models: list[Mapping[str, Any]]) -> Html:
    places = [wording(one, "evaluation") for one in [branch(report, "baseline"), *models]]
    folders = [str(Path(place).parent) if place else "EVALUATION" for place in places]
    options: list[Sequence[str]] = []
    seen = wording(report, "data", "seen")
    if seen and seen != "refuse":
        options.append(("--seen", seen))
    if whole(pick(report, "data", "only_in_some")):
        options.append(("--common",))
    gate = next((branch(one, "gate") for one in models if branch(one, "gate")), {})
    if gate:
        limit = finite(gate.get("limit")) or 0.0
        margin = [] if not limit else ["--margin", f"{abs(limit):g}"]
        options.append(("--gate", wording(gate, "wanted"), *margin))
    options += settings_options(branch(report, "settings"))
    lines = command_lines(["swe-scaffold", "compare", *folders], options)
    block = element("pre", Html("\n".join(escape(one) for one in lines)), tabindex=0)
    note = "The same evaluations give the same numbers."
    return section("commands", "To compute it again", block, paragraph(note, kind="note"))


def _bewares(report: Mapping[str, Any]) -> list[str]:
    if pick(report, "data", "per") == "byte":
        return ["The tokenizers differ, so that only bits per byte can be compared."]
    return []


def _notes(report: Mapping[str, Any], models: list[Mapping[str, Any]]) -> list[str]:
    found = [
        f"{_name(one)}: {note}."
        for one in [branch(report, "baseline"), *models]
        for note in texts(one.get("notes"))
    ]
    return list(dict.fromkeys(found))


def _unit(report: Mapping[str, Any]) -> str:
    return UNITS.get(wording(report, "data", "per"), UNIT)


def _name(about: Mapping[str, Any]) -> str:
    return wording(about, "model", "name") or "a model"


def _scored_in(about: Mapping[str, Any]) -> str:
    return precision(wording(about, "model", "dtype"), pick(about, "model", "quantization"))


def _short(name: str) -> str:
    return Path(name).name or name


def _listed(names: list[str]) -> str:
    few = [_short(name) for name in names[:3]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(few) + more
