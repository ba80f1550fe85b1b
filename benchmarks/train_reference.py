"""What is right: a plain float32 loop over transformers and PEFT; and how fast a GEMM is here.

python -c "import train_reference; train_reference.main()" NAME[+NAME] MODEL FILE [OPTION=VALUE] OUT

`steps`: the loss of each optimizer step over a file, and the gradient of the first, from the
adapter `init`, without clipping.
`first`: the loss of the first `rows_per_step` rows of the file `measured` under the base alone,
which is that of step 1, as B begins at zero. `score`: NLL of every row under each adapter of
`adapters`. `gemm`: FLOP/s of a large bfloat16 product.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import train_files as files

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def steps(model: Path, tokens: Path, out: Path, options: Mapping[str, str]) -> dict[str, Any]:
    """Write the gradient of the first step; return the losses of all."""
    import torch
    from safetensors.torch import save_file

    module = _with_adapter(model, options.get("device", "cpu"))
    files.put(module, Path(options["init"]))
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0)
    losses = []
    for rows in files.parts(files.read_rows(tokens), int(options["rows_per_step"])):
        targets, total = sum(row.targets for row in rows), 0.0
        for row in rows:
            nll = _nll(module, row)
            (nll / targets).backward()
            total += float(nll.detach())
        if not losses:
            named = ((name, p.grad) for name, p in module.named_parameters() if p.grad is not None)
            gradient = {name: grad.cpu().clone() for name, grad in files.adapter(named).items()}
            save_file(gradient, out / "gradient.safetensors")
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total / targets)
    return {"losses": losses}


def first(model: Path, _tokens: Path, _out: Path, options: Mapping[str, str]) -> dict[str, Any]:
    """Return the loss of step 1 of the measured rows."""
    import torch

    module = _base(model, options.get("device", "cpu"))
    rows = files.read_rows(options["measured"])[: int(options["measured_step"])]
    with torch.inference_mode():
        total = sum(float(_nll(module, row)) for row in rows)
    return {"first": total / sum(row.targets for row in rows)}


def score(model: Path, tokens: Path, _out: Path, options: Mapping[str, str]) -> dict[str, Any]:
    """Return the NLL of each row under each adapter, adapters in the order they are named."""
    import torch

    module = _with_adapter(model, options.get("device", "cpu"))
    rows = files.read_rows(tokens)
    found = []
    with torch.inference_mode():
        for path in options["adapters"].split(":"):
            files.put(module, Path(path))
            found.append([float(_nll(module, row)) for row in rows])
    return {"nll": found, "targets": [row.targets for row in rows]}


def gemm(_model: Path, _tokens: Path, _out: Path, options: Mapping[str, str]) -> dict[str, Any]:
    """Return FLOP/s of a large bfloat16 matrix product, as `train` itself measures it."""
    import torch

    from swe_scaffold.engine.devices import Device
    from swe_scaffold.engine.flops import measure_gemm

    return {"flops": measure_gemm(Device(options.get("device", "cpu"), torch.bfloat16))}


@functools.cache
def _base(model: Path, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device)


def _with_adapter(model: Path, device: str) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=TARGETS)
    return get_peft_model(_base(model, device), lora)


def _nll(module: Any, row: files.Row) -> Any:
    """Return the summed NLL of a row's targets; only logits that predict one are asked for."""
    import torch

    ids = torch.tensor([row.input_ids], device=module.device)
    places = [place for place, wanted in enumerate(row.mask[1:]) if wanted]
    where = torch.tensor(places, device=module.device)
    logits = module(input_ids=ids, logits_to_keep=where, use_cache=False).logits[0].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, where + 1], reduction="sum")


WHAT: dict[str, Callable[[Path, Path, Path, Mapping[str, str]], dict[str, Any]]] = {
    "steps": steps,
    "first": first,
    "score": score,
    "gemm": gemm,
}


def main() -> None:
    """Do what the command line names."""
    names, model, source, out, options = files.given()
    found: dict[str, Any] = {}
    for name in names.split("+"):
        found |= WHAT[name](model, source, out, options)
    (out / "found.json").write_text(json.dumps(found), "ascii")
