"""The official `swebench` package reads the predictions we write, as its evaluation does.

Everything that package does with a file before a container starts is run here: reading, matching
with the tasks, setting aside what is empty, and the report. It runs in a process of its own, as
importing it reads `.env` files and loads clients for Docker and Modal.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.diffs import unified_diff
from swe_scaffold.jsonl import write_jsonl

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("swebench") is None, reason="needs swebench, the official package"
)

READ = """
import json, sys
from swebench.harness.reporting import make_run_report
from swebench.harness.run_evaluation import get_dataset_from_preds
from swebench.harness.utils import get_predictions_from_file, load_swebench_dataset

predictions_path, tasks_path = sys.argv[1:]
listed = get_predictions_from_file(predictions_path, tasks_path, "test")
predictions = {row["instance_id"]: row for row in listed}
to_run = get_dataset_from_preds(tasks_path, "test", None, predictions, "run", False)
report = make_run_report(predictions, load_swebench_dataset(tasks_path, "test"), "run")
print("READ" + json.dumps({
    "listed": listed,
    "to_run": [task["instance_id"] for task in to_run],
    "report": json.loads(report.read_text()),
    "name": report.name,
}))
"""


def read_by_swebench(folder: Path, predictions: Path, tasks: Path) -> dict[str, Any]:
    """What the package makes of a file of predictions for a file of tasks."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(predictions), str(tasks)],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "DOCKER_HOST": "unix:///nowhere.sock"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout.rpartition("READ")[2])
    return read


def prediction(instance_id: str, patch: str, raw_output: str) -> dict[str, str]:
    return {
        "instance_id": instance_id,
        "model_name_or_path": "org/model",
        "model_patch": patch,
        "raw_output": raw_output,
    }


def test_predictions_are_read_matched_and_counted(tmp_path: Path) -> None:
    patch = unified_diff("pkg/ü mod.py", "a\r\nb\u2028c\n", "a\r\nd\x0c\x85\n")
    rows = [
        prediction("org__repo-1", patch, f"Here:\n```diff\n{patch}```\n"),
        prediction("org__repo-2", "", "I cannot."),
    ]
    tasks = [{"instance_id": f"org__repo-{number}", "repo": "org/repo"} for number in (1, 2, 3)]
    write_jsonl(tmp_path / "predictions.jsonl", rows)
    write_jsonl(tmp_path / "tasks.jsonl", tasks)
    read = read_by_swebench(tmp_path, tmp_path / "predictions.jsonl", tmp_path / "tasks.jsonl")
    assert read["listed"] == rows
    assert read["to_run"] == ["org__repo-1"]
    assert read["name"] == "org__model.run.json"
    report = read["report"]
    assert report["submitted_ids"] == ["org__repo-1", "org__repo-2"]
    assert report["empty_patch_ids"] == ["org__repo-2"]
    assert report["incomplete_ids"] == ["org__repo-3"]
    # No container ran, so the one with a patch has no result.
    assert report["error_ids"] == ["org__repo-1"]
