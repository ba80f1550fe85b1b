"""Streams of rows: which models may, and why others may not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from swe_scaffold.engine.attention import attend, stream_refusal, within_documents
from tests.engine.shapes import SIZES, make_model

LENGTHS = (5, 1, 9)


def drawn(heads: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, heads, sum(LENGTHS), 8, generator=generator)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_each_document_attends_to_itself_alone(key_heads: int) -> None:
    query, key, value = drawn(4, 1), drawn(key_heads, 2), drawn(key_heads, 3)
    document = torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS))
    seen = (document[:, None] == document).tril()
    wanted = functional.scaled_dot_product_attention(
        query,
        key.repeat_interleave(4 // key_heads, 1),
        value.repeat_interleave(4 // key_heads, 1),
        attn_mask=seen,
        scale=0.3,
    )
    module = torch.nn.Identity()
    found, _ = attend(module, query, key, value, None, scaling=0.3, documents=LENGTHS)
    assert found.shape == (1, sum(LENGTHS), 4, 8)
    torch.testing.assert_close(found, wanted.transpose(1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"softcap": 50.0}, {"s_aux": torch.ones(4)}, {"dropout": 0.1}, {"is_causal": False}],
)
def test_what_would_change_the_result_is_refused(options: dict[str, Any]) -> None:
    tensors = (drawn(4, 1), drawn(2, 2), drawn(2, 3))
    with pytest.raises(NotImplementedError):
        attend(torch.nn.Identity(), *tensors, None, **options)
    with pytest.raises(NotImplementedError):
        attend(torch.nn.Identity(), *tensors, torch.zeros(1))


def _gemma2() -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=4, sliding_window=64))


def _bloom() -> Any:
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=61, hidden_size=16, n_layer=1, n_head=4, bos_token_id=1)
    config.eos_token_id = 2
    return BloomForCausalLM(config)


def _mamba() -> Any:
    """A state that runs on: a later document is not as it would be alone."""
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=61, hidden_size=16, state_size=4, num_hidden_layers=1)
    return MambaForCausalLM(config)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_gemma2, "its attention cannot be replaced: softcap"),
        (_bloom, "its attention cannot be replaced"),
        (_mamba, "rows in one stream get other values than alone"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_cannot_says_why_and_is_left_as_it_was(
    make: Any, reason: str, training: bool
) -> None:
    model = make().train(training)
    own = model.config._attn_implementation
    assert stream_refusal(model, 40) == reason
    assert model.config._attn_implementation == own
    assert model.training == training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_plain_decoder_can_in_every_dtype(dtype: torch.dtype) -> None:
    model = make_model("llama").to(dtype)
    before = torch.get_rng_state()
    assert stream_refusal(model, 10_000) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_a_window_matters_only_to_rows_beyond_it() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=64)).eval()
    assert stream_refusal(model, 64) is None
    assert stream_refusal(model, 65) == "its attention looks back 64 tokens, and a row has 65"


def test_the_models_own_attention_comes_back_after_an_error() -> None:
    model = make_model()

    def fail() -> None:
        with within_documents(model):
            assert model.config._attn_implementation == "within_documents"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model.config._attn_implementation == "sdpa"


def test_a_model_whose_rows_would_see_each_other_is_found_out() -> None:
    """The values agree within the tolerance, and one bit crosses over."""
    model = make_model()

    def leak(_: Any, __: Any, hidden: torch.Tensor) -> torch.Tensor:
        hidden[0, 24:] += 1e-6 * hidden[0, :1]
        return hidden

    model.base_model.layers[0].mlp.register_forward_hook(leak)
    assert stream_refusal(model, 40) == "rows in one stream see each other"
