"""What a run has trained, put into its folder: an adapter, or every weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.cards import ModelKind
from swe_scaffold.config import TrainingConfig

if TYPE_CHECKING:
    from swe_scaffold.engine.model import BaseModel


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was written: its kind, its files, and what the manifest says of it besides them."""

    kind: ModelKind
    names: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def save_outcome(training: TrainingConfig, base: BaseModel, model: Any, folder: Path) -> Outcome:
    """Write the weights that were trained; `model` is the base's module, or PEFT's around it.

    Raises:
        EnvironmentFailure: The disk is full or cannot be written.
        OutOfMemory: A weight file does not fit into memory.
    """
    if training.finetuning == "lora":
        from swe_scaffold.engine.adapter import WEIGHTS, save_adapter
        from swe_scaffold.engine.adapter_config import CONFIG

        save_adapter(model, folder, base_name=base.public_name)
        return Outcome("adapter", (WEIGHTS, CONFIG))
    from swe_scaffold.engine.model import find_base
    from swe_scaffold.engine.saving import save_model

    names = save_model(model, folder, source=base.folder)
    found = find_base(str(folder), offline=True)
    facts = {"model": {"name": folder.resolve().name, "sha256": found.sha256}}
    return Outcome("model", tuple(names), facts)
