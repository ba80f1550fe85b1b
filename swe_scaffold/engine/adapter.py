"""LoRA adapters: attached to a base, saved as and loaded from standard PEFT folders.

rsLoRA is another scale (Kalajdzievski, 2023); DoRA also learns the row norms of each adapted
weight, its magnitudes (Liu et al., 2024). What they compute is PEFT's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from swe_scaffold.config import LoRAConfig
from swe_scaffold.engine.adapter_config import CONFIG, KINDS, read_adapter_config
from swe_scaffold.engine.devices import DTYPES
from swe_scaffold.engine.model_files import PICKLES
from swe_scaffold.engine.quantization import no_fetched_kernels, parameter_count
from swe_scaffold.errors import ConfigError, IntegrityError
from swe_scaffold.files import atomic_write, write_json
from swe_scaffold.terminal import show

WEIGHTS = "adapter_model.safetensors"
_MAGNITUDE = ".lora_magnitude_vector"


def attach(module: Any, lora: LoRAConfig, *, seed: int) -> Any:
    """Wrap a causal model with fresh adapters (float32, B zero, A drawn from `seed`).

    Raises:
        ConfigError: A target names no linear module of this model, or DoRA a weight without norms.
    """
    model = _wrap(module, lora, seed=seed)
    if lora.use_dora:
        _set_magnitudes(model)
    return model


def _wrap(module: Any, lora: LoRAConfig, *, seed: int) -> Any:
    with no_fetched_kernels():
        from peft import LoraConfig, get_peft_model

    options = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=resolve_targets(module, lora.target_modules),
        use_dora=lora.use_dora,
        use_rslora=lora.use_rslora,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks transformers for a property under its old name.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        return get_peft_model(module, options)


@torch.no_grad()
def _set_magnitudes(model: Any) -> None:
    """Make each magnitude its weight's row norms in float32, so that a fresh adapter does nothing.

    PEFT rounds them to the base's dtype: on a bfloat16 base every logit would move at once.
    """
    from peft.utils.integrations import dequantize_module_weight

    for name, layer in model.get_base_model().named_modules():
        for dora in getattr(layer, "lora_magnitude_vector", {}).values():
            weight_OI = dequantize_module_weight(layer.get_base_layer()).float()
            norm_O = torch.linalg.norm(weight_OI, dim=1)
            if not bool((norm_O > 0).all()):
                raise ConfigError(
                    f"DoRA divides by the norms of rows, and {name} has a row of zeros",
                    where="training.lora.use_dora",
                    hint="leave this module out of training.lora.target_modules, or DoRA off",
                )
            dora.weight.copy_(norm_O)


def resolve_targets(module: Any, wanted: list[str] | str) -> list[str]:
    """Return the sorted target names; `all-linear` becomes every linear module but the head.

    Raises:
        ConfigError: A name matches no linear module; the message lists those there are.
    """
    head = module.get_output_embeddings()
    linear = {
        name
        for name, child in module.named_modules()
        if isinstance(child, torch.nn.Linear) and child is not head
    }
    leaves = sorted({name.rpartition(".")[2] for name in linear})
    if wanted == "all-linear":
        return leaves
    for target in wanted:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise ConfigError(
                f"{target!r} names no linear module of this model",
                where="training.lora.target_modules",
                hint=f"there are: {', '.join(leaves)}",
            )
    return sorted(set(wanted))


def adapter_size(model: Any) -> tuple[list[str], int, int]:
    """Return the names that have an adapter, its parameters, and those of base and adapter."""
    targets = sorted(model.peft_config["default"].target_modules)
    trained = sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad)
    return targets, trained, parameter_count(model)


def adapter_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors under PEFT's file names, on the CPU, contiguous, sorted."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: state[name].detach().to("cpu", copy=True).contiguous() for name in sorted(state)}


def save_adapter(model: Any, folder: Path, *, base_name: str) -> None:
    """Write a standard PEFT folder whose bytes depend on the weights and options alone.

    `base_name` is a hub id or a folder name, never a path.
    """
    from safetensors.torch import save

    config = model.peft_config["default"].to_dict()
    plain = {
        key: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for key, value in config.items()
    }
    plain.update(base_model_name_or_path=base_name, inference_mode=True, revision=None)
    plain["target_modules"] = sorted(plain["target_modules"])
    with atomic_write(folder / WEIGHTS) as stream:
        stream.write(save(adapter_tensors(model), metadata={"format": "pt"}))
    write_json(folder / CONFIG, {key: plain[key] for key in sorted(plain)})


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read an adapter's config and its tensors, which are of the kind that the config says.

    Raises:
        IntegrityError: They are not, or cannot be read.
    """
    config = read_adapter_config(folder)
    tensors = read_tensors(folder / WEIGHTS)
    ranks = {tuple(t.shape[:1]) for name, t in tensors.items() if ".lora_A." in name}
    if ranks != {(config["r"],)}:
        raise IntegrityError(f"not of rank {config['r']}", where=str(folder / WEIGHTS))
    adapted = {name.partition(".lora_")[0] for name in tensors}
    lengths = {name.removesuffix(_MAGNITUDE) for name in tensors if name.endswith(_MAGNITUDE)}
    if config["use_dora"] and (without := sorted(adapted - lengths)):
        raise IntegrityError(
            f"the config says use_dora, but {show(without[0])} has no magnitudes",
            where=str(folder / WEIGHTS),
            hint="the files are of two adapters, or were saved without their magnitudes",
        )
    if lengths and not config["use_dora"]:
        raise IntegrityError(
            "holds DoRA's magnitudes, and the config does not say use_dora",
            where=str(folder / WEIGHTS),
        )
    return config, tensors


def load_adapter(module: Any, folder: Path) -> Any:
    """Put a saved adapter on a base model, frozen.

    Raises:
        IntegrityError: Pickled, missing, misshapen, renamed or non-finite tensors.
    """
    config, tensors = read_adapter(folder)
    lora = LoRAConfig(
        r=config["r"],
        alpha=config["lora_alpha"],
        dropout=0.0,
        target_modules=config["target_modules"],
        **{key: config[key] for key in KINDS},
    )
    try:
        model = _wrap(module, lora, seed=0)
    except ConfigError as error:
        raise IntegrityError(
            f"the adapter does not fit this base: {error.message}", where=str(folder)
        ) from None
    put_tensors(model, tensors, where=str(folder / WEIGHTS))
    model.requires_grad_(False)
    return model.eval()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        IntegrityError: Missing or damaged; pickles beside it are never opened.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        pickles = [file.name for pattern in PICKLES for file in path.parent.glob(pattern)]
        note = f"; {pickles[0]} is a pickle and is never opened" if pickles else ""
        raise IntegrityError(f"is missing{note}", where=str(path))
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise IntegrityError(f"is damaged: {error}", where=str(path)) from None


def put_tensors(model: Any, tensors: Mapping[str, torch.Tensor], *, where: str) -> None:
    """Copy adapter tensors into a model: the same names and shapes, all finite.

    Raises:
        IntegrityError: They are not.
    """
    from peft import set_peft_model_state_dict

    wanted = adapter_tensors(model)
    for name in sorted(set(wanted) | set(tensors)):
        if name not in tensors or name not in wanted:
            side = "missing from the file" if name not in tensors else "not part of this model"
            raise IntegrityError(f"tensor {show(name)} is {side}", where=where)
        if wanted[name].shape != tensors[name].shape:
            shapes = f"{tuple(tensors[name].shape)}, not {tuple(wanted[name].shape)}"
            raise IntegrityError(f"tensor {name} has shape {shapes}", where=where)
        if tensors[name].dtype not in (*DTYPES.values(), torch.float64):
            held = str(tensors[name].dtype).removeprefix("torch.")
            raise IntegrityError(f"tensor {name} holds {held}, which is not supported", where=where)
        if not bool(torch.isfinite(tensors[name]).all()):
            raise IntegrityError(f"tensor {name} is not finite", where=where)
    set_peft_model_state_dict(model, dict(tensors))
