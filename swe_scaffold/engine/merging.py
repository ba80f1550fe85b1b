"""An adapter added to its base's weights: files to files, a shard at a time.

W' = W + s · B A, with s = alpha / r (LoRA: Hu et al., 2021, section 4.1) or alpha / √r (rsLoRA:
Kalajdzievski, 2023); DoRA (Liu et al., 2024, section 4.1) then gives each row of W' the length that
it learnt. Computed in float32 and cast once. Every other tensor stays as the base has it. Whether
the result is equal to base + adapter is shown by `equality`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from swe_scaffold.engine.adapter import WEIGHTS, read_adapter
from swe_scaffold.engine.adapter_config import read_adapter_config
from swe_scaffold.engine.devices import DTYPES, out_of_memory
from swe_scaffold.engine.model_files import INDEX, WEIGHT_PATTERNS, require_safetensors
from swe_scaffold.engine.model_files import WEIGHTS as SINGLE
from swe_scaffold.errors import IntegrityError
from swe_scaffold.files import atomic_write, write_json
from swe_scaffold.hub import resolve_model_folder
from swe_scaffold.terminal import show

_PREFIX = "base_model.model."
# What an adapter has for each weight, and how many axes it has there.
_PARTS = {"A": 2, "B": 2, "magnitude_vector": 1}
# How safetensors writes the dtypes that can be cast.
_FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor of the base: where it lies, and its dtype there and in the merged model."""

    name: str
    file: Path
    stored: str
    dtype: torch.dtype | None
    bytes: int


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What a merge will write: tensors by shard, in order, and their total size in bytes.

    `stored` and `dtypes` name the floating dtypes of the base's tensors and of the merged ones.
    """

    base: Path
    adapter: Path
    shards: tuple[tuple[PlannedTensor, ...], ...]
    bytes: int
    stored: tuple[str, ...]
    dtypes: tuple[str, ...]

    @property
    def reference_dtype(self) -> str:
        """The dtype in which base + adapter is computed: the merged model's, unless it would round.

        Only where every tensor is stored as it will be is nothing lost by loading it so.
        """
        return self.dtypes[0] if self.stored == self.dtypes and len(self.dtypes) == 1 else "float32"

    @property
    def merged_dtype(self) -> str:
        """The dtype in which the merged model is read again."""
        return self.dtypes[0] if len(self.dtypes) == 1 else "float32"

    @property
    def file_names(self) -> list[str]:
        """The weight files, named as transformers names them."""
        if len(self.shards) == 1:
            return [SINGLE]
        count = len(self.shards)
        return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def plan_merge(
    name: str,
    adapter: Path,
    *,
    dtype: str | None = None,
    max_shard_bytes: int,
    offline: bool = False,
) -> MergePlan:
    """Look at a base and an adapter and say what merging them will write.

    Args:
        name: The base: a folder or a hub id.
        adapter: A LoRA adapter's folder.
        dtype: Of the merged floating tensors; None keeps each as it is stored.
        max_shard_bytes: A shard is closed before it would exceed this; a tensor is never split.
        offline: Never ask the network.

    Raises:
        IntegrityError: Damaged files, or an adapter whose modules the base does not have.
        EnvironmentFailure: A hub id that cannot be fetched.
    """
    base = resolve_model_folder(name, patterns=WEIGHT_PATTERNS, offline=offline)
    tensors = sorted(_tensors(base, DTYPES[dtype] if dtype else None), key=lambda item: item.name)
    known = {tensor.name: tensor for tensor in tensors}
    pairs = _pairs(adapter, known)
    for weight in sorted(pairs):
        if weight not in known:
            raise IntegrityError(f"the base has no tensor {show(weight)}", where=str(base))
        if (stored := known[weight].stored) not in _FLOATS:
            raise IntegrityError(
                f"tensor {show(weight)} is stored as {show(stored)}, to which no adapter can be "
                "added",
                where=str(base),
            )
    floats = [tensor for tensor in tensors if tensor.dtype is not None]
    return MergePlan(
        base=base,
        adapter=adapter,
        shards=tuple(_shards(tensors, max_shard_bytes)),
        bytes=sum(tensor.bytes for tensor in tensors),
        stored=tuple(sorted({_name(_FLOATS[tensor.stored]) for tensor in floats})),
        dtypes=tuple(sorted({_name(tensor.dtype) for tensor in floats})),
    )


def write_merged(
    plan: MergePlan, folder: Path, *, written: Callable[[], None] = lambda: None
) -> list[str]:
    """Write the merged weights and return the files' names; a shard is in memory at a time.

    Args:
        plan: What to write.
        folder: Where to.
        written: Called after each shard.

    Raises:
        IntegrityError: Shapes that do not fit, or a sum that its dtype cannot hold.
        OutOfMemory: A shard does not fit.
    """
    from safetensors.torch import save

    pairs = _pairs(plan.adapter, {tensor.name for shard in plan.shards for tensor in shard})
    scale = _scale(plan.adapter)
    weight_map = {}
    for name, shard in zip(plan.file_names, plan.shards, strict=True):
        with out_of_memory(f"merging {name}"):
            content = {
                tensor.name: _merged(tensor, pairs.get(tensor.name), scale) for tensor in shard
            }
            data = save(content, metadata={"format": "pt"})
            del content
            with atomic_write(folder / name) as stream:
                stream.write(data)
        written()
        weight_map.update(dict.fromkeys((tensor.name for tensor in shard), name))
    if len(plan.shards) == 1:
        return plan.file_names
    index = {"metadata": {"total_size": plan.bytes}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / INDEX, index)
    return [*plan.file_names, INDEX]


def merged_config(base: Path, dtype: str | None) -> bytes:
    """Return the base's config.json, byte for byte unless `dtype` or a path in it must change.

    Raises:
        IntegrityError: It cannot be read.
    """
    data = (base / "config.json").read_bytes()
    try:
        config: Any = json.loads(data)
        given = {key: config.get(key) for key in ("dtype", "torch_dtype") if key in config}
        changed = dict(config)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"not a JSON object: {error}", where=f"{base}/config.json") from None
    if "_name_or_path" in changed and Path(str(changed["_name_or_path"])).is_absolute():
        del changed["_name_or_path"]
    if dtype is not None and set(given.values()) != {dtype}:
        changed = {key: value for key, value in changed.items() if key != "torch_dtype"}
        changed["dtype"] = dtype
    if changed == config:
        return data
    text = json.dumps(changed, allow_nan=False, ensure_ascii=False, indent=2)
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _merged(
    tensor: PlannedTensor, pair: Mapping[str, torch.Tensor] | None, scale: float
) -> torch.Tensor:
    weight = _read(tensor)
    if pair is None:
        return weight if tensor.dtype is None else weight.to(tensor.dtype)
    a_RI, b_OR = pair["A"].float(), pair["B"].float()
    if weight.shape != (b_OR.shape[0], a_RI.shape[1]) or b_OR.shape[1] != a_RI.shape[0]:
        raise IntegrityError(
            f"the adapter's matrices for {show(tensor.name)} do not fit its shape "
            f"{tuple(weight.shape)}",
            where=str(tensor.file),
        )
    total_OI = weight.float().add_((b_OR @ a_RI).mul_(scale))
    if "magnitude_vector" in pair:
        total_OI = _with_lengths(tensor, total_OI, pair["magnitude_vector"].float())
    total = total_OI.to(tensor.dtype)
    if not bool(torch.isfinite(total).all()):
        raise IntegrityError(
            f"the merged {show(tensor.name)} is beyond what {_name(tensor.dtype)} holds",
            where=str(tensor.file),
            hint="choose another --dtype",
        )
    return total


def _with_lengths(
    tensor: PlannedTensor, weight_OI: torch.Tensor, length_O: torch.Tensor
) -> torch.Tensor:
    """Give each row the length that DoRA learnt for it."""
    norm_O = torch.linalg.norm(weight_OI, dim=1)
    if length_O.shape != norm_O.shape or not bool((norm_O > 0).all()):
        problem = "has a row of zeros" if length_O.shape == norm_O.shape else "has other rows"
        raise IntegrityError(
            f"the magnitudes do not fit {show(tensor.name)}, which {problem}",
            where=str(tensor.file),
        )
    return weight_OI.mul_((length_O / norm_O).unsqueeze(1))


def _read(tensor: PlannedTensor) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(tensor.file, "pt") as file:
        weight: torch.Tensor = file.get_tensor(tensor.name)
    return weight


def _tensors(base: Path, dtype: torch.dtype | None) -> Iterator[PlannedTensor]:
    from safetensors import SafetensorError, safe_open

    for path in require_safetensors(base):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 it is no mapping
                    part = file.get_slice(name)
                    yield _planned(name, path, part.get_dtype(), part.get_shape(), dtype)
        except (SafetensorError, OSError) as error:
            raise IntegrityError(f"is damaged: {error}", where=str(path)) from None


def _planned(
    name: str, file: Path, stored: str, shape: Sequence[int], dtype: torch.dtype | None
) -> PlannedTensor:
    known = _FLOATS.get(stored)
    wanted = None if known is None else dtype or known
    # Other dtypes are counted as wide as the widest: it is an upper bound for the disk.
    width = 8 if wanted is None else wanted.itemsize
    count = 1
    for size in shape:
        count *= size
    return PlannedTensor(name, file, stored, wanted, count * width)


def _shards(tensors: Sequence[PlannedTensor], most: int) -> Iterator[tuple[PlannedTensor, ...]]:
    shard: list[PlannedTensor] = []
    size = 0
    for tensor in tensors:
        if shard and size + tensor.bytes > most:
            yield tuple(shard)
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.bytes
    yield tuple(shard)


def _pairs(adapter: Path, stored: Collection[str]) -> dict[str, dict[str, torch.Tensor]]:
    """Return the matrices of each adapted weight, and its magnitudes, by its name in the files.

    A base stored without its head has names without the model's own first part, `model`.
    """
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in read_adapter(adapter)[1].items():
        module, _, part = name.removesuffix(".weight").rpartition(".lora_")
        if not module.startswith(_PREFIX) or _PARTS.get(part) != tensor.ndim:
            raise IntegrityError(
                f"tensor {show(name)} is no LoRA matrix", where=str(adapter / WEIGHTS)
            )
        pairs.setdefault(f"{module.removeprefix(_PREFIX)}.weight", {})[part] = tensor
    for name, pair in pairs.items():
        if not {"A", "B"} <= set(pair):
            raise IntegrityError(
                f"the adapter of {show(name)} lacks a matrix", where=str(adapter / WEIGHTS)
            )
    inner = {name.partition(".")[2]: pair for name, pair in pairs.items()}
    short = len(inner) == len(pairs) and set(inner) <= set(stored)
    return inner if short and not set(pairs) <= set(stored) else pairs


def _scale(adapter: Path) -> float:
    config = read_adapter_config(adapter)
    rank = math.sqrt(config["r"]) if config["use_rslora"] else config["r"]
    return float(config["lora_alpha"] / rank)


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
