"""Adapters: standard PEFT folders, byte-stable, and nothing of a stranger's is trusted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swe_scaffold.config import LoRAConfig
from swe_scaffold.engine.adapter import (
    WEIGHTS,
    adapter_tensors,
    attach,
    load_adapter,
    resolve_targets,
    save_adapter,
)
from swe_scaffold.engine.adapter_config import CONFIG, read_adapter_config
from swe_scaffold.errors import ConfigError, IntegrityError
from tests.engine.shapes import make_model, with_adapter

ROOT = Path(__file__).resolve().parents[2]
ALL_LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
IDS = torch.tensor([[5, 9, 13, 21, 34]])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "saved"
    save_adapter(with_adapter(make_model()), folder, base_name="tiny-model")
    return folder


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(original, tmp_path / "adapter"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_bytes())
    (folder / CONFIG).write_text(json.dumps({**config, **changes}))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_peft_loads_the_folder_and_computes_the_same(saved: Path) -> None:
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(make_model(), str(saved)).eval()
    ours = load_adapter(make_model(), saved)
    wanted = logits(with_adapter(make_model()))
    assert torch.equal(logits(theirs), wanted)
    assert torch.equal(logits(ours), wanted)
    assert not torch.allclose(wanted, logits(make_model()), atol=1e-2)


def test_a_loaded_adapter_is_frozen_and_draws_no_random_numbers(saved: Path) -> None:
    before = torch.get_rng_state()
    model = load_adapter(make_model(), saved)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert not any(tensor.requires_grad for tensor in model.parameters())


def test_the_config_names_no_path_and_sorts_its_targets(saved: Path) -> None:
    text = (saved / CONFIG).read_text()
    config = json.loads(text)
    assert config["base_model_name_or_path"] == "tiny-model"
    assert config["target_modules"] == ALL_LINEAR
    assert list(config) == sorted(config)
    assert "/" not in text
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (3, 6, "LORA")


SAVE = """
import sys
from pathlib import Path
from swe_scaffold.engine.adapter import save_adapter
from tests.engine.shapes import make_model, with_adapter
save_adapter(with_adapter(make_model()), Path(sys.argv[1]), base_name="tiny-model")
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(original: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", SAVE, str(tmp_path)], env=environment, check=True)
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / name).read_bytes() == (original / name).read_bytes(), name


def test_saving_twice_gives_the_same_bytes(original: Path, tmp_path: Path) -> None:
    model = load_adapter(make_model(), original)
    model.peft_config["default"].lora_dropout = 0.0
    save_adapter(model, tmp_path, base_name="tiny-model")
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / name).read_bytes() == (original / name).read_bytes(), name


def test_all_linear_is_every_linear_module_but_the_head() -> None:
    for name in ("qwen2-tied", "qwen2-untied", "llama", "qwen3"):
        assert resolve_targets(make_model(name), "all-linear") == ALL_LINEAR
    tensors = adapter_tensors(with_adapter(make_model("qwen2-untied")))
    assert not [name for name in tensors if "lm_head" in name or "embed" in name]
    assert len(tensors) == 2 * 2 * len(ALL_LINEAR)


@pytest.mark.parametrize(
    "name", ["q_prj", "lm_head", "embed_tokens", "proj", "q_proj|v_proj", "_proj"]
)
def test_a_target_that_names_nothing_is_refused_beside_good_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="names no linear module") as error:
        resolve_targets(make_model("qwen2-untied"), ["q_proj", name])
    assert name in error.value.message
    assert error.value.where == "training.lora.target_modules"
    assert all(target in error.value.hint for target in ALL_LINEAR)
    assert error.value.exit_code == 2


def test_targets_may_be_written_with_their_parents() -> None:
    targets = ["v_proj", "q_proj", "v_proj", "layers.0.self_attn.o_proj"]
    found = resolve_targets(make_model(), targets)
    assert found == ["layers.0.self_attn.o_proj", "q_proj", "v_proj"]
    model = attach(make_model(), LoRAConfig(r=2, target_modules=found), seed=0)
    places = {name.split(".lora_")[0].partition("layers.")[2] for name in adapter_tensors(model)}
    assert places == {f"{n}.self_attn.{p}_proj" for n in (0, 1) for p in "qv"} | {
        "0.self_attn.o_proj"
    }


def test_a_fresh_adapter_changes_nothing_and_follows_its_seed() -> None:
    lora = LoRAConfig(r=4, target_modules=["q_proj"])
    before = torch.get_rng_state()
    first, again, other = (attach(make_model(), lora, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(logits(first.eval()), logits(make_model()))
    for name, tensor in adapter_tensors(first).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, adapter_tensors(again)[name])
        if "lora_A" in name:
            assert not torch.equal(tensor, adapter_tensors(other)[name])


def test_alpha_scales_what_the_adapter_adds(saved: Path) -> None:
    edit_config(saved, lora_alpha=12)
    model = load_adapter(make_model(), saved)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == 12 / 3


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "regex targets": ({"target_modules": "(a+)+$"}, "list of plain module names"),
    "pattern in a list": ({"target_modules": ["(a+)+$"]}, "list of plain module names"),
    "no targets": ({"target_modules": []}, "list of plain module names"),
    "number as target": ({"target_modules": [1]}, "list of plain module names"),
    "unknown target": ({"target_modules": ["nowhere"]}, "does not fit this base"),
    "not LoRA": ({"peft_type": "PREFIX_TUNING"}, "is not a LoRA adapter"),
    "rank zero": ({"r": 0}, "r must be a positive integer"),
    "rank true": ({"r": True}, "r must be a positive integer"),
    "rank of another file": ({"r": 2}, "not of rank 2"),
    "rank beyond memory": ({"r": 10**12}, "not of rank 1000000000000"),
    "alpha missing": ({"lora_alpha": None}, "lora_alpha must be a positive integer"),
    "dora without magnitudes": ({"use_dora": True}, "says use_dora, but .* has no magnitudes"),
    "dora as a number": ({"use_dora": 1}, "use_dora must be true or false"),
    "rslora as text": ({"use_rslora": "yes"}, "use_rslora must be true or false"),
    "rslora as null": ({"use_rslora": None}, "use_rslora must be true or false"),
    "bias": ({"bias": "all"}, "bias is not supported"),
    "rank pattern": ({"rank_pattern": {"q_proj": 2}}, "rank_pattern is not supported"),
    "the first layer alone": ({"layers_to_transform": 0}, "layers_to_transform is not supported"),
    "a start from data": ({"init_lora_weights": "eva"}, "init_lora_weights is not supported"),
    "layers": ({"layers_to_transform": [0]}, "layers_to_transform is not supported"),
    "excluded": ({"exclude_modules": ["v_proj"]}, "exclude_modules is not supported"),
    "other modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save is not supported"),
    "replicated": ({"layer_replication": [[0, 2]]}, "layer_replication is not supported"),
    "base changed": ({"init_lora_weights": "pissa"}, "init_lora_weights is not supported"),
    "own code": ({"auto_map": {"x": "evil.py"}}, "auto_map is not supported"),
    "of tomorrow": ({"use_something": 1}, "use_something is not supported"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_steers_is_refused(saved: Path, case: str) -> None:
    changes, message = CONFIGS[case]
    edit_config(saved, **changes)
    with pytest.raises(IntegrityError, match=message) as error:
        load_adapter(make_model(), saved)
    assert error.value.exit_code == 5
    assert str(saved) in error.value.where


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'"x"', b"[" * 5000])
def test_a_damaged_config_is_refused(saved: Path, content: bytes | None) -> None:
    (saved / CONFIG).unlink()
    if content is not None:
        (saved / CONFIG).write_bytes(content)
    with pytest.raises(IntegrityError):
        read_adapter_config(saved)


def _first(tensors: dict[str, torch.Tensor]) -> str:
    return sorted(tensors)[0]


def _nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[_first(tensors)][0, 0] = torch.nan


def _missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[_first(tensors)]


def _renamed(tensors: dict[str, torch.Tensor]) -> None:
    name = _first(tensors)
    tensors[name.replace("layers.0", "layers.7")] = tensors.pop(name)


def _extra(tensors: dict[str, torch.Tensor]) -> None:
    tensors["more"] = torch.zeros(1)


def _misshapen(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if "lora_B" in name)
    tensors[name] = tensors[name].T.contiguous()


def _integers(tensors: dict[str, torch.Tensor]) -> None:
    name = _first(tensors)
    tensors[name] = tensors[name].int()


def _eighths(tensors: dict[str, torch.Tensor]) -> None:
    name = _first(tensors)
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)


DAMAGE = {
    _nan: r"lora_A.weight is not finite",
    _missing: "lora_A.weight is missing from the file",
    _renamed: "is missing from the file",
    _extra: "tensor more is not part of this model",
    _misshapen: "has shape",
    _integers: "holds int32, which is not supported",
    _eighths: "holds float8_e4m3fn, which is not supported",
}


@pytest.mark.parametrize("change", DAMAGE)
def test_tensors_that_do_not_fit_are_refused(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    edit_tensors(saved, change)
    with pytest.raises(IntegrityError, match=DAMAGE[change]) as error:
        load_adapter(make_model(), saved)
    assert WEIGHTS in error.value.where


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(saved: Path, keep: int) -> None:
    data = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(data[:keep])
    with pytest.raises(IntegrityError, match="is damaged"):
        load_adapter(make_model(), saved)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["adapter_model.bin", WEIGHTS])
def test_a_pickle_is_never_opened(saved: Path, tmp_path: Path, name: str) -> None:
    import pickle

    marker = tmp_path / "opened"
    (saved / WEIGHTS).unlink()
    (saved / name).write_bytes(pickle.dumps(Payload(marker)))
    reason = "is a pickle and is never opened" if name.endswith(".bin") else "is damaged"
    with pytest.raises(IntegrityError, match=reason):
        load_adapter(make_model(), saved)
    assert not marker.exists()
    pickle.loads((saved / name).read_bytes())
    assert marker.exists()


def test_the_base_that_an_adapter_names_is_not_followed(saved: Path, tmp_path: Path) -> None:
    edit_config(saved, base_model_name_or_path=str(tmp_path / "elsewhere"), revision="x")
    assert torch.equal(
        logits(load_adapter(make_model(), saved)), logits(with_adapter(make_model()))
    )
