"""What is right: a plain float32 loop over transformers and PEFT; and how fast a GEMM is here.

python -c "import train_reference; train_reference.main()" NAME MODEL FILE [OPTION=VALUE ...] OUT

`step`: loss and gradient of one optimizer step over all rows of a file, from the adapter `init`.
`losses`: the loss of the first `rows_per_step` rows under the base alone, which is that of step 1,
as B begins at zero. `score`: NLL of every row under each adapter of `adapters`. `gemm`: FLOP/s.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import train_files as files

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
GEMM_SECONDS = 3.0


def step(model: Path, tokens: Path, out: Path, options: Mapping[str, str]) -> None:
    """Write loss and gradient of a step over all rows, row by row, in one go."""
    from safetensors.torch import save_file

    module = _with_adapter(model, options)
    rows = files.read_rows(tokens)
    _put(module, Path(options["init"]))
    targets = sum(row.targets for row in rows)
    total = 0.0
    for row in rows:
        nll = _nll(module, row, options)
        (nll / targets).backward()
        total += float(nll.detach())
    named = ((name, p.grad) for name, p in module.named_parameters() if p.grad is not None)
    gradient = {name: grad.cpu().contiguous() for name, grad in files.adapter(named).items()}
    save_file(gradient, out / "gradient.safetensors")
    _write(out, loss=total / targets)


def losses(model: Path, tokens: Path, out: Path, options: Mapping[str, str]) -> None:
    """Write the loss of step 1."""
    import torch

    module = _base(model, options)
    rows = files.read_rows(tokens)[: int(options["rows_per_step"])]
    with torch.inference_mode():
        total = sum(float(_nll(module, row, options)) for row in rows)
    _write(out, loss=total / sum(row.targets for row in rows))


def score(model: Path, tokens: Path, out: Path, options: Mapping[str, str]) -> None:
    """Write the NLL of each row under each adapter, adapters in the order they are named."""
    import torch

    module = _with_adapter(model, options)
    rows = files.read_rows(tokens)
    found = []
    with torch.inference_mode():
        for path in options["adapters"].split(":"):
            _put(module, Path(path))
            found.append([float(_nll(module, row, options)) for row in rows])
    _write(out, nll=found, targets=[row.targets for row in rows])


def gemm(_model: Path, _tokens: Path, out: Path, options: Mapping[str, str]) -> None:
    """Write FLOP/s of a large bfloat16 matrix product, the best of several seconds."""
    import torch

    device = options.get("device", "cpu")
    size = 8192 if device == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + GEMM_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    _write(out, flops=2 * size**3 / best)


def _base(model: Path, options: Mapping[str, str]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, options.get("dtype", "float32"))
    module = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    return module.to(options.get("device", "cpu"))


def _with_adapter(model: Path, options: Mapping[str, str]) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=TARGETS)
    return get_peft_model(_base(model, options), lora)


def _put(module: Any, path: Path) -> None:
    """Copy an adapter in, found by the plain names of its tensors."""
    import torch
    from safetensors.torch import load_file

    given = load_file(path)
    parameters = files.adapter(module.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(given[name])


def _nll(module: Any, row: files.Row, options: Mapping[str, str]) -> Any:
    """Return the summed NLL of a row's targets; only logits that predict one are asked for."""
    import torch

    device = options.get("device", "cpu")
    ids = torch.tensor([row.input_ids], device=device)
    where = torch.tensor([place for place, wanted in enumerate(row.mask[1:]) if wanted])
    where = where.to(device)
    logits = module(input_ids=ids, logits_to_keep=where, use_cache=False).logits[0].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, where + 1], reduction="sum")


def _write(out: Path, **found: Any) -> None:
    (out / "found.json").write_text(json.dumps(found), "ascii")


WHAT: dict[str, Callable[[Path, Path, Path, Mapping[str, str]], None]] = {
    "step": step,
    "losses": losses,
    "score": score,
    "gemm": gemm,
}


def main() -> None:
    """Run what the command line names."""
    name, model, source, out, options = files.given()
    WHAT[name](model, source, out, options)
