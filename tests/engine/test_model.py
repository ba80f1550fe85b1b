"""Base models: every tensor accounted for, nothing of the folder run, nothing printed."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.model import load_base
from swe_scaffold.errors import IntegrityError, OutOfMemory, UsageError
from swe_scaffold.start_up import starting
from tests.tiny import tiny_model

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def shard(folder: Path) -> list[Path]:
    """Cut the weights into two files with an index."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    files = [folder / f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    places = {}
    for part, file in zip((names[::2], names[1::2]), files, strict=True):
        save_file({name: tensors[name] for name in part}, file, metadata={"format": "pt"})
        places.update(dict.fromkeys(part, file.name))
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


def refused(folder: Path, cpu: Device, message: str) -> IntegrityError:
    with pytest.raises(IntegrityError, match=message) as error:
        load_base(str(folder), cpu)
    assert error.value.exit_code == 5
    assert str(folder) in error.value.where
    return error.value


def test_a_model_is_loaded_frozen_in_the_dtype_asked_for(folder: Path, cpu: Device) -> None:
    base = load_base(str(folder), cpu)
    assert not base.module.training
    assert {tensor.dtype for tensor in base.module.parameters()} == {torch.float32}
    assert not any(tensor.requires_grad for tensor in base.module.parameters())
    assert (base.vocab_size, base.context_length) == (400, 4096)
    half = load_base(str(folder), Device("cpu", torch.bfloat16))
    assert {tensor.dtype for tensor in half.module.parameters()} == {torch.bfloat16}
    assert half.sha256 == base.sha256


def test_with_the_base_loaded_a_program_has_started(folder: Path, cpu: Device) -> None:
    usual = gc.get_threshold()
    with starting():
        assert gc.get_threshold() > usual
        load_base(str(folder), cpu)
        assert (gc.get_threshold(), gc.get_freeze_count() > 0) == (usual, True)


def test_loading_prints_nothing_and_leaves_the_library_as_it_was(
    folder: Path, cpu: Device, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging as library

    before = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_info()
    library.enable_progress_bar()
    try:
        load_base(str(folder), cpu)
        assert library.get_verbosity() == library.INFO
        assert library.is_progress_bar_enabled()
        assert capfd.readouterr() == ("", "")
    finally:
        library.set_verbosity(before[0])
        if not before[1]:
            library.disable_progress_bar()


def test_the_hash_covers_config_and_weights(
    folder: Path, cpu: Device, tokenizer_folder: Path, tmp_path: Path
) -> None:
    wanted = load_base(str(folder), cpu).sha256
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    assert load_base(str(moved), cpu).sha256 == wanted
    (moved / "README.md").write_text("other")
    assert load_base(str(moved), cpu).sha256 == wanted
    edit_config(moved, rms_norm_eps=1e-5)
    assert load_base(str(moved), cpu).sha256 != wanted
    other = tiny_model(tmp_path, tokenizer_folder, seed=1, hidden=16)
    assert load_base(str(other), cpu).sha256 != wanted


def test_shards_are_loaded_and_hashed(folder: Path, cpu: Device) -> None:
    whole = load_base(str(folder), cpu)
    files = shard(folder)
    sharded = load_base(str(folder), cpu)
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        assert torch.equal(sharded.module(ids).logits, whole.module(ids).logits)
    # A stray file that nothing loads is no part of the model.
    shutil.copyfile(files[0], folder / "consolidated.safetensors")
    assert load_base(str(folder), cpu).sha256 == sharded.sha256
    files[1].unlink()
    refused(folder, cpu, r"shard model-00002-of-00002.safetensors is missing")


@pytest.mark.parametrize(
    "places", [{"a": "../x.safetensors"}, {"a": "x.bin"}, {"a": 1}, {"a": ["x"]}, {}, None, ["x"]]
)
def test_an_index_that_points_elsewhere_is_refused(
    folder: Path, cpu: Device, places: object
) -> None:
    (folder / WEIGHTS).rename(folder.parent / "x.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    refused(folder, cpu, "names")


def test_a_missing_tensor_is_an_error_and_not_a_random_one(folder: Path, cpu: Device) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    edit_tensors(folder, lambda tensors: tensors.pop(name))
    refused(folder, cpu, f"1 missing tensors, first: {name}")


def test_a_renamed_tensor_is_an_error(folder: Path, cpu: Device) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.upward.weight"] = tensors.pop(
            "model.layers.1.mlp.up_proj.weight"
        )

    edit_tensors(folder, rename)
    refused(folder, cpu, "1 missing tensors")


def test_more_layers_than_the_config_says_are_an_error(folder: Path, cpu: Device) -> None:
    edit_config(folder, num_hidden_layers=1, layer_types=["full_attention"])
    refused(folder, cpu, "unexpected tensors")


def test_a_tensor_of_another_shape_is_an_error(folder: Path, cpu: Device) -> None:
    edit_config(folder, intermediate_size=48)
    refused(folder, cpu, "cannot be loaded|mismatched")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", [0, 3, -1])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_tensor_that_is_not_finite_is_refused(
    folder: Path, dtype: torch.dtype, place: int, value: float
) -> None:
    name = "model.norm.weight"
    edit_tensors(folder, lambda tensors: tensors[name].__setitem__(place, value))
    refused(folder, Device("cpu", dtype), f"tensor {name} is not finite")


def test_an_overflow_of_the_dtype_asked_for_is_refused(folder: Path) -> None:
    name = "model.norm.weight"
    edit_tensors(folder, lambda tensors: tensors[name].__setitem__(3, 1e5))
    load_base(str(folder), Device("cpu", torch.float32))
    refused(folder, Device("cpu", torch.float16), f"tensor {name} is not finite")


@pytest.mark.parametrize("keep", [0, 20, 2000, -1])
def test_truncated_weights_are_refused(folder: Path, cpu: Device, keep: int) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:keep])
    refused(folder, cpu, "cannot be loaded")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_unopened(folder: Path, cpu: Device, name: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(b"\x80\x04not even a pickle")
    error = refused(folder, cpu, f"only pickled weights .{name}")
    assert "safetensors" in error.hint


def test_a_folder_without_weights_is_refused(folder: Path, cpu: Device) -> None:
    (folder / WEIGHTS).unlink()
    refused(folder, cpu, "no model.safetensors")


def test_code_of_the_folder_is_refused_and_not_run(folder: Path, cpu: Device) -> None:
    marker = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    edit_config(folder, auto_map={"AutoModelForCausalLM": "evil.Model"})
    refused(folder, cpu, "wants to run its own code")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attn_implementation": "someone/kernel"}, "kernels fetched and run"),
        ({"_attn_implementation": "someone/kernel:f"}, "kernels fetched and run"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
        ({"model_type": "no-such-model"}, "cannot be loaded"),
        ({"hidden_size": "wide"}, "cannot be loaded"),
        ({"num_attention_heads": 0}, "cannot be loaded"),
    ],
)
def test_a_config_that_steers_or_makes_no_sense_is_refused(
    folder: Path, cpu: Device, changes: dict[str, Any], message: str
) -> None:
    edit_config(folder, **changes)
    refused(folder, cpu, message)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"[" * 5000])
def test_a_damaged_config_is_refused(folder: Path, cpu: Device, content: bytes | None) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    refused(folder, cpu, "config.json|not JSON|not a JSON object")


def test_a_folder_in_place_of_the_config_is_refused(folder: Path, cpu: Device) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    refused(folder, cpu, "cannot be read: Is a directory")


def test_an_adapter_planted_in_the_folder_does_not_redirect_it(
    folder: Path, cpu: Device, tokenizer_folder: Path, tmp_path: Path
) -> None:
    """Transformers itself would load the base that the adapter's config names."""
    other = tiny_model(tmp_path, tokenizer_folder, seed=1, hidden=16)
    planted = {"peft_type": "LORA", "base_model_name_or_path": str(other)}
    (folder / "adapter_config.json").write_text(json.dumps(planted))
    refused(folder, cpu, "an adapter lies in this folder")


def test_a_name_that_is_nothing_is_refused(cpu: Device, tmp_path: Path) -> None:
    for name in (str(tmp_path / "nowhere"), "https://example.org/x", "-x", ""):
        with pytest.raises(UsageError):
            load_base(name, cpu)


def test_a_model_that_does_not_fit_is_out_of_memory(
    folder: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(OutOfMemory, match="out of memory in loading"):
        load_base(str(folder), cpu)


def test_the_public_name_says_nothing_of_this_machine(
    folder: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    for name in (str(folder), "model", "./model/", "~/model", "model/../model"):
        base = load_base(name, cpu)
        assert base.public_name == "model", name
        assert base.is_local
