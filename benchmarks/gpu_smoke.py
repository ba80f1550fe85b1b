"""Twenty optimizer steps of the Qwen2.5-3B shape on one CUDA device: does it run, at what cost?

    make gpu-smoke          or: python benchmarks/gpu_smoke.py [--json] [--tiny]

The weights are random and made on the device, the rows are synthetic; loop, loss and adapters are
those of `swe-scaffold train`. `--tiny` runs the same code on any machine in seconds. Ends with 4
where there is no CUDA device and with 9 where the loss did not fall.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from swe_scaffold.config import LoRAConfig
from swe_scaffold.errors import CheckFailed, EnvironmentFailure, ScaffoldError
from swe_scaffold.types import SpeedrunLabel, TokenizedExample

if TYPE_CHECKING:
    from swe_scaffold.engine.devices import Device
    from swe_scaffold.engine.loop import StepMetrics

STEPS, WARM_UP_STEPS = 20, 3
SEED = 1


@dataclass(frozen=True)
class Shape:
    """What decides size and cost."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    row_tokens: int
    response_tokens: int
    rows_per_step: int = 4
    rows: int = 16


SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "vocab_size"),
)
QWEN_3B = Shape("Qwen2.5-3B", 2048, 11008, 36, 16, 2, 151_936, 1024, 256)
TINY = Shape("tiny", 64, 128, 2, 4, 2, 512, 96, 32)


def synthetic_rows(shape: Shape) -> list[TokenizedExample]:
    """Rows whose responses use few of the tokens, so that there is something to learn at once."""
    generator = np.random.default_rng(SEED)
    prompt_tokens = shape.row_tokens - shape.response_tokens
    rows = []
    for number in range(shape.rows):
        prompt = generator.integers(0, shape.vocab_size, prompt_tokens, np.int32)
        response = generator.integers(0, 64, shape.response_tokens, np.int32)
        rows.append(
            TokenizedExample(
                instance_id=f"synthetic-{number}",
                input_ids=np.concatenate([prompt, response]),
                loss_mask=np.arange(shape.row_tokens) >= prompt_tokens,
                repo="",
                group=f"group-{number % 4}",
                label=SpeedrunLabel.SUCCESS,
                response_bytes=0,
            )
        )
    return rows


def random_model(shape: Shape, device: Device) -> Any:
    """A frozen Qwen2 of the shape with random weights, made where it will be used."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    sizes = {name: getattr(shape, name) for name in SIZES}
    config = Qwen2Config(**sizes, max_position_embeddings=32_768, tie_word_embeddings=True)
    torch.manual_seed(SEED)
    with torch.device(device.name):
        model = AutoModelForCausalLM.from_config(config, dtype=device.dtype)
    return model.requires_grad_(False)


def smoke(shape: Shape, device: Device) -> dict[str, Any]:
    """Take the steps and return what they cost."""
    from swe_scaffold.engine.adapter import attach
    from swe_scaffold.engine.batches import RowOrder
    from swe_scaffold.engine.budget import fit
    from swe_scaffold.engine.devices import peak_memory_bytes
    from swe_scaffold.engine.loop import Loop, LoopSettings, run
    from swe_scaffold.engine.passes import MicroBatches

    start = time.monotonic()
    model = random_model(shape, device)
    parameters = sum(tensor.numel() for tensor in model.parameters())
    settings = LoopSettings(
        steps=STEPS,
        learning_rate=1e-3,
        scheduler="constant",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=SEED,
        pad_id=0,
    )
    lora = LoRAConfig(r=8, alpha=16, dropout=0.05, target_modules="all-linear")
    rows = synthetic_rows(shape)
    adapted = attach(model, lora, seed=SEED)
    loop = Loop(adapted, settings, device, MicroBatches.through(adapted, longest=shape.row_tokens))
    fit(loop, rows, rows_per_step=shape.rows_per_step)
    made = time.monotonic() - start
    steps: list[StepMetrics] = []
    run(loop, rows, RowOrder(len(rows), shape.rows_per_step, SEED), steps.append)
    timed = steps[WARM_UP_STEPS:]
    return {
        "shape": asdict(shape),
        "parameters": parameters,
        "trained_parameters": sum(tensor.numel() for tensor in loop.parameters.values()),
        "device": device_name(device),
        "dtype": device.dtype_name,
        "steps": len(steps),
        "loss_first": steps[0].loss,
        "loss_last": steps[-1].loss,
        "tokens_per_second": round(
            sum(step.tokens for step in timed) / sum(step.wall_seconds for step in timed), 1
        ),
        "peak_memory_bytes": peak_memory_bytes(device),
        "setup_seconds": round(made, 2),
        "wall_seconds": round(time.monotonic() - start, 2),
    }


def device_name(device: Device) -> str:
    """The device as its maker names it."""
    import torch

    return torch.cuda.get_device_name() if device.name == "cuda" else device.name


def choose(tiny: bool) -> tuple[Shape, Device]:
    """Return shape and device.

    Raises:
        EnvironmentFailure: The large shape was asked for and there is no CUDA device.
    """
    import torch

    from swe_scaffold.engine.devices import Device, choose_device

    if tiny:
        return TINY, Device("cpu", torch.float32)
    device = choose_device("auto")
    if device.name != "cuda":
        raise EnvironmentFailure(
            "there is no CUDA device", hint="--tiny runs the same code on the CPU"
        )
    return QWEN_3B, device


def text(result: dict[str, Any]) -> str:
    """Return the result for people."""
    return (
        f"{result['shape']['name']}: {result['parameters'] / 1e6:,.1f} M parameters, "
        f"{result['trained_parameters'] / 1e6:,.2f} M trained, {result['dtype']} on "
        f"{result['device']}\n"
        f"{result['steps']} steps: loss {result['loss_first']:.4f} -> {result['loss_last']:.4f} "
        f"nats per response token\n"
        f"{result['tokens_per_second']:,.0f} tokens/s, peak memory "
        f"{result['peak_memory_bytes'] / 2**30:.2f} GiB, {result['wall_seconds']:.1f} s in all "
        f"({result['setup_seconds']:.1f} s to make the model)"
    )


def main(arguments: Sequence[str]) -> int:
    """Run, print, return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape on the CPU")
    options = parser.parse_args(arguments)
    try:
        result = smoke(*choose(options.tiny))
        print(json.dumps(result, allow_nan=False) if options.json else text(result))
        if not result["loss_last"] < result["loss_first"]:
            raise CheckFailed("the loss did not fall")
    except ScaffoldError as error:
        print(f"error: {error}" + (f"; {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
