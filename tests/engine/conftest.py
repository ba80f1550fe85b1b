"""A tokenizer and models made once, small enough to be copied and broken by any test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from swe_scaffold.engine.devices import Device
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cpu() -> Device:
    return Device("cpu", torch.float32)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"), tokenizer_folder, hidden=16)
