"""A whole model in a folder, as transformers stores it: weights in safetensors, config, generation.

The weights are the module's, in its dtype, under transformers' names; config and generation config
are the base's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swe_scaffold.engine.devices import out_of_memory
from swe_scaffold.engine.merging import merged_config
from swe_scaffold.engine.model import quiet_library
from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.files import TEMPORARY_PREFIX, atomic_folder, disk_errors, remove, write_bytes
from swe_scaffold.models import MODEL_CONFIG, MODEL_FILES, SHARDS

MAX_SHARD_BYTES = 5_000_000_000
_GENERATION = "generation_config.json"


def save_model(
    module: Any, folder: Path, *, source: Path, max_shard_bytes: int = MAX_SHARD_BYTES
) -> list[str]:
    """Write a causal model into a folder; the bytes depend on weights and config alone.

    Every file appears whole, and weight files of an earlier model go. What else lies in the folder
    stays; what makes the model count, such as a manifest, is the caller's to write afterwards.

    Args:
        module: The model itself, no PEFT model around it and nothing of it quantised.
        folder: Where to.
        source: The folder of the base it was loaded from, whose config it has but for the dtype.
        max_shard_bytes: Weights beyond it are divided among several files, with an index.

    Returns:
        The names of the files, sorted.

    Raises:
        EnvironmentFailure: The disk is full or cannot be written.
        OutOfMemory: A shard does not fit.
    """
    from safetensors import SafetensorError

    staged = folder / f"{TEMPORARY_PREFIX}model"
    with atomic_folder(staged) as temporary, out_of_memory("saving the model"):
        try:
            with quiet_library():
                module.save_pretrained(temporary, max_shard_size=max_shard_bytes)
        except SafetensorError as error:
            raise EnvironmentFailure(f"cannot be written: {error}", where=str(folder)) from None
        dtype = str(module.dtype).removeprefix("torch.")
        write_bytes(temporary / MODEL_CONFIG, merged_config(source, dtype))
        remove(temporary / _GENERATION)
        if (source / _GENERATION).is_file():
            write_bytes(temporary / _GENERATION, (source / _GENERATION).read_bytes())
    names = sorted(path.name for path in staged.iterdir())
    with disk_errors(folder):
        for earlier in (*(folder / name for name in MODEL_FILES), *folder.glob(SHARDS)):
            if earlier.name not in names:
                remove(earlier)
        for name in names:
            (staged / name).replace(folder / name)
        remove(staged)
    return names
