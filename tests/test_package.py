"""The public names of the package: loaded when used, documented, and nothing heavy before that."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import swe_scaffold

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    *("SpeedrunConfig", "DatasetConfig", "TrainingConfig", "LoRAConfig"),
    *("SpeedrunDatasetBuilder", "DatasetSplit", "load_conversation_dataset"),
    *("label_conversation", "SpeedrunLabel"),
    *("train_lora_model", "evaluate_model", "bootstrap_confidence_interval"),
)


def test_the_names_are_those_promised() -> None:
    assert set(swe_scaffold.__all__) == {*NAMES, "__version__"}
    assert set(swe_scaffold.__all__) <= set(dir(swe_scaffold))
    assert swe_scaffold.__all__ == sorted(swe_scaffold.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_its_home_defines_and_is_documented(name: str) -> None:
    found = getattr(swe_scaffold, name)
    assert found.__name__ == name
    assert getattr(importlib.import_module(found.__module__), name) is found
    documentation = inspect.getdoc(found) or ""
    assert documentation.split("\n")[0].endswith((".", ":")), name
    # Dataclasses without a docstring get their signature as one, enums their parent's.
    assert not documentation.startswith((f"{name}(", "str(", "Enum"))


def test_functions_document_every_argument() -> None:
    for name in NAMES:
        found = getattr(swe_scaffold, name)
        if inspect.isfunction(found):
            documentation = inspect.getdoc(found) or ""
            for argument in inspect.signature(found).parameters:
                assert f"    {argument}: " in documentation, f"{name}: {argument}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'train_model'"):
        swe_scaffold.train_model  # noqa: B018
    with pytest.raises(ImportError):
        from swe_scaffold import nothing_like_this  # type: ignore[attr-defined]  # noqa: F401


def test_the_names_cost_no_torch() -> None:
    code = (
        "import sys, swe_scaffold as s; "
        "early = [n for n in sys.modules if n.startswith('pydantic')]; "
        f"values = [getattr(s, name) for name in {NAMES!r}]; "
        "print(early, [n for n in ('torch', 'transformers', 'peft', 'datasets', 'pyarrow') "
        "if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[] []\n", "")


def test_the_version_stands_in_one_place() -> None:
    from swe_scaffold.version import VERSION

    assert swe_scaffold.__version__ == VERSION
    assert "VERSION" in (ROOT / "pyproject.toml").read_text("utf-8")
