"""What is known of a run besides its weights: its data and their manifest, and its evaluations.

Files are looked for where the run's manifest says they lay, and taken by their hash alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.errors import IntegrityError, ScaffoldError
from swe_scaffold.files import sha256_file
from swe_scaffold.manifest import read_manifest
from swe_scaffold.models import MANIFEST, is_of
from swe_scaffold.numbers import branch, pick, whole, wording
from swe_scaffold.rows import BuiltFiles


@dataclass(frozen=True, slots=True)
class Material:
    """A run's manifest, that of its data, and reports on its weights.

    `rows` is the file that holds rows for a proof, None where it is not where it was; `data` is
    empty where no manifest of the training file was found. `other_evaluations` counts reports on
    other weights and those that cannot be read.
    """

    run: Mapping[str, Any]
    data: Mapping[str, Any]
    rows: Path | None
    evaluations: tuple[Mapping[str, Any], ...]
    other_evaluations: int


def gather(run: Path, given: Path | None) -> Material:
    """Read what lies around a run; `given` is a file of rows that the user named."""
    manifest = read_manifest(run / MANIFEST)
    evaluations, others = _evaluations(run, manifest)
    return Material(
        run=manifest,
        data=_data_manifest(run, manifest, given),
        rows=given or _own_rows(run, manifest),
        evaluations=evaluations,
        other_evaluations=others,
    )


def _own_rows(run: Path, manifest: Mapping[str, Any]) -> Path | None:
    """Return the run's hold-out, else the training file that it held rows of; hashes decide."""
    for key in ("holdout", "data"):
        path, sha256 = wording(manifest, key, "path"), wording(manifest, "fingerprint", key)
        if path and (run / path).is_file() and sha256_file(run / path) == sha256:
            return run / path
    return None


def _data_manifest(run: Path, manifest: Mapping[str, Any], given: Path | None) -> Mapping[str, Any]:
    """Return the manifest that names the training file's very bytes, an empty one if none does."""
    sha256 = wording(manifest, "fingerprint", "data")
    for path in _candidates(run, manifest, given):
        try:
            found = read_manifest(path)
        except ScaffoldError:
            continue
        outputs = branch(found, "outputs")
        dev = [pick(entry, "sha256") for entry in outputs.values() if _is_dev(entry)]
        if sha256 and sha256 in dev:
            return found
    return {}


def _candidates(run: Path, manifest: Mapping[str, Any], given: Path | None) -> Iterator[Path]:
    if path := wording(manifest, "data", "path"):
        yield BuiltFiles.of(run / path).manifest
    if given is not None:
        yield from sorted(given.parent.glob("*.manifest.json"))


def _is_dev(entry: object) -> bool:
    return wording(entry, "role") in ("dev", "")


def _evaluations(
    run: Path, manifest: Mapping[str, Any]
) -> tuple[tuple[Mapping[str, Any], ...], int]:
    """Return the reports on a run's weights, those with the most unseen rows first."""
    found, others = [], 0
    for path in sorted((run / "evaluation").glob("*/evaluation.json")):
        try:
            report = read_manifest(path)
        except IntegrityError:
            others += 1
            continue
        if is_of(report, manifest):
            found.append(report)
        else:
            others += 1
    found.sort(key=lambda report: -(whole(report.get("rows_unseen")) or 0))
    return tuple(found), others
