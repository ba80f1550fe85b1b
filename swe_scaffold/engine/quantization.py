"""Bases in 4 bits: NF4 with double quantisation (Dettmers et al., 2023), computed by bitsandbytes.

The linear modules of a base are quantised while its stored weights are read; embeddings, norms and
the head stay as they are. Nothing is written in 4 bits, and a base stored so is refused.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from swe_scaffold.config import Quantization
from swe_scaffold.engine.devices import Device
from swe_scaffold.errors import EnvironmentFailure, IntegrityError, MissingExtra
from swe_scaffold.terminal import show

COMPUTE_DTYPE = torch.bfloat16
_DEVICES = ("cpu", "cuda")
# Half of NF4's widest gap, as a share of a block's largest weight, and the rounding of a block's
# scale to 8 bits, as a share of the largest: 0.152 and 0.007, and some room.
_ROUNDING, _SCALE_ROUNDING = 0.17, 0.02


def require_quantizer(quantization: Quantization, device: Device) -> None:
    """Make sure, before any weight is read, that weights can be quantised here.

    Raises:
        MissingExtra: bitsandbytes is not installed.
        EnvironmentFailure: It cannot be imported, or was made for other devices.
    """
    if quantization == "none":
        return
    if device.name.partition(":")[0] not in _DEVICES:
        raise EnvironmentFailure(
            f"weights in 4 bits need CUDA or a CPU, and the device here is {device.name}",
            where="quantization",
            hint="set training.quantization (for a score, evaluation.quantization) to none",
        )
    with no_fetched_kernels():
        try:
            import bitsandbytes  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtra("bitsandbytes", "quantized") from error
        except Exception as error:  # noqa: BLE001 its native libraries fail in ways of their own
            raise EnvironmentFailure(
                f"bitsandbytes is installed and cannot be imported: {show(error, width=200)}",
                hint="pip install --force-reinstall 'swe-speedrun-scaffold[quantized]'",
            ) from None


def loading_options(device: Device) -> dict[str, Any]:
    """Return what transformers must be told to quantise a base on its way to the device."""
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=COMPUTE_DTYPE,
    )
    return {"quantization_config": config, "device_map": {"": device.name}}


def keep_one_path(module: torch.nn.Module) -> None:
    """Let a quantised model compute the same in evaluation as in training.

    On CPUs with AVX512-BF16, bitsandbytes (0.50) repacks a weight in the first forward pass without
    gradients, to another arithmetic; passes with gradients then fail.
    """
    for child in module.modules():
        if hasattr(child, "support_avx512bf16_for_cpu"):
            child.support_avx512bf16_for_cpu = False


def require_faithful(module: torch.nn.Module, files: Sequence[Path]) -> None:
    """Compare a quantised model with its stored weights: all finite, none further off than NF4 is.

    Once weights are quantised an infinity can no longer be seen; and a library that reads its own
    bits back wrong is (bitsandbytes 0.50.2, AVX512, rows of 16, 48, 80 or 96 numbers).

    Raises:
        IntegrityError: A stored tensor is not finite.
        EnvironmentFailure: A weight is not what was quantised, or has another name where it is
            stored, and could not be compared.
    """
    from safetensors import safe_open

    weights = {name: tensor for name, tensor in module.named_parameters() if _is_quantised(tensor)}
    # A base stored without its head has names without the model's own first part.
    prefix = f"{module.base_model_prefix}."
    looked_at = set()
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 it is no mapping
                stored = file.get_tensor(name)
                if not bool(torch.isfinite(stored).all()):
                    raise IntegrityError(f"tensor {show(name)} is not finite", where=str(path))
                here = name if name in weights else f"{prefix}{name}"
                looked_at.add(here)
                if here in weights and not _is_near(weights[here], stored):
                    raise EnvironmentFailure(
                        f"bitsandbytes does not give back {show(name)} as it was, but for rounding",
                        where=str(path),
                        hint="set the quantization to none, or use another version or device",
                    )
    for name in sorted(set(weights) - looked_at):
        raise EnvironmentFailure(
            f"nothing is stored under the name {show(name)}, which could not be compared",
            where=str(files[0].parent),
            hint="set the quantization to none",
        )


def _is_quantised(tensor: torch.Tensor) -> bool:
    return getattr(tensor, "quant_state", None) is not None


def _is_near(weight: Any, stored: torch.Tensor) -> bool:
    """Whether each block of a quantised weight is within the rounding of its own and its scale."""
    from bitsandbytes.functional import dequantize_4bit

    read = dequantize_4bit(weight.data, weight.quant_state).float()
    if read.shape != stored.shape:
        return True  # it is stored in another form, and what it became is not known here
    wanted = stored.to(read.device, torch.float32)
    gap, largest = (
        functional.pad(values.flatten(), (0, -values.numel() % weight.blocksize))
        .view(-1, weight.blocksize)
        .amax(1)
        for values in ((read - wanted).abs(), wanted.abs())
    )
    return bool((gap <= _ROUNDING * largest + _SCALE_ROUNDING * largest.max()).all())


def parameter_count(module: torch.nn.Module) -> int:
    """Return how many parameters a model has, where two of them share a byte as well."""
    return sum(
        tensor.quant_state.shape.numel() if _is_quantised(tensor) else tensor.numel()
        for tensor in module.parameters()
    )


@contextlib.contextmanager
def no_fetched_kernels() -> Iterator[None]:
    """Import bitsandbytes, or what imports it, without code from the hub.

    On CPUs with AVX512-BF16 it (0.50) asks the package `kernels`, where that is installed, for a
    compiled kernel of a hub repository when it is imported; peft imports it wherever it is there.
    """
    absent = object()
    before: Any = sys.modules.get("kernels", absent)
    told = logging.getLogger("bitsandbytes.backends.cpu.ops")
    was = told.disabled
    sys.modules["kernels"], told.disabled = None, True  # type: ignore[assignment]
    try:
        yield
    finally:
        told.disabled = was
        if before is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = before
