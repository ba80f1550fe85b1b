"""The folder of a full fine-tuning, made of a run of a LoRA: its records, and other weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from swe_scaffold.config import TrainingConfig
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.model import load_base
from swe_scaffold.training import folder as run_folder
from swe_scaffold.training.outcome import save_outcome
from tests.tiny_runs import read_json

RECORDS = ("run.json", "metrics.jsonl", "timing.jsonl", "trained_rows.json", "skipped.jsonl")


def make_full(run: Path, model: Path, folder: Path) -> Path:
    """Write what a run with `finetuning: full` leaves, beside `run`, whose records it takes."""
    folder.mkdir()
    tokenizer = [path.name for path in run.iterdir() if (model / path.name).is_file()]
    for name in (*RECORDS, *tokenizer):
        shutil.copyfile(run / name, folder / name)
    manifest = read_json(run / "manifest.json")
    base = load_base(str(model), Device("cpu", torch.float32))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, tensor in sorted(base.module.named_parameters()):
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.01)
    outcome = save_outcome(TrainingConfig(finetuning="full"), base, base.module, folder)
    facts = {key: value for key, value in manifest.items() if key not in ("files", "kind")}
    facts["config"]["training"]["finetuning"] = "full"
    facts |= outcome.facts
    run_folder.write_card(folder, facts, kind=outcome.kind)
    names = [*outcome.names, *tokenizer, "README.md", *RECORDS[1:2], *RECORDS[3:]]
    run_folder.finish(folder, facts, names=names, kind=outcome.kind)
    return folder
