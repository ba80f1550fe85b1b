"""`score` as people run it: a table, one JSON document, rows that build, errors that help."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from swe_scaffold.cli import scoring  # noqa: F401 registration is its import
from tests.cli.conftest import HOSTILE, PATCH, Run, task, write_rows


@pytest.fixture
def predictions(folder: Path, tasks: Path) -> Path:
    """Ten right ones, one wrong, one empty, one for no task, one by a hostile model."""
    rows = [
        {
            "instance_id": task(n)["instance_id"],
            "model_name_or_path": "m",
            "model_patch": PATCH.format(number=n),
        }
        for n in range(10)
    ]
    rows += [
        {**rows[0], "instance_id": task(10)["instance_id"]},
        {**rows[0], "instance_id": task(11)["instance_id"], "model_patch": None},
        {**rows[0], "instance_id": "no__task-1"},
        {**rows[0], "instance_id": task(12)["instance_id"], "model_name_or_path": HOSTILE},
    ]
    return write_rows(folder / "preds.jsonl", rows)


def test_a_table_for_people(run: Run, predictions: Path, tasks: Path) -> None:
    done = run("score", predictions, tasks)
    assert done.code == 0, done.err
    assert "predictions: 14 rows = scored 13 + refused 1 (unknown_instance 1)\n" in done.out
    assert "tasks: 20 = predicted 13 + missing 7 (" in done.out
    assert "intervals by group: of shares Wilson by cluster" in done.out
    assert "beware: few clusters (4 < 8)" in done.out
    assert "\x1b" not in done.out
    assert done.out.endswith(
        "preds.scored.jsonl, " + str(predictions.parent / "preds.score.json\n")
    )


def test_one_json_document(run: Run, predictions: Path, tasks: Path) -> None:
    value = run("score", predictions, tasks, "--cluster-by", "row", "--json").value
    assert value == json.loads(Path("preds.score.json").read_text("utf-8"))
    assert value["all_tasks"]["file_recall"]["metric"]["clusters"] == 19


def test_two_reports_of_the_harness_are_compared(run: Run, predictions: Path, tasks: Path) -> None:
    names = [task(n)["instance_id"] for n in range(13)]
    reports = []
    for name, count in (("new", 9), ("old", 2)):
        report = {"resolved_ids": names[:count], "unresolved_ids": names[count:]}
        reports.append(write_rows(Path(f"{name}.json"), [report]))
    flags = ["--resolved", reports[0], "--against", predictions, "--against-resolved", reports[1]]
    refused = run("score", predictions, tasks, *flags[:2], *flags[4:])
    assert (refused.code, "--against" in refused.err) == (2, True)
    done = run("score", predictions, tasks, *flags, "--json")
    assert done.code == 0, done.err
    assert done.value["harness"][0]["ledger"]["resolved"] == 9
    assert done.value["harness"][0]["of_submitted"]["value"] == 9 / 13
    against = done.value["against"]
    assert against["reports"][0]["test"]["only_second"] == 7
    # Seven tasks that only one of them resolves: 2 / 2^7.
    assert against["reports"][0]["test"]["p_value"] == 2 / 2**7
    resolved = against["metrics"]["resolved"]
    assert (resolved["higher"], resolved["mcnemar"]) == (7, 2 / 2**7)
    assert resolved["p_holm"] >= resolved["p_value"]
    assert "McNemar p 0.0156" in run("score", predictions, tasks, *flags).out


def test_the_harness_needs_docker(
    run: Run, predictions: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    done = run("score", predictions, tasks, "--harness", "first")
    assert done.code == 4
    assert "docker and swebench are not installed here" in done.err
    assert "swebench eval" in done.err


def test_kept_rows_build_and_are_found_as_contaminated(
    run: Run, predictions: Path, tasks: Path
) -> None:
    flags = ["--keep", "similarity == 1", "--rows", "kept.jsonl"]
    done = run("score", predictions, tasks, *flags)
    assert done.code == 0, done.err
    assert "kept: 10 pass = written 10 + empty 0, to kept.jsonl\n" in done.out
    assert "build --exclude BENCHMARK" in done.out
    built = run("build", "--dataset", "kept.jsonl", "--output", "rows.jsonl", "--json")
    assert built.code == 0, built.err
    counts = built.value["counts"]
    assert counts["read"] == 10 == counts["dev"] + counts["test"] + counts["skipped"]
    row = json.loads(Path("rows.jsonl").read_text("utf-8").split("\n")[0])
    assert (row["meta"]["predicted_by"], row["meta"]["sample"]) == ("m", 0)
    spoilt = run("build", "--dataset", "kept.jsonl", "--output", "x.jsonl", "--exclude", tasks)
    assert "10 contaminated" in spoilt.err


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--keep", "aplies", "--rows", "k.jsonl"], 2, "did you mean applies?"),
        (["--keep", "applies"], 2, "--keep and --rows go together"),
        (["--repos", "nowhere"], 2, "there is no such folder"),
        (["--cluster-by", "model"], 2, "unknown cluster unit"),
        (["--resolved", "nowhere.json"], 3, "no such file"),
        (["--against", "tasks.jsonl"], 3, "no prediction for any"),
        (["--output", "tasks.jsonl"], 2, "would overwrite its own input"),
    ],
)
def test_errors_name_the_next_step(
    run: Run, predictions: Path, tasks: Path, flags: list[str], code: int, said: str
) -> None:
    done = run("score", predictions, tasks, *flags)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert not Path("preds.scored.jsonl").exists()


def test_the_module_ends_with_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["swe-scaffold", "score", "nothing.jsonl", "nothing"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("swe_scaffold", run_name="__main__")
    assert ended.value.code == 3
