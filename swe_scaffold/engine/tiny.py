"""tiny-qwen2: a Qwen2 of about a million parameters, for machines without weights or network.

The architecture and its training from nothing, with the same loop as everything else; what it is
fed is decided by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swe_scaffold.engine.batches import RowOrder
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.loop import Loop, LoopSettings, StepMetrics, run
from swe_scaffold.engine.model import quiet_library
from swe_scaffold.engine.passes import MicroBatches
from swe_scaffold.types import SpeedrunLabel, TokenizedExample


@dataclass(frozen=True, slots=True)
class TinyRecipe:
    """Everything that decides the weights besides the corpus."""

    vocab_size: int = 2048
    hidden_size: int = 128
    intermediate_size: int = 352
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    context_length: int = 2048
    window: int = 384
    windows_per_step: int = 6
    steps: int = 360
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    seed: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return asdict(self)


def new_tiny_model(recipe: TinyRecipe, *, end_id: int, pad_id: int) -> Any:
    """Return a randomly initialised float32 Qwen2, seeded by the recipe."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(recipe.seed)
    config = Qwen2Config(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.context_length,
        tie_word_embeddings=True,
        bos_token_id=pad_id,
        eos_token_id=end_id,
        pad_token_id=pad_id,
        dtype="float32",
    )
    return Qwen2ForCausalLM(config)


def train_tiny_model(
    model: Any,
    windows: Sequence[Sequence[int]],
    recipe: TinyRecipe,
    *,
    pad_id: int,
    after_step: Callable[[StepMetrics], None],
) -> None:
    """Train all parameters on token windows; every token but the first of each is a target."""
    rows = [
        TokenizedExample(
            instance_id=f"window-{index}",
            input_ids=np.array(window, np.int32),
            loss_mask=np.ones(len(window), np.bool_),
            repo="",
            group="",
            label=SpeedrunLabel.SUCCESS,
            response_bytes=0,
        )
        for index, window in enumerate(windows)
    ]
    settings = LoopSettings(
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        scheduler="cosine",
        warmup_steps=recipe.warmup_steps,
        weight_decay=0.1,
        max_grad_norm=1.0,
        seed=recipe.seed,
        pad_id=pad_id,
    )
    longest = max(len(window) for window in windows)
    cut = MicroBatches.through(model, longest=longest)
    loop = Loop(model, settings, Device("cpu", torch.float32), cut)
    run(loop, rows, RowOrder(len(rows), recipe.windows_per_step, recipe.seed), after_step)


def cut_windows(documents: Sequence[Sequence[int]], length: int, *, seed: int) -> list[list[int]]:
    """Join documents in a seeded order and cut the stream into windows; the tail is left out."""
    order = np.random.default_rng(seed).permutation(len(documents))
    stream = [token for index in order for token in documents[index]]
    return [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]


def save_tiny_model(model: Any, folder: Path) -> None:
    """Write config and safetensors weights."""
    with quiet_library():
        model.eval().save_pretrained(folder)
