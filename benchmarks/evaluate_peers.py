"""What evaluation is measured against, as each is used, on the same token ids.

    python evaluate_peers.py NAME MODEL TOKENS [OPTION=VALUE ...] OUTPUT_FOLDER

Nothing of swe_scaffold is imported here.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

# A batch size found by trying needs an allocation that fails before the machine does.
ADDRESS_SPACE = 16 << 30


def lm_eval(
    model: str,
    tokens: str,
    out: Path,
    *,
    batch: str = "1",
    dtype: str = "float32",
    softmax: str = "",
) -> None:
    """Ask the Hugging Face backend of lm-evaluation-harness for log-likelihoods."""
    from lm_eval.models.huggingface import HFLM

    if batch == "auto":
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    harness = HFLM(
        pretrained=model,
        device="cpu",
        dtype=dtype,
        softmax_dtype=softmax or None,
        batch_size=batch if batch == "auto" else int(batch),
        max_length=4096,
    )
    rows = _rows(tokens)
    asked = [((row["key"], ""), row["context"], row["continuation"]) for row in rows]
    wall, cpu = time.perf_counter(), time.process_time()
    found = harness._loglikelihood_tokens(asked, disable_tqdm=True)
    _inside(out, wall, cpu)
    sums = {row["key"]: -answer[0] for row, answer in zip(rows, found, strict=True)}
    targets = sum(len(row["continuation"]) for row in rows)
    _found(out, sums=sums, mean=sum(sums.values()) / targets)


def trainer(
    model: str, tokens: str, out: Path, *, batch: str = "1", dtype: str = "float32"
) -> None:
    """Call Trainer.evaluate for the loss alone; labels of the context are masked."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    module = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    settings = TrainingArguments(
        output_dir=str(out / "trainer"),
        per_device_eval_batch_size=int(batch),
        prediction_loss_only=True,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    rows = [
        {
            "input_ids": row["context"] + row["continuation"],
            "labels": [-100] * len(row["context"]) + row["continuation"],
        }
        for row in _rows(tokens)
    ]
    collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(model))
    made = Trainer(model=module, args=settings, data_collator=collator, eval_dataset=rows)
    wall, cpu = time.perf_counter(), time.process_time()
    result = made.evaluate()
    _inside(out, wall, cpu)
    _found(out, mean=result["eval_loss"])


def _rows(tokens: str) -> list[dict[str, Any]]:
    with Path(tokens).open("rb") as file:
        return [json.loads(line) for line in file]


def _inside(out: Path, wall: float, cpu: float) -> None:
    seconds = {
        "scoring_seconds": time.perf_counter() - wall,
        "scoring_cpu_seconds": time.process_time() - cpu,
    }
    (out / "inside.json").write_text(json.dumps(seconds), "ascii")


def _found(out: Path, **found: Any) -> None:
    (out / "found.json").write_text(json.dumps(found), "ascii")


PEERS = {"lm-eval": lm_eval, "trainer": trainer}

if __name__ == "__main__":
    name, path, source, *options, folder = sys.argv[1:]
    given = dict(option.split("=", 1) for option in options)
    PEERS[name](path, source, Path(folder), **given)
