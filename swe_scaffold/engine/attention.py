"""Attention within documents: rows in one stream without padding, each attending to itself alone.

A model's own attention is replaced for a pass and put back after it. Whether that may be done is
asked of the model itself, on a few tokens. Which rows share a stream is decided elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional

from swe_scaffold.engine.devices import out_of_memory

NAME = "within_documents"
# What other attention functions are given and this one does not do.
_NOT_DONE = ("softcap", "s_aux", "position_bias", "cache")
_PROBE = (24, 17)
_REFUSALS: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()


def attend(
    module: torch.nn.Module,
    query_1HTD: torch.Tensor,
    key_1KTD: torch.Tensor,
    value_1KTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    documents: Sequence[int] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within each document, shape (1, tokens, heads, size).

    Args:
        module: The attention layer.
        query_1HTD: Queries of the stream, positions already in them.
        key_1KTD: Keys, with as many heads as the queries or a divisor of them.
        value_1KTD: Values, likewise.
        attention_mask: None: this function makes its own.
        scaling: Factor on the scores; None is 1 / sqrt(size).
        documents: Length of each document, in order; None is one document.
        options: What else the model passes; anything that would change the result is refused.

    Raises:
        NotImplementedError: The model asks for more than causal attention.
    """
    asked = [name for name in _NOT_DONE if options.get(name) is not None]
    asked += ["dropout"] if options.get("dropout") else []
    causal = options.get("is_causal", getattr(module, "is_causal", True))
    if asked or attention_mask is not None or not causal:
        raise NotImplementedError(", ".join(asked) or "it is not causal")
    length = query_1HTD.shape[2]
    ends = list(accumulate(documents or [length], initial=0))
    parts = [
        functional.scaled_dot_product_attention(
            query_1HTD[:, :, start:end],
            key_1KTD[:, :, start:end],
            value_1KTD[:, :, start:end],
            is_causal=True,
            scale=scaling,
            enable_gqa=key_1KTD.shape[1] != query_1HTD.shape[1],
        ).transpose(1, 2)
        for start, end in pairwise(ends)
    ]
    return torch.cat(parts, dim=1), None


def stream_refusal(causal: Any, longest: int) -> str | None:
    """Return why rows cannot travel as one stream through a model, or None where they can.

    The model is asked once: two short documents in one stream must give what its own attention
    gives for each, and other tokens in the first must not change a bit of the second.

    Args:
        causal: A causal language model of transformers, without a PEFT wrapper.
        longest: Tokens of the longest row.
    """
    window = _window(causal.config)
    if window is not None and longest > window:
        return f"its attention looks back {window} tokens, and a row has {longest}"
    if causal not in _REFUSALS:
        _REFUSALS[causal] = _ask(causal)
    return _REFUSALS[causal]


def positions_shared_beyond(config: Any) -> int | None:
    """Return from which length on a row's rotary angles depend on the longest of its pass, if so.

    The rotary types `longrope` and `dynamic` of transformers take one set of frequencies for all
    rows: that of the longest.
    """
    found = getattr(config, "rope_parameters", None) or {}
    by_layer = [value for value in found.values() if isinstance(value, dict)]
    limits = [
        kind.get("original_max_position_embeddings") or config.max_position_embeddings
        for kind in by_layer or [found]
        if kind.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(limits, default=None)


@contextlib.contextmanager
def within_documents(causal: Any) -> Iterator[None]:
    """Let a model attend within documents, and put its own attention back in the end."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    own = causal.config._attn_implementation
    causal.set_attn_implementation(NAME)
    try:
        yield
    finally:
        causal.set_attn_implementation(own)


def _window(config: Any) -> int | None:
    """The shortest look-back of any layer, where the configuration names one."""
    named = (getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size"))
    return min((value for value in named if isinstance(value, int)), default=None)


def _ask(causal: Any) -> str | None:
    can_set = getattr(causal, "_can_set_attn_implementation", None)
    if can_set is None or not can_set() or causal.config.sub_configs:
        return "its attention cannot be replaced"
    training = causal.training
    causal.eval()
    try:
        with torch.no_grad(), out_of_memory(f"trying {sum(_PROBE)} tokens"):
            return _compare(causal)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        return f"its attention cannot be replaced: {reason}"
    finally:
        causal.train(training)


def _compare(causal: Any) -> str | None:
    """Compare two documents in one stream with each alone, under the model's own attention."""
    first, second = _PROBE
    device = causal.get_input_embeddings().weight.device
    vocabulary = causal.get_input_embeddings().weight.shape[0]
    ids = torch.arange(1, 1 + first + second, device=device) * 7919 % vocabulary
    own = torch.cat([_logits(causal, part[None])[0] for part in ids.split(_PROBE)]).float()
    positions = torch.cat([torch.arange(length, device=device) for length in _PROBE])
    stream = {"position_ids": positions[None], "documents": _PROBE}
    with within_documents(causal):
        found = _logits(causal, ids[None], **stream)[0].float()
        ids[:first] = ids[:first].flip(0)
        other = _logits(causal, ids[None], **stream)[0].float()
    tolerance = 1e-4 if causal.dtype == torch.float32 else 5e-2
    if not float((found - own).norm()) <= tolerance * float(own.norm()):
        return "rows in one stream get other values than alone"
    if not torch.equal(found[first:], other[first:]):
        return "rows in one stream see each other"
    return None


def _logits(causal: Any, ids: torch.Tensor, **stream: Any) -> torch.Tensor:
    logits: torch.Tensor = causal(input_ids=ids, use_cache=False, **stream).logits
    return logits
