"""An adapter's own config, read as data: it never steers where the base or code comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swe_scaffold.errors import IntegrityError
from swe_scaffold.terminal import show

CONFIG = "adapter_config.json"
# The options that change what an adapter computes, and are computed here; off where left out.
KINDS = ("use_dora", "use_rslora")
_PLAIN = re.compile(r"[A-Za-z0-9_.]{1,200}")
# What else a config may say besides r, lora_alpha and target_modules: nothing that bears on the
# numbers. Every other option must be off.
_SILENT = {
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "inference_mode",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
}
# Other ways to begin (pissa, olora, loftq, ...) take a part out of the base's weights.
_BASE_UNTOUCHED = (None, True, False, "gaussian", "orthogonal")


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read an adapter's config as data, `KINDS` filled in.

    Raises:
        IntegrityError: Missing, damaged, not LoRA, options that are not supported, or targets that
            are not plain module names.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise IntegrityError("is missing", where=str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise IntegrityError("is not a LoRA adapter", where=str(path))
    config = {**dict.fromkeys(KINDS, False), **config}
    for problem in _problems(config):
        raise IntegrityError(problem, where=str(path))
    return config


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    targets = config.get("target_modules")
    plain = isinstance(targets, list) and all(
        isinstance(name, str) and _PLAIN.fullmatch(name) for name in targets
    )
    if not targets or not plain:
        yield "target_modules must be a list of plain module names (patterns are not run)"
    for key in ("r", "lora_alpha"):
        if type(config.get(key)) is not int or config[key] < 1:
            yield f"{key} must be a positive integer"
    for key in KINDS:
        if type(config[key]) is not bool:
            yield f"{key} must be true or false"
    on = [
        key for key, value in config.items() if not _is_off(value) and key not in (*_SILENT, *KINDS)
    ]
    if config.get("bias", "none") != "none":
        on.append("bias")
    if config.get("init_lora_weights") not in _BASE_UNTOUCHED:
        on.append("init_lora_weights")
    yield from (f"{show(key, width=60)} is not supported here" for key in on)


def _is_off(value: Any) -> bool:
    """Whether an option has no effect; a 0 may be the number of a layer."""
    return value is None or value is False or value in ("", [], {})
