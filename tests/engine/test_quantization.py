"""Bases in 4 bits: what is checked of them, what they compute, and what is said where they cannot.

Most of it needs bitsandbytes, which no other part does; its CPU backend is what is tried here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from swe_scaffold.config import LoRAConfig
from swe_scaffold.engine import quantization
from swe_scaffold.engine.adapter import adapter_size, attach
from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.flops import StepWork
from swe_scaffold.engine.loading import LastBase
from swe_scaffold.engine.model import load_base
from swe_scaffold.engine.quantization import require_quantizer
from swe_scaffold.errors import EnvironmentFailure, IntegrityError, MissingExtra
from swe_scaffold.models import ModelReference
from tests.engine.shapes import gradients, stirred
from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[2]
IDS = torch.tensor([[5, 9, 13, 21, 34, 55]])
needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="needs the extra `quantized`"
)


@pytest.fixture(scope="session")
def wide_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """Rows of 64 numbers and more: see `test_a_library_that_reads_its_bits_wrong_is_caught`."""
    return tiny_model(tmp_path_factory.mktemp("wide"), tokenizer_folder, hidden=64)


@pytest.fixture
def folder(wide_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(wide_folder, tmp_path / "model"))


def quantised(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return load_base(str(folder), Device("cpu", dtype), quantization="nf4")


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_where_the_package_is_missing_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra, match="bitsandbytes is not installed") as error:
        quantised(folder)
    assert error.value.exit_code == 4
    assert "[quantized]" in error.value.hint


def test_a_device_that_cannot_is_refused() -> None:
    with pytest.raises(EnvironmentFailure, match="the device here is mps") as error:
        require_quantizer("nf4", Device("mps", torch.float32))
    assert error.value.exit_code == 4
    require_quantizer("none", Device("mps", torch.float32))


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_linear_modules_are_quantised_and_within_half_a_step(
    folder: Path, dtype: torch.dtype
) -> None:
    plain = load_base(str(folder), Device("cpu", torch.float32))
    base = quantised(folder, dtype)
    from peft.utils.integrations import dequantize_module_weight

    assert (base.sha256, base.vocab_size) == (plain.sha256, plain.vocab_size)
    assert (base.quantization, plain.quantization) == ("nf4", "none")
    assert not base.module.training
    assert not any(tensor.requires_grad for tensor in base.module.parameters())
    linear = 0
    weights = dict(plain.module.named_parameters(remove_duplicate=False))
    for name, child in base.module.named_modules():
        if type(child).__name__ != "Linear4bit":
            for key, tensor in child.named_parameters(recurse=False):
                wanted = weights[f"{name}.{key}".lstrip(".")].to(dtype)
                assert torch.equal(tensor, wanted), name
            continue
        linear += 1
        weight = weights[f"{name}.weight"]
        error = (dequantize_module_weight(child).float() - weight).abs().max()
        # The widest gap of NF4 is 0.304 of a block's largest weight.
        assert 0 < error < 0.16 * weight.abs().max(), name
    assert linear == 2 * 7
    assert base.module.get_output_embeddings().weight.dtype == dtype


@needs_bitsandbytes
def test_every_stored_tensor_is_accounted_for_and_finite(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"

    def overflow(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][3, 5] = torch.nan

    def lose(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["more.weight"] = torch.zeros(2)

    for number, (change, message) in enumerate(
        [(overflow, f"{name} is not finite"), (lose, "1 missing tensors"), (add, "1 unexpected")]
    ):
        broken = Path(shutil.copytree(folder, folder.parent / f"broken-{number}"))
        edit(broken, change)
        with pytest.raises(IntegrityError, match=message):
            quantised(broken)


@needs_bitsandbytes
def test_a_library_that_reads_its_bits_wrong_is_caught(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bitsandbytes 0.50.2 does for rows of 16 numbers, on CPUs with AVX512."""
    from bitsandbytes import functional

    real = functional.dequantize_4bit

    def shifted(*arguments: Any, **options: Any) -> torch.Tensor:
        found: torch.Tensor = real(*arguments, **options)
        return found.roll(1, dims=0)

    monkeypatch.setattr(functional, "dequantize_4bit", shifted)
    with pytest.raises(EnvironmentFailure, match=r"proj\.weight as it was") as error:
        quantised(folder)
    assert error.value.exit_code == 4


@needs_bitsandbytes
def test_a_base_stored_without_the_first_part_of_its_names_is_compared_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shorten(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    whole = quantised(folder)
    edit(folder, shorten)
    compared: list[bool] = []
    real = quantization._is_near
    monkeypatch.setattr(
        quantization, "_is_near", lambda *given: compared.append(True) or real(*given)
    )
    with torch.no_grad():
        assert torch.equal(loss(quantised(folder).module), loss(whole.module))
    assert len(compared) == 2 * 7


@needs_bitsandbytes
def test_a_weight_that_is_stored_under_no_name_is_refused(folder: Path) -> None:
    module = quantised(folder).module
    lonely = folder / "lonely.safetensors"
    save_file({"model.norm.weight": torch.ones(2)}, lonely)
    with pytest.raises(EnvironmentFailure, match="nothing is stored under the name"):
        quantization.require_faithful(module, [lonely])


@needs_bitsandbytes
def test_the_work_of_a_step_is_that_of_the_same_products(folder: Path) -> None:
    plain = load_base(str(folder), Device("cpu", torch.float32)).module
    assert StepWork.of(quantised(folder).module) == StepWork.of(plain)


def tuned(folder: Path, **kind: bool) -> Any:
    lora = LoRAConfig(r=3, dropout=0.0, target_modules="all-linear", **kind)
    return attach(quantised(folder).module, lora, seed=1)


def loss(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS, labels=IDS).loss
    return found


@needs_bitsandbytes
@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_a_score_between_two_passes_changes_nothing(folder: Path, use_dora: bool) -> None:
    model = stirred(tuned(folder, use_dora=use_dora))
    model.train()
    first = loss(model)
    first.backward()
    before = gradients(model)
    assert all(bool(grad.abs().sum() > 0) for grad in before.values())
    model.eval()
    with torch.no_grad():
        scored = loss(model)
    model.train()
    loss(model).backward()
    assert scored == first
    for name, grad in gradients(model).items():
        assert torch.equal(grad, before[name]), name


@needs_bitsandbytes
def test_a_fresh_dora_adapter_changes_nothing(folder: Path) -> None:
    model = tuned(folder, use_dora=True).eval()
    with torch.no_grad():
        assert torch.equal(loss(model), loss(quantised(folder).module))


@needs_bitsandbytes
def test_parameters_are_counted_as_if_none_shared_a_byte(folder: Path) -> None:
    lora = LoRAConfig(r=3, target_modules="all-linear")
    plain = attach(load_base(str(folder), Device("cpu", torch.float32)).module, lora, seed=1)
    assert adapter_size(tuned(folder)) == adapter_size(plain)


@needs_bitsandbytes
def test_a_base_is_shared_only_with_its_own_kind(folder: Path) -> None:
    models = LastBase(dtype="float32", offline=True)
    plain = ModelReference(str(folder), str(folder))
    four = ModelReference(str(folder), str(folder), quantization="nf4")
    first = models.take(four).module
    assert models.take(four).module is first
    assert type(models.take(plain).module.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert type(models.take(four).module.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"


FAKE = """
from pathlib import Path
def get_kernel(*names, **options):
    Path(__file__).with_name("asked").write_text(repr(names))
    raise RuntimeError("fetched")
"""
ATTACH = """
import torch
from swe_scaffold.config import LoRAConfig
from swe_scaffold.engine.adapter import attach
from tests.engine.shapes import make_model
attach(make_model(), LoRAConfig(target_modules=["q_proj"]), seed=0)
import kernels, sys
assert "bitsandbytes" in sys.modules
assert kernels.get_kernel
"""


@needs_bitsandbytes
@pytest.mark.slow
def test_no_kernel_is_fetched_where_the_package_for_that_is_installed(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(FAKE)
    path = os.pathsep.join([str(ROOT), str(tmp_path), *filter(None, sys.path)])
    run = subprocess.run(
        [sys.executable, "-c", ATTACH],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "asked").exists()
    assert run.stderr == ""
