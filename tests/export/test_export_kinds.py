"""Merges of DoRA and rsLoRA: proven as any other, told by the card, refused if wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.engine import merging
from swe_scaffold.errors import IntegrityError
from swe_scaffold.evaluation import evaluate_model
from swe_scaffold.export import ExportOptions, export_model
from tests.export.conftest import train_in
from tests.tiny_runs import read_json

KIND = {"use_dora": True, "use_rslora": True}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kinds")
    train_in(place, lora=KIND)
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "moved"))


def export(place: Path, **options: Any) -> Path:
    export_model(place / "run", place / "out", ExportOptions(offline=True, **options))
    return place / "out"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_it_is_proven_well_within_the_tolerances(place: Path, dtype: str) -> None:
    out = export(place, dtype=dtype)
    found = read_json(out / "manifest.json")["export"]["proof"]
    assert found["difference"] <= found["tolerance"] / 2
    assert found["difference_rms"] <= found["tolerance_rms"] / 2
    assert found["weights_merged"] == 8
    assert found["effect_rms"] > 10 * found["difference_rms"]


def test_the_merged_model_scores_as_the_run_does(place: Path) -> None:
    out = export(place)
    rows = place / "rows.test.jsonl"
    merged = evaluate_model(out, rows, output=place / "scores")
    tuned = evaluate_model(place / "run", rows, output=place / "others")
    for one, other in zip(merged.scores, tuned.scores, strict=True):
        assert one.nll_sum / one.tokens == pytest.approx(other.nll_sum / other.tokens, abs=2e-6)
    card = (out / "README.md").read_text("utf-8")
    assert "with a DoRA adapter with rsLoRA's scale merged into them." in card
    assert "- dora" in card
    assert "A DoRA adapter with rsLoRA's scale for" in (place / "run" / "README.md").read_text()


def without_lengths(place: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(merging, "_with_lengths", lambda _, weight, __: weight)


def with_the_plain_scale(place: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(merging, "_scale", lambda _: 8 / 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("spoil", [without_lengths, with_the_plain_scale])
def test_a_merge_as_if_it_were_plain_lora_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, dtype: str
) -> None:
    spoil(place, monkeypatch)
    with pytest.raises(IntegrityError, match=r"proj\.weight is not base \+ adapter"):
        export(place, dtype=dtype)
    assert not (place / "out").exists()
