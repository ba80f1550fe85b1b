"""SWE Speedrun Scaffold: software-engineering data in, a small tuned coding model out, verifiably.

The public names below are loaded when they are first used; importing the package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from swe_scaffold.version import VERSION as __version__

if TYPE_CHECKING:
    from swe_scaffold.config import DatasetConfig, LoRAConfig, SpeedrunConfig, TrainingConfig
    from swe_scaffold.dataset import (
        DatasetSplit,
        SpeedrunDatasetBuilder,
        load_conversation_dataset,
    )
    from swe_scaffold.evaluation import evaluate_model
    from swe_scaffold.labels import label_conversation
    from swe_scaffold.metrics.bootstrap import bootstrap_confidence_interval
    from swe_scaffold.training import train_lora_model
    from swe_scaffold.types import SpeedrunLabel

_HOMES = {
    "SpeedrunConfig": "config",
    "DatasetConfig": "config",
    "TrainingConfig": "config",
    "LoRAConfig": "config",
    "SpeedrunDatasetBuilder": "dataset",
    "DatasetSplit": "dataset",
    "load_conversation_dataset": "dataset",
    "label_conversation": "labels",
    "SpeedrunLabel": "types",
    "train_lora_model": "training",
    "evaluate_model": "evaluation",
    "bootstrap_confidence_interval": "metrics.bootstrap",
}

__all__ = [
    "DatasetConfig",
    "DatasetSplit",
    "LoRAConfig",
    "SpeedrunConfig",
    "SpeedrunDatasetBuilder",
    "SpeedrunLabel",
    "TrainingConfig",
    "__version__",
    "bootstrap_confidence_interval",
    "evaluate_model",
    "label_conversation",
    "load_conversation_dataset",
    "train_lora_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
