"""The commands that look at rows and change nothing: audit, summarize, show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import APP, Session, command
from swe_scaffold.cli.model import Config, Set, TrustTemplate
from swe_scaffold.cli.tables import counts, facts, place, table
from swe_scaffold.terminal import show as visible

if TYPE_CHECKING:
    from swe_scaffold.audit import AuditReport, FileReport

WAYS = {
    "tail": "cut the tail (TRL)",
    "ratio": "share the room (LLaMA-Factory)",
    "drop": "drop the row (axolotl)",
    "prompt": "shorten the prompt (train, here)",
}
MaxLength = Annotated[
    int, typer.Option(metavar="N", min=16, help="Most tokens per row, as training.max_length.")
]
MinPromptTokens = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, help="Tokens left of a prompt, as training.min_prompt_tokens."
    ),
]


@command(
    APP,
    "audit",
    examples=(
        "swe-scaffold audit data/processed/swe-speedrun.jsonl",
        "swe-scaffold audit rows.jsonl other.jsonl --model Qwen/Qwen2.5-3B-Instruct",
    ),
)
def audit(
    session: Session,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Rows (JSONL); their hold-out too.")
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Tokenizer (folder or hub id); counts tokens too."),
    ] = None,
    max_length: MaxLength = 4096,
    min_prompt_tokens: MinPromptTokens = 128,
    trust_template: TrustTemplate = False,
) -> int:
    """Check files before training; exit code 9 where one fails.

    Recounts the ledger from the files alone, looks for repeats and for rows that leak between dev
    and test or between files and, with --model, for masks and what a length limit would cost.
    """
    from swe_scaffold.audit import audit_files

    report = audit_files(
        files,
        model=model,
        offline=session.offline,
        max_length=max_length,
        min_prompt_tokens=min_prompt_tokens,
        trust_template=trust_template,
        reporter=session.reporter,
    )
    session.result(report.to_dict(), audit_text(report))
    return 9 if report.verdict == "failed" else 0


def audit_text(report: AuditReport) -> str:
    """Return the audit for people: each file, what cutting would cost, findings, verdict."""
    lines: list[str] = []
    for file in report.files:
        lines += [*_file_lines(file), ""]
    for finding in report.findings:
        where = f"{place(finding.where)}: " if finding.where else ""
        lines.append(f"{finding.severity}: {where}{visible(finding.message, width=300)}")
        lines += [f"    {visible(row, width=160)}" for row in finding.evidence]
    lines += [f"note: {visible(note, width=300)}" for note in report.notes]
    lines.append(f"verdict: {report.verdict}")
    return "\n".join(lines)


def _file_lines(file: FileReport) -> list[str]:
    summary = file.summary
    rows: list[tuple[str, object]] = [
        ("rows", f"{file.rows} readable, {file.unreadable} unreadable"),
        ("labels", counts(summary["labels"])),
        ("responses", counts(summary["response_sources"])),
        ("repositories", summary["repos"]),
        ("empty responses", summary["empty_responses"]),
    ]
    if file.ledger is not None:
        ledger = file.ledger.to_dict()
        parts = " + ".join(f"{name} {ledger[name]}" for name in ("dev", "test", "skipped"))
        rest = f" + beyond limit {ledger['beyond_limit']}" if ledger["beyond_limit"] else ""
        kept = sum(ledger[name] for name in ("dev", "test", "skipped", "beyond_limit"))
        sign = "=" if ledger["read"] == kept else "is not"
        rows.append(("identity", f"read {ledger['read']} {sign} {parts}{rest}"))
    if file.tokens is not None:
        tokens = file.tokens
        rows += [
            ("tokens per row", _lengths(tokens.lengths.to_dict())),
            ("response tokens", _lengths(tokens.target_lengths.to_dict())),
            ("trained share", f"{tokens.trained_share:.1%} of {tokens.tokens} tokens"),
            ("not trainable", counts(tokens.reasons)),
            ("prompts shortened", tokens.prompts_shortened),
        ]
    lines = [facts(f"{file.path} ({file.role})", rows)]
    if file.tokens is not None:
        lines += ["", *_cut_lines(file)]
    return lines


def _cut_lines(file: FileReport) -> list[str]:
    assert file.tokens is not None
    rows = [
        [
            WAYS[cut.policy],
            cut.max_length,
            cut.answers_cut,
            cut.answers_lost,
            f"{cut.share_lost:.1%}",
            cut.prompts_shortened,
        ]
        for cut in sorted(file.tokens.cuts, key=lambda cut: cut.max_length)
    ]
    headers = ["way", "length", "answers cut", "answers lost", "targets lost", "prompts cut"]
    return ["what a length limit does to the answers of this file:", table(headers, rows)]


def _lengths(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {round(number)}" for name, number in value.items() if name != "total")


@command(
    APP, "summarize", examples=("swe-scaffold summarize data/processed/swe-speedrun.jsonl --json",)
)
def summarize(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows (JSONL).")],
    config: Config = None,
    set_: Set = None,
) -> None:
    """Describe a file of rows in numbers.

    Of the configuration, training.include_failures decides which rows would be trained.
    """
    from swe_scaffold.audit.summary import summarize as describe
    from swe_scaffold.config import load_config

    training = load_config(config, overrides=set_ or ()).training
    value = describe(file, include_failures=training.include_failures)
    rows: list[tuple[str, object]] = [
        ("rows", value["rows"]),
        ("labels", counts(value["labels"])),
        ("responses", counts(value["response_sources"])),
        ("chats", value["chats"]),
        ("empty responses", value["empty_responses"]),
        ("trainable", value["trainable"]),
        ("repositories", value["repos"]),
        ("most rows", counts(value["top_repos"])),
        ("prompt characters", _lengths(value["prompt_chars"])),
        ("response characters", _lengths(value["response_chars"])),
        ("repeated rows", value["repeated_rows"]),
        ("reused ids", value["reused_ids"]),
        ("sha256", value["sha256"]),
    ]
    session.result(value, facts(str(file), rows))


@command(
    APP,
    "show",
    examples=(
        "swe-scaffold show rows.jsonl django__django-11099",
        "swe-scaffold show rows.jsonl --limit 1 --model Qwen/Qwen2.5-3B-Instruct",
    ),
)
def show(  # noqa: PLR0913 one parameter per option
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows (JSONL).")],
    instance_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="One row; without it the first ones.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Tokenizer (folder or hub id); marks trained tokens."),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rows to show where no ID is given.")
    ] = 3,
    max_length: MaxLength = 4096,
    min_prompt_tokens: MinPromptTokens = 128,
    trust_template: TrustTemplate = False,
) -> None:
    """Print rows, with --model as training sees them.

    Trained tokens are coloured on a terminal and stand between «« and »» elsewhere. Control and
    other invisible characters of the rows are spelt out.
    """
    from swe_scaffold.cli.rows import View, chosen_rows, row_text, row_value

    rows = chosen_rows(file, instance_id, limit)
    view = None
    if model is not None:
        from swe_scaffold.rendering import Renderer

        renderer = Renderer.load(model, offline=session.offline, trust_template=trust_template)
        view = View(renderer, max_length, min_prompt_tokens)
    if session.json:
        session.result([row_value(row, view) for row in rows], "")
    else:
        session.result(None, "\n\n".join(row_text(row, view) for row in rows))
