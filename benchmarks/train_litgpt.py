"""litgpt, tuned: its LoRA model in pure bfloat16, one row at a time, its own chunked loss.

    python train_litgpt.py litgpt MODEL TOKENS [OPTION=VALUE ...] OUTPUT_FOLDER

Weights are those of the folder, converted by litgpt. Its own script averages over micro-batches;
here each is weighted by its targets, so that the objective is everyone's. Nothing of swe_scaffold
is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import train_files as files
from litgpt.lora import GPT, Config, lora_filter, mark_only_lora_as_trainable
from litgpt.scripts.convert_hf_checkpoint import copy_weights_qwen_2_5
from litgpt.utils import chunked_cross_entropy
from safetensors.torch import load_file, save_file

HEAD_CHUNK = 128


def load(folder: Path, length: int, dtype: torch.dtype) -> GPT:
    """Return litgpt's model with the weights of a Qwen2 folder."""
    found = json.loads((folder / "config.json").read_bytes())
    config = Config(
        name=folder.name,
        block_size=length,
        vocab_size=found["vocab_size"],
        padded_vocab_size=found["vocab_size"],
        n_layer=found["num_hidden_layers"],
        n_head=found["num_attention_heads"],
        n_query_groups=found["num_key_value_heads"],
        n_embd=found["hidden_size"],
        intermediate_size=found["intermediate_size"],
        norm_eps=found["rms_norm_eps"],
        rope_base=int(found["rope_parameters"]["rope_theta"]),
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        attn_bias=True,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        lora_r=8,
        lora_alpha=16,
        lora_dropout=0.0,
        lora_query=True,
        lora_key=True,
        lora_value=True,
        lora_projection=True,
    )
    torch.set_default_dtype(dtype)
    model = GPT(config)
    torch.set_default_dtype(torch.float32)
    weights: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        copy_weights_qwen_2_5(config, {}, weights, load_file(path), dtype=dtype)
    model.load_state_dict(weights, strict=False)
    mark_only_lora_as_trainable(model)
    model.max_seq_length = length
    return model.train()


def train(folder: Path, tokens: Path, out: Path, options: Mapping[str, str]) -> None:
    """Train as litgpt's LoRA script does, without Fabric, which adds nothing on one device."""
    dtype = getattr(torch, options.get("dtype", "bfloat16"))
    model = load(folder, int(options.get("length", "2048")), dtype)
    if "init" in options:
        _put(model, Path(options["init"]))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0)
    rows, losses = files.read_rows(tokens), []
    batch, clip = int(options.get("batch", "1")), float(options.get("clip", "1.0"))
    clock = files.Clock()
    clock.begin()
    for part in files.parts(rows, int(options["rows_per_step"])):
        losses.append(_backward(model, part, batch))
        if options.get("keep_gradient") == "1" and not clock.ends:
            _save(out / "gradient.safetensors", model, gradient=True)
        if clip:
            torch.nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        optimizer.zero_grad()
        clock.step()
    kept = {name: value for name, value in model.state_dict().items() if lora_filter(name, value)}
    torch.save({"model": kept}, out / "lit_model.pth.lora")
    _save(out / "adapter.safetensors", model)
    files.write_results(out, clock, losses)


def _backward(model: GPT, rows: Sequence[files.Row], batch: int) -> float:
    """Add up the gradients of one optimizer step; return its loss."""
    targets, total = sum(row.targets for row in rows), 0.0
    for part in files.parts(rows, batch):
        longest = max(len(row.input_ids) for row in part)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        labels = torch.full((len(part), longest), files.IGNORED)
        for line, row in enumerate(part):
            ids[line, : len(row.input_ids)] = torch.tensor(row.input_ids)
            labels[line, : len(row.input_ids)] = torch.tensor(row.labels)
        logits = model(ids, lm_head_chunk_size=HEAD_CHUNK)
        logits[-1] = logits[-1][..., :-1, :]
        share = sum(row.targets for row in part) / targets
        loss = chunked_cross_entropy(logits, labels[..., 1:]) * share
        loss.backward()
        total += float(loss.detach())
    return total


def _tensors(model: GPT, *, gradient: bool = False) -> dict[str, torch.Tensor]:
    """Return views of the LoRA tensors under plain names; q, k and v lie in one another's row."""
    found = {}
    for number, block in enumerate(model.transformer.h):
        fused, out = block.attn.qkv, block.attn.proj
        parts = [part.grad if gradient else part for part in (fused.lora_A, fused.lora_B)]
        for name, a, b in zip(
            "qkv", parts[0].chunk(3), parts[1].split(fused.qkv_shapes), strict=True
        ):
            found[f"{number}.{name}.A"], found[f"{number}.{name}.B"] = a, b
        found[f"{number}.o.A"] = out.lora_A.grad if gradient else out.lora_A
        found[f"{number}.o.B"] = out.lora_B.grad if gradient else out.lora_B
    return found


def _save(path: Path, model: GPT, *, gradient: bool = False) -> None:
    tensors = _tensors(model, gradient=gradient)
    save_file(
        {name: value.detach().float().clone().contiguous() for name, value in tensors.items()}, path
    )


def _put(model: GPT, path: Path) -> None:
    """Begin from the adapter that everyone begins from."""
    given: dict[str, Any] = load_file(path)
    with torch.no_grad():
        for name, tensor in _tensors(model).items():
            tensor.copy_(given[name])


if __name__ == "__main__":
    _, folder, source, target, chosen = files.given()
    train(folder, source, target, chosen)
