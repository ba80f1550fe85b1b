"""A finished run to export, its rows and its evaluation, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swe_scaffold.evaluation import evaluate_model
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_runs import examples, make_config, train, write_split


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, rows and their hold-out, and a run: not to be changed."""
    place = tmp_path_factory.mktemp("made")
    train_in(place)
    evaluate_model(place / "run", place / "rows.test.jsonl", compare_base=True)
    return place


def train_in(
    place: Path, *, change: Callable[[Path], None] = lambda _: None, **training: Any
) -> None:
    """Write a model, change it, write rows and their hold-out, and train a run."""
    model = tiny_model(place, tiny_tokenizer(place), hidden=16)
    model.rename(place / "model")
    change(place / "model")
    data = write_split(place / "rows.jsonl", examples(0, 12), examples(12, 18))
    train(make_config(place / "model", place / "run", **training), data)


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of it, moved as a whole."""
    return Path(shutil.copytree(made, tmp_path / "moved"))
