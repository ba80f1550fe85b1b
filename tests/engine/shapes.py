"""Tiny causal models of several architectures, rows for them, and plain transformers' numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from swe_scaffold.config import LoRAConfig
from swe_scaffold.engine.adapter import attach
from swe_scaffold.engine.loop import LoopSettings
from swe_scaffold.engine.passes import MicroBatches
from swe_scaffold.types import SpeedrunLabel, TokenizedExample

VOCABULARY = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _qwen2(**more: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**SIZES, **more))


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False))


def _mistral(window: int) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=window))


def _qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=4))


def _phi() -> Any:
    from transformers import PhiConfig, PhiForCausalLM

    sizes = {**SIZES, "num_key_value_heads": 4}
    model = PhiForCausalLM(PhiConfig(**sizes, resid_pdrop=0.0, embd_pdrop=0.0))
    torch.nn.init.normal_(model.lm_head.bias)
    return model


def _gemma2() -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(**SIZES, head_dim=4, sliding_window=6, final_logit_softcapping=0.5)
    return Gemma2ForCausalLM(config)


def _granite() -> Any:
    from transformers import GraniteConfig, GraniteForCausalLM

    return GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=3.0))


def long_rope() -> Any:
    """A model whose rows beyond 16 tokens change the positions of all rows of their pass."""
    from transformers import Phi3Config, Phi3ForCausalLM

    rope = {"rope_type": "longrope", "short_factor": [1.0] * 2, "long_factor": [7.0, 9.0]}
    config = Phi3Config(
        **SIZES,
        original_max_position_embeddings=16,
        rope_parameters={**rope, "rope_theta": 100.0, "original_max_position_embeddings": 16},
    )
    return Phi3ForCausalLM(config).eval()


_NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def _bert() -> Any:
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(**SIZES, is_decoder=True, use_cache=False, **_NO_DROPOUT)
    return BertLMHeadModel(config)


MODELS: dict[str, Callable[[], Any]] = {
    "qwen2-tied": lambda: _qwen2(tie_word_embeddings=True),
    "qwen2-untied": lambda: _qwen2(tie_word_embeddings=False),
    "llama": _llama,
    "mistral-window": lambda: _mistral(6),
    "mistral-window-30": lambda: _mistral(30),
    "qwen3": _qwen3,
    "phi-head-with-bias": _phi,
    "gemma2-soft-capped": _gemma2,
    "granite-scaled": _granite,
    "bert-transformed-head": _bert,
}
OWN_LOGITS = ("gemma2-soft-capped", "granite-scaled", "bert-transformed-head")


def make_model(name: str = "qwen2-tied", *, seed: int = 0) -> Any:
    """A float32 model with weights large enough to have opinions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name]()
        with torch.no_grad():
            for tensor in model.parameters():
                if tensor.ndim > 1:
                    tensor.mul_(6.0)
    return model.float().eval().requires_grad_(False)


def with_adapter(model: Any, *, dropout: float = 0.0, seed: int = 3, **kind: bool) -> Any:
    """The model under an adapter that does something: B is not zero, magnitudes are not norms."""
    lora = LoRAConfig(r=3, alpha=6, dropout=dropout, target_modules="all-linear", **kind)
    return stirred(attach(model, lora, seed=seed), seed=seed)


def stirred(wrapped: Any, *, seed: int = 3) -> Any:
    """A PEFT model whose adapter has been trained, as it were."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(wrapped.named_parameters()):
            if "lora_B" in name:
                tensor.normal_(std=0.2, generator=generator)
            if "magnitude" in name:
                tensor.mul_(0.5 + torch.rand(tensor.shape, generator=generator))
    return wrapped


def make_settings(**changed: Any) -> LoopSettings:
    """A constant rate without warm-up, decay or clipping, but for what is changed."""
    settings: dict[str, Any] = {
        "steps": 9,
        "learning_rate": 1e-3,
        "scheduler": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": None,
        "seed": 1,
        "pad_id": 0,
    }
    return LoopSettings(**{**settings, **changed})


def make_cut(
    model: Any, *, tokens: int = 64, longest: int = 40, packs: bool = True
) -> MicroBatches:
    """How rows become micro-batches: packed where the model allows it and this does not forbid."""
    cut = MicroBatches.through(model, tokens=tokens, longest=longest)
    return cut if packs else replace(cut, refusal="asked for")


def make_rows(lengths: Sequence[int], *, seed: int = 0) -> list[TokenizedExample]:
    """Rows of these lengths; about half of the tokens of each are targets, the last one always."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index, length in enumerate(lengths):
        ids = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
        mask = (torch.rand(length, generator=generator) < 0.5).tolist()
        rows.append(
            TokenizedExample(
                instance_id=f"row-{index}",
                input_ids=np.array(ids, np.int32),
                loss_mask=np.array([False, *mask[1:-1], True]),
                repo="o/r",
                group=f"g{index % 3}",
                label=SpeedrunLabel.SUCCESS,
                response_bytes=length,
                sha256=f"{index:064d}",
            )
        )
    return rows


def plain_nll(model: Any, row: TokenizedExample) -> torch.Tensor:
    """The NLL of a row's targets, from the model's own logits, one row at a time."""
    ids = torch.tensor([row.input_ids.tolist()])
    logits = model(input_ids=ids).logits[0, :-1].float()
    nll = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    return nll[torch.tensor(row.loss_mask[1:])]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """The gradient of every trainable parameter; they are cleared."""
    found = {}
    for name, tensor in model.named_parameters():
        if tensor.requires_grad:
            assert tensor.grad is not None, name
            found[name] = tensor.grad.clone()
            tensor.grad = None
    return found
