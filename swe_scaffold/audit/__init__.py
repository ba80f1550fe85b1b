"""Say whether JSONL files are fit to train on: the ledger, repeats, leaks, lengths, masks.

- `__init__.py`: the audit: files in, findings and a verdict out.
- `ledger.py`: what a manifest claims, counted again.
- `coverage.py`: rows rendered for a model: tokens, masks, and what cutting them would cost.
- `summary.py`: a file in numbers, without judging it.

Nothing is changed and nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from swe_scaffold.audit.ledger import Ledger, LoadedFile, check_ledger, load_file
from swe_scaffold.audit.summary import describe
from swe_scaffold.errors import UsageError
from swe_scaffold.quality.findings import MAX_EVIDENCE, Finding
from swe_scaffold.quality.overlap import (
    Pair,
    repeated_rows,
    reused_ids,
    shared_links,
    shared_repos,
)
from swe_scaffold.quality.pretraining import judge_pretraining
from swe_scaffold.quality.responses import has_response
from swe_scaffold.quality.text import scan_example
from swe_scaffold.rows import BuiltFiles
from swe_scaffold.sources.examples import read_examples
from swe_scaffold.terminal import SILENT, Reporter
from swe_scaffold.types import SpeedrunLabel

if TYPE_CHECKING:
    from swe_scaffold.audit.coverage import TokenReport

MAX_LENGTHS = (512, 1024, 2048)
_LINK_NAMES = {"id": "instance_id", "prompt": "prompt", "response": "response or patch"}
_TEXT_SEVERITY: dict[str, Literal["warning", "info"]] = {
    "bidi": "warning",
    "tag": "warning",
    "chat_token": "warning",
}
_TEXT_NAMES = {
    "control": "control characters",
    "bidi": "characters that change the reading direction",
    "zero_width": "zero-width characters",
    "tag": "invisible tag characters",
    "chat_token": "chat control tokens spelt out",
}


@dataclass(frozen=True, slots=True)
class FileReport:
    """What is in one file; `rows` are readable, `summary` is `summary.describe` of them."""

    path: str
    role: Literal["dev", "test", "file"]
    rows: int
    unreadable: int
    sha256: str
    summary: dict[str, Any]
    text: dict[str, int]
    ledger: Ledger | None = None
    tokens: TokenReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "path": self.path,
            "role": self.role,
            "rows": self.rows,
            "unreadable": self.unreadable,
            "sha256": self.sha256,
            "summary": self.summary,
            "text": self.text,
            "ledger": self.ledger.to_dict() if self.ledger else None,
            "tokens": self.tokens.to_dict() if self.tokens else None,
        }


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Files, findings and the verdict.

    `failed` with any error, `attention` with any warning, else `ok`.
    """

    files: tuple[FileReport, ...]
    findings: tuple[Finding, ...]
    model: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Literal["ok", "attention", "failed"]:
        """The answer in one word."""
        severities = {finding.severity for finding in self.findings}
        if "error" in severities:
            return "failed"
        return "attention" if "warning" in severities else "ok"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "verdict": self.verdict,
            "model": self.model,
            "files": [file.to_dict() for file in self.files],
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class _Audited:
    loaded: LoadedFile
    role: Literal["dev", "test", "file"]
    unit: int
    ledger: Ledger | None = None


def audit_files(  # noqa: PLR0913 one argument per option of the command
    paths: Sequence[Path | str],
    *,
    model: str | None = None,
    offline: bool = False,
    max_lengths: Sequence[int] = MAX_LENGTHS,
    trust_template: bool = False,
    max_length: int = 4096,
    min_prompt_tokens: int = 128,
    reporter: Reporter = SILENT,
) -> AuditReport:
    """Audit files, each with its sibling `.test.jsonl`, and compare those given together.

    Args:
        paths: JSONL files.
        model: Folder or hub id of a tokenizer; without it nothing is said about tokens.
        offline: Ask no hub.
        max_lengths: Lengths of the table that compares ways to deal with long rows.
        trust_template: Let an unknown chat template run.
        max_length: The length that training will use.
        min_prompt_tokens: Prompt tokens that shortening leaves.
        reporter: Gets progress.

    Raises:
        DataError: A file is missing or cannot be read as lines.
    """
    findings: list[Finding] = []
    audited = list(_load([Path(path) for path in paths], findings))
    for file in audited:
        findings += _judge_rows(file.loaded, file.role)
    for left, right in combinations(audited, 2):
        findings += _judge_pair(left, right)
    tokens: dict[int, TokenReport] = {}
    notes = []
    if model is None:
        notes.append(
            "tokens, masks and the cost of cutting need a tokenizer: name one with --model"
        )
    else:
        from swe_scaffold.audit.coverage import TokenLimits, measure_tokens
        from swe_scaffold.rendering import Renderer

        renderer = Renderer.load(model, offline=offline, trust_template=trust_template)
        limits = TokenLimits(max_length, min_prompt_tokens, tuple(max_lengths))
        for index, file in enumerate(audited):
            tokens[index], found = measure_tokens(file.loaded, renderer, limits, reporter)
            findings += found
            named = {example.group for example in file.loaded.examples}
            findings += judge_pretraining(Path(model), named, str(file.loaded.path))
    reports = [_report(file, tokens.get(index)) for index, file in enumerate(audited)]
    order = {"error": 0, "warning": 1, "info": 2}
    findings.sort(key=lambda finding: order[finding.severity])
    return AuditReport(tuple(reports), tuple(findings), model, tuple(notes))


def groups(path: Path | str) -> set[str]:
    """Return the groups (repositories, packages) that a file's rows belong to.

    Raises:
        DataError: The file cannot be read, or the first bad row.
    """
    return {example.group for example in read_examples(Path(path)).examples}


def _load(paths: Sequence[Path], findings: list[Finding]) -> Iterator[_Audited]:
    """Load the files in order, each followed by its hold-out, and check their ledgers."""
    if not paths:
        raise UsageError("no file to audit")
    holdouts = {BuiltFiles.of(path).test.resolve() for path in paths}
    unique = {path.resolve(): path for path in paths if path.resolve() not in holdouts}
    for unit, path in enumerate(unique.values()):
        sibling = BuiltFiles.of(path).test
        dev, test = load_file(path), load_file(sibling) if sibling.is_file() else None
        ledger, found = check_ledger(dev, test)
        findings += found
        yield _Audited(dev, "dev" if ledger or test else "file", unit, ledger)
        if test:
            yield _Audited(test, "test", unit)


def _report(file: _Audited, tokens: TokenReport | None) -> FileReport:
    loaded = file.loaded
    text: Counter[str] = Counter()
    for example in loaded.examples:
        text += scan_example(example)
    return FileReport(
        path=str(loaded.path),
        role=file.role,
        rows=len(loaded.examples),
        unreadable=len(loaded.problems),
        sha256=loaded.sha256,
        summary=describe(loaded.examples),
        text=dict(sorted(text.items())),
        ledger=file.ledger,
        tokens=tokens,
    )


def _judge_rows(file: LoadedFile, role: str) -> Iterator[Finding]:
    where, examples = str(file.path), file.examples
    if file.problems:
        message = f"{len(file.problems)} of {file.rows} rows cannot be used"
        yield Finding("error", "unreadable_row", message, where, file.problems[:MAX_EVIDENCE])
    if pairs := repeated_rows(examples):
        message = f"{len(pairs)} rows repeat an earlier row"
        yield Finding("warning", "repeated_row", message, where, _show_pairs(file, file, pairs))
    if pairs := reused_ids(examples):
        message = f"{len(pairs)} rows have an earlier row's instance_id and other content"
        yield Finding("warning", "reused_id", message, where, _show_pairs(file, file, pairs))
    yield from _judge_labels(file, role)
    yield from _judge_text(file)


def _judge_labels(file: LoadedFile, role: str) -> Iterator[Finding]:
    where, examples = str(file.path), file.examples
    empty = [index for index, example in enumerate(examples) if not has_response(example)]
    failed = [
        index
        for index, example in enumerate(examples)
        if example.label is SpeedrunLabel.FAILURE and has_response(example)
    ]
    if not examples and role == "test":
        yield Finding("info", "empty_hold_out", "the hold-out has no rows", where)
    elif len(empty) == len(examples):
        message = "no rows" if not examples else "no row has a response: there is nothing to train"
        yield Finding("error", "nothing_to_train", message, where)
    elif empty:
        message = f"{len(empty)} of {len(examples)} rows have no response and are never trained"
        yield Finding("warning", "empty_response", message, where, file.evidence(empty))
    if failed:
        message = (
            f"{len(failed)} of {len(examples)} rows are labelled failure and are trained only with "
            "training.include_failures"
        )
        yield Finding("info", "failure_label", message, where, file.evidence(failed))


def _judge_text(file: LoadedFile) -> Iterator[Finding]:
    rows: dict[str, list[int]] = {}
    total: Counter[str] = Counter()
    for index, example in enumerate(file.examples):
        counts = scan_example(example)
        total += counts
        for kind in counts:
            rows.setdefault(kind, []).append(index)
    for kind in sorted(rows):
        message = f"{total[kind]} {_TEXT_NAMES[kind]} in {len(rows[kind])} rows"
        yield Finding(
            _TEXT_SEVERITY.get(kind, "info"),
            f"text_{kind}",
            message,
            str(file.path),
            file.evidence(rows[kind]),
        )


def _judge_pair(left: _Audited, right: _Audited) -> Iterator[Finding]:
    """Compare two files: shared rows are leaks, shared repositories only where those were split."""
    where = f"{left.loaded.path} and {right.loaded.path}"
    rows = (left.loaded.examples, right.loaded.examples)
    for kind, pairs in shared_links(*rows).items():
        message = (
            f"{len(pairs)} rows of the second file share their {_LINK_NAMES[kind]} with the first"
        )
        evidence = _show_pairs(left.loaded, right.loaded, pairs)
        yield Finding("error", f"leak_{kind}", message, where, evidence)
    repos = shared_repos(*rows)
    if not repos:
        return
    severity: Literal["error", "warning", "info"] = "info"
    message = f"{len(repos)} repositories have rows in both files"
    if left.unit == right.unit and left.ledger and left.ledger.held_out_repos:
        # A reused assignment may hold single rows out that follow a link across repositories.
        severity = "error" if left.ledger.method == "repo" else "warning"
        message += ", though the split was by repository"
    yield Finding(severity, "shared_repos", message, where, tuple(repos[:MAX_EVIDENCE]))


def _show_pairs(left: LoadedFile, right: LoadedFile, pairs: Sequence[Pair]) -> tuple[str, ...]:
    shown = pairs[:MAX_EVIDENCE]
    return tuple(f"{right.name(pair.right)} = {left.name(pair.left)}" for pair in shown)
