"""The folder of an export: what may be replaced, room on the disk, its cards and its manifest."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from swe_scaffold.cards import ModelFacts, ModelKind, data_card, model_card, published
from swe_scaffold.errors import EnvironmentFailure, IntegrityError, ScaffoldError, UsageError
from swe_scaffold.export.material import Material
from swe_scaffold.files import atomic_write, disk_errors, utc_now, write_bytes, write_text
from swe_scaffold.manifest import file_entries, provenance, read_manifest, write_manifest
from swe_scaffold.models import ADAPTER_CONFIG, MANIFEST, TRAINED_ROWS, WEIGHTS
from swe_scaffold.numbers import branch
from swe_scaffold.rendering import Renderer

ADAPTER_FILES = (WEIGHTS, ADAPTER_CONFIG, TRAINED_ROWS)
GENERATION = "generation_config.json"
CARD, DATA_CARD = "README.md", "DATA_CARD.md"
# For everything besides the weights: tokenizer, cards, lists of rows.
_ROOM_BYTES = 64 << 20
# What a manifest says about the run that made the weights, and what is kept of it here.
_RUN_KEYS = ("base_name", "base", "data", "holdout", "config", "fingerprint", "changes", "counts")
_MADE_BY = ("tool", "version", "git_revision", "python", "platform", "packages", "environment")


def require_free(output: Path, *, overwrite: bool, run: Path) -> None:
    """Refuse a place where something else lies.

    Raises:
        UsageError: The folder is not empty, or holds the run itself.
        IntegrityError: `overwrite` of what is no export of this tool, or of more than that.
    """
    with disk_errors(output):
        inside = output.resolve() == run.resolve() or output.resolve() in run.resolve().parents
        content = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
        in_the_way = bool(content) or (output.exists() and not output.is_dir())
    if inside:
        raise UsageError("is, or holds, the run itself", where=str(output))
    if not in_the_way:
        return
    if not overwrite:
        raise UsageError(
            "the output folder is not empty",
            where=str(output),
            hint="--overwrite replaces an earlier export, --output FOLDER chooses another",
        )
    _require_export(output, content)


def _require_export(output: Path, content: list[str]) -> None:
    try:
        manifest = read_manifest(output / MANIFEST)
    except ScaffoldError:
        manifest = {}
    if not branch(manifest, "export"):
        raise IntegrityError(
            "holds no export of this tool; it is not overwritten", where=str(output)
        )
    others = [name for name in content if name not in {MANIFEST, *branch(manifest, "files")}]
    if others:
        raise IntegrityError(
            f"holds {others[0]!r}, which the export did not write; it is not overwritten",
            where=str(output),
            hint="move it elsewhere first",
        )


def require_space(output: Path, weights_bytes: int) -> None:
    """Make sure that the weights will fit before any of them is written.

    Raises:
        EnvironmentFailure: They will not.
    """
    place = output.absolute().parent
    with disk_errors(place):
        while not place.is_dir():
            place = place.parent
        free = shutil.disk_usage(place).free
    needed = weights_bytes + _ROOM_BYTES
    if free < needed:
        raise EnvironmentFailure(
            f"the model takes {_gigabytes(needed)}, {_gigabytes(free)} are free",
            where=str(output),
            hint="free some space or choose another place",
        )


def copy_files(names: Iterable[str], source: Path, folder: Path) -> int:
    """Copy files byte for byte, weights among them, and return their size in bytes."""
    total = 0
    for name in names:
        with (source / name).open("rb") as read, atomic_write(folder / name) as write:
            shutil.copyfileobj(read, write, 1 << 20)
        total += (folder / name).stat().st_size
    return total


def copy_tokenizer(renderer: Renderer, folder: Path) -> None:
    """Copy the base's tokenizer files and chat template byte for byte."""
    for path in renderer.tokenizer.files:
        write_bytes(folder / path.name, path.read_bytes())


def describe(
    folder: Path,
    name: str,
    kind: ModelKind,
    material: Material,
    export: Mapping[str, Any],
    model_sha256: str | None = None,
) -> dict[str, Any]:
    """Write the cards and, last, the manifest; return it.

    Args:
        folder: Where everything else was written already.
        name: What the folder will be called.
        kind: What it holds.
        material: What is known of the run.
        export: What was done: the command and, for a merged model, the proof.
        model_sha256: Of the merged config and weights.
    """
    facts = ModelFacts(
        name=name,
        kind=kind,
        manifest=material.run,
        data=material.data,
        evaluations=material.evaluations,
        other_evaluations=material.other_evaluations,
        merge=export if kind == "merged" else {},
    )
    write_text(folder / CARD, model_card(facts))
    write_text(folder / DATA_CARD, data_card(material.data, run=material.run))
    run = published(material.run)
    content = {
        "kind": kind,
        **provenance(),
        **({"model": {"name": name, "sha256": model_sha256}} if model_sha256 else {}),
        **{key: run[key] for key in _RUN_KEYS if key in run},
        "result": run.get("result"),
        "run": {
            **{key: run.get(key) for key in _MADE_BY},
            "adapter_sha256": branch(run, "files", WEIGHTS).get("sha256"),
            "model_sha256": branch(run, "model").get("sha256"),
            "finished": run.get("finished"),
        },
        "export": {**export, "finished": utc_now()},
        "files": file_entries(folder, sorted(path.name for path in folder.iterdir())),
    }
    write_manifest(folder / MANIFEST, content)
    return content


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
