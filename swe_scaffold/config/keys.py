"""Every key with its type, range, default and explanation; the help and the docs come from here."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, LiteralString, get_args

from pydantic import ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"\S")]
SaveStrategy = Literal["no", "steps", "epoch"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "nf4"]
Finetuning = Literal["lora", "full"]
ClusterBy = Literal["group", "repo", "row"]
SplitBy = Literal["auto", "repo", "row"]
RowStageName = Literal[
    "empty_response",
    "short_patch",
    "long_response",
    "invalid_patch",
    "outcome",
    "trajectory",
    "contaminated",
    "secret",
    "hidden_text",
    "token_length",
]
IndexStageName = Literal["duplicate", "near_duplicate", "caps"]
StageName = Literal[RowStageName, IndexStageName]
PatchFault = Literal[
    "unparsable", "incomplete", "empty", "binary", "only_tests", "carriage_return", "no_git_header"
]
_DEFAULT_STAGES: tuple[StageName, ...] = (
    "empty_response",
    "short_patch",
    "long_response",
    "outcome",
    "contaminated",
    "hidden_text",
    "token_length",
    "duplicate",
    "caps",
)
_DEFAULT_FAULTS: tuple[PatchFault, ...] = ("unparsable",)
# A key and the stage without which it would say nothing.
_STAGE_OF = {
    "max_response_chars": "long_response",
    "max_patch_chars": "long_response",
    "max_tokens": "token_length",
    "only_resolved": "outcome",
    "only_submitted": "outcome",
    "max_per_repo": "caps",
    "max_per_label": "caps",
    "max_per_instance": "caps",
}


@dataclass(config=STRICT, kw_only=True)
class QualityConfig:
    """Which rows are judged good enough, and by which stages."""

    stages: list[StageName] = Field(default_factory=lambda: list(_DEFAULT_STAGES))
    """The stages that judge, in order, those that look at one row before those that compare rows
    (duplicate, near_duplicate, caps). A stage whose own keys are null or false does nothing;
    contaminated acts once something is excluded; invalid_patch, trajectory, secret and
    near_duplicate are off until named here."""
    max_response_chars: PositiveInt | None = None
    """Skip rows whose response is longer, as long_response; null keeps all."""
    max_patch_chars: PositiveInt | None = None
    """Skip rows whose response is a longer patch, as long_response; null keeps all."""
    max_tokens: PositiveInt | None = None
    """Skip rows that no shortening of the prompt brings to so many tokens, as over_length; null
    keeps all. Give what training.max_length will be."""
    tokenizer: Name | None = None
    """What counts those tokens: a model or tokenizer, as training.model_name."""
    skip_patches: list[PatchFault] = Field(default_factory=lambda: list(_DEFAULT_FAULTS))
    """Faults for which invalid_patch skips a row; it counts all of them."""
    leaky_trajectories: Literal["skip", "report"] = "skip"
    """What the stage trajectory does with a chat whose agent looks up what came after its task:
    skip it as leaky_trajectory, or only count it."""
    max_observation_chars: PositiveInt = 50_000
    """Length from which the stage trajectory counts a message to the agent as a flood."""
    secrets: Literal["skip", "redact", "report"] = "skip"
    """What the stage secret does with a row that holds a credential: skip it, replace the
    credential by `[REDACTED:type]`, or only count it."""
    near_duplicates: Literal["skip", "link"] = "skip"
    """`skip` drops a row whose prompt and response are both near those of an earlier row, `link`
    keeps a row near an earlier one in either, on that one's side of the split."""
    near_duplicate_threshold: Annotated[float, Field(ge=0.3, le=1)] = 0.7
    """Estimated Jaccard similarity from which two texts are near each other."""
    only_resolved: bool = False
    """Skip trajectories that are not known to have solved their task, as not_resolved."""
    only_submitted: bool = False
    """Skip trajectories that are not known to have submitted, as not_submitted."""
    max_per_repo: PositiveInt | None = None
    """Most rows of a repository, first in source order; null keeps all."""
    max_per_label: PositiveInt | None = None
    """Most rows of a label (success, failure), first in source order; null keeps all."""
    max_per_instance: PositiveInt | None = None
    """Most rows of one instance id, such as attempts at one task; null keeps all."""

    @model_validator(mode="after")
    def _stages_fit(self) -> QualityConfig:
        index = get_args(IndexStageName)
        seen: list[str] = []
        for name in self.stages:
            if name in seen:
                raise _together(f"stages names {name} twice", "stages")
            if name not in index and seen and seen[-1] in index:
                raise _together(
                    f"stages has {name} after {seen[-1]}: stages that look at one row come before "
                    f"those that compare rows ({', '.join(index)})",
                    "stages",
                )
            seen.append(name)
        for key, stage in _STAGE_OF.items():
            if getattr(self, key) and stage not in seen:
                raise _together(f"{key} needs the stage {stage} in stages", key, "stages")
        if (self.max_tokens is None) != (self.tokenizer is None):
            raise _together("max_tokens and tokenizer go together", "max_tokens", "tokenizer")
        return self


def _together(message: LiteralString, *keys: str) -> PydanticCustomError:
    """An error about keys of one group that do not go together."""
    return PydanticCustomError("together", message, {"keys": list(keys)})


@dataclass(config=STRICT, kw_only=True)
class DatasetConfig:
    """How rows are read, chosen and split."""

    dataset: Name = "SWE-bench/SWE-bench"
    """Hub id, or a local JSON, JSONL (also .gz), Parquet or CSV file, a folder of them, or a
    save_to_disk folder."""
    split: Name | None = None
    """Split of a hub data set; null takes `train`, else `dev`, else the first, and says which."""
    revision: Name | None = None
    """Revision (branch, tag or commit) of a hub data set."""
    dev_split: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of rows in the dev (training) split; the rest is the test (hold-out) split."""
    split_by: SplitBy = "auto"
    """`repo` holds whole repositories out, `row` hashes content groups, `auto` takes repo where it
    fits."""
    min_patch_chars: Annotated[int, Field(ge=0)] | None = None
    """Skip rows whose response is a patch shorter than this many characters; null keeps all."""
    include_empty: bool = False
    """Keep rows without a response, labelled failure (they are never trained)."""
    max_examples: PositiveInt | None = 500
    """Most dev rows to keep, first in source order; null keeps all."""
    reports: list[Name] = Field(default_factory=list)
    """Evaluation reports and predictions, or folders of them, that say which trajectories solved
    their task."""
    exclude: list[Name] = Field(default_factory=list)
    """Benchmarks whose tasks must not be trained: sources as `dataset`, or an index of hashes."""
    context: Literal["none", "oracle", "bm25"] = "none"
    """Code that prompts of tasks get from clones at their base commit: oracle shows what the patch
    touches, bm25 what the problem statement speaks of; a task's own code stays where this is
    none."""
    context_tokens: PositiveInt = 4096
    """Most tokens of that code, estimated as a quarter of its characters."""
    repos: Name | None = None
    """Folder of clones and bare mirrors: owner__name, owner/name or name, each also with .git."""
    on_bad_row: Literal["skip", "stop"] = "skip"
    """`skip` records an unreadable row in the skipped report, `stop` ends with exit code 3."""
    seed: Seed = 42
    """Seed of the split's hash."""
    quality: QualityConfig = Field(default_factory=QualityConfig)

    @model_validator(mode="after")
    def _context_needs_clones(self) -> DatasetConfig:
        if self.context != "none" and self.repos is None:
            raise _together("context needs repos, the folder of clones", "context", "repos")
        return self

    @model_validator(mode="after")
    def _short_patch_is_judged(self) -> DatasetConfig:
        if self.min_patch_chars and "short_patch" not in self.quality.stages:
            raise _together(
                "min_patch_chars needs the stage short_patch in quality.stages",
                "min_patch_chars",
                "quality.stages",
            )
        return self


@dataclass(config=STRICT, kw_only=True)
class LoRAConfig:
    """The adapter."""

    r: PositiveInt = 8
    """Rank of the adapter matrices."""
    alpha: PositiveInt = 16
    """Scale: the adapter's output is multiplied by alpha / r, under use_rslora by alpha / √r."""
    dropout: Fraction = 0.05
    """Dropout on the adapter's input while training."""
    target_modules: Annotated[list[Name], Field(min_length=1)] | Literal["all-linear"] = Field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    """Names of the linear modules that get an adapter, or `all-linear` (all but the head)."""
    use_rslora: bool = False
    """Scale by alpha / √r instead of alpha / r (rsLoRA), so that a higher rank learns no slower."""
    use_dora: bool = False
    """Train the norms of the rows of adapted weights too (DoRA): slower, and merged as well."""


@dataclass(config=STRICT, kw_only=True)
class TrainingConfig:
    """How an adapter is trained."""

    model_name: Name = "Qwen/Qwen2.5-3B-Instruct"
    """Base model: a local folder or a hub id."""
    output_dir: Name = "artifacts/checkpoints/qwen-speedrun"
    """Run folder: the adapter, its manifest, metrics and checkpoints."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate of AdamW."""
    num_train_epochs: Annotated[float, Field(gt=0)] = 2.0
    """Passes over the training rows; used where max_steps is null."""
    max_steps: PositiveInt | None = None
    """Number of optimizer steps; null derives it from the epochs."""
    per_device_train_batch_size: PositiveInt = 2
    """Rows of an optimizer step, divided by gradient_accumulation_steps; only their product
    counts."""
    gradient_accumulation_steps: PositiveInt = 8
    """Rows of an optimizer step, divided by per_device_train_batch_size; the loss is weighted by
    tokens over all of them, on however many processes."""
    tokens_per_micro_batch: PositiveInt | Literal["auto"] = "auto"
    """Most tokens of a forward and backward pass, a longer row going alone; auto takes what fits
    and is fast. It changes speed, memory and the last bits, never the mathematics."""
    activation_checkpointing: bool | Literal["auto"] = "auto"
    """Drop the activations of each layer and compute them again for the gradient, in a quarter to a
    third more time; auto does it only where the longest row does not fit otherwise."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps over which the learning rate rises from zero; `constant` has no warm-up,
    `constant_with_warmup` does."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled weight decay."""
    lr_scheduler_type: Scheduler = "cosine"
    """Shape of the learning rate after warm-up."""
    logging_steps: PositiveInt = 10
    """Steps between lines on the terminal; metrics.jsonl always has every step."""
    eval_strategy: SaveStrategy = "steps"
    """When to score the hold-out: never, every eval_steps, or after each epoch (and at the end)."""
    eval_steps: PositiveInt = 50
    """Steps between evaluations under `steps`."""
    save_strategy: SaveStrategy = "steps"
    """When to save checkpoints: only the final one, every save_steps, or after each epoch."""
    save_steps: PositiveInt = 100
    """Steps between checkpoints under `steps`."""
    save_total_limit: PositiveInt | None = 3
    """Checkpoints kept, newest first (the best one is never removed under load_best); null keeps
    all."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradient norm above which the gradient is scaled down; null never does."""
    dtype: Dtype = "auto"
    """Base weights: auto is bfloat16 on CUDA devices that have it, float32 elsewhere; adapters are
    float32. The older key `fp16` is read too: true is float16, false is auto."""
    finetuning: Finetuning = "lora"
    """What is trained: an adapter (lora), or every weight of the base (full), and then the keys of
    `lora` have no effect."""
    quantization: Quantization = "none"
    """Linear modules of the base in 4 bits: nf4 (QLoRA; needs the extra `quantized`), computed in
    bfloat16."""
    max_length: Annotated[int, Field(ge=16)] = 4096
    """Most tokens per row; prompts are shortened to fit, responses never are."""
    min_prompt_tokens: Annotated[int, Field(ge=0)] = 128
    """Prompt tokens that shortening leaves; a row that needs less is skipped as over_length."""
    measure_mfu: bool = False
    """Measure how fast a large matrix product is before the first step, for about a second, and
    report the share of it that the steps reach."""
    seed: Seed = 42
    """Seed of initialisation, order and dropout."""
    report_to: list[Name] = Field(default_factory=list)
    """Trackers to log to through accelerate, for example tensorboard or wandb."""
    include_failures: bool = False
    """Train rows labelled failure too."""
    load_best: bool = False
    """End with the weights of the checkpoint with the lowest hold-out loss."""
    lora: LoRAConfig = Field(default_factory=LoRAConfig)

    @model_validator(mode="after")
    def _all_weights_can_be_trained(self) -> TrainingConfig:
        if self.finetuning == "full" and self.quantization != "none":
            raise _together(
                'weights in 4 bits cannot be trained: finetuning "full" needs quantization "none"',
                "finetuning",
                "quantization",
            )
        if self.finetuning == "full" and self.dtype == "float16":
            raise _together(
                'finetuning "full" needs dtype "bfloat16" or "float32": float16 loses the updates',
                "finetuning",
                "dtype",
            )
        return self

    @model_validator(mode="after")
    def _best_needs_evaluation(self) -> TrainingConfig:
        if self.load_best and self.eval_strategy == "no":
            raise _together(
                'load_best needs eval_strategy "steps" or "epoch"', "load_best", "eval_strategy"
            )
        return self


@dataclass(config=STRICT, kw_only=True)
class EvaluationConfig:
    """How a model is scored."""

    tokens_per_batch: PositiveInt = 8192
    """Most tokens of a forward pass, padding included; it changes speed and memory, never the
    numbers."""
    batch_size: PositiveInt | None = None
    """Most rows of a forward pass; null leaves that to tokens_per_batch."""
    max_new_tokens: PositiveInt = 256
    """Most tokens of an answer, where some are asked for (evaluate --generate)."""
    dtype: Dtype = "auto"
    """Weights while scoring: auto is float32 on CPU and MPS, bfloat16 on CUDA; the softmax is
    always float32."""
    quantization: Literal["auto", "none", "nf4"] = "auto"
    """The base while scoring: auto is as the adapter was trained on it, and none for a model
    without one."""
    cluster_by: ClusterBy = "group"
    """The independent unit of the intervals."""
    iterations: PositiveInt = 9999
    """Bootstrap resamples."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """One minus the level of the intervals."""
    seed: Seed = 0
    """Seed of the bootstrap."""


@dataclass(config=STRICT, kw_only=True)
class SpeedrunConfig:
    """The whole configuration."""

    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)


def dump_config(config: SpeedrunConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain JSON values, every key present."""
    return json.loads(TypeAdapter(SpeedrunConfig).dump_json(config))  # type: ignore[no-any-return]
