"""What a model's name stands for: a base, an adapter, or one merged; a manifest names its past.

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
from swe_scaffold.rendering import Renderer
from swe_scaffold.terminal import show

WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
MODEL_CONFIG = "config.json"
RUN, MANIFEST, TRAINED_ROWS = "run.json", "manifest.json", "trained_rows.json"


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model folder or hub id, or an adapter with its base and its past.

    A merged model is its own base, and keeps the past of its adapter. `tokenizer` holds the hashes
    of the tokenizer and of the template the adapter was trained with. `quantization` is that of the
    base while the adapter was trained, and so while it is used.
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


def is_adapter(model: str) -> bool:
    """Whether a PEFT folder is named."""
    return (Path(model) / ADAPTER_CONFIG).is_file()


def find_model(model: str, *, base: str | None = None) -> ModelReference:
    """Find out what `model` is; an adapter's manifest is verified and names its base.

    Raises:
        IntegrityError: The adapter's files do not match its manifest.
        UsageError: An adapter without a manifest, and no `base`.
    """
    folder = Path(model)
    unfinished = (folder / RUN).is_file() and not (folder / MANIFEST).is_file()
    if unfinished:
        raise UsageError(
            "this run has not finished", where=model, hint="finish it with train --resume"
        )
    if not is_adapter(model):
        if base is not None:
            raise UsageError("--base is for adapters, and this is none", where=model)
        return _merged(folder, model) or ModelReference(model, model)
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
        )


def _quantization(manifest: Mapping[str, Any]) -> Quantization:
    found = manifest["config"]["training"].get("quantization", "none")
    for known in get_args(Quantization):
        if found == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"quantization {found!r}")


def _merged(folder: Path, name: str) -> ModelReference | None:
    """Return a merged model that `export` wrote, None for any other folder or name."""
    if not (folder / TRAINED_ROWS).is_file() or not (folder / MANIFEST).is_file():
        return None
    with _malformed(folder):
        manifest = _verified(folder, {MODEL_CONFIG, TRAINED_ROWS})
        sha256 = str(manifest["model"]["sha256"])
        return _with_past(folder, manifest, ModelReference(name, name, base_sha256=sha256))


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
    if not entry.get("local"):
        return str(entry["name"])
    places = [folder / str(entry["path"])] if "path" in entry else []
    for candidate in (*places, Path(given)):
        if (candidate / "config.json").is_file():
            return str(candidate)
    raise IntegrityError(
        f"the base {entry['name']!r} is not where it was",
        where=str(folder),
        hint="give its folder with --base",
    )


def _trained_rows(folder: Path) -> frozenset[str]:
    path = folder / TRAINED_ROWS
    rows = loads_strict(path.read_bytes(), str(path))
    return frozenset(str(row[1]) for row in rows)
