"""What a model's name stands for: a base, an adapter, or weights with a past that a manifest names.

Weights with a past are those of a full fine-tuning, or a base with an adapter merged into it.

Weights are loaded by the engine, rows rendered by `rendering`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from swe_scaffold.config import Quantization, TrainingConfig
from swe_scaffold.errors import IntegrityError, ScaffoldError, UsageError
from swe_scaffold.jsonl import loads_strict
from swe_scaffold.manifest import read_manifest, verify_files
from swe_scaffold.numbers import wording
from swe_scaffold.rendering import Renderer
from swe_scaffold.terminal import show

WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
MODEL_CONFIG = "config.json"
# What a model that is no adapter has besides its tokenizer, and how its weights are named if many.
MODEL_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    MODEL_CONFIG,
    "generation_config.json",
)
SHARDS = "model-?????-of-?????.safetensors"
RUN, MANIFEST, TRAINED_ROWS = "run.json", "manifest.json", "trained_rows.json"


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model folder or hub id, or an adapter with its base and its past.

    Weights with a past are their own base; `origin` is what they came from, where it is known to be
    somewhere. `tokenizer` holds the hashes of the tokenizer and of the template that were trained
    with. `quantization` is that of the base while the adapter was trained, and so while it is used.
    `run` is the folder of the run, where evaluations go.
    """

    name: str
    base: str
    adapter: Path | None = None
    base_sha256: str | None = None
    adapter_sha256: str | None = None
    tokenizer: tuple[str, str] | None = None
    trained: frozenset[str] = frozenset()
    max_length: int = TrainingConfig().max_length
    min_prompt_tokens: int = TrainingConfig().min_prompt_tokens
    quantization: Quantization = "none"
    run: Path | None = None
    origin: str | None = None
    origin_sha256: str | None = None


def is_adapter(model: str) -> bool:
    """Whether a PEFT folder is named."""
    return (Path(model) / ADAPTER_CONFIG).is_file()


def was_trained(model: str) -> bool:
    """Whether a PEFT folder is named, or weights with a past: something that came from a base."""
    return is_adapter(model) or _has_past(Path(model))


def below(model: ModelReference) -> ModelReference | None:
    """Return what a model was trained on, shown the same rows; None where none is known.

    What that was trained on itself is unknown.
    """
    if model.adapter is not None:
        origin, sha256 = model.base, model.base_sha256
    elif model.origin is not None:
        origin, sha256 = model.origin, model.origin_sha256
    else:
        return None
    return replace(
        model,
        name=origin,
        base=origin,
        base_sha256=sha256,
        adapter=None,
        adapter_sha256=None,
        trained=frozenset(),
        run=None,
        origin=None,
        origin_sha256=None,
    )


def is_of(report: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool | None:
    """Whether an evaluation is of the weights in a run's manifest; None where one does not say."""
    adapter = wording(manifest, "files", WEIGHTS, "sha256")
    own = adapter or wording(manifest, "model", "sha256")
    scored = wording(report, "model", "adapter_sha256")
    if not adapter and not scored:
        scored = wording(report, "model", "base_sha256")
    return scored == own if scored and own else None


def find_model(model: str, *, base: str | None = None) -> ModelReference:
    """Find out what `model` is; the manifest of what was trained is verified, and names its base.

    Args:
        model: A folder or a hub id.
        base: What it was trained on, in place of what its manifest says; a hash on record holds.

    Raises:
        IntegrityError: The files do not match the manifest.
        UsageError: An adapter without a manifest, and no `base`.
    """
    folder = Path(model)
    unfinished = (folder / RUN).is_file() and not (folder / MANIFEST).is_file()
    if unfinished:
        raise UsageError(
            "this run has not finished", where=model, hint="finish it with train --resume"
        )
    if not is_adapter(model):
        if _has_past(folder):
            return _own_weights(folder, model, base)
        if base is not None:
            raise UsageError("--base is for adapters, and this is none", where=model)
        return ModelReference(model, model)
    if (folder / MANIFEST).is_file():
        return _own_adapter(folder, model, base)
    if base is None:
        raise UsageError(
            "the adapter has no manifest that names its base", where=model, hint="give --base"
        )
    return ModelReference(model, base, adapter=folder)


def renderer_of(
    model: ModelReference, *, offline: bool = False, trust_template: bool = False
) -> Renderer:
    """Return the renderer of a model's base.

    Raises:
        IntegrityError: An unknown template, or a tokenizer that the adapter was not trained with.
    """
    renderer = Renderer.load(model.base, offline=offline, trust_template=trust_template)
    found = (renderer.tokenizer_sha256, renderer.template_sha256)
    if model.tokenizer not in (None, found):
        what = "chat template" if model.tokenizer[0] == found[0] else "tokenizer"
        raise IntegrityError(
            f"the base's {what} is not the one the adapter was trained with", where=model.base
        )
    return renderer


def _own_adapter(folder: Path, name: str, base: str | None) -> ModelReference:
    with _malformed(folder):
        manifest = _verified(folder, {WEIGHTS, ADAPTER_CONFIG, TRAINED_ROWS})
        entry = manifest["base"]
        given = str(manifest["config"]["training"]["model_name"])
        return replace(
            _with_past(
                folder, manifest, ModelReference(name, base or _base_of(folder, entry, given))
            ),
            adapter=folder,
            base_sha256=str(entry["sha256"]),
            adapter_sha256=str(manifest["files"][WEIGHTS]["sha256"]),
            quantization=_quantization(manifest),
            run=folder,
        )


def _quantization(manifest: Mapping[str, Any]) -> Quantization:
    found = manifest["config"]["training"].get("quantization", "none")
    for known in get_args(Quantization):
        if found == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"quantization {found!r}")


def _has_past(folder: Path) -> bool:
    return (folder / TRAINED_ROWS).is_file() and (folder / MANIFEST).is_file()


def _own_weights(folder: Path, name: str, base: str | None) -> ModelReference:
    """Return a full fine-tuning's model, or one that `export` wrote."""
    with _malformed(folder):
        manifest = _verified(folder, {MODEL_CONFIG, TRAINED_ROWS})
        entry = manifest["base"]
        model = ModelReference(
            name,
            name,
            base_sha256=str(manifest["model"]["sha256"]),
            run=None if "export" in manifest else folder,
            origin=base or _place_of(folder, entry),
            origin_sha256=str(entry["sha256"]),
        )
        return _with_past(folder, manifest, model)


def _verified(folder: Path, names: set[str]) -> dict[str, Any]:
    manifest = read_manifest(folder / MANIFEST)
    files = manifest["files"]
    if not names <= set(files):
        raise IntegrityError("the manifest does not name every file", where=str(folder))
    verify_files(folder, files)
    return manifest


def _with_past(folder: Path, manifest: Mapping[str, Any], model: ModelReference) -> ModelReference:
    training, prints = manifest["config"]["training"], manifest["fingerprint"]
    return replace(
        model,
        tokenizer=(str(prints["tokenizer"]), str(prints["template"])),
        trained=_trained_rows(folder),
        max_length=int(training["max_length"]),
        min_prompt_tokens=int(training["min_prompt_tokens"]),
    )


@contextlib.contextmanager
def _malformed(folder: Path) -> Iterator[None]:
    """Turn what a malformed manifest makes fail into one error."""
    try:
        yield
    except ScaffoldError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise IntegrityError(
            f"the manifest is malformed: {type(error).__name__} {show(error)}", where=str(folder)
        ) from None


def _base_of(folder: Path, entry: Mapping[str, Any], given: str) -> str:
    if found := _place_of(folder, entry):
        return found
    if (Path(given) / MODEL_CONFIG).is_file():
        return given
    raise IntegrityError(
        f"the base {entry['name']!r} is not where it was",
        where=str(folder),
        hint="give its folder with --base",
    )


def _place_of(folder: Path, entry: Mapping[str, Any]) -> str | None:
    """Return a base's hub id, or the folder where a manifest says it lies if it does."""
    if not entry.get("local"):
        return str(entry["name"])
    place = folder / str(entry["path"]) if "path" in entry else None
    return str(place) if place is not None and (place / MODEL_CONFIG).is_file() else None


def _trained_rows(folder: Path) -> frozenset[str]:
    path = folder / TRAINED_ROWS
    rows = loads_strict(path.read_bytes(), str(path))
    return frozenset(str(row[1]) for row in rows)
