"""How many tokens a micro-batch holds, and whether activations are kept: decided before step 1.

What a pass keeps for its gradient is counted on a few tokens, tensor by tensor, and grows in
proportion to them, or with their square where a model keeps its own attention. On CUDA the choice
is then tried; running out of a machine's memory ends a process, so elsewhere the count decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from swe_scaffold.engine.devices import memory_held_bytes, memory_limit_bytes
from swe_scaffold.engine.grouped import KEPT
from swe_scaffold.engine.loop import Loop
from swe_scaffold.engine.loss import CHUNK_ELEMENTS, CPU_CHUNK_ELEMENTS
from swe_scaffold.engine.passes import CPU_TRAINING_TOKENS, part_of
from swe_scaffold.errors import OutOfMemory
from swe_scaffold.numbers import gibibytes
from swe_scaffold.types import TokenizedExample

MOST_TOKENS = 1 << 16
# Of what is free: estimates are off by some per cent, and allocators waste a part.
_SHARE = 0.85
_COUNTED = 48


@dataclass(frozen=True, slots=True)
class Budget:
    """What was decided: most tokens of a micro-batch, and whether layers are computed twice.

    `needed_bytes` is the estimate for the largest micro-batch beyond what was held before,
    `free_bytes` what there was. `refusal` says why rows are padded, if they are.
    """

    tokens: int
    activation_checkpointing: bool
    needed_bytes: int
    free_bytes: int
    refusal: str | None


def fit(
    loop: Loop,
    rows: Sequence[TokenizedExample],
    *,
    rows_per_step: int,
    tokens: int | None = None,
    checkpointing: bool | None = None,
) -> Budget:
    """Choose the micro-batches of a loop, and let it go that way.

    Args:
        loop: The loop, before its first step.
        rows: All rows of the run.
        rows_per_step: How many of them a step takes, which no micro-batch exceeds.
        tokens: Most tokens of a micro-batch; None chooses.
        checkpointing: Whether each layer's activations are dropped and computed again for its
            gradient; None does it where the longest row does not fit without.

    Raises:
        OutOfMemory: Nothing fits; with the arithmetic.
    """
    longest = max(rows, key=lambda row: row.length)
    length = longest.length
    whole = _largest_step(loop, rows, rows_per_step)
    need = _Need.of(loop, longest)
    ways = [False, True] if checkpointing is None else [checkpointing]
    sizes = [tokens] if tokens is not None else _candidates(loop, length)
    for way in ways:
        for size in sizes:
            # What the largest micro-batch holds: a longer row goes alone, and a step has an end.
            held = max(length, min(size, whole))
            if need.bytes(held, way) <= need.free and _holds(loop, longest, held, way):
                return _settle(loop, size, held, way, need)
    least = max(length, min(sizes[-1], whole))
    raise OutOfMemory(need.arithmetic(least, ways), hint=_hint(ways, length, tokens))


def _largest_step(loop: Loop, rows: Sequence[TokenizedExample], rows_per_step: int) -> int:
    """Return a number of tokens that no step's rows exceed, padding included."""
    lengths = sorted((row.length for row in rows), reverse=True)[:rows_per_step]
    return sum(lengths) if loop.cut.packs else len(lengths) * lengths[0]


def _candidates(loop: Loop, least: int) -> list[int]:
    """Return sizes to try, the largest first."""
    most = MOST_TOKENS if loop.device.name.startswith("cuda") else CPU_TRAINING_TOKENS
    sizes = [most >> halvings for halvings in range(7)]
    return [*(size for size in sizes if size > least), least]


def _holds(loop: Loop, longest: TokenizedExample, tokens: int, checkpointing: bool) -> bool:
    """Try a micro-batch of that size where running out of memory can be caught."""
    if not loop.device.name.startswith("cuda"):
        return True
    before = loop.cut.causal.is_activation_checkpointing
    _set_checkpointing(loop.cut.causal, checkpointing)
    try:
        loop.rehearse([longest] * max(1, tokens // longest.length))
    except OutOfMemory:
        fits = False
    else:
        fits = True
    finally:
        _set_checkpointing(loop.cut.causal, before)
    torch.cuda.empty_cache()
    return bool(loop.processes.least(fits))


def _settle(loop: Loop, tokens: int, held: int, checkpointing: bool, need: _Need) -> Budget:
    _set_checkpointing(loop.cut.causal, checkpointing)
    loop.cut = replace(loop.cut, tokens=tokens)
    needed = need.bytes(held, checkpointing)
    return Budget(tokens, checkpointing, needed, need.free, loop.cut.refusal)


def _set_checkpointing(causal: Any, on: bool) -> None:
    if on:
        causal.activation_checkpointing_enable({"use_reentrant": False})
    elif causal.is_activation_checkpointing:
        causal.activation_checkpointing_disable()


@dataclass(frozen=True, slots=True)
class _Need:
    """Bytes that training takes beyond what is held now: fixed, per token, per squared token."""

    fixed: int
    per_token: float
    per_square: float
    square_ends_at: int | None
    transient_per_token: int
    layers: int
    kept_per_layer: int
    free: int

    @classmethod
    def of(cls, loop: Loop, longest: TokenizedExample) -> _Need:
        """Count what the forward pass keeps of two small passes."""
        causal = loop.cut.causal
        small = min(_COUNTED, max(1, longest.length // 2))
        # Weights that are divided among processes lie in other places while they are used.
        weights = _kept_bytes(loop, longest, 2) if loop.processes.shards else 0
        kept = [_kept_bytes(loop, longest, size) - weights for size in (small, 2 * small)]
        per_square = max(0.0, (kept[1] - 2 * kept[0]) / (2 * small**2))
        item = torch.finfo(loop.device.dtype).bits // 8
        widths = [
            module.out_features
            for module in causal.base_model.modules()
            if isinstance(module, torch.nn.Linear)
        ]
        trained = sum(weight.numel() for weight in loop.parameters.values())
        copies = item if loop.device.dtype != torch.float32 else 0
        chunk = CPU_CHUNK_ELEMENTS if loop.device.name == "cpu" else CHUNK_ELEMENTS
        hidden = causal.get_input_embeddings().weight.shape[1]
        return cls(
            # Gradient and two moments of each master; logits of a chunk and their softmax.
            fixed=trained * (12 + copies) + chunk * (4 + 2 * item),
            per_token=max(0.0, kept[1] / (2 * small) - 2 * small * per_square),
            per_square=per_square,
            square_ends_at=KEPT if loop.cut.packs else None,
            transient_per_token=4 * max(widths, default=0) * item,
            layers=_layers(causal),
            kept_per_layer=hidden * item,
            free=loop.processes.least(max(0, int(_SHARE * _unused_bytes(loop)))),
        )

    def bytes(self, tokens: int, checkpointing: bool) -> int:
        """Return the estimate for a micro-batch of so many tokens."""
        kept = self._kept(tokens)
        if checkpointing:
            kept = kept / self.layers + self.layers * self.kept_per_layer * tokens
        return int(self.fixed + kept + self.transient_per_token * tokens)

    def _kept(self, tokens: int) -> float:
        """Activations; streams keep attention weights of short documents only."""
        others = tokens if self.square_ends_at is None else min(tokens, self.square_ends_at)
        return self.per_token * tokens + self.per_square * tokens * others

    def arithmetic(self, tokens: int, ways: Sequence[bool]) -> str:
        """Say what does not fit, term by term."""
        text = (
            f"a micro-batch of {tokens} tokens does not fit: activations "
            f"{gibibytes(int(self._kept(tokens)))} + "
            f"work on them {gibibytes(self.transient_per_token * tokens)} + gradients, optimizer "
            f"and logits {gibibytes(self.fixed)} = {gibibytes(self.bytes(tokens, False))}"
        )
        if True in ways:
            text += f", with activation checkpointing {gibibytes(self.bytes(tokens, True))}"
        return f"{text}; {gibibytes(self.free)} are free"


def _hint(ways: Sequence[bool], length: int, tokens: int | None) -> str:
    if tokens is not None and tokens > length:
        return "lower training.tokens_per_micro_batch, or leave it at auto"
    ends = "" if True in ways else "let training.activation_checkpointing be auto, or "
    return (
        f"{ends}set training.max_length below {length}, which shortens prompts or skips rows; or "
        "use a smaller model, or a device with more memory"
    )


def _unused_bytes(loop: Loop) -> int:
    limit = memory_limit_bytes(loop.device, sharers=loop.processes.local_size)
    return limit - memory_held_bytes(loop.device)


def _layers(causal: Any) -> int:
    return int(getattr(causal.config.get_text_config(), "num_hidden_layers", None) or 1)


def _kept_bytes(loop: Loop, row: TokenizedExample, size: int) -> int:
    """Return the bytes that a forward pass over `size` tokens keeps for its gradient."""
    every = max(1, row.length // size)
    short = part_of(row, slice(0, size * every, every))
    own = {
        tensor.untyped_storage().data_ptr()
        for tensor in (*loop.model.parameters(), *loop.model.buffers())
        if not hasattr(tensor, "to_local")
    }
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks:
        loop.rehearse([short], backward=False)
    return sum(kept.values())
