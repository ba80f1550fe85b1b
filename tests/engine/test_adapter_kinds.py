"""DoRA and rsLoRA: PEFT's own numbers in every direction, and a merge that is PEFT's."""

from __future__ import annotations

import json
import math
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
    save_adapter,
)
from swe_scaffold.engine.adapter_config import CONFIG
from swe_scaffold.engine.merging import plan_merge, write_merged
from swe_scaffold.errors import ConfigError, IntegrityError
from tests.engine.shapes import make_model, stirred, with_adapter

KINDS: dict[str, dict[str, bool]] = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "both": {"use_dora": True, "use_rslora": True},
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
IDS = torch.tensor([[5, 9, 13, 21, 34]])

kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def foreign(folder: Path, kind: str, *, dtype: str = "float32") -> Path:
    """An adapter that plain PEFT made and saved."""
    from peft import LoraConfig, get_peft_model

    options = LoraConfig(
        task_type="CAUSAL_LM",
        r=3,
        lora_alpha=6,
        target_modules=["q_proj", "up_proj"],
        **KINDS[kind],
    )
    torch.manual_seed(4)
    model = make_model().to(DTYPES[dtype])
    stirred(get_peft_model(model, options)).save_pretrained(str(folder))
    return folder


def base_folder(place: Path, dtype: str) -> Path:
    make_model().to(DTYPES[dtype]).save_pretrained(place / "base")
    return place / "base"


def read(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = load_file(path)
    return found


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    from safetensors.torch import save_file

    tensors = read(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


@kinds
@dtypes
def test_an_adapter_of_plain_peft_computes_as_in_peft(
    tmp_path: Path, kind: str, dtype: str
) -> None:
    from peft import PeftModel

    folder = foreign(tmp_path, kind, dtype=dtype)
    theirs = PeftModel.from_pretrained(make_model().to(DTYPES[dtype]), str(folder)).eval()
    ours = load_adapter(make_model().to(DTYPES[dtype]), folder)
    assert torch.equal(logits(ours), logits(theirs))
    assert not torch.allclose(logits(ours), logits(make_model().to(DTYPES[dtype])), atol=1e-1)
    # The options decide: without them the same matrices say something else.
    scale = 6 / math.sqrt(3) if "use_rslora" in KINDS[kind] else 2.0
    assert ours.get_base_model().model.layers[0].mlp.up_proj.scaling["default"] == scale


@kinds
def test_peft_computes_the_same_with_an_adapter_of_ours(tmp_path: Path, kind: str) -> None:
    from peft import PeftModel

    model = with_adapter(make_model(), **KINDS[kind])
    save_adapter(model, tmp_path, base_name="tiny")
    theirs = PeftModel.from_pretrained(make_model(), str(tmp_path)).eval()
    assert torch.equal(logits(theirs), logits(model.eval()))
    config = json.loads((tmp_path / CONFIG).read_bytes())
    assert {key: config[key] for key in ("use_dora", "use_rslora")} == {
        "use_dora": False,
        "use_rslora": False,
        **KINDS[kind],
    }
    again = load_adapter(make_model(), tmp_path)
    save_adapter(again, tmp_path / "again", base_name="tiny")
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_fresh_adapter_changes_nothing_in_any_dtype(kind: str, dtype: torch.dtype) -> None:
    lora = LoRAConfig(r=3, target_modules="all-linear", **KINDS[kind])
    model = attach(make_model().to(dtype), lora, seed=1).eval()
    assert torch.equal(logits(model), logits(make_model().to(dtype)))
    assert {tensor.dtype for tensor in adapter_tensors(model).values()} == {torch.float32}


@kinds
@dtypes
def test_a_merge_is_that_of_peft(tmp_path: Path, kind: str, dtype: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = base_folder(tmp_path, dtype)
    adapter = foreign(tmp_path / "adapter", kind, dtype=dtype)
    plan = plan_merge(str(base), adapter, max_shard_bytes=1 << 40, offline=True)
    write_merged(plan, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=DTYPES[dtype])
    tuned = PeftModel.from_pretrained(model, str(adapter)).eval()
    wanted = logits(tuned).float()
    theirs = dict(tuned.merge_and_unload().state_dict())
    ours = read(tmp_path / "model.safetensors")
    for name, tensor in ours.items():
        if dtype == "float32":
            torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=1e-6)
        else:
            # Two orders of float32 sums, rounded: now and then to neighbours.
            assert int((tensor != theirs[name]).sum()) <= 2, name
    merged = AutoModelForCausalLM.from_pretrained(base, dtype=DTYPES[dtype])
    merged.load_state_dict(ours, strict=False)
    assert len(ours) >= len(theirs) - 1
    difference = (logits(merged).float() - wanted).abs().max() / wanted.abs().max()
    assert difference < (1e-5 if dtype == "float32" else 5e-2)


def drop_one(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[next(name for name in sorted(tensors) if "magnitude" in name)]


def drop_all(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "magnitude" in name]:
        del tensors[name]


@pytest.mark.parametrize("change", [drop_one, drop_all])
def test_magnitudes_that_are_missing_are_missed(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    adapter = foreign(tmp_path / "adapter", "dora")
    edit(adapter, change)
    message = r"the config says use_dora, but .*layers.0.*_proj has no magnitudes"
    with pytest.raises(IntegrityError, match=message):
        load_adapter(make_model(), adapter)
    with pytest.raises(IntegrityError, match=message) as error:
        plan_merge(str(base_folder(tmp_path, "float32")), adapter, max_shard_bytes=1 << 40)
    assert error.value.exit_code == 5


def test_magnitudes_of_which_the_config_knows_nothing_are_refused(tmp_path: Path) -> None:
    adapter = foreign(tmp_path, "dora")
    config = json.loads((adapter / CONFIG).read_bytes())
    (adapter / CONFIG).write_text(json.dumps({**config, "use_dora": False}))
    with pytest.raises(IntegrityError, match="does not say use_dora"):
        load_adapter(make_model(), adapter)


def test_a_row_of_zeros_has_no_length_to_be_learnt(tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[3] = 0.0
    lora = LoRAConfig(r=3, target_modules=["q_proj", "k_proj"], use_dora=True)
    with pytest.raises(ConfigError, match=r"layers\.1\.self_attn\.k_proj has a row of zeros") as e:
        attach(model, lora, seed=0)
    assert e.value.where == "training.lora.use_dora"


def test_a_merge_into_a_row_of_zeros_is_refused(tmp_path: Path) -> None:
    adapter = foreign(tmp_path / "adapter", "dora")
    base = base_folder(tmp_path, "float32")

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if "lora_B" in name)
        tensors[name][2] = 0.0

    edit(adapter, spoil)
    from safetensors.torch import save_file

    weights = read(base / "model.safetensors")
    for name in [name for name in weights if "layers.0" in name and "proj.weight" in name]:
        weights[name][2] = 0.0
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    plan = plan_merge(str(base), adapter, max_shard_bytes=1 << 40)
    with pytest.raises(IntegrityError, match="has a row of zeros"):
        write_merged(plan, tmp_path / "out")
