"""Every real prediction: the ledger adds up, and the files are those that another parser finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swe_scaffold.scoring import Options, score_predictions
from swe_scaffold.sources.local import open_file

pytest.importorskip("pyarrow", reason="the real tasks are Parquet")

LEDGERS = {
    "20240402_sweagent_gpt4_predictions": (302, 299, 3, 1, 15),
    "aider_all_preds": (300, 300, 0, 0, 10),
    "moatless_20241117_all_preds": (299, 299, 0, 1, 10),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEDGERS)
def test_real_predictions(name: str, shared_data: Path, tmp_path: Path) -> None:
    unidiff = pytest.importorskip("unidiff", reason="needs unidiff, a test oracle")
    predictions = shared_data / "predictions" / f"{name}.jsonl.gz"
    result = score_predictions(
        predictions,
        str(shared_data / "swe-bench-lite" / "test.parquet"),
        Options(output=tmp_path / "p.scored.jsonl"),
    )
    rows = [json.loads(line) for line in result.scored.read_text("utf-8").split("\n") if line]
    counted, tasks = result.report["predictions"], result.report["tasks"]
    refused = sum(counted["refused"].values())
    told = (counted["rows"], counted["scored"], refused, tasks["missing"])
    assert (*told, sum(row["empty"] for row in rows)) == LEDGERS[name]
    patches = {
        line.value["instance_id"]: line.value["model_patch"] or ""
        for line in open_file(predictions, name).rows()
        if hasattr(line, "value")
    }
    for row in rows:
        if row["parses"]:
            files = unidiff.PatchSet.from_string(patches[row["instance_id"]])
            assert sorted(row["files"]) == sorted({file.path for file in files})
