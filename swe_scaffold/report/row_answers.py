"""The sections about what models answered to one row, beside the gold response."""

from __future__ import annotations

from collections.abc import Iterator

from swe_scaffold.numbers import count, counted, finite, point
from swe_scaffold.report.html import (
    NOTHING,
    Html,
    block,
    code,
    code_lines,
    details,
    element,
    escape_block,
    paragraph,
    section,
    table,
)
from swe_scaffold.report.patch_pair import FilePair, PatchPair, Where
from swe_scaffold.report.row_facts import RowFacts
from swe_scaffold.report.row_predictions import Prediction

MOST_SHOWN, MOST_LINES = 8, 400
NAMES: dict[Where, str] = {"both": "both", "gold": "gold", "prediction": "model"}


def answers(facts: RowFacts) -> Iterator[Html]:
    """Yield one section for each prediction."""
    for number, one in enumerate(facts.predictions[:MOST_SHOWN], start=1):
        yield _answer(one, number)
    left = len(facts.predictions) - MOST_SHOWN
    if left > 0:
        yield section(
            "answers-left", f"{count(left)} more predictions", paragraph("They are in the JSON.")
        )


def summary(pair: PatchPair) -> str:
    """Return how many lines two patches share, in words."""
    what = "changed line" if pair.patches else "line"
    return (
        f"{counted(pair.count('both'), what)} in both, {count(pair.count('gold'))} only in gold, "
        f"{count(pair.count('prediction'))} only in the prediction"
    )


def told(one: Prediction) -> list[tuple[str, str]]:
    """Return what is known of an answer, name and value."""
    facts = [("problem", one.problem or "none"), ("form", one.form)]
    if one.repairs:
        repairs = ", ".join(f"{name} {many}" for name, many in one.repairs.items())
        facts.append(("repairs", repairs))
    facts += [(name, word(value)) for name, value in one.health.items()]
    facts += [(name.replace("_", " "), word(value)) for name, value in one.metrics.items()]
    return [(name, value) for name, value in facts if value]


def word(value: object) -> str:
    """Return a flag, number or text as people write it."""
    if value is None or isinstance(value, bool):
        return {None: "not known", True: "yes", False: "no"}[value]
    number = finite(value)
    return str(value) if number is None else point(number)


def _answer(one: Prediction, number: int) -> Html:
    sample = f", sample {count(one.sample)}" if one.sample else ""
    patch = details("The patch", block(one.patch)) if one.patch.strip() else NOTHING
    text = details("What the model wrote", block(one.text)) if one.text else NOTHING
    return section(
        f"answer-{number}",
        f"Answer {number}: {one.model or 'model not named'}",
        paragraph(f"from {one.origin}{sample}: {summary(one.pair)}."),
        *(_file(file) for file in one.pair.files),
        table(
            ["", "Known of it"],
            [[name, code(value)] for name, value in told(one)],
            caption="The answer",
            text_columns=2,
        ),
        patch,
        text,
    )


def _file(file: FilePair) -> Html:
    where = "" if file.in_gold and file.in_prediction else ", only in the prediction"
    if file.in_gold and not file.in_prediction:
        where = ", only in gold"
    lines = [
        element(
            "span",
            element("span", Html(f"{NAMES[side]:>5}"), class_="gut"),
            escape_block(line),
            class_=f"line in-{side}",
        )
        for side, line in file.lines[:MOST_LINES]
    ]
    left = len(file.lines) - len(lines)
    more = paragraph(f"{count(left)} lines more.", kind="note") if left else NOTHING
    heading = element("h3", code(file.path), where) if file.path else NOTHING
    longest = max((len(line) for _, line in file.lines[:MOST_LINES]), default=0)
    shown = code_lines(lines, longest=longest) if lines else NOTHING
    return element("div", heading, shown, more)
