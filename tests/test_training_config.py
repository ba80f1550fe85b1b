"""TrainingConfig and LoRAConfig: keys, defaults, ranges, the older key fp16, the shipped file."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest

from swe_scaffold.config import (
    Dtype,
    LoRAConfig,
    SaveStrategy,
    Scheduler,
    SpeedrunConfig,
    TrainingConfig,
    check_config,
    describe_config,
    dump_config,
    load_config,
)
from swe_scaffold.errors import ConfigError
from swe_scaffold.files import write_json

SHIPPED = Path(__file__).resolve().parents[1] / "configs" / "speedrun.json"

# What a file that names nothing trains: changing one of these changes everyone's runs.
DEFAULTS = {
    "model_name": "Qwen/Qwen2.5-3B-Instruct",
    "output_dir": "artifacts/checkpoints/qwen-speedrun",
    "learning_rate": 2e-4,
    "num_train_epochs": 2.0,
    "max_steps": None,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8,
    "tokens_per_micro_batch": "auto",
    "activation_checkpointing": "auto",
    "warmup_ratio": 0.03,
    "weight_decay": 0.0,
    "lr_scheduler_type": "cosine",
    "logging_steps": 10,
    "eval_strategy": "steps",
    "eval_steps": 50,
    "save_strategy": "steps",
    "save_steps": 100,
    "save_total_limit": 3,
    "max_grad_norm": 1.0,
    "dtype": "auto",
    "finetuning": "lora",
    "quantization": "none",
    "max_length": 4096,
    "min_prompt_tokens": 128,
    "measure_mfu": False,
    "seed": 42,
    "report_to": [],
    "include_failures": False,
    "load_best": False,
    "lora": {
        "r": 8,
        "alpha": 16,
        "dropout": 0.05,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "use_rslora": False,
        "use_dora": False,
    },
}

ACCEPTED: dict[str, list[Any]] = {
    "model_name": ["owner/model", "./models/tiny"],
    "output_dir": ["runs/a b"],
    "learning_rate": [1e-12, 1, 4e-3],
    "num_train_epochs": [0.01, 2, 2.5],
    "max_steps": [None, 1, 1_000_000],
    "per_device_train_batch_size": [1, 64],
    "gradient_accumulation_steps": [1, 64],
    "tokens_per_micro_batch": ["auto", 1, 65_536],
    "activation_checkpointing": ["auto", True, False],
    "warmup_ratio": [0, 0.0, 0.999],
    "weight_decay": [0, 0.1],
    "lr_scheduler_type": list(get_args(Scheduler)),
    "logging_steps": [1],
    "eval_strategy": ["no", "steps", "epoch"],
    "eval_steps": [1],
    "save_strategy": ["no", "steps", "epoch"],
    "save_steps": [1],
    "save_total_limit": [None, 1],
    "max_grad_norm": [None, 0.1, 5],
    "dtype": ["auto", "float32", "bfloat16", "float16"],
    "finetuning": ["lora", "full"],
    "quantization": ["none", "nf4"],
    "max_length": [16, 131_072],
    "min_prompt_tokens": [0, 512],
    "measure_mfu": [True, False],
    "seed": [0, 2**53],
    "report_to": [[], ["wandb"], ["tensorboard", "wandb"]],
    "include_failures": [True, False],
    "load_best": [True, False],
    "lora.r": [1, 256],
    "lora.alpha": [1, 512],
    "lora.dropout": [0, 0.5],
    "lora.target_modules": ["all-linear", ["q_proj"], ["gate_proj", "up_proj"]],
    "lora.use_rslora": [True, False],
    "lora.use_dora": [True, False],
}

NOT_COUNTS = [0, -1, 1.0, 2.5, "2", True, None, [], "all"]
REFUSED: dict[str, list[Any]] = {
    "model_name": ["", "  ", None, 3, ["a"]],
    "output_dir": ["", None, 3, "a\nb"],
    "learning_rate": [0, -1.0, "2e-4", True, None],
    "num_train_epochs": [0, -1, "2", None, True],
    "max_steps": [0, -1, "10", 10.0, True],
    "per_device_train_batch_size": NOT_COUNTS,
    "gradient_accumulation_steps": NOT_COUNTS,
    "tokens_per_micro_batch": NOT_COUNTS,
    "activation_checkpointing": [0, 1, "on", "", None],
    "warmup_ratio": [1, -0.1, "0.1", None],
    "weight_decay": [-5, "0", None],
    "lr_scheduler_type": ["cosin", "", None, 1],
    "logging_steps": NOT_COUNTS,
    "eval_strategy": ["never", None, False],
    "eval_steps": NOT_COUNTS,
    "save_strategy": ["never", None, False],
    "save_steps": NOT_COUNTS,
    "save_total_limit": [0, -1, 1.0, "3"],
    "max_grad_norm": [0, -1, "1"],
    "dtype": ["bf16", "float64", None],
    "finetuning": ["freeze", "LoRA", None, True],
    "quantization": ["fp4", "int8", "4bit", None, 4],
    "max_length": [15, 0, -1, None, 512.0],
    "min_prompt_tokens": [-1, None, 0.5],
    "measure_mfu": [0, 1, "true", None],
    "seed": [-1, 2**53 + 1, None, 0.5, True],
    "report_to": ["wandb", None, [""], [3], [None]],
    "include_failures": ["false", 0, 1, None],
    "load_best": ["true", 0, None],
    "lora.r": [*NOT_COUNTS, "8"],
    "lora.alpha": [*NOT_COUNTS, -16],
    "lora.dropout": [1, 1.0, -0.1, "0.1", None],
    "lora.target_modules": [[], "q_proj", ["q_proj", ""], [3], None, "all_linear"],
    "lora.use_rslora": ["true", 1, None],
    "lora.use_dora": ["false", 0, None],
}


def tree(key: str, value: Any) -> dict[str, Any]:
    group, _, name = key.rpartition(".")
    return {"training": {group: {name: value}} if group else {name: value}}


def value_of(config: SpeedrunConfig, key: str) -> Any:
    group, _, name = key.rpartition(".")
    return getattr(config.training.lora if group else config.training, name)


def test_the_defaults_are_these() -> None:
    stored = dump_config(SpeedrunConfig())["training"]
    assert stored == DEFAULTS
    assert list(stored) == list(DEFAULTS)
    assert list(stored["lora"]) == list(DEFAULTS["lora"])  # type: ignore[call-overload]
    assert asdict(TrainingConfig()) == DEFAULTS
    assert asdict(LoRAConfig()) == DEFAULTS["lora"]


def test_defaults_are_not_shared_between_configurations() -> None:
    first = TrainingConfig()
    first.report_to.append("wandb")
    first.lora.target_modules = "all-linear"
    assert asdict(TrainingConfig()) == DEFAULTS


def test_every_key_is_tried_here() -> None:
    keys = {key.removeprefix("training.") for key, *_ in describe_config() if "training" in key}
    assert keys == set(ACCEPTED) == set(REFUSED)


@pytest.mark.parametrize("key", ACCEPTED)
def test_a_value_in_range_is_kept_as_given(key: str) -> None:
    for value in ACCEPTED[key]:
        assert value_of(check_config(tree(key, value), "file"), key) == value


@pytest.mark.parametrize("key", REFUSED)
def test_a_value_out_of_range_is_refused(key: str) -> None:
    for value in REFUSED[key]:
        with pytest.raises(ConfigError) as caught:
            check_config(tree(key, value), "file")
        assert caught.value.where == f"file: training.{key}", value


@pytest.mark.parametrize("key", REFUSED)
def test_python_callers_meet_the_same_ranges(key: str) -> None:
    make: Callable[..., Any] = LoRAConfig if key.startswith("lora.") else TrainingConfig
    name = key.rpartition(".")[2]
    for value in REFUSED[key]:
        if value not in ("a\nb", 2**53 + 1):  # what only a file can smuggle in
            with pytest.raises(ValueError, match=name):
                make(**{name: value})


def test_python_callers_cannot_misspell_a_key() -> None:
    with pytest.raises(ValueError, match="learnin_rate"):
        TrainingConfig(learnin_rate=1e-4)  # type: ignore[call-arg]


@pytest.mark.parametrize(("fp16", "dtype"), [(True, "float16"), (False, "auto")])
def test_the_older_key_fp16_chooses_the_dtype(tmp_path: Path, fp16: bool, dtype: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"training": {"fp16": fp16}}))
    assert load_config(path).training.dtype == dtype
    assert "fp16" not in dump_config(load_config(path))["training"]
    override = f"training.fp16={json.dumps(fp16)}"
    assert load_config(overrides=[override]).training.dtype == dtype
    # Given later, either key replaces the other.
    assert load_config(path, overrides=["training.dtype=float32"]).training.dtype == "float32"
    assert load_config(path, flags={"training.dtype": "bfloat16"}).training.dtype == "bfloat16"
    both = ["training.dtype=float32", override]
    assert load_config(overrides=both).training.dtype == dtype


@pytest.mark.parametrize("value", ["true", 1, None])
def test_fp16_is_true_or_false(tmp_path: Path, value: object) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"training": {"fp16": value}}))
    with pytest.raises(ConfigError, match="should be true or false") as caught:
        load_config(path)
    assert caught.value.where == f"{path}: training.fp16"


def test_fp16_and_dtype_in_one_file_contradict_each_other(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"training": {"fp16": True, "dtype": "auto"}}))
    with pytest.raises(ConfigError, match="not both") as caught:
        load_config(path)
    assert caught.value.where == f"{path}: training.fp16"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("quantization", "nf4", "cannot be trained"), ("dtype", "float16", "loses the updates")],
)
def test_not_every_base_can_be_trained_whole(key: str, value: str, message: str) -> None:
    full = {"training": {"finetuning": "full"}}
    # The keys of an adapter are without effect, and files name all of them: no error.
    full["training"]["lora"] = {"r": 64}  # type: ignore[assignment]
    assert check_config(full, "file").training.finetuning == "full"
    full["training"][key] = value
    with pytest.raises(ConfigError, match=message) as caught:
        check_config(full, "file")
    assert caught.value.where == "file: training.finetuning"


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_load_best_needs_an_evaluation(strategy: str) -> None:
    best = {"training": {"load_best": True, "eval_strategy": strategy}}
    assert check_config(best, "file").training.load_best
    best["training"]["eval_strategy"] = "no"
    with pytest.raises(ConfigError, match='eval_strategy "steps" or "epoch"'):
        check_config(best, "file")


def test_every_key_is_explained() -> None:
    texts = {key: text for key, _, _, text in describe_config() if key.startswith("training.")}
    assert len(set(texts.values())) == len(texts)
    for key, text in texts.items():
        assert len(text) > 15, key
        assert text[0].isupper() or text[0] == "`", key
    for value in get_args(Dtype)[1:]:
        assert value in texts["training.dtype"]
    assert "fp16" in texts["training.dtype"]
    assert "max_steps" in texts["training.num_train_epochs"]


def test_the_shipped_file_is_the_defaults(tmp_path: Path) -> None:
    written = tmp_path / "speedrun.json"
    write_json(written, dump_config(SpeedrunConfig()))
    assert SHIPPED.read_bytes() == written.read_bytes()
    assert load_config(SHIPPED) == SpeedrunConfig()


def enum_values(source: str, name: str) -> list[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            values = [item.value for item in node.body if isinstance(item, ast.Assign)]
            return [str(value.value) for value in values if isinstance(value, ast.Constant)]
    return []


def test_schedules_and_strategies_are_those_of_transformers() -> None:
    package = find_spec("transformers")
    if package is None or not package.submodule_search_locations:
        pytest.skip("transformers is not installed")
    source = Path(package.submodule_search_locations[0], "trainer_utils.py").read_text("utf-8")
    assert set(get_args(Scheduler)) <= set(enum_values(source, "SchedulerType"))
    assert set(get_args(SaveStrategy)) <= set(enum_values(source, "SaveStrategy"))
    assert set(get_args(SaveStrategy)) == set(enum_values(source, "IntervalStrategy"))
