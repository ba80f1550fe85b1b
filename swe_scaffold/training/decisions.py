"""Every choice behind a run in words: what holds, who decided it, and why it is so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swe_scaffold.config import SpeedrunConfig, TrainingConfig
from swe_scaffold.numbers import gibibytes
from swe_scaffold.rendering import Renderer
from swe_scaffold.rendering.formats import KNOWN_FORMATS
from swe_scaffold.training.data import RunData
from swe_scaffold.training.plan import evaluation_steps, plan_steps, round_up, rows_per_step

if TYPE_CHECKING:
    from swe_scaffold.engine.budget import Budget
    from swe_scaffold.engine.model import BaseModel
    from swe_scaffold.engine.processes import Processes
    from swe_scaffold.training.machinery import Machinery

DEFAULT, DERIVED = "default", "derived"
Chosen = Callable[[str, object, str], "Decision"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice: `origin` is default, file, --set, a flag, or derived from the others."""

    key: str
    value: str
    origin: str
    why: str


def decide(
    config: SpeedrunConfig,
    data: RunData,
    renderer: Renderer,
    base: BaseModel,
    machinery: Machinery,
    *,
    origins: Mapping[str, str],
) -> tuple[Decision, ...]:
    """Return the choices of a run, from its device to its checkpoints.

    Args:
        config: The resolved configuration.
        data: The rows of the run.
        renderer: What rendered them.
        base: The base model.
        machinery: The loop around it, and its micro-batches.
        origins: Who decided a key, as `config_origins` says; the rest are defaults.
    """
    training = config.training

    def chosen(key: str, value: object, why: str) -> Decision:
        return Decision(key, str(value), origins.get(f"training.{key}", DEFAULT), why)

    return (
        chosen("model_name", base.public_name, f"base weights sha256 {base.sha256[:12]}"),
        Decision("device", *_device(base)),
        *_about_processes(machinery.loop.processes),
        chosen("dtype", f"{training.dtype} = {base.device.dtype_name}", _why_dtype(training, base)),
        *_about_quantization(training, chosen),
        *_about_rows(data, renderer),
        chosen("max_length", training.max_length, _why_length(data)),
        chosen("include_failures", _yes(training.include_failures), "rows labelled failure"),
        *_about_steps(training, data, chosen),
        *_about_passes(training, machinery.budget, chosen),
        *_about_adapter(training, machinery.loop.model, chosen),
        *_about_ends(training, data, chosen),
    )


def _device(base: BaseModel) -> tuple[str, str, str]:
    why = {
        "cuda": "CUDA is there, and it is taken first",
        "mps": "no CUDA here; MPS is there",
        "cpu": "neither CUDA nor MPS is here",
    }[base.device.name]
    return base.device.name, DERIVED, why


def _about_processes(processes: Processes) -> Iterator[Decision]:
    if processes.size > 1:
        held = "the base's layers are divided among them" if processes.shards else "each holds all"
        why = f"the rows of a step are dealt to them, gradients added up once a step; {held}"
        yield Decision("processes", str(processes.size), DERIVED, why)


def _why_dtype(training: TrainingConfig, base: BaseModel) -> str:
    if training.dtype != "auto":
        return "base weights as asked; the adapter is float32"
    if base.device.dtype_name == "bfloat16":
        return "this CUDA device has bfloat16; the adapter is float32"
    return "bfloat16 is taken on CUDA devices that have it only"


def _about_quantization(training: TrainingConfig, chosen: Chosen) -> Iterator[Decision]:
    if training.quantization != "none":
        why = "the base's linear modules are in 4 bits, and are again where this adapter is scored"
        yield chosen("quantization", training.quantization, why)


def _about_rows(data: RunData, renderer: Renderer) -> Iterator[Decision]:
    skipped = Counter(row.reason for row in data.skipped)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(skipped.items()))
    counts = f"{len(data.trained)} trained + {len(data.held_out)} held out + {len(data.skipped)}"
    yield Decision(
        "rows", f"{data.rows} = {counts} skipped", DERIVED, f"skipped: {reasons or 'none'}"
    )
    yield Decision("hold-out", str(len(data.held_out)), DERIVED, "; ".join(data.notes) or "none")
    known = renderer.template_sha256 in KNOWN_FORMATS
    why = f"template sha256 {renderer.template_sha256[:12]}, "
    why += "a known one" if known else "trusted, and it writes the same text"
    yield Decision("chat format", renderer.format.name, DERIVED, why)


def _why_length(data: RunData) -> str:
    longest = max(row.length for row in data.trained)
    return f"the longest trained row has {longest}; {data.prompts_cut} prompts are shortened"


def _about_steps(training: TrainingConfig, data: RunData, chosen: Chosen) -> Iterator[Decision]:
    steps, per_step = plan_steps(training, len(data.trained)), rows_per_step(training)
    per_epoch = -(-len(data.trained) // per_step)
    yield chosen(
        "per_device_train_batch_size",
        training.per_device_train_batch_size,
        "only its product with gradient_accumulation_steps counts",
    )
    yield chosen(
        "gradient_accumulation_steps",
        training.gradient_accumulation_steps,
        f"{per_step} rows a step, {per_epoch} steps an epoch",
    )
    if training.max_steps is None:
        epochs = f"{training.num_train_epochs:g}"
        why = f"{steps} steps = {epochs} epochs of {per_epoch}"
        yield chosen("num_train_epochs", epochs, why)
    else:
        yield chosen("max_steps", steps, f"{steps / per_epoch:.3g} epochs of {per_epoch} steps")
    yield chosen("learning_rate", f"{training.learning_rate:g}", "the peak, of AdamW")
    warmup = 0 if training.lr_scheduler_type == "constant" else training.warmup_ratio
    yield chosen(
        "lr_scheduler_type",
        training.lr_scheduler_type,
        f"warm-up over {round_up(warmup * steps)} of {steps} steps (warmup_ratio {warmup:g})",
    )
    yield chosen("seed", training.seed, "initialisation, order of rows, dropout")


def _about_passes(training: TrainingConfig, budget: Budget, chosen: Chosen) -> Iterator[Decision]:
    packed = "packed without padding"
    way = packed if budget.refusal is None else f"padded, as {budget.refusal}"
    yield chosen(
        "tokens_per_micro_batch",
        f"{training.tokens_per_micro_batch} = {budget.tokens}",
        f"{way}; the largest takes about {gibibytes(budget.needed_bytes)} of "
        f"{gibibytes(budget.free_bytes)}",
    )
    on = budget.activation_checkpointing
    yield chosen(
        "activation_checkpointing",
        f"{str(training.activation_checkpointing).lower()} = {_yes(on)}",
        "layers are computed twice: else it does not fit" if on else "activations fit",
    )


def _about_adapter(training: TrainingConfig, model: Any, chosen: Chosen) -> Iterator[Decision]:
    from swe_scaffold.engine.adapter import adapter_size

    if training.finetuning == "full":
        count = sum(tensor.numel() for tensor in model.parameters())
        why = f"every one of {count:,} parameters is trained; the keys of lora have no effect"
        yield chosen("finetuning", "full", why)
        return
    targets, trained, parameters = adapter_size(model)
    lora = training.lora
    yield chosen("lora.r", lora.r, f"alpha {lora.alpha}, dropout {lora.dropout:g}")
    if lora.use_rslora:
        yield chosen("lora.use_rslora", "yes", f"scale {lora.alpha}/√{lora.r}")
    if lora.use_dora:
        yield chosen("lora.use_dora", "yes", "the norms of the rows are trained too")
    yield chosen(
        "lora.target_modules",
        ", ".join(targets),
        f"{trained:,} trained of {parameters:,} parameters ({100 * trained / parameters:.2g} %)",
    )


def _about_ends(training: TrainingConfig, data: RunData, chosen: Chosen) -> Iterator[Decision]:
    steps, per_epoch = plan_steps(training, len(data.trained)), rows_per_step(training)
    every = -(-len(data.trained) // per_epoch)
    times = len(evaluation_steps(training, steps, every)) if data.held_out else 0
    evaluated = f"the hold-out is scored {times} times, the base among them" if times else "never"
    yield chosen("eval_strategy", training.eval_strategy, evaluated)
    kept = "all" if training.save_total_limit is None else f"the last {training.save_total_limit}"
    best = "; ends with the best" if training.load_best else ""
    yield chosen("save_strategy", training.save_strategy, f"keeps {kept} checkpoints{best}")


def _yes(value: bool) -> str:
    return "yes" if value else "no"
