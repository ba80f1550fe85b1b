"""benchmarks/gpu_smoke.py: the same code on a tiny shape, and one line where there is no device."""

from __future__ import annotations

import json

import pytest

from benchmarks import gpu_smoke

pytestmark = pytest.mark.slow


def test_the_tiny_shape_learns_and_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_smoke.main(["--tiny", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    result = json.loads(printed.out)
    assert result["steps"] == 20
    assert result["loss_last"] < result["loss_first"]
    assert min(result["tokens_per_second"], result["peak_memory_bytes"]) > 0
    assert gpu_smoke.main(["--tiny"]) == 0
    assert "20 steps: loss " in capsys.readouterr().out


def test_the_large_shape_is_that_of_qwen() -> None:
    from transformers import AutoModelForCausalLM, Qwen2Config

    shape = gpu_smoke.QWEN_3B
    config = Qwen2Config(
        **{name: getattr(shape, name) for name in gpu_smoke.SIZES}, tie_word_embeddings=True
    )
    import torch

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(tensor.numel() for tensor in model.parameters()) == 3_085_938_688


def test_without_a_device_it_ends_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_smoke.main([]) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: there is no CUDA device")
    assert printed.err.count("\n") == 1
