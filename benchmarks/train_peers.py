"""What training is measured against, as each is used: TRL, transformers' Trainer, the seed's way.

    python train_peers.py NAME MODEL TOKENS [OPTION=VALUE ...] OUTPUT_FOLDER

Everyone loads the same folder and trains the same ids and targets in the same order. Nothing of
swe_scaffold is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import train_files as files

LORA = {
    "task_type": "CAUSAL_LM",
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
}
SEED_LENGTH = 2048


@dataclass(frozen=True)
class Work:
    """A model folder, rows in the order of training, and where results go."""

    model: Path
    tokens: Path
    out: Path
    options: Mapping[str, str]

    def number(self, name: str, default: int) -> int:
        """Return an option that is a whole number."""
        return int(self.options.get(name, default))

    def on(self, name: str) -> bool:
        """Return whether an option is set."""
        return self.options.get(name) == "1"

    @property
    def clip(self) -> float:
        """The norm gradients are clipped at; 0 leaves them."""
        return float(self.options.get("clip", "1.0"))

    @property
    def device(self) -> str:
        """Where to compute."""
        return self.options.get("device", "cpu")


def shared(work: Work) -> dict[str, Any]:
    """Return what every trainer is told: the recipe, and nothing that is a matter of speed."""
    batch, rows = work.number("batch", 2), work.number("rows_per_step", 16)
    return {
        "output_dir": str(work.out / "trainer"),
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": work.number("accumulation", max(1, rows // batch)),
        "num_train_epochs": 1,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": work.clip,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": work.device == "cpu",
        # Ours has an order of its own; the rows already lie in it.
        "train_sampling_strategy": "sequential",
    }


def trl(work: Work) -> None:
    """SFTTrainer on a model folder; without options as it comes."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    settings: dict[str, Any] = {**shared(work), "max_length": work.number("length", 2048) or None}
    if "checkpointing" in work.options:
        settings["gradient_checkpointing"] = work.on("checkpointing")
    if "autocast" in work.options:
        settings["bf16"] = work.on("autocast")
    settings |= {name: True for name in ("packing", "padding_free") if work.on(name)}
    settings["torch_compile"] = work.on("compile")
    names = {"dtype": "dtype", "attention": "attn_implementation"}
    load = {key: work.options[name] for name, key in names.items() if name in work.options}
    rows = files.read_rows(work.tokens)
    data = [{"input_ids": row.input_ids, "labels": row.labels} for row in rows]
    trainer = SFTTrainer(
        model=str(work.model),
        args=SFTConfig(**settings, model_init_kwargs=load or None),
        train_dataset=Dataset.from_list(data),
        peft_config=LoraConfig(**LORA),
    )
    _train(trainer, work)


def hf(work: Work) -> None:
    """Trainer with the sequence-to-sequence collator: bfloat16, padded batches, all logits."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    module = AutoModelForCausalLM.from_pretrained(
        work.model, dtype=torch.bfloat16, attn_implementation=work.options["attention"]
    )
    rows = [
        {
            "input_ids": row.input_ids,
            "labels": row.labels,
            "attention_mask": [1] * len(row.input_ids),
        }
        for row in files.read_rows(work.tokens)
    ]
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    trainer = Trainer(
        model=get_peft_model(module, LoraConfig(**LORA)),
        args=TrainingArguments(**shared(work), bf16=True),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8),
    )
    _train(trainer, work)


def seed(work: Work) -> None:
    """Trainer as the scaffold this project began from: all rows padded, every token a target."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(work.model)
    module = AutoModelForCausalLM.from_pretrained(work.model)
    module = prepare_model_for_kbit_training(module)
    rows = []
    for row in files.read_rows(work.tokens):
        padding = SEED_LENGTH - len(row.input_ids)
        ids = row.input_ids + [tokenizer.pad_token_id] * padding
        mask = [1] * len(row.input_ids) + [0] * padding
        rows.append({"input_ids": ids, "attention_mask": mask})
    trainer = Trainer(
        model=get_peft_model(module, LoraConfig(**LORA)),
        args=TrainingArguments(**shared(work)),
        train_dataset=rows,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False, pad_to_multiple_of=8),
    )
    _train(trainer, work)


def unsloth(work: Work) -> None:
    """TRL's trainer on a model that unsloth has patched, on CUDA."""
    from unsloth import FastLanguageModel  # isort: skip  (it patches what is imported after it)
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    length = work.number("length", 2048)
    module, tokenizer = FastLanguageModel.from_pretrained(
        str(work.model), max_seq_length=length, load_in_4bit=False
    )
    options = {key: value for key, value in LORA.items() if key != "task_type"}
    module = FastLanguageModel.get_peft_model(
        module, **options, use_gradient_checkpointing=work.on("checkpointing")
    )
    rows = files.read_rows(work.tokens)
    trainer = SFTTrainer(
        model=module,
        processing_class=tokenizer,
        args=SFTConfig(**shared(work), max_length=length, bf16=True),
        train_dataset=Dataset.from_list(
            [{"input_ids": row.input_ids, "labels": row.labels} for row in rows]
        ),
    )
    _train(trainer, work)


def _train(trainer: Any, work: Work) -> None:
    """Train, save the adapter as a user would, and write down what it took."""
    from safetensors.torch import save_file

    clock = files.Clock(work.device)
    trainer.add_callback(_watch(clock, work))
    if "init" in work.options:
        files.put(trainer.model, Path(work.options["init"]))
    trainer.train()
    trainer.save_model(str(work.out / "adapter"))
    named = files.adapter(trainer.model.named_parameters())
    tensors = {name: p.detach().float().cpu().contiguous() for name, p in named.items()}
    save_file(tensors, work.out / "adapter.safetensors")
    losses = [float(line["loss"]) for line in trainer.state.log_history if "loss" in line]
    files.write_results(work.out, clock, losses, **_device_bytes(work))


def _watch(clock: files.Clock, work: Work) -> Any:
    from safetensors.torch import save_file
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        """Reads the clock; with an `init` it keeps the gradient of the first step too."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            if not clock.ends and work.on("keep_gradient"):
                named = ((name, p.grad) for name, p in model.named_parameters())
                found = files.adapter((name, grad) for name, grad in named if grad is not None)
                kept = {name: grad.float().cpu().contiguous() for name, grad in found.items()}
                save_file(kept, work.out / "gradient.safetensors")

    return Watch()


def _device_bytes(work: Work) -> dict[str, float]:
    if work.device != "cuda":
        return {}
    import torch

    return {"device_bytes": float(torch.cuda.max_memory_allocated())}


PEERS: dict[str, Callable[[Work], None]] = {"trl": trl, "hf": hf, "seed": seed, "unsloth": unsloth}

if __name__ == "__main__":
    name, model, source, folder, chosen = files.given()
    PEERS[name](Work(model, source, folder, chosen))
