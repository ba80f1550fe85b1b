"""The studies in benchmarks/ that prove the intervals: simulated coverage, and separation."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def test_a_quick_simulation_agrees_with_the_package_and_writes_its_page(load, tmp_path) -> None:
    page = tmp_path / "coverage.md"
    options = ["--quick", "--date", "2026-01-01", "--output", str(page)]
    assert load("simulate_coverage").main(options) == 0
    numbers = json.loads(page.with_suffix(".json").read_text("utf-8"))
    assert numbers["compared_with_package"] > 40
    text = page.read_text("utf-8")
    assert "| NLL per token, perplexity | clustered t (CR1, G - 1) |" in text
    assert " nan" not in text
    covered = {
        (answer["interval"], answer["rows"]): answer["covered"]
        for answer in numbers["answers"]
        if answer["topic"] == "paired difference of NLL"
    }
    # What ignores repositories fails where they matter; 60 sets are enough to see it.
    assert covered["t, if examples were independent", 300] < 0.85
    assert covered["clustered t (CR2, Bell-McCaffrey)", 300] > 0.85


def test_the_same_seed_gives_the_same_numbers(load) -> None:
    worlds = load("coverage_worlds")
    setting = worlds.SETTINGS[1]
    first, again = (
        [list(study(worlds.World(setting, 20, 3))) for study in worlds.STUDIES[1:4]]
        for _ in range(2)
    )
    assert first == again


def test_a_difference_from_the_package_stops_the_simulation(load, monkeypatch) -> None:
    checks, intervals = load("coverage_checks"), load("coverage_intervals")
    worlds = load("coverage_worlds")
    monkeypatch.setattr(intervals, "Z", intervals.Z * 1.001)
    with pytest.raises(SystemExit) as stopped:
        checks.compare_with_package(worlds.World(worlds.SETTINGS[0], 2, 1))
    assert stopped.value.code == 9


@pytest.mark.parametrize("rows", [50, 300])
@pytest.mark.parametrize("repositories", [12, 40])
def test_every_repository_has_a_row(load, rows: int, repositories: int) -> None:
    sizes = load("coverage_worlds").layout_sizes(rows, repositories)
    assert (int(sizes.sum()), len(sizes)) == (rows, repositories)
    assert sizes.min() >= 1
    assert np.all(np.diff(sizes) <= 0)


def scored_row(number: int, similarity: float, **fields: Any) -> dict[str, Any]:
    given = {
        "instance_id": f"r{number % 9}__r-{number}",
        "repo": f"r{number % 9}/r",
        "empty": False,
        "parses": True,
        "applies": None,
        "similarity": similarity,
        "size_ratio": 1.0 + number % 3,
        "touches_tests": False,
        "exact_match": False,
        "same_lines": False,
        "files": ["a.py"],
        "lines_added": 1,
        "lines_removed": number % 4,
        "gold_lines_added": 1 + number % 5,
        "gold_lines_removed": 0,
    }
    parts = ("file", "function", "hunk")
    places = {f"{p}_{kind}": similarity for p in parts for kind in ("precision", "recall", "f1")}
    return {**places, **given, **fields}


def test_separation_joins_scores_with_published_outcomes(load, tmp_path: Path) -> None:
    study = load("separation")
    rows = [scored_row(number, (number % 10) / 10) for number in range(40)]
    rows.append(scored_row(40, 0.0, empty=True))
    yes = [row["instance_id"] for row in rows if row["similarity"] > 0.55]
    (tmp_path / "one.scored.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    (tmp_path / "two.scored.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    report = {"resolved_ids": yes, "submitted_ids": [], "completed_ids": []}
    report["completed_ids"] = [row["instance_id"] for row in rows]
    (tmp_path / "report.json").write_text(json.dumps(report))
    patches = [
        {"instance_id": row["instance_id"], "model_name_or_path": "m", "model_patch": "+x\n"}
        for row in rows
    ]
    (tmp_path / "preds.jsonl").write_text("\n".join(json.dumps(row) for row in patches) + "\n")
    listed = [
        {"instance_id": name, "resolved_by": [{"name": "run", "patch": "+x"}]} for name in yes[:-5]
    ]
    evaluations = tmp_path / study.EVALUATIONS
    evaluations.parent.mkdir()
    evaluations.write_bytes(gzip.compress(json.dumps(listed).encode()))
    systems = (
        study.System("one", "One", "preds.jsonl", report="report.json", pooled=True),
        study.System("two", "Two", "preds.jsonl", run="run", pooled=True),
    )
    result = {**study.study(tmp_path, tmp_path, systems), "date": "2026-01-01"}
    one, two, pooled, within = result["columns"]
    assert (one["patches"], one["resolved"], one["empty"]) == (40, 16, 1)
    assert one["auc"]["similarity"]["auc"]["value"] == 1.0
    assert (two["resolved"], pooled["patches"], pooled["tasks"]) == (11, 80, 40)
    # The five tasks that one solved and two did not have the same patch: no metric can tell.
    assert within["auc"]["similarity"]["auc"]["value"] == 0.5
    text = study.page(result)
    assert "| similarity | 1.00 *no interval* |" in text
    json.dumps(result, allow_nan=False)
    # Another patch than the one that was judged ends the study.
    listed[0]["resolved_by"] = [{"name": "run", "patch": "+y"}]
    evaluations.write_bytes(gzip.compress(json.dumps(listed).encode()))
    with pytest.raises(SystemExit, match="another patch"):
        study.outcomes(tmp_path, systems[1])
