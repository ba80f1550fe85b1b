"""A model, its rows, and one finished run, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_runs import examples, make_config, train, write_split


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return tiny_model(folder, tiny_tokenizer(folder), hidden=16)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows to train, six held out, and the manifest that names both."""
    folder = tmp_path_factory.mktemp("data")
    return write_split(folder / "rows.jsonl", examples(0, 12), examples(12, 18))


@pytest.fixture(scope="session")
def uninterrupted(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `make_config` as it stands: not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(make_config(model, folder), data)
    return folder


@pytest.fixture
def finished(uninterrupted: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(uninterrupted, tmp_path / "run"))


@pytest.fixture
def half(finished: Path) -> Path:
    """A copy of the run as it was after step 4, killed on the way to step 5."""
    for name in ("manifest.json", "adapter_model.safetensors", "adapter_config.json", "README.md"):
        (finished / name).unlink()
    shutil.rmtree(finished / "checkpoints" / "step-6")
    return finished
