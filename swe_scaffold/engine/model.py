"""Base models: weights from safetensors only, every tensor accounted for, nothing executed.

The folder's own code is never run. Which rows are fed is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from swe_scaffold.config import Quantization
from swe_scaffold.engine import quantization as bits
from swe_scaffold.engine.devices import Device, out_of_memory
from swe_scaffold.engine.model_files import (
    WEIGHT_PATTERNS,
    read_object,
    refuse_foreign_ways,
    require_safetensors,
)
from swe_scaffold.engine.read_ahead import Sha256
from swe_scaffold.errors import IntegrityError, ScaffoldError
from swe_scaffold.files import sha256_file
from swe_scaffold.hub import local_folder, resolve_model_folder
from swe_scaffold.manifest import fingerprint
from swe_scaffold.start_up import started
from swe_scaffold.terminal import show


@dataclass(frozen=True, slots=True)
class BaseFiles:
    """A base model that is not loaded: `sha256` covers config and all weight files.

    `context_length` is the number of positions it was made for, None where its config is silent.
    """

    folder: Path
    sha256: str
    context_length: int | None


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A loaded base model and what identifies it; `sha256` covers config and all weight files.

    `quantization` is that of the loaded module; the files are never quantised.
    """

    module: Any
    name: str
    folder: Path
    sha256: str
    device: Device
    quantization: Quantization = "none"

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding matrix: every token id must be below it."""
        return int(self.module.get_input_embeddings().weight.shape[0])

    @property
    def context_length(self) -> int | None:
        """Positions the model was made for, where its config says so."""
        return positions_of(self.module.config)

    @property
    def is_local(self) -> bool:
        """Whether the name is a folder of this machine and no hub id."""
        return local_folder(self.name) is not None

    @property
    def public_name(self) -> str:
        """The hub id, or a local folder's last name: nothing of this machine."""
        return self.folder.resolve().name if self.is_local else self.name


def find_base(name: str, *, offline: bool = False, sha256: Sha256 = sha256_file) -> BaseFiles:
    """Find and hash the files of a base model.

    Args:
        name: Folder or hub id.
        offline: Never ask the network.
        sha256: What hashes a file; see `read_ahead`.

    Raises:
        IntegrityError: Pickled or missing weights, or a folder that wants its own code run.
        EnvironmentFailure: A hub id that cannot be fetched.
    """
    folder = resolve_model_folder(name, patterns=WEIGHT_PATTERNS, offline=offline)
    refuse_foreign_ways(folder)
    files = require_safetensors(folder)
    entries = {file.name: sha256(file) for file in [folder / "config.json", *files]}
    return BaseFiles(folder, fingerprint(entries), _context_length(folder))


def load_base(
    name: str,
    device: Device,
    *,
    offline: bool = False,
    files: BaseFiles | None = None,
    quantization: Quantization = "none",
) -> BaseModel:
    """Load a causal language model from a local folder or a hub id, frozen and in evaluation mode.

    Args:
        name: Folder or hub id.
        device: Where to, and in which dtype.
        offline: Never ask the network.
        files: What `find_base` found under this name, so that nothing is hashed twice.
        quantization: Of the linear modules, in memory.

    Raises:
        IntegrityError: Pickled or missing weights, missing, renamed, damaged or non-finite tensors,
            or a folder that wants its own code run.
        EnvironmentFailure: A hub id that cannot be fetched, or a device that cannot quantise.
        MissingExtra: What quantises is not installed.
        OutOfMemory: The weights do not fit.
    """
    bits.require_quantizer(quantization, device)
    found = files or find_base(name, offline=offline)
    with out_of_memory(f"loading {show(name)}"):
        if quantization == "none":
            module = _load(found.folder, device, {})
            module.to(device.name)
        else:
            module = _load(found.folder, device, bits.loading_options(device))
            bits.keep_one_path(module)
            bits.require_faithful(module, require_safetensors(found.folder))
        _require_finite(module, found.folder)
        module.requires_grad_(False).eval()
    started()
    return BaseModel(module, name, found.folder, found.sha256, device, quantization)


def _context_length(folder: Path) -> int | None:
    """Return what the config says, as the loaded model will; a key left out has a default there."""
    config = read_object(folder / "config.json")
    if type(said := config.get("max_position_embeddings")) is int and "text_config" not in config:
        return said or None
    from transformers import AutoConfig

    try:
        with quiet_library():
            return positions_of(AutoConfig.from_pretrained(str(folder), local_files_only=True))
    except Exception:  # noqa: BLE001 what is wrong with the folder is said when it is loaded
        return None


def positions_of(config: Any) -> int | None:
    """Return the positions that a transformers config names, if any."""
    value = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(value) if value else None


def declared_sizes(name: str, *, offline: bool = False) -> tuple[int | None, int | None]:
    """Return the embeddings and positions a model's config declares, before weights are read.

    Raises:
        IntegrityError: The config is missing or no JSON object.
        EnvironmentFailure: A hub id that cannot be fetched.
    """
    folder = resolve_model_folder(name, patterns=("config.json",), offline=offline)
    config = read_object(folder / "config.json")
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    sizes = (text.get(key) for key in ("vocab_size", "max_position_embeddings"))
    embeddings, positions = (size if type(size) is int and size > 0 else None for size in sizes)
    return embeddings, positions


def _load(folder: Path, device: Device, options: Mapping[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        with quiet_library():
            module, info = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=device.dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except (ScaffoldError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a malformed folder makes three libraries raise errors of their own
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise IntegrityError(
            f"the model cannot be loaded: {show(reason, width=300)}", where=str(folder)
        ) from None
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if names := sorted(map(str, info.get(kind) or ())):
            raise IntegrityError(
                f"{len(names)} {kind.removesuffix('_keys')} tensors, first: {show(names[0])}",
                where=str(folder),
                hint="the weights do not fit the config; fetch the model again",
            )
    return module


def _require_finite(module: torch.nn.Module, folder: Path) -> None:
    for name, tensor in module.named_parameters():
        # The extremes are infinite or NaN where any number is; a mask takes forty times as long.
        if tensor.numel() and not all(
            map(math.isfinite, torch.stack(tensor.detach().aminmax()).tolist())
        ):
            raise IntegrityError(f"tensor {name} is not finite", where=str(folder))


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Silence transformers' bars and reports: what matters of them is turned into errors here."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.CRITICAL)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
