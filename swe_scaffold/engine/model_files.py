"""The files of a model, looked at before any is loaded: safetensors alone, none of their code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swe_scaffold.errors import IntegrityError
from swe_scaffold.terminal import show

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHT_PATTERNS = ("config.json", "generation_config.json", "model*.safetensors", INDEX)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def require_safetensors(folder: Path) -> list[Path]:
    """Return the weight files of a folder: one, or the shards that the index names.

    Raises:
        IntegrityError: There are none; pickles do not count and are never opened.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder)
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise IntegrityError(
            f"only pickled weights ({show(pickles[0])}), which can run code when opened",
            where=str(folder),
            hint="convert the weights to safetensors first",
        )
    raise IntegrityError(f"no {WEIGHTS} and no {INDEX}", where=str(folder))


def weight_files(folder: Path) -> list[str]:
    """Return the names of a folder's weight files, with that of their index if they have one.

    Raises:
        IntegrityError: There are none.
    """
    names = [path.name for path in require_safetensors(folder)]
    return names if names == [WEIGHTS] else [*names, INDEX]


def refuse_foreign_ways(folder: Path) -> None:
    """Refuse what would run code of the folder or of the hub, and what cannot be trained here.

    Raises:
        IntegrityError: The folder's config asks for it, or is none.
    """
    if (folder / "adapter_config.json").exists():
        # transformers would follow it to whatever base it names, unhashed.
        raise IntegrityError(
            "an adapter lies in this folder, and its config would choose another base",
            where=str(folder),
            hint="name the base model's own folder",
        )
    path = folder / "config.json"
    config = read_object(path)
    if "auto_map" in config:
        raise IntegrityError(
            "the model wants to run its own code (auto_map), which is never done here",
            where=str(path),
            hint="use a model of an architecture that transformers itself contains",
        )
    for key, value in config.items():
        if key.endswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
            raise IntegrityError(
                f"the model wants kernels fetched and run ({show(key)})", where=str(path)
            )
    if config.get("transformers_weights"):
        raise IntegrityError("names weights of its own (transformers_weights)", where=str(path))
    if config.get("quantization_config"):
        raise IntegrityError(
            "the stored weights are quantised, which is not supported here",
            where=str(path),
            hint="use the model's unquantised weights; training.quantization loads them in 4 bits",
        )


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        IntegrityError: It is missing or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise IntegrityError(f"there is no {path.name}", where=str(path.parent)) from None
    except OSError as error:
        raise IntegrityError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"not JSON: {error}", where=str(path)) from None
    if not isinstance(value, dict):
        raise IntegrityError("not a JSON object", where=str(path))
    return value


def _shards(folder: Path) -> list[Path]:
    index = read_object(folder / INDEX).get("weight_map")
    names = set(map(str, index.values())) if isinstance(index, dict) else set()
    if not names:
        raise IntegrityError("names no weight files", where=str(folder / INDEX))
    for name in sorted(names):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise IntegrityError(
                f"names {show(name)}, which is no safetensors file here", where=str(folder / INDEX)
            )
        if not (folder / name).is_file():
            raise IntegrityError(f"the shard {show(name)} is missing", where=str(folder))
    return [folder / name for name in sorted(names)]
