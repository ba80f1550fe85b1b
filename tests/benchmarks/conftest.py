"""The benchmarks' own modules, found as their commands find them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
# As train_contenders names them.
OURS, TRL, LITGPT, SEED = (
    "ours, bfloat16",
    "TRL, best-tuned",
    "litgpt, best-tuned",
    "the seed's way",
)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module of the benchmarks by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module
