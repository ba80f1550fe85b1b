"""The page of one row: what it says, what of it is trained, how it was scored and answered.

What is known is gathered in `row_facts`; tokens in colour are drawn by `token_panels`, predictions
by `row_answers`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from swe_scaffold.numbers import EQUAL_WITHIN, count, fixed
from swe_scaffold.report.html import (
    NOTHING,
    Html,
    block,
    code,
    details,
    element,
    join_lines,
    page,
    paragraph,
    section,
    table,
)
from swe_scaffold.report.row_answers import answers
from swe_scaffold.report.row_facts import RowFacts
from swe_scaffold.report.row_scores import RowScores, Side
from swe_scaffold.report.token_panels import mask, panels, token_class_rows

if TYPE_CHECKING:
    from swe_scaffold.dataset.tracing import Trace

_DECIMALS = 3


def row_page(facts: RowFacts, trace: Trace | None = None) -> str:
    """Return one self-contained HTML page about a row; `trace` is its path through a build."""
    example, scores = facts.example, facts.scores
    about = [
        example.repo,
        f"label {example.label}",
        f"response from {example.response_source}" if example.response_source else "",
        f"{count(len(example.messages))} messages" if example.messages else "",
    ]
    header = element(
        "header",
        element("p", "SWE Speedrun Scaffold · one row", class_="kind"),
        element("h1", example.instance_id),
        paragraph(" · ".join(filter(None, about)), kind="about"),
    )
    sections = [
        _result(scores) if scores else NOTHING,
        panels(scores) if scores else NOTHING,
        *answers(facts),
        mask(scores) if scores else NOTHING,
        _row(facts),
        _path(trace) if trace else NOTHING,
    ]
    notes = [*facts.notes, *(scores.notes if scores else ())]
    footer = element("footer", *(paragraph(note, kind="foot") for note in notes))
    body = element("main", header, join_lines(sections), footer if notes else NOTHING)
    return page(f"{example.instance_id}: one row", body)


def sentence(scores: RowScores) -> tuple[str, str, str]:
    """Return what happened to the row: kind (better, worse, none), lead, text."""
    after = scores.sides[-1]
    place, among = scores.standing, f"{count(scores.standing.of)} {scores.standing.among} rows"
    seen = " It was trained on." if after.score.seen_in_training else ""
    if len(scores.sides) < 2:
        text = f"{fixed(after.per_token, _DECIMALS)} nats per response token"
        return "none", f"{text}.", f"{ordinal(place.place)} lowest of {among}.{seen}"
    before = scores.sides[0]
    moved = (
        f"{fixed(before.per_token, _DECIMALS)} → {fixed(after.per_token, _DECIMALS)} nats per "
        f"response token ({fixed(place.value, _DECIMALS, signed=True)})"
    )
    ranked = f"{ordinal(place.place)} best change of {among}.{seen}"
    if abs(place.value) <= EQUAL_WITHIN:
        return "none", "No change.", f"{moved}; {ranked}"
    better = place.value < 0
    lead = "This row got likelier." if better else "This row got less likely."
    return ("better" if better else "worse"), lead, f"{moved}; {ranked}"


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 11th."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 // 10 != 1 else 0, "th")
    return f"{count(number)}{ending}"


def _result(scores: RowScores) -> Html:
    kind, lead, text = sentence(scores)
    names = [[side.role, code(side.model)] for side in scores.sides]
    both = len(scores.sides) > 1
    headers = [
        "",
        *(side.role.capitalize() for side in scores.sides),
        *(["Change"] if both else []),
    ]
    classes = ["Token class", "Tokens", *headers[1:]]
    return section(
        "result",
        "Result",
        element("p", element("strong", lead), " ", text, class_=f"verdict {kind}"),
        table(["", "Model"], names, caption="What is compared", text_columns=2),
        table(headers, _numbers(scores.sides), caption="This row under each model"),
        table(classes, token_class_rows(scores), caption="NLL per token by token class, nats"),
        paragraph(
            "NLL is the negative log-likelihood of the reference response, end token included. One "
            "row has no interval, and says nothing about a model as a whole.",
            kind="note",
        ),
    )


def _numbers(sides: Sequence[Side]) -> list[list[object]]:
    scores = [side.score for side in sides]
    columns: list[tuple[str, list[float], int]] = [
        ("NLL, nats per response token", [side.per_token for side in sides], _DECIMALS),
        ("NLL of the response, nats", [one.nll_sum for one in scores], 1),
    ]
    if all(one.bytes for one in scores):
        bits = [one.nll_sum / math.log(2) / one.bytes for one in scores]
        columns.append(("Bits per byte of response", bits, _DECIMALS))
    lines: list[list[object]] = []
    for name, values, digits in columns:
        change = [fixed(values[-1] - values[0], digits, signed=True)] if len(values) > 1 else []
        lines.append([name, *(fixed(value, digits) for value in values), *change])
    blank = [""] if len(sides) > 1 else []
    lines.append(["Response tokens", *(count(one.tokens) for one in scores), *blank])
    lines.append(["Prompt tokens", *(count(one.prompt_tokens) for one in scores), *blank])
    seen = {True: "yes", False: "no", None: "not known"}
    lines.append(["Seen in training", *(seen[one.seen_in_training] for one in scores), *blank])
    return lines


def _row(facts: RowFacts) -> Html:
    example = facts.example
    meta = _json(example.meta, indent=1)
    parts = []
    if example.messages:
        for message in example.messages:
            calls = [f"{call.name} {_json(call.arguments)}" for call in message.tool_calls]
            text = "\n".join(filter(None, [message.content, *calls]))
            parts.append(element("h3", _turn(message.role, message.trained, message.train_reason)))
            parts.append(block(text))
    else:
        parts = [
            element("h3", "Prompt"),
            block(example.prompt),
            element("h3", "Response"),
            block(example.response),
        ]
    return section("row", "The row", *parts, details("Meta", block(meta)))


def _json(values: Mapping[str, Any], indent: int | None = None) -> str:
    return json.dumps(dict(values), ensure_ascii=False, allow_nan=False, indent=indent)


def _turn(role: str, trained: bool, reason: str) -> str:
    told = "trained" if trained else reason.replace("_", " ")
    return f"{role}, {told}" if told else role


def _path(trace: Trace) -> Html:
    ended = trace.place
    where = f" ({ended.where})" if ended.where else ""
    origin = trace.source.origin
    facts = [
        ["Ended in", f"{ended.ending.replace('_', ' ')}{where}"],
        ["Source", code(f"{origin.source}:{origin.row}", width=400) if origin.source else ""],
        ["Source now", "the same bytes" if trace.source.state == "read" else trace.source.state],
        ["Side of the split", str(trace.split.get("side") or "none")],
    ]
    verdicts = [
        [
            one.stage,
            {"kept": "kept", "not_reached": "not reached"}.get(one.outcome, one.reason),
            one.detail,
        ]
        for one in trace.verdicts
    ]
    findings = [
        paragraph(element("strong", finding.severity), ": ", finding.message, kind="note")
        for finding in trace.findings
    ]
    return section(
        "path",
        "Its path",
        *findings,
        table(["", "In the build"], facts, caption="Where it came from", text_columns=2),
        details(
            "Verdicts",
            table(["Stage", "Verdict", "Detail"], verdicts, caption="In order", text_columns=3),
        ),
    )
