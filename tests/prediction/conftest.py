"""A tiny model and a few questions, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are large enough for answers that differ."""
    from safetensors.torch import load_file, save_file

    place = tmp_path_factory.mktemp("models")
    folder = tiny_model(place, tiny_tokenizer(place), hidden=16)
    tensors = load_file(folder / "model.safetensors")
    # Tied embeddings of any weight only repeat the last token.
    large = {
        name: value if value.ndim < 2 or "embed" in name else 30 * value
        for name, value in tensors.items()
    }
    save_file(large, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
