"""A full fine-tuning is a base with a past: scored, compared, answered, exported and described."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.config import EvaluationConfig
from swe_scaffold.engine.model import find_base
from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.evaluation import Evaluation, evaluate_model, evaluate_models
from swe_scaffold.export import ExportOptions, export_model
from swe_scaffold.models import find_model
from swe_scaffold.prediction.local import load_local
from swe_scaffold.report import run_page
from swe_scaffold.scores import read_evaluation
from swe_scaffold.training import folder as run_folder
from tests.tiny_runs import flip_byte, left_over, make_config, read_json, train


@pytest.fixture(scope="module")
def with_full(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Path(shutil.copytree(made, tmp_path_factory.mktemp("full") / "place"))
    config = make_config(place / "model", place / "full", finetuning="full", learning_rate=1e-3)
    train(config, place / "rows.jsonl")
    return place


@pytest.fixture
def place(with_full: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(with_full, tmp_path / "moved"))


def evaluate(place: Path, data: str = "rows.test.jsonl", **options: Any) -> Evaluation:
    config = EvaluationConfig(iterations=50, tokens_per_batch=96)
    model = options.pop("model", place / "full")
    return evaluate_model(model, place / data, config=config, offline=True, **options)


def test_it_knows_its_rows_its_base_and_itself(place: Path) -> None:
    full, run = find_model(str(place / "full")), find_model(str(place / "run"))
    assert full.trained == run.trained
    assert full.adapter is None
    assert full.base_sha256 == find_base(str(place / "full")).sha256
    assert Path(str(full.origin)).resolve() == place / "model"
    assert full.origin_sha256 == run.base_sha256 == find_base(str(place / "model")).sha256
    manifest = read_json(place / "full" / "manifest.json")
    assert (manifest["kind"], manifest["model"]["name"]) == ("model", "full")


def test_its_evaluation_lies_in_the_run_and_is_paired_with_its_base(place: Path) -> None:
    found = evaluate(place, compare_base=True)
    assert found.path.parent == place / "full" / "evaluation"
    assert found.report["rows_unseen"] == 12
    assert found.report["model"]["adapter_sha256"] is None
    assert found.report["comparison"] is not None
    alone = evaluate(place, model=place / "model", output=place / "alone")
    below = read_evaluation(found.path / "base")
    assert [row.nll_sum for row in below.scores] == [row.nll_sum for row in alone.scores]
    assert [row.nll_sum for row in found.scores] != [row.nll_sum for row in alone.scores]
    # Used again, and the pair stays.
    assert evaluate(place).report["comparison"] is not None
    assert evaluate(place, "rows.jsonl").report["rows_seen_in_training"] == 12


def test_several_models_are_scored_side_by_side(place: Path) -> None:
    names = [place / "full", place / "run", place / "model"]
    config = EvaluationConfig(iterations=50)
    rows, out = place / "rows.test.jsonl", place / "out"
    options = {"config": config, "output": out, "base": str(place / "model"), "offline": True}
    found = evaluate_models(names, rows, **options)
    assert len({one.scores[0].nll_sum for one in found}) == 3
    assert {one.report["data"]["max_length"] for one in found} == {128}


def test_a_base_that_moved_is_asked_for_and_another_is_refused(place: Path) -> None:
    (place / "model").rename(place / "elsewhere")
    assert evaluate(place).report["comparison"] is None
    with pytest.raises(UsageError, match="is not where it was") as error:
        evaluate(place, compare_base=True)
    assert "--base" in error.value.hint
    moved = str(place / "elsewhere")
    assert evaluate(place, compare_base=True, base=moved).report["comparison"] is not None
    flip_byte(place / "elsewhere" / "model.safetensors", -3)
    with pytest.raises(IntegrityError, match="not the weights on record"):
        evaluate(place, compare_base=True, base=moved, fresh=True)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "trained_rows.json"])
def test_a_changed_file_is_refused(place: Path, name: str) -> None:
    flip_byte(place / "full" / name)
    with pytest.raises(IntegrityError, match="does not match its recorded SHA-256"):
        find_model(str(place / "full"))


def test_one_that_has_not_finished_is_no_model(place: Path) -> None:
    (place / "full" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="has not finished"):
        evaluate(place)


def test_it_answers(place: Path) -> None:
    model = load_local(str(place / "full"), offline=True)
    assert (model.name, model.identity()["adapter_sha256"]) == ("full", None)
    assert model.identity()["base_sha256"] == find_model(str(place / "full")).base_sha256


def test_its_export_is_the_weights_with_cards(place: Path) -> None:
    evaluate(place, compare_base=True)
    result = export_model(place / "full", place / "out", ExportOptions(offline=True))
    out, full = left_over(place / "out"), left_over(place / "full")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "trained_rows.json"):
        assert out[name] == full[name]
    assert result.manifest["kind"] == "model"
    assert result.manifest["model"]["sha256"] == find_model(str(place / "full")).base_sha256
    card = out["README.md"].decode()
    assert "every one of them fine-tuned." in card
    assert "### On rows.test.jsonl" in card
    assert "- lora" not in card
    assert "lora.r" not in card
    scored = evaluate(place, model=place / "out", output=place / "scores")
    assert scored.report["rows_unseen"] == 12
    with pytest.raises(UsageError, match="no finished run"):
        export_model(place / "out", place / "again", ExportOptions(offline=True))
    for name in out:
        assert str(place.parent).encode() not in out[name], name


@pytest.mark.parametrize("option", [{"adapter_only": True}, {"dtype": "bfloat16"}])
def test_what_needs_an_adapter_is_refused(place: Path, option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="every weight was trained in this run"):
        export_model(place / "full", place / "out", ExportOptions(offline=True, **option))
    assert not (place / "out").exists()


def test_its_page_tells_its_own_evaluation_from_others(place: Path) -> None:
    found = evaluate(place, compare_base=True)
    other = "of other weights than those in this folder"
    page = run_page(place / "full")
    assert other not in page
    report = read_json(found.path / "evaluation.json")
    report["model"]["base_sha256"] = "0" * 64
    assert other in run_page(place / "full", evaluation=report)


def test_an_overwritten_run_leaves_nothing_of_it(place: Path) -> None:
    (place / "full" / "model-00001-of-00002.safetensors").write_bytes(b"")
    (place / "full" / "notes.txt").write_text("mine")
    run_folder.clear(place / "full")
    assert sorted(path.name for path in (place / "full").iterdir()) == [".lock", "notes.txt"]
