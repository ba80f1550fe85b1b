"""A run on a base in 4 bits, and what evaluates, exports and describes it afterwards (CPU only)."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.config import EvaluationConfig
from swe_scaffold.errors import MissingExtra
from swe_scaffold.evaluation import Evaluation, evaluate_model, evaluate_models
from swe_scaffold.export import ExportOptions, export_model
from swe_scaffold.models import find_model
from swe_scaffold.prediction.local import load_local
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_runs import (
    evaluations,
    examples,
    make_config,
    read_json,
    train,
    write_split,
)

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="needs the extra `quantized`"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("quantized")
    tiny_model(place, tiny_tokenizer(place), hidden=64).rename(place / "model")
    data = write_split(place / "rows.jsonl", examples(0, 12), examples(12, 18))
    train(make_config(place / "model", place / "run", quantization="nf4"), data)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "moved"))


def evaluate(place: Path, output: str = "scores", **settings: Any) -> Evaluation:
    config = EvaluationConfig(iterations=50, **settings)
    options = {"config": config, "output": place / output, "offline": True, "compare_base": True}
    return evaluate_model(place / "run", place / "rows.test.jsonl", **options)


def test_without_the_package_nothing_is_begun(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra, match="bitsandbytes is not installed"):
        train(make_config(model, tmp_path / "run", quantization="nf4"), data)
    assert not (tmp_path / "run").exists()


@needs_bitsandbytes
def test_an_evaluation_is_of_the_base_it_was_trained_on(place: Path) -> None:
    assert find_model(str(place / "run")).quantization == "nf4"
    four = evaluate(place)
    assert four.report["model"]["quantization"] == "nf4"
    # The number that the run itself saw, and the base it began with.
    first, *_, last = evaluations(place / "run")
    assert four.report["unseen"]["nll"]["value"] == pytest.approx(last["eval_nll"], rel=1e-6)
    assert four.report["base"]["nll"]["value"] == pytest.approx(first["eval_nll"], rel=1e-6)
    plain = evaluate(place, "plain", quantization="none")
    assert plain.report["model"]["quantization"] == "none"
    assert plain.report["key"] != four.report["key"]
    for part in ("unseen", "base"):
        gap = plain.report[part]["nll"]["value"] - four.report[part]["nll"]["value"]
        assert 1e-6 < abs(gap) < 0.1


@needs_bitsandbytes
def test_a_base_alone_is_scored_as_it_is_stored(place: Path) -> None:
    config = EvaluationConfig(iterations=50)
    base, run = evaluate_models(
        [place / "model", place / "run"],
        place / "rows.test.jsonl",
        config=config,
        output=place / "scores",
        offline=True,
    )
    found = [one.report["model"]["quantization"] for one in (base, run)]
    assert found == ["none", "nf4"]


@needs_bitsandbytes
def test_predictions_come_from_the_base_it_was_trained_on(place: Path) -> None:
    model = load_local(str(place / "run"), offline=True)
    assert model.identity()["quantization"] == "nf4"


@needs_bitsandbytes
def test_an_export_is_of_the_stored_weights_and_says_so(place: Path) -> None:
    out = place / "out"
    export_model(place / "run", out, ExportOptions(offline=True))
    assert find_model(str(out)).quantization == "none"
    proof = read_json(out / "manifest.json")["export"]
    assert proof["proof"]["difference"] < 1e-4
    (note,) = proof["notes"]
    assert "trained on its base in nf4" in note
    card = (out / "README.md").read_text("utf-8")
    assert "the evaluations of the run are not of this model" in card
    assert "trained with the base in 4 bits (nf4)" in card
    run = (place / "run" / "README.md").read_text("utf-8")
    assert "trained with the base in 4 bits (nf4)" in run


@needs_bitsandbytes
def test_the_run_says_what_its_base_was(place: Path) -> None:
    decisions = {
        one["key"]: one["value"] for one in read_json(place / "run" / "manifest.json")["decisions"]
    }
    assert decisions["quantization"] == "nf4"
