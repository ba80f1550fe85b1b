"""An evaluation on disk: its report, one score per row, and the NLL of every response token.

What is measured and how it is summarised is decided above; here it is named, read and checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.jsonl import BadLine, JsonlReader
from swe_scaffold.manifest import read_manifest, verify_files
from swe_scaffold.types import ExampleScore, SpeedrunLabel

REPORT = "evaluation.json"
SCORES, TOKEN_NLL = "scores.jsonl", "token_nll.f32"
SHUFFLED, GENERATIONS = "shuffled.jsonl", "generations.jsonl"
KIND = "evaluation"
_NAMES = tuple(field.name for field in fields(ExampleScore))


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """A finished evaluation whose files are those that its report names."""

    folder: Path
    report: Mapping[str, Any]
    scores: tuple[ExampleScore, ...]

    @property
    def name(self) -> str:
        """The model's name, as it was given."""
        return str(self.report["model"]["name"])

    def token_nll(self) -> list[np.ndarray[Any, Any]]:
        """Return the NLL of every response token in nats, float32, row by row as `scores`.

        Raises:
            IntegrityError: The file does not hold one number per token.
        """
        path = self.folder / TOKEN_NLL
        values = np.frombuffer(path.read_bytes(), "<f4")
        ends = np.cumsum([row.tokens for row in self.scores])
        if len(values) != ends[-1]:
            raise IntegrityError(f"{len(values)} numbers for {ends[-1]} tokens", where=str(path))
        return np.split(values, ends[:-1])

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of another file of the evaluation; none where it has no such file."""
        if name not in self.report["files"]:
            return []
        return read_rows(self.folder / name)


def is_evaluation(path: Path) -> bool:
    """Whether a folder, or the report itself, is named."""
    return (path / REPORT).is_file() or (path.name == REPORT and path.is_file())


def read_evaluation(path: Path) -> StoredEvaluation:
    """Read a finished evaluation, named by its folder or its report.

    Raises:
        UsageError: There is none.
        IntegrityError: A file is not what the report says, or of another version.
    """
    folder = path.parent if path.name == REPORT else path
    if not (folder / REPORT).is_file():
        raise UsageError(
            f"no evaluation: there is no {REPORT}",
            where=str(path),
            hint="make one: swe-scaffold evaluate MODEL DATA",
        )
    report = read_manifest(folder / REPORT)
    if report.get("kind") != KIND or not isinstance(report.get("files"), dict):
        raise IntegrityError(
            "is no evaluation that this version can read",
            where=str(folder / REPORT),
            hint="evaluate again; what needs no model is reused",
        )
    verify_files(folder, report["files"])
    rows = read_rows(folder / SCORES)
    scores = tuple(score_from_row(row, f"{folder / SCORES}:{n}") for n, row in enumerate(rows, 1))
    return StoredEvaluation(folder, report, scores)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a file of rows that was written here; any damage is an error."""
    rows = []
    for line in JsonlReader(path):
        if isinstance(line, BadLine):
            raise IntegrityError(line.message, where=f"{path}:{line.number}")
        rows.append(line.value)
    return rows


def score_row(score: ExampleScore) -> dict[str, Any]:
    """Return a score as a row of `scores.jsonl`."""
    return asdict(score)


def score_from_row(row: Mapping[str, Any], where: str) -> ExampleScore:
    """Return the score that a row holds.

    Raises:
        IntegrityError: Fields are missing, unknown or of another type.
    """
    try:
        values = {name: row[name] for name in _NAMES}
        values["label"] = SpeedrunLabel(values["label"])
        values["nll_sum"] = float(values["nll_sum"])
        values["nll_by_class"] = {
            str(name): (float(nll), int(tokens))
            for name, (nll, tokens) in values["nll_by_class"].items()
        }
        for name in ("tokens", "bytes", "prompt_tokens", "prompt_cut"):
            values[name] = int(values[name])
        if set(row) != set(_NAMES):
            raise ValueError(f"unknown field {sorted(set(row) - set(_NAMES))[0]!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"not a score of this version: {type(error).__name__} {error}"
        raise IntegrityError(problem, where=where, hint="evaluate again") from None
    return ExampleScore(**values)


def token_nll_bytes(rows: Sequence[np.ndarray[Any, Any]]) -> bytes:
    """Return the bytes of `token_nll.f32`: little-endian float32, row after row."""
    return b"".join(row.astype("<f4").tobytes() for row in rows)
