"""What of a run folder there is to show, read from its files only.

A page about a run that was cut short, or whose files are damaged, is still wanted: what cannot be
read is left out with a note. What it means is left to the sections.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swe_scaffold.errors import UsageError
from swe_scaffold.files import disk_errors
from swe_scaffold.numbers import branch, counted, finite, pick, whole, wording

METRICS, MANIFEST, RUN, EVALUATION = "metrics.jsonl", "manifest.json", "run.json", "evaluation"


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step; `loss` is nats per response token, over `targets` of them."""

    step: int
    loss: float
    lr: float | None
    targets: int


@dataclass(frozen=True, slots=True)
class HoldOut:
    """The hold-out's NLL per response token after a step."""

    step: int
    nll: float
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of each row: prompt and response, in the same order."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class Material:
    """All there is to show; mappings are empty and tuples too where there is nothing."""

    name: str
    folder: Path
    steps: tuple[Step, ...]
    hold_out: tuple[HoldOut, ...]
    manifest: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    lengths: Lengths | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def training(self) -> Mapping[str, Any]:
        """The training part of the resolved configuration."""
        return branch(self.manifest, "config", "training")


def gather(
    folder: Path, evaluation: Mapping[str, Any] | None, facts: Mapping[str, Any] | None
) -> Material:
    """Read a run folder.

    Args:
        folder: The run folder.
        evaluation: A report of `evaluate`; None takes the newest one below the folder.
        facts: What the caller knows besides; see `run_page`.

    Raises:
        UsageError: There is no such folder.
        EnvironmentFailure: A file that is there cannot be read.
    """
    if not folder.is_dir():
        raise UsageError("there is no such run folder", where=str(folder))
    notes: list[str] = []
    steps, hold_out = _metrics(folder / METRICS, notes)
    manifest = _manifest(folder, notes)
    facts = facts or {}
    scores: Path | None = None
    if evaluation is None:
        evaluation, scores = _newest_evaluation(folder, notes)
    else:
        sha256 = wording(evaluation, "data", "sha256")
        if sha256.isalnum():
            scores = folder / EVALUATION / sha256[:16] / "scores.jsonl"
    return Material(
        name=folder.resolve().name,
        folder=folder,
        steps=steps,
        hold_out=hold_out,
        manifest=manifest,
        evaluation=evaluation,
        lengths=_given_lengths(facts) or _scored_lengths(scores, notes),
        facts=facts,
        notes=tuple(notes),
    )


def _metrics(path: Path, notes: list[str]) -> tuple[tuple[Step, ...], tuple[HoldOut, ...]]:
    """Read metrics.jsonl; of two lines about one step the later one counts."""
    if not path.is_file():
        notes.append(f"There is no {METRICS}: the loss cannot be drawn.")
        return (), ()
    steps: dict[int, Step] = {}
    hold_out: dict[int, HoldOut] = {}
    unreadable = 0
    for row in _lines(path):
        number = whole(row.get("step")) if isinstance(row, dict) else None
        if number is None:
            unreadable += 1
            continue
        loss, nll = finite(row.get("loss")), finite(row.get("eval_nll"))
        if loss is not None:
            targets = whole(row.get("targets"))
            steps[number] = Step(number, loss, finite(row.get("lr")), max(targets or 1, 1))
        if nll is not None:
            hold_out[number] = HoldOut(number, nll, whole(row.get("eval_tokens")))
    if unreadable:
        notes.append(f"{counted(unreadable, 'line')} of {METRICS} could not be read.")
    return (
        tuple(steps[number] for number in sorted(steps)),
        tuple(hold_out[number] for number in sorted(hold_out)),
    )


def _lines(path: Path) -> Iterator[Any]:
    """Yield the value of each line, None for a bad one; a last line without its end may be cut."""
    with disk_errors(path), path.open("rb") as stream:
        for raw in stream:
            text = raw.strip(b" \t\r\n")
            if not text:
                continue
            value = _parsed(text)
            if value is not None or raw.endswith(b"\n"):
                yield value


def _manifest(folder: Path, notes: list[str]) -> Mapping[str, Any]:
    """Return the manifest of a finished run, else the record of one under way."""
    finished = _object(folder / MANIFEST, notes)
    if finished is not None:
        return finished
    notes.append(f"There is no readable {MANIFEST}: this run has not finished, or is damaged.")
    return _object(folder / RUN, notes) or {}


def _newest_evaluation(folder: Path, notes: list[str]) -> tuple[Mapping[str, Any], Path | None]:
    found = [path for path in (folder / EVALUATION).glob("*/evaluation.json") if path.is_file()]
    with disk_errors(folder):
        found.sort(key=lambda path: (path.stat().st_mtime_ns, path.parent.name))
    for path in reversed(found):
        report = _object(path, notes)
        if report is not None:
            if len(found) > 1:
                others = counted(len(found) - 1, "other evaluation")
                notes.append(f"The newest evaluation is shown; the folder holds {others}.")
            return report, path.with_name("scores.jsonl")
    return {}, None


def _given_lengths(facts: Mapping[str, Any]) -> Lengths | None:
    given = branch(facts, "lengths")
    columns = []
    for side in ("prompt", "response"):
        values = given.get(side)
        if not isinstance(values, list | tuple):
            return None
        columns.append([whole(value) for value in values])
    pairs = [(a, b) for a, b in zip(*columns, strict=False) if a is not None and b is not None]
    return _lengths(pairs, "rows")


def _scored_lengths(path: Path | None, notes: list[str]) -> Lengths | None:
    if path is None or not path.is_file():
        return None
    pairs, unreadable = [], 0
    for row in _lines(path):
        prompt, tokens = (whole(pick(row, key)) for key in ("prompt_tokens", "tokens"))
        if prompt is None or tokens is None:
            unreadable += 1
        else:
            pairs.append((prompt, tokens))
    if unreadable:
        notes.append(f"{counted(unreadable, 'line')} of {path.name} could not be read.")
    return _lengths(pairs, "scored rows")


def _lengths(pairs: list[tuple[int, int]], origin: str) -> Lengths | None:
    if not pairs:
        return None
    return Lengths(tuple(a for a, _ in pairs), tuple(b for _, b in pairs), origin)


def _object(path: Path, notes: list[str]) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    with disk_errors(path):
        value = _parsed(path.read_bytes())
    if not isinstance(value, dict):
        notes.append(f"{path.name} could not be read and is left out.")
        return None
    return value


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
