"""What models answered to one row: predictions of a file, scored or not, and answers kept beside.

Any JSON Lines file of SWE-bench predictions is read; keys beyond its three are shown where they are
what they should be. Extraction is left to `patches`, scoring to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swe_scaffold.errors import DataError
from swe_scaffold.jsonl import BadLine, JsonlReader
from swe_scaffold.metrics.health import FLAGS
from swe_scaffold.numbers import finite, whole
from swe_scaffold.patches import extract_patch
from swe_scaffold.report.patch_pair import PatchPair, pair_patches
from swe_scaffold.scores import GENERATIONS, StoredEvaluation
from swe_scaffold.terminal import show
from swe_scaffold.types import Example

ID, MODEL, PATCH, RAW = "instance_id", "model_name_or_path", "model_patch", "raw_output"
_NO_METRIC = {ID, "repo", "group", "model", "sample", "problem"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer, and what is known of it.

    `text` is what the model wrote (empty where only the patch is known), `problem` why there is no
    patch, `health` the flags of the answer, `metrics` what scoring found without running a test.
    """

    origin: str
    model: str
    text: str
    patch: str
    form: str
    problem: str
    pair: PatchPair
    sample: int = 0
    repairs: Mapping[str, int] = field(default_factory=dict)
    health: Mapping[str, bool | None] = field(default_factory=dict)
    metrics: Mapping[str, str | float | bool] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON."""
        return {
            "origin": self.origin,
            "model": self.model,
            "sample": self.sample,
            "raw_output": self.text,
            "patch": self.patch,
            "form": self.form,
            "problem": self.problem,
            "repairs": dict(self.repairs),
            "health": dict(self.health),
            "metrics": dict(self.metrics),
            "against_gold": self.pair.to_dict(),
        }


def answers_of(example: Example, evaluations: Sequence[StoredEvaluation]) -> list[Prediction]:
    """Return what the evaluated models answered to the row's prompt, if they were asked."""
    found = []
    for stored in evaluations:
        for row in stored.rows(GENERATIONS):
            if (row[ID], row["sha256"]) == (example.instance_id, example.meta.get("sha256")):
                health = {name: row[name] for name in FLAGS if name in row}
                text = str(row["text"])
                read = _read(text) if health.get("parseable") is not None else _Read("", "", "", {})
                known = {"origin": "evaluate", "model": stored.name, "health": health}
                found.append(_prediction(example, text, read, **known))
    return found


def predictions_of(example: Example, path: Path) -> list[Prediction]:
    """Return the predictions of a file for one row, with their scores where a file holds them.

    Raises:
        DataError: The file is no JSON Lines, or a line is no prediction.
    """
    scored = _scored(path, example.instance_id)
    found = []
    for number, row in _rows(path, example.instance_id):
        patch, text = row.get(PATCH), row.get(RAW)
        if PATCH not in row or not isinstance(patch, str | None):
            raise DataError(f"{PATCH} must be a text", where=f"{path}:{number}")
        text = text if isinstance(text, str) else ""
        sample = whole(row.get("sample")) or 0
        found.append(
            _prediction(
                example,
                text,
                _told(row, patch or "", text),
                origin=f"{path.name}:{number}",
                model=str(row.get(MODEL) or ""),
                health={"stopped": row["stopped"]} if isinstance(row.get("stopped"), bool) else {},
                sample=sample,
                metrics=scored.get(sample, {}),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Read:
    patch: str
    form: str
    problem: str
    repairs: Mapping[str, int]


def _read(text: str) -> _Read:
    found = extract_patch(text)
    return _Read(found.patch, found.form, found.problem, dict(found.repairs))


def _told(row: Mapping[str, Any], patch: str, text: str) -> _Read:
    """Return the patch as the file tells it; why there is none is found out where it does not."""
    repairs = row.get("repairs")
    counts = repairs.items() if isinstance(repairs, Mapping) else ()
    problem, form = row.get("problem"), row.get("form")
    if not isinstance(problem, str):
        problem = extract_patch(text).problem if text and not patch.strip() else ""
    return _Read(
        patch,
        form if isinstance(form, str) else "",
        problem or ("" if patch.strip() else "empty"),
        {str(name): n for name, many in counts if (n := whole(many)) is not None},
    )


def _prediction(example: Example, text: str, read: _Read, **known: Any) -> Prediction:
    return Prediction(
        text=text,
        patch=read.patch,
        form=read.form,
        problem=read.problem,
        repairs=read.repairs,
        pair=pair_patches(example.response, read.patch, text),
        **known,
    )


def _rows(path: Path, instance_id: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line in JsonlReader(path):
        if isinstance(line, BadLine):
            raise DataError(
                f"no line of predictions: {line.message}",
                where=f"{path}:{line.number}",
                hint="predictions are JSON Lines: one object with instance_id and model_patch each",
            )
        if ID not in line.value:
            raise DataError(f"no {ID}", where=f"{path}:{line.number}")
        if line.value[ID] == instance_id:
            yield line.number, line.value


def _scored(path: Path, instance_id: str) -> dict[int, dict[str, Any]]:
    """Return what a scored file beside the predictions says, by sample."""
    name = path.name.removesuffix(".gz")
    beside = path.with_name(f"{name.rpartition('.')[0] or name}.scored.jsonl")
    if not beside.is_file() or beside == path:
        return {}
    found = {}
    for _, row in _rows(beside, instance_id):
        found[whole(row.get("sample")) or 0] = {
            show(key): value
            for key, value in row.items()
            if key not in _NO_METRIC and _is_plain(value)
        }
    return found


def _is_plain(value: object) -> bool:
    return isinstance(value, str | bool) or finite(value) is not None
