"""What a run computes with: its base, checked against its rows, and the loop over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from swe_scaffold.config import TrainingConfig
from swe_scaffold.errors import ConfigError, IntegrityError, UsageError
from swe_scaffold.files import sha256_file
from swe_scaffold.training.data import RunData
from swe_scaffold.training.plan import plan_steps, round_up, rows_per_step
from swe_scaffold.types import TokenizedExample

if TYPE_CHECKING:
    from swe_scaffold.engine.batches import RowOrder
    from swe_scaffold.engine.budget import Budget
    from swe_scaffold.engine.loop import Loop
    from swe_scaffold.engine.model import BaseModel
    from swe_scaffold.engine.processes import Processes
    from swe_scaffold.engine.read_ahead import Sha256


def load_base(
    training: TrainingConfig, data: RunData, *, offline: bool, sha256: Sha256 = sha256_file
) -> BaseModel:
    """Load the base, once it is certain that these rows can be trained on it.

    Args:
        training: Names the base and its dtype.
        data: The rows.
        offline: Never ask the network.
        sha256: What hashes a file; see `engine.read_ahead`.

    Raises:
        ConfigError: The best is to be kept, and nothing is held out to tell it.
        UsageError: A row is longer than the model's context.
        IntegrityError: The weights cannot be used, or the tokenizer is another model's.
        EnvironmentFailure: A hub id that cannot be fetched, or a device that cannot quantise.
        MissingExtra: What quantises the base is not installed.
        OutOfMemory: The weights do not fit.
    """
    from swe_scaffold.engine import model
    from swe_scaffold.engine.devices import choose_device

    if training.load_best and not data.held_out:
        raise ConfigError(
            "needs held-out rows to tell the best, and there are none",
            where="training.load_best",
            hint="lower dataset.dev_split, or set training.load_best to false",
        )
    rows = (*data.trained, *data.held_out)
    declared = model.declared_sizes(training.model_name, offline=offline)
    _refuse_misfits(rows, training.model_name, *declared)
    device = choose_device(training.dtype)
    base = model.load_base(
        training.model_name,
        device,
        offline=offline,
        files=model.find_base(training.model_name, offline=offline, sha256=sha256),
        quantization=training.quantization,
    )
    _refuse_misfits(rows, training.model_name, base.vocab_size, base.context_length)
    return base


def _refuse_misfits(
    rows: Sequence[TokenizedExample], name: str, embeddings: int | None, context: int | None
) -> None:
    """Refuse ids and lengths beyond the model's; None is not known yet."""
    highest = max(int(row.input_ids.max()) for row in rows)
    if embeddings and highest >= embeddings:
        raise IntegrityError(
            f"token id {highest} is beyond the model's {embeddings} embeddings",
            where=name,
            hint="the tokenizer does not belong to this model",
        )
    longest = max(len(row.input_ids) for row in rows)
    if context and longest > context:
        raise UsageError(
            f"a row has {longest} tokens, the model's context is {context}",
            where="training.max_length",
            hint=f"set training.max_length to at most {context}",
        )


@dataclass(frozen=True, slots=True)
class Machinery:
    """The loop around a model, the order of its rows, and how its micro-batches were chosen."""

    loop: Loop
    order: RowOrder
    budget: Budget

    def cut_into(
        self, tokens: int, training: TrainingConfig, rows: Sequence[TokenizedExample]
    ) -> Machinery:
        """Let micro-batches hold at most so many tokens, computing layers twice where that helps.

        Raises:
            OutOfMemory: They do not fit; nothing has changed then.
        """
        return replace(self, budget=_fit(self.loop, training, rows, tokens=tokens))


def _fit(
    loop: Loop, training: TrainingConfig, rows: Sequence[TokenizedExample], *, tokens: int | None
) -> Budget:
    from swe_scaffold.engine.budget import fit

    checkpointing = training.activation_checkpointing
    return fit(
        loop,
        rows,
        rows_per_step=rows_per_step(training),
        tokens=tokens,
        checkpointing=None if checkpointing == "auto" else checkpointing,
    )


def make_machinery(
    training: TrainingConfig,
    data: RunData,
    base: BaseModel,
    *,
    pad_id: int,
    processes: Processes | None = None,
) -> Machinery:
    """Attach a fresh adapter, or open every weight, and choose the micro-batches.

    Args:
        training: The keys of the run.
        data: Its rows.
        base: The base; its module is taken over.
        pad_id: Token that fills the padding.
        processes: Who computes together; None is this process alone.

    Raises:
        ConfigError: A target of the adapter names no linear module of the base, or a base that
            cannot be divided among processes is to be.
        OutOfMemory: No micro-batch fits.
    """
    from swe_scaffold.engine.adapter import attach
    from swe_scaffold.engine.batches import RowOrder
    from swe_scaffold.engine.loop import Loop, LoopSettings
    from swe_scaffold.engine.passes import MicroBatches
    from swe_scaffold.engine.processes import ALONE

    processes = processes or ALONE
    steps = plan_steps(training, len(data.trained))
    settings = LoopSettings(
        steps=steps,
        learning_rate=training.learning_rate,
        scheduler=training.lr_scheduler_type,
        warmup_steps=round_up(training.warmup_ratio * steps),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        pad_id=pad_id,
    )
    if training.finetuning == "full":
        model = base.module.requires_grad_(True)
    else:
        model = attach(base.module, training.lora, seed=training.seed)
    lockstep = None
    if processes.shards:
        from swe_scaffold.engine.sharding import shard

        lockstep = shard(model, base.device, processes)
    longest = max(len(row.input_ids) for row in data.trained)
    cut = MicroBatches.through(model, longest=longest)
    loop = Loop(model, settings, base.device, cut, processes, lockstep)
    if lockstep is not None:
        # What a model is asked but once, all processes must ask at the same time.
        loop.rehearse([min(data.trained, key=lambda row: row.length)])
    tokens = training.tokens_per_micro_batch
    budget = _fit(loop, training, data.trained, tokens=None if tokens == "auto" else tokens)
    order = RowOrder(len(data.trained), rows_per_step(training), training.seed)
    return Machinery(loop, order, budget)
