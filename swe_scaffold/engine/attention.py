"""Attention within documents: rows in one stream without padding, each attending to itself alone.

A model's own attention is replaced for a pass and put back after it. Whether that may be done is
asked of the model itself, on a few tokens. Which rows share a stream is decided elsewhere. Each
device has its way: products of grouped heads on a CPU (`grouped`), one variable-length kernel on
CUDA, and torch's attention one document at a time everywhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional

from swe_scaffold.engine.devices import out_of_memory
from swe_scaffold.engine.grouped import GroupedAttention

NAME = "within_documents"
# What other attention functions are given and this one does not do.
_NOT_DONE = ("softcap", "s_aux", "position_bias", "cache")
_PROBE = (24, 17)
# Up to here grouped products beat torch's CPU kernel in float32; in bfloat16 they always do.
_GROUPED_FLOAT32 = 2048
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
    lengths = tuple(documents or (query_1HTD.shape[2],))
    factor = query_1HTD.shape[3] ** -0.5 if scaling is None else scaling
    if _has_varlen(query_1HTD):
        return _varlen(query_1HTD, key_1KTD, value_1KTD, lengths, factor), None
    ends = list(accumulate(lengths, initial=0))
    parts = [
        _attend_one(
            query_1HTD[0, :, start:end],
            key_1KTD[0, :, start:end],
            value_1KTD[0, :, start:end],
            factor,
        )
        for start, end in pairwise(ends)
    ]
    return torch.cat(parts)[None], None


def _attend_one(
    query_HTD: torch.Tensor, key_KTD: torch.Tensor, value_KTD: torch.Tensor, factor: float
) -> torch.Tensor:
    """Return the attention of one document, (tokens, heads, size)."""
    short = query_HTD.shape[1] <= _GROUPED_FLOAT32
    if query_HTD.device.type == "cpu" and (short or query_HTD.dtype == torch.bfloat16):
        found: torch.Tensor = GroupedAttention.apply(query_HTD, key_KTD, value_KTD, factor)
        return found
    return functional.scaled_dot_product_attention(
        query_HTD[None],
        key_KTD[None],
        value_KTD[None],
        is_causal=True,
        scale=factor,
        enable_gqa=key_KTD.shape[0] != query_HTD.shape[0],
    )[0].transpose(0, 1)


def _has_varlen(query: torch.Tensor) -> bool:
    """Whether torch's variable-length kernel takes these: CUDA, Ampere or later, half precision."""
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[3] <= 256
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _varlen(
    query_1HTD: torch.Tensor,
    key_1KTD: torch.Tensor,
    value_1KTD: torch.Tensor,
    lengths: tuple[int, ...],
    factor: float,
) -> torch.Tensor:
    """Attend in one kernel over all documents, (1, tokens, heads, size)."""
    from torch.nn.attention.varlen import varlen_attn

    bounds = _bounds(lengths, query_1HTD.device)
    found: torch.Tensor = varlen_attn(
        *(part[0].transpose(0, 1).contiguous() for part in (query_1HTD, key_1KTD, value_1KTD)),
        bounds,
        bounds,
        max(lengths),
        max(lengths),
        scale=factor,
        window_size=(-1, 0),
        enable_gqa=key_1KTD.shape[1] != query_1HTD.shape[1],
    )
    return found[None]


@lru_cache(maxsize=1)
def _bounds(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return where each document begins and the last ends; every layer of a pass asks for it."""
    return torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32, device=device)


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


def training_refusal(causal: Any) -> str | None:
    """Return why a model that packs its rows cannot while it trains, or None where it can.

    What a base drops of its own attention is drawn as it goes, and not by this attention.
    """
    ids = torch.ones(1, 2, dtype=torch.int64, device=causal.get_input_embeddings().weight.device)
    training = causal.training
    causal.train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), within_documents(causal):
            _hidden(causal, ids)
    except NotImplementedError as error:
        return f"its attention asks for more while it trains: {error}"
    finally:
        causal.train(training)
    return None


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
    own = torch.cat([_hidden(causal, part[None])[0] for part in ids.split(_PROBE)]).float()
    positions = torch.cat([torch.arange(length, device=device) for length in _PROBE])
    stream = {"position_ids": positions[None], "documents": _PROBE}
    with within_documents(causal):
        found = _hidden(causal, ids[None], **stream)[0].float()
        ids[:first] = ids[:first].flip(0)
        other = _hidden(causal, ids[None], **stream)[0].float()
    tolerance = 1e-4 if causal.dtype == torch.float32 else 5e-2
    if not float((found - own).norm()) <= tolerance * float(own.norm()):
        return "rows in one stream get other values than alone"
    if not torch.equal(found[first:], other[first:]):
        return "rows in one stream see each other"
    return None


def _hidden(causal: Any, ids: torch.Tensor, **stream: Any) -> torch.Tensor:
    """Return the last hidden states: what a head makes of them is no matter of attention."""
    hidden: torch.Tensor = causal.base_model(
        input_ids=ids, use_cache=False, **stream
    ).last_hidden_state
    return hidden
