"""A saved model is the model: it reads back equal, and its bytes depend on nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.model import find_base, load_base
from swe_scaffold.engine.saving import save_model
from swe_scaffold.errors import EnvironmentFailure
from tests.tiny import tiny_model
from tests.tiny_runs import left_over, read_json

ROOT = Path(__file__).resolve().parents[2]
IDS = torch.tensor([[5, 9, 13, 21, 34]])


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def trained(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model after training, as it were."""
    module = load_base(str(folder), Device("cpu", dtype)).module
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, tensor in sorted(module.named_parameters()):
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.01)
    return module


def logits(module: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = module(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_reads_back_equal_in_the_dtype_it_was_trained_in(
    folder: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    module = trained(folder, dtype)
    names = save_model(module, tmp_path / "out", source=folder)
    assert names == ["config.json", "generation_config.json", "model.safetensors"]
    assert sorted(left_over(tmp_path / "out")) == names
    again = load_base(str(tmp_path / "out"), Device("cpu", dtype)).module
    assert torch.equal(logits(again), logits(module))
    assert not torch.equal(
        logits(again), logits(load_base(str(folder), Device("cpu", dtype)).module)
    )
    config = read_json(tmp_path / "out" / "config.json")
    assert config.pop("dtype") == str(dtype).removeprefix("torch.")
    assert config == {k: v for k, v in read_json(folder / "config.json").items() if k != "dtype"}


def test_what_did_not_change_is_kept_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    odd = {"do_sample": False, "temperature": 0.7, "eos_token_id": [2, 3]}
    (folder / "generation_config.json").write_text(json.dumps(odd))
    module = trained(folder)
    save_model(module, tmp_path / "out", source=folder)
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    (folder / "generation_config.json").unlink()
    names = save_model(module, tmp_path / "out", source=folder)
    assert names == ["config.json", "model.safetensors"] == sorted(left_over(tmp_path / "out"))


def test_weights_beyond_a_size_are_divided_and_earlier_files_go(
    folder: Path, tmp_path: Path
) -> None:
    module, out = trained(folder), tmp_path / "out"
    save_model(module, out, source=folder)
    whole = find_base(str(out)).sha256
    (out / "notes.txt").write_text("mine")
    names = save_model(module, out, source=folder, max_shard_bytes=9000)
    shards = [name for name in names if name.startswith("model-")]
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert sorted(left_over(out)) == sorted([*names, "notes.txt"])
    assert torch.equal(
        logits(load_base(str(out), Device("cpu", torch.float32)).module), logits(module)
    )
    save_model(module, out, source=folder)
    assert find_base(str(out)).sha256 == whole
    assert not list(out.glob("model-*"))
    assert not list(out.glob("*.index.json"))


def test_a_full_disk_is_said_and_leaves_the_folder_as_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    module, out = trained(folder), tmp_path / "out"
    save_model(module, out, source=folder)
    before = left_over(out)

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "save_pretrained", full)
    with pytest.raises(EnvironmentFailure, match="No space left") as error:
        save_model(module, out, source=folder, max_shard_bytes=9000)
    assert error.value.exit_code == 4
    assert left_over(out) == before


def test_untied_heads_are_kept(tokenizer_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    place = tiny_model(tmp_path, tokenizer_folder, hidden=16)
    config = AutoModelForCausalLM.from_pretrained(place).config
    config.tie_word_embeddings = False
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(place)
    module = trained(place)
    save_model(module, tmp_path / "out", source=place)
    again = load_base(str(tmp_path / "out"), Device("cpu", torch.float32)).module
    assert torch.equal(again.lm_head.weight, module.lm_head.weight)
    assert not torch.equal(again.lm_head.weight, again.model.embed_tokens.weight)


SAVE = """
import sys
from pathlib import Path
from swe_scaffold.engine.saving import save_model
from tests.engine.test_saving import trained
model, out = map(Path, sys.argv[1:])
save_model(trained(model), out, source=model, max_shard_bytes=9000)
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save_model(trained(folder), tmp_path / "a", source=folder, max_shard_bytes=9000)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", SAVE, str(folder), str(tmp_path / "b")]
    subprocess.run(command, env=environment, check=True)
    assert left_over(tmp_path / "a") == left_over(tmp_path / "b")
