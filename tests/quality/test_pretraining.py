"""A model that says what it was made from is held against the rows it will be judged on."""

from __future__ import annotations

from pathlib import Path

from swe_scaffold.manifest import write_manifest
from swe_scaffold.quality.pretraining import judge_pretraining


def model_of(folder: Path, packages: list[str]) -> Path:
    write_manifest(folder / "manifest.json", {"corpus": {"packages": packages}})
    return folder


def test_a_package_on_both_sides_is_an_error_that_names_it(tmp_path: Path) -> None:
    model = model_of(tmp_path, ["json", "email"])
    (finding,) = judge_pretraining(model, {"email", "ast"}, "rows.jsonl")
    assert (finding.severity, finding.evidence) == ("error", ("email",))


def test_disjoint_halves_are_said_to_be_disjoint(tmp_path: Path) -> None:
    (finding,) = judge_pretraining(model_of(tmp_path, ["json"]), {"ast"}, "rows.jsonl")
    assert (finding.severity, finding.code) == ("info", "pretraining_disjoint")


def test_nothing_is_claimed_of_a_model_that_says_nothing(tmp_path: Path) -> None:
    assert list(judge_pretraining(tmp_path, {"ast"}, "rows.jsonl")) == []
    assert list(judge_pretraining(tmp_path / "absent", {"ast"}, "rows.jsonl")) == []
