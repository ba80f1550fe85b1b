"""What of a model is trained, as named tensors: an adapter, or every weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from swe_scaffold.engine.adapter import WEIGHTS, adapter_tensors, put_tensors
from swe_scaffold.engine.model_files import WEIGHTS as MODEL_WEIGHTS
from swe_scaffold.errors import IntegrityError
from swe_scaffold.terminal import show


def is_adapter(model: Any) -> bool:
    """Whether only an adapter around the model is trained."""
    return hasattr(model, "peft_config")


def weights_name(model: Any) -> str:
    """Return the file name of the trained tensors in a checkpoint."""
    return WEIGHTS if is_adapter(model) else MODEL_WEIGHTS


def trained_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of the trained tensors on the CPU, sorted by name."""
    if is_adapter(model):
        return adapter_tensors(model)
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in sorted(model.named_parameters())
        if tensor.requires_grad
    }


def put_trained(model: Any, tensors: Mapping[str, torch.Tensor], *, where: str) -> None:
    """Copy trained tensors into a model: the same names and shapes, all finite.

    Raises:
        IntegrityError: They are not.
    """
    if is_adapter(model):
        put_tensors(model, tensors, where=where)
        return
    wanted = {name: own for name, own in model.named_parameters() if own.requires_grad}
    for name in sorted({*wanted, *tensors}):
        if name not in tensors or name not in wanted:
            side = "missing from the file" if name not in tensors else "not part of this model"
            raise IntegrityError(f"tensor {show(name)} is {side}", where=where)
        if wanted[name].shape != tensors[name].shape:
            raise IntegrityError(f"tensor {show(name)} has another shape", where=where)
        if not bool(torch.isfinite(tensors[name]).all()):
            raise IntegrityError(f"tensor {show(name)} is not finite", where=where)
    with torch.no_grad():
        for name, own in wanted.items():
            own.copy_(tensors[name])
