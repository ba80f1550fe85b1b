"""Checkpoints: all a run needs to go on bit-identically, as safetensors and JSON.

Everything random is a function of the seed and the step, so that no random state is kept.

A checkpoint is a folder `step-N` whose `manifest.json`, written last, holds the size and SHA-256 of
every file and the run's fingerprint; the folder appears by one rename. Nothing here is ever
unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from swe_scaffold.engine.adapter import read_tensors
from swe_scaffold.engine.loop import Loop
from swe_scaffold.engine.trained import put_trained, trained_tensors, weights_name
from swe_scaffold.errors import IntegrityError
from swe_scaffold.files import atomic_folder, remove, write_bytes, write_json
from swe_scaffold.manifest import file_entries, read_manifest, verify_files, write_manifest

OPTIMIZER, STATE, MANIFEST = "optimizer.safetensors", "state.json", "manifest.json"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_NAME = re.compile(r"step-(\d{1,12})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint; `state` is what the run stored beside the tensors."""

    folder: Path
    step: int
    state: Mapping[str, Any]
    fingerprint: Mapping[str, str]


def save_checkpoint(
    folder: Path, loop: Loop, *, fingerprint: Mapping[str, str], state: Mapping[str, Any]
) -> Path:
    """Write `folder/step-N` atomically and return it."""
    from safetensors.torch import save

    target = folder / f"step-{loop.step}"
    with loop.masters.in_model():
        weights = trained_tensors(loop.model)
    tensors = {weights_name(loop.model): weights, OPTIMIZER: _optimizer_tensors(loop)}
    with atomic_folder(target) as temporary:
        for name, content in tensors.items():
            write_bytes(temporary / name, save(content, metadata={"format": "pt"}))
        own = {"step": loop.step, "scaler": loop.scaler.state_dict(), **state}
        write_json(temporary / STATE, own)
        entries = file_entries(temporary, [*tensors, STATE])
        content = {"kind": "checkpoint", "fingerprint": dict(fingerprint), "files": entries}
        write_manifest(temporary / MANIFEST, content)
    return target


def restore(loop: Loop, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights, optimizer and step into a fresh loop.

    Raises:
        IntegrityError: A tensor is missing or does not fit this loop.
    """
    folder = checkpoint.folder
    put_weights(loop, checkpoint)
    _restore_optimizer(loop, read_tensors(folder / OPTIMIZER), where=str(folder / OPTIMIZER))
    if scaler := checkpoint.state.get("scaler"):
        loop.scaler.load_state_dict(dict(scaler))
    loop.step = checkpoint.step


def copy_first(loop: Loop) -> None:
    """Give the loop of every process the state that the first one has restored."""
    processes = loop.processes
    about = {
        "step": loop.step,
        "scaler": loop.scaler.state_dict(),
        "moments": any(loop.optimizer.state.values()),
    }
    about = processes.share(about)
    if not processes.leads:
        loop.step = about["step"]
        loop.scaler.load_state_dict(about["scaler"])
        for parameter in loop.parameters.values() if about["moments"] else ():
            loop.optimizer.state[parameter] = {
                key: torch.zeros(()) if key == "step" else torch.zeros_like(parameter.detach())
                for key in _MOMENTS
            }
    held = [list(loop.optimizer.state[weight].values()) for weight in loop.parameters.values()]
    processes.copy_first([*(weight.detach() for weight in loop.parameters.values()), *chain(*held)])
    loop.masters.publish()


def put_weights(loop: Loop, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into a loop, and nothing else of it.

    Raises:
        IntegrityError: A tensor is missing or does not fit.
    """
    path = checkpoint.folder / weights_name(loop.model)
    with loop.masters.in_model():
        put_trained(loop.model, read_tensors(path), where=str(path))


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of everything named like a checkpoint, oldest first."""
    found = []
    for path in folder.glob("step-*"):
        if match := _NAME.fullmatch(path.name):
            found.append((int(match.group(1)), path))
    return sorted(found)


def newest_checkpoint(
    folder: Path, *, fingerprint: Mapping[str, str], allowed: Collection[str] = ()
) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that verifies, and why newer ones were passed over.

    Parts of the fingerprint named in `allowed` may differ.

    Raises:
        IntegrityError: It belongs to another run; the message names what differs.
    """
    passed: list[str] = []
    for step, path in reversed(list_checkpoints(folder)):
        try:
            checkpoint = open_checkpoint(path)
        except IntegrityError as error:
            passed.append(f"{path.name}: {error}")
            continue
        require_same_run(checkpoint.fingerprint, fingerprint, where=str(path), allowed=allowed)
        if checkpoint.step != step:
            passed.append(f"{path.name}: holds step {checkpoint.step}")
            continue
        return checkpoint, passed
    return None, passed


def open_checkpoint(path: Path) -> Checkpoint:
    """Verify a checkpoint folder and read its state.

    Raises:
        IntegrityError: A file is missing or differs from the manifest.
    """
    manifest = read_manifest(path / MANIFEST)
    files, stored = manifest.get("files"), manifest.get("fingerprint")
    if not isinstance(files, dict) or not {OPTIMIZER, STATE} < set(files):
        raise IntegrityError("the manifest does not name every file", where=str(path))
    if not isinstance(stored, dict):
        raise IntegrityError("the manifest has no fingerprint", where=str(path))
    try:
        verify_files(path, files)
        state = json.loads((path / STATE).read_bytes())
        return Checkpoint(path, int(state["step"]), state, stored)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise IntegrityError(f"malformed: {error}", where=str(path)) from None


def require_same_run(
    stored: Mapping[str, str],
    current: Mapping[str, str],
    *,
    where: str,
    allowed: Collection[str] = (),
) -> None:
    """Refuse to go on with other data, base, tokenizer or configuration.

    Raises:
        IntegrityError: Names every part of the fingerprint that differs and is not `allowed` to.
    """
    keys = sorted({*stored, *current} - set(allowed))
    different = [key for key in keys if stored.get(key) != current.get(key)]
    if different:
        pairs = ", ".join(
            f"{key} (was {str(stored.get(key))[:40]}, is {str(current.get(key))[:40]})"
            for key in different
        )
        raise IntegrityError(
            f"this run cannot go on, different: {pairs}",
            where=where,
            hint="restore what changed, start a new run with --overwrite or another output_dir, or "
            "go on all the same, on the record: "
            + " ".join(f"--allow-change {key}" for key in different),
        )


def prune(folder: Path, *, keep: int | None, also: int | None) -> None:
    """Remove the oldest checkpoints beyond `keep`; step `also` (the best) always stays."""
    if keep is None:
        return
    for step, path in list_checkpoints(folder)[:-keep]:
        if step != also:
            remove(path)


def remove_newer(folder: Path, step: int) -> None:
    """Remove checkpoints beyond `step`: damaged ones must not outlive the good ones in `prune`."""
    for found, path in list_checkpoints(folder):
        if found > step:
            remove(path)


def _optimizer_tensors(loop: Loop) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, parameter in loop.parameters.items():
        for key, value in loop.optimizer.state[parameter].items():
            tensors[f"{name}.{key}"] = value.detach().to("cpu", copy=True).contiguous()
    return tensors


def _restore_optimizer(loop: Loop, stored: Mapping[str, torch.Tensor], *, where: str) -> None:
    shapes = {
        f"{name}.{key}": torch.Size(()) if key == "step" else parameter.shape
        for name, parameter in loop.parameters.items()
        for key in _MOMENTS
    }
    # Empty before the first update: float16 may have skipped every step so far.
    for name in sorted(set(stored) | set(shapes)) if stored else ():
        if name not in stored or name not in shapes:
            side = "missing from the file" if name in shapes else "not part of this run"
            raise IntegrityError(f"tensor {name} is {side}", where=where)
        if stored[name].shape != shapes[name]:
            raise IntegrityError(f"tensor {name} has another shape", where=where)
    for name, parameter in loop.parameters.items() if stored else ():
        # The step count stays on the CPU, where AdamW keeps it.
        loop.optimizer.state[parameter] = {
            key: stored[f"{name}.{key}"].to("cpu" if key == "step" else parameter.device, copy=True)
            for key in _MOMENTS
        }
