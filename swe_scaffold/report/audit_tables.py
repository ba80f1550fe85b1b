"""The tables of an audit's page: files, identity, sources, tools, contamination, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.audit.benchmarks import RULES
from swe_scaffold.audit.coverage import WAYS
from swe_scaffold.numbers import count, percent
from swe_scaffold.report.html import (
    NOTHING,
    Html,
    code,
    details,
    element,
    join_lines,
    paragraph,
    section,
    table,
)

if TYPE_CHECKING:
    from swe_scaffold.audit import AuditReport, FileReport

_SOURCES, _TOOLS, _REPOS = 40, 60, 10
_ROLES = {"dev": "dev", "test": "hold-out", "file": "rows"}


def files(report: AuditReport) -> Html:
    """Return what is in each file, and folded their hashes."""
    headers = ["File", "Part", "Rows", "Unreadable", "Repositories", "Chats", "No response"]
    lines = [
        [
            code(Path(file.path).name),
            _ROLES[file.role],
            count(file.rows),
            count(file.unreadable),
            count(file.summary["repos"]),
            count(file.summary["chats"]),
            count(file.summary["empty_responses"]),
        ]
        for file in report.files
    ]
    hashes = [[code(file.path, width=4096), code(file.sha256)] for file in report.files]
    top = [
        [code(name), _ROLES[file.role], count(rows)]
        for file in report.files
        for name, rows in list(file.summary["top_repos"].items())[:_REPOS]
    ]
    return join_lines(
        [
            table(headers, lines, caption="What was audited", text_columns=2),
            details(
                "Paths and hashes",
                table(["Path", "SHA-256"], hashes, caption="Files as read", text_columns=2),
            ),
            details(
                "Repositories with most rows",
                table(["Repository", "Part", "Rows"], top, caption="By file", text_columns=2),
            ),
        ]
    )


def identities(report: AuditReport) -> Iterator[Html]:
    """Yield for each build the identity as counted again."""
    for file, _ in report.units:
        if file.ledger is None:
            continue
        counts = file.ledger.counts
        parts = ("dev", "test", "skipped", "beyond_limit")
        sign = "=" if counts["read"] == sum(counts[name] for name in parts) else "≠"
        words = " + ".join(f"{name.replace('_', ' ')} {count(counts[name])}" for name in parts)
        yield paragraph(
            element("strong", f"read {count(counts['read'])} {sign} {words}"),
            f" in {Path(file.path).name}, counted again from the files; "
            f"{file.ledger.recounted_inputs} of {file.ledger.inputs} inputs were read again. "
            f"Sides were chosen by {file.ledger.method}.",
        )


def sources(report: AuditReport) -> Html:
    """Return the rows by the source they name, dev and hold-out side by side."""
    parts = []
    for dev, test in report.units:
        tables = [file.sources for file in (dev, test) if file]
        whole = sum(one.rows for one in tables)
        sides = [{entry.source: entry for entry in one.sources} for one in tables]
        lines: list[list[object]] = []
        for name in dict.fromkeys(name for side in sides for name in side):
            found = [side.get(name) for side in sides]
            rows = sum(entry.rows for entry in found if entry)
            failures = sum(entry.labels.get("failure", 0) for entry in found if entry)
            kinds = dict.fromkeys(
                kind for entry in found if entry for kind in entry.response_sources
            )
            responses = ", ".join(
                f"{kind} {count(sum(e.response_sources.get(kind, 0) for e in found if e))}"
                for kind in kinds
            )
            each = [count(entry.rows) if entry else "0" for entry in found]
            share = percent(round(rows / whole, 3))
            lines.append([code(name or "not named"), responses, *each, share, count(failures)])
        if not lines:
            continue
        headers = ["Source", "Responses", *_sides(dev, test), "Share", "Failures"]
        caption = f"Sources of {Path(dev.path).name}{_more(lines, _SOURCES, tables)}"
        parts.append(table(headers, lines[:_SOURCES], caption=caption, text_columns=2))
    return section("sources", "Where the rows came from", *parts) if parts else NOTHING


def tools(report: AuditReport) -> Html:
    """Return what the chats declare and call, dev and hold-out side by side."""
    parts = []
    for dev, test in report.units:
        tables = [file.tools for file in (dev, test) if file]
        sides = [{tool.name: tool for tool in one.tools} for one in tables]
        lines: list[list[object]] = []
        for name in dict.fromkeys(name for side in sides for name in side):
            found = [side.get(name) for side in sides]
            numbers: list[object] = []
            for tool in found:
                numbers += [
                    count(tool.declared_rows) if tool else "0",
                    f"{count(tool.calls)} in {count(tool.rows)}" if tool and tool.calls else "0",
                ]
            undeclared = sum(tool.undeclared_calls for tool in found if tool)
            odd = sum(t.unknown_arguments + t.missing_arguments for t in found if t)
            lines.append([code(name, width=80), *numbers, count(undeclared), count(odd)])
        if not lines:
            continue
        columns = [
            f"{side}: {what}"
            for side in _sides(dev, test)
            for what in ("declared", "calls in rows")
        ]
        headers = ["Tool", *columns, "Undeclared calls", "Odd arguments"]
        caption = (
            f"Tools of the {sum(one.chats for one in tables):,} chats of {Path(dev.path).name}"
        )
        parts.append(
            table(headers, lines[:_TOOLS], caption=f"{caption}{_more(lines, _TOOLS, tables)}")
        )
    if not parts:
        return NOTHING
    note = paragraph(
        "Declared counts rows. Undeclared are calls of tools that their row does not declare; odd "
        "arguments are not declared, or a required one is missing.",
        kind="note",
    )
    return section("tools", "Tools", *parts, note)


def contamination(report: AuditReport) -> Html:
    """Return what each rule found among the rows, where benchmarks were given."""
    given = ", ".join(f"{name} ({count(tasks)} tasks)" for name, tasks in report.benchmarks.items())
    tables = []
    for dev, test in report.units:
        judged = [file for file in (dev, test) if file and file.contamination]
        if not judged:
            continue
        headers = ["Rule", *(f"{_ROLES[file.role]}: found of checked" for file in judged)]
        lines: list[list[object]] = [
            [f"Same {name}", *(_found(file, rule) for file in judged)]
            for rule, name in RULES.items()
        ]
        lines.append(["Rows, by any rule", *(_found(file, "") for file in judged)])
        caption = f"Rows of {Path(dev.path).name} about tasks of {given}"
        tables.append(table(headers, lines, caption=caption))
    if not tables:
        return NOTHING
    return section("contamination", "Tasks that must not be trained", *tables)


def tokens(report: AuditReport) -> Html:
    """Return tokens per row and what cutting costs, where a tokenizer was given."""
    parts = []
    for file in report.files:
        if file.tokens is None or not file.tokens.rows:
            continue
        counts = file.tokens
        name = Path(file.path).name
        lengths = [
            [
                what,
                *(
                    count(round(getattr(value, key)))
                    for key in ("p50", "p90", "p99", "maximum", "total")
                ),
            ]
            for what, value in (
                ("Whole row", counts.lengths),
                ("Prompt", counts.prompt_lengths),
                ("Trained", counts.target_lengths),
            )
        ]
        headers = ["Tokens", "Median", "90\u00a0%", "99\u00a0%", "Longest", "Sum"]
        caption = f"Tokens per row of {name}, before any cut"
        parts.append(table(headers, lengths, caption=caption))
        parts.append(paragraph(_trained(counts)))
        parts.append(
            details(f"What a length limit does to the answers of {name}", _cuts(counts, name))
        )
    return section("tokens", "Tokens", *parts) if parts else NOTHING


def _trained(counts: Any) -> str:
    reasons = ", ".join(f"{name} {count(many)}" for name, many in counts.reasons.items())
    return (
        f"At max_length {count(counts.max_length)}, {percent(round(counts.trained_share, 4))} of "
        f"{count(counts.tokens)} tokens are trained; {count(counts.prompts_shortened)} prompts are "
        f"shortened, rows not trained: {reasons or 'none'}."
    )


def _cuts(counts: Any, name: str) -> Html:
    lines = [
        [
            WAYS[cut.policy],
            count(cut.max_length),
            count(cut.answers_cut),
            count(cut.answers_lost),
            percent(round(cut.share_lost, 4)),
            count(cut.prompts_shortened),
        ]
        for cut in sorted(counts.cuts, key=lambda cut: cut.max_length)
    ]
    headers = ["Way", "Length", "Answers cut", "Answers lost", "Targets lost", "Prompts cut"]
    return table(
        headers, lines, caption=f"Rows of {name} that are too long, and what becomes of them"
    )


def _found(file: FileReport, rule: str) -> str:
    assert file.contamination is not None
    counts = file.contamination
    if not rule:
        return f"{count(counts.contaminated)} of {count(counts.rows)}"
    return f"{count(counts.by_rule.get(rule, 0))} of {count(counts.checked[rule])}"


def _sides(dev: FileReport, test: FileReport | None) -> list[str]:
    return [_ROLES[file.role] for file in (dev, test) if file]


def _more(lines: list[list[object]], limit: int, tables: list[Any]) -> str:
    """Return how many lines are not shown."""
    rest = max(len(lines) - limit, 0) + max((one.left_out for one in tables), default=0)
    return f"; {count(rest)} more are not shown" if rest else ""
