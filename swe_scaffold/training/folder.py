"""The run folder: who may write it, what it says while a run is under way and when it has ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_scaffold.cards import ModelFacts, ModelKind, model_card
from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.files import remove, write_bytes, write_json, write_text
from swe_scaffold.manifest import SCHEMA, file_entries, provenance, read_manifest, write_manifest
from swe_scaffold.models import MODEL_FILES, SHARDS
from swe_scaffold.rendering.tokens import TOKENIZER_FILES

RUN, MANIFEST, METRICS, TIMING = "run.json", "manifest.json", "metrics.jsonl", "timing.jsonl"
WEIGHTS = "adapter_model.safetensors"
CHECKPOINTS, TRAINED_ROWS, SKIPPED = "checkpoints", "trained_rows.json", "skipped.jsonl"
_OWN = (
    MANIFEST,
    METRICS,
    TIMING,
    CHECKPOINTS,
    TRAINED_ROWS,
    SKIPPED,
    WEIGHTS,
    "adapter_config.json",
    *MODEL_FILES,
    "README.md",
    "evaluation",
    "report.html",
    "tracking",
    *TOKENIZER_FILES,
    # Last, so that a folder cleared by half is still known as ours.
    RUN,
)


def claim(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder with another run's files unless told how to go on; call under its lock.

    Raises:
        UsageError: The folder is not empty and neither flag was given, or both were.
        IntegrityError: `--overwrite` of a folder that holds no run of ours.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    content = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if resume:
        if RUN not in content:
            raise UsageError(
                "there is no run to resume", where=str(folder), hint="run without --resume"
            )
        return
    if not content:
        return
    if not overwrite:
        raise UsageError(
            "the output folder is not empty",
            where=str(folder),
            hint="--resume goes on with the run in it, --overwrite replaces it, "
            "--output FOLDER chooses another",
        )
    if RUN not in content:
        raise IntegrityError("holds no run of this tool; it is not overwritten", where=str(folder))
    read_run(folder)


def clear(folder: Path) -> None:
    """Remove an earlier run, and nothing else that lies there."""
    for shard in sorted(folder.glob(SHARDS)):
        remove(shard)
    for name in _OWN:
        remove(folder / name)


def write_run(
    folder: Path,
    *,
    fingerprint: Mapping[str, str],
    config: Mapping[str, Any],
    threads: int,
    changes: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Record what a run is before its first step, or after a change that was allowed."""
    content = {"schema": SCHEMA, "kind": "run", "fingerprint": dict(fingerprint)}
    content["changes"] = [dict(change) for change in changes]
    write_json(folder / RUN, {**content, "config": config, **provenance(), "threads": threads})


def read_run(folder: Path) -> dict[str, Any]:
    """Read that record.

    Raises:
        IntegrityError: It is damaged.
    """
    content = read_manifest(folder / RUN)
    kinds = {"fingerprint": dict, "changes": list}
    whole = all(isinstance(content.get(key), kind) for key, kind in kinds.items())
    if content.get("kind") != "run" or not whole or not all(map(_is_change, content["changes"])):
        raise IntegrityError("is not the record of a run", where=str(folder / RUN))
    return content


def _is_change(value: Any) -> bool:
    kinds = {"key": str, "step": int}
    return isinstance(value, dict) and all(
        isinstance(value.get(key), kind) for key, kind in kinds.items()
    )


def circumstances(content: Mapping[str, Any]) -> dict[str, str]:
    """Return what may change the last bits and is no part of a fingerprint, by name.

    Args:
        content: A record of a run, or what `provenance` says, with `threads`.
    """
    packages = content.get("packages")
    found = {key: content.get(key) for key in ("version", "git_revision", "python", "platform")}
    found |= packages if isinstance(packages, Mapping) else {}
    found["threads"] = content.get("threads")
    return {str(key): str(value) for key, value in found.items() if value is not None}


def timing_so_far(path: Path, step: int) -> tuple[int, list[dict[str, Any]]]:
    """Return the leading lines of a timing log about steps up to `step`, and their bytes."""
    if not path.is_file():
        return 0, []
    size, lines = 0, []
    for text in path.read_bytes().split(b"\n")[:-1]:
        try:
            line = json.loads(text)
            if line["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        size += len(text) + 1
        lines.append(line)
    return size, lines


def copy_files(paths: Sequence[Path], folder: Path) -> list[str]:
    """Copy the base's tokenizer files as they are and return their names."""
    for path in paths:
        write_bytes(folder / path.name, path.read_bytes())
    return [path.name for path in paths]


def finish(
    folder: Path,
    content: Mapping[str, Any],
    *,
    names: Sequence[str],
    kind: ModelKind = "adapter",
) -> None:
    """Write the manifest of a finished run, last of all.

    Args:
        folder: The run folder.
        content: What it says; of the kind `model` also `model`, the name and hash of its weights.
        names: The files it vouches for, those of them that are there.
        kind: What was trained.
    """
    write_manifest(
        folder / MANIFEST,
        {
            "kind": kind,
            **provenance(),
            **content,
            "files": file_entries(folder, _present(folder, names)),
        },
    )


def write_card(folder: Path, facts: Mapping[str, Any], *, kind: ModelKind = "adapter") -> None:
    """Write the model card: what was trained, on what, with which result."""
    manifest = {**provenance(), **facts, "files": file_entries(folder, _present(folder, [WEIGHTS]))}
    card = model_card(ModelFacts(folder.resolve().name, kind, manifest))
    write_text(folder / "README.md", card)


def _present(folder: Path, names: Sequence[str]) -> list[str]:
    return sorted(name for name in names if (folder / name).exists())
