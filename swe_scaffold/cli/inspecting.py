"""The commands that look at rows and change nothing: audit, summarize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swe_scaffold.cli.app import APP, Session, command
from swe_scaffold.cli.audit_text import audit_text, lengths
from swe_scaffold.cli.options import Config, Set, TrustTemplate, require_page
from swe_scaffold.cli.tables import counts, facts, place
from swe_scaffold.files import write_text

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
        "swe-scaffold audit rows.jsonl --exclude SWE-bench/SWE-bench_Verified --html audit.html",
    ),
)
def audit(  # noqa: PLR0913 one parameter per option
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
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Benchmark that no row may be about (source or index); repeatable.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the audit as a page, too.")
    ] = None,
    trust_template: TrustTemplate = False,
) -> int:
    """Check files before training; exit code 9 where one fails.

    Recounts the ledger from the files alone, looks for repeats and for rows that leak, exactly or
    nearly, between dev and test or between files, and counts sources and tools. With --exclude it
    looks for tasks of benchmarks, with --model for masks and what a length limit would cost.
    """
    from swe_scaffold.audit import audit_files
    from swe_scaffold.dataset.excluding import index_benchmarks

    if html is not None:
        _check_page(html, files, exclude or [])
    report = audit_files(
        files,
        model=model,
        offline=session.offline,
        max_length=max_length,
        min_prompt_tokens=min_prompt_tokens,
        trust_template=trust_template,
        benchmarks=index_benchmarks(exclude, offline=session.offline, reporter=session.reporter)
        if exclude
        else None,
        reporter=session.reporter,
    )
    if html is not None:
        from swe_scaffold.report.audit_page import audit_page

        write_text(html, audit_page(report))
        session.reporter.say(f"wrote {place(html)}")
    session.result(report.to_dict(), audit_text(report))
    return 9 if report.verdict == "failed" else 0


def _check_page(path: Path, files: list[Path], benchmarks: list[str]) -> None:
    """Refuse a page in the place of anything that is read, before any work is done."""
    from swe_scaffold.rows import BuiltFiles

    holdouts = [BuiltFiles.of(file).test for file in files if file.name]
    require_page(path, [*files, *holdouts, *map(Path, benchmarks)])


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
        ("prompt characters", lengths(value["prompt_chars"])),
        ("response characters", lengths(value["response_chars"])),
        ("repeated rows", value["repeated_rows"]),
        ("reused ids", value["reused_ids"]),
        ("sha256", value["sha256"]),
    ]
    session.result(value, facts(str(file), rows))
