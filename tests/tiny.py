"""A tokenizer and a model small enough to be made in every test run, shaped like Qwen2.5's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from swe_scaffold.rendering import CHATML_TEMPLATE

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LINES = (
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "diff --git a/pkg/mod.py b/pkg/mod.py\n--- a/pkg/mod.py\n+++ b/pkg/mod.py\n@@ -1,3 +1,4 @@",
    " def add(first, second):\n-    return first - second\n+    return first + second\n\n\n",
    "The function add returns a wrong value when the second argument is negative.",
    "system\nuser\nassistant\n<tools></tools>\n<tool_response>\n</tool_response>\n",
    '{"name": "open_file", "arguments": {"path": "pkg/mod.py", "line": 10}}',
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NOT_SPECIAL = ("<tool_call>", "</tool_call>")


def tiny_tokenizer(
    tmp_path: Path, *, template: str | None = CHATML_TEMPLATE, name: str = "tiny-tokenizer"
) -> Path:
    """Write a byte-level BPE tokenizer of 400 tokens with Qwen's chat tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
    from tokenizers import pre_tokenizers as splits

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splits.Sequence(
        [
            splits.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            splits.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=395,
        initial_alphabet=splits.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in NOT_SPECIAL])

    folder = tmp_path / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder


def tiny_model(
    tmp_path: Path, tokenizer: Path, seed: int = 0, hidden: int = 32, layers: int = 2
) -> Path:
    """Write a random float32 Qwen2 of the tokenizer's vocabulary, tokenizer beside it."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    added = json.loads((tokenizer / "tokenizer.json").read_text("utf-8"))
    ids = {token["content"]: token["id"] for token in added["added_tokens"]}
    config = Qwen2Config(
        vocab_size=1 + max(ids.values()),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        pad_token_id=ids["<|endoftext|>"],
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    folder = tmp_path / f"tiny-model-{seed}-{hidden}-{layers}"
    model.save_pretrained(folder)
    for path in sorted(tokenizer.iterdir()):
        shutil.copyfile(path, folder / path.name)
    return folder
