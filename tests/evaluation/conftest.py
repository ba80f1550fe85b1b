"""A model, rows of four repositories, and a finished run to evaluate, made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_runs import examples, make_config, train, write_split


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, rows and their hold-out, and a run: not to be changed."""
    place = tmp_path_factory.mktemp("made")
    model = tiny_model(place, tiny_tokenizer(place), hidden=16)
    model.rename(place / "model")
    data = write_split(place / "rows.jsonl", examples(0, 12), examples(12, 24))
    train(make_config(place / "model", place / "run"), data)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of it, moved as a whole."""
    return Path(shutil.copytree(made, tmp_path / "moved"))


@pytest.fixture(autouse=True)
def nothing_evaluated(made: Path) -> Iterator[None]:
    """No test finds the scores of another."""
    yield
    shutil.rmtree(made / "run" / "evaluation", ignore_errors=True)
