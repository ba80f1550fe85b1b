"""Scoring a file of predictions: every row has one fate, and each field says what it claims."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import DataError, UsageError
from swe_scaffold.scoring import FILTER_FIELDS, Keep, Options, Scoring, score_predictions
from swe_scaffold.scoring.expressions import MAX_CHARS, Filter
from swe_scaffold.scoring.patches import FIELDS
from tests.histories import History
from tests.scoring.conftest import MODULE, Write, prediction, write_lines


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def rows_of(result: Scoring) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["instance_id"], row["sample"]): row for row in lines(result.scored)}


def one(path: Path, tasks: Path, **options: Any) -> dict[str, Any]:
    (row,) = lines(score_predictions(path, str(tasks), Options(**options)).scored)
    return row


def test_every_row_and_every_task_has_one_fate(tasks: Path, gold: str, write: Write) -> None:
    path = write(
        prediction(1, None),
        prediction(1, gold),
        prediction(2, gold, sample=1),
        prediction(2, "", sample=2),
        prediction(9, gold),
        prediction(1, 7),
        prediction(1, gold, sample=True),
        {"instance_id": "owner__name-1"},
        {"model_patch": gold},
    )
    path.write_text(path.read_text("utf-8") + "[1]\nnot json\n", "utf-8")
    result = score_predictions(path, str(tasks))
    told = result.report["predictions"]
    assert (told["rows"], told["scored"]) == (11, 3)
    assert told["refused"] == {"duplicate": 1, "invalid_row": 6, "unknown_instance": 1}
    details = [row["detail"] for row in told["refused_rows"]]
    assert details[0] == "row 2 is for the same task and sample, with another patch, and counts"
    counted = result.report["tasks"]
    assert (counted["tasks"], counted["predicted"], counted["missing"]) == (4, 2, 2)
    assert counted["missing_ids"] == ["other__name2-1", "owner__name-4"]
    rows = rows_of(result)
    assert rows["owner__name-1", 0]["exact_match"] is True
    assert rows["owner__name-2", 2]["empty"] is True
    # A task with two samples counts once; missing ones count as empty.
    every, predicted = result.report["all_tasks"], result.report["predicted_tasks"]
    assert every["parses"]["metric"]["value"] == (1 + 0.5) / 4
    assert predicted["parses"]["metric"]["value"] == (1 + 0.5) / 2
    assert every["file_recall"]["metric"]["n"] == 3


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "list", "by_id"])
def test_the_forms_that_predictions_have(form: str, tasks: Path, gold: str, tmp_path: Path) -> None:
    rows = [prediction(1, gold), prediction(2, None)]
    by_id = {row["instance_id"]: row for row in rows}
    text = {
        "list": json.dumps(rows),
        "by_id": json.dumps(by_id, indent=1),
    }.get(form, "".join(json.dumps(row) + "\n" for row in rows))
    names = {"jsonl": "p.jsonl", "jsonl.gz": "p.jsonl.gz"}
    path = tmp_path / names.get(form, "p.json")
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if form == "jsonl.gz" else data)
    result = score_predictions(path, str(tasks))
    assert (result.scored.name, result.summary.name) == ("p.scored.jsonl", "p.score.json")
    assert [row["empty"] for row in lines(result.scored)] == [False, True]


def test_a_row_has_the_documented_fields(tasks: Path, gold: str, write: Write) -> None:
    result = score_predictions(write(prediction(1, gold)), str(tasks))
    (row,) = lines(result.scored)
    assert tuple(row) == FIELDS
    assert all(not isinstance(row[name], list) for name in FILTER_FIELDS)
    written = json.loads(result.summary.read_text("utf-8"))
    assert written == json.loads(json.dumps(result.report, allow_nan=False))


def test_the_gold_patch_against_itself(
    tasks: Path, gold: str, write: Write, history: History
) -> None:
    row = one(write(prediction(1, gold)), tasks, repos=history.folder.parent)
    ones = [name for name in row if name.endswith(("precision", "recall", "_f1"))]
    assert len(ones) == 9
    assert {row[name] for name in (*ones, "similarity", "size_ratio")} == {1.0}
    assert (row["applies"], row["exact_match"], row["same_lines"]) == (True, True, True)
    assert (row["functions_by"], row["touches_tests"], row["files"]) == (
        "syntax",
        False,
        ["pkg/mod.py"],
    )


def test_another_function_of_the_right_file(tasks: Path, write: Write, history: History) -> None:
    wrong = MODULE[::-1].replace("b - a", "b * a", 1)[::-1]
    history.write({"pkg/mod.py": wrong})
    patch = history.git("diff", "HEAD~1") + "\n"
    row = one(write(prediction(1, patch)), tasks, repos=history.folder.parent)
    assert (row["file_f1"], row["function_f1"], row["applies"]) == (1.0, 0.0, True)
    assert row["exact_match"] is False


def edit(path: str, old: str = "f", new: str = "g") -> str:
    return (
        f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{old}\n+{new}\n"
    )


@pytest.mark.parametrize(
    ("patch", "applies", "reason"),
    [
        (edit("f"), True, None),
        (edit("f", old="z"), False, "mismatch"),
        (edit("g"), False, "no_file"),
        (edit("../f"), False, "unsafe_path"),
        (edit("/etc/hosts"), False, "unsafe_path"),
        (edit("a/.git/config"), False, "unsafe_path"),
        (edit("link.py"), None, "link"),
        (" \n", False, "empty"),
        ("I would change f.", False, "no_patch"),
    ],
)
def test_whether_it_applies_and_why_not(
    patch: str,
    applies: bool | None,
    reason: str | None,
    tasks: Path,
    write: Write,
    history: History,
) -> None:
    row = one(write(prediction(1, patch)), tasks, repos=history.folder.parent)
    assert (row["applies"], row["applies_reason"]) == (applies, reason)


def test_without_the_right_files_nothing_is_said(
    tasks: Path, gold: str, write: Write, history: History, tmp_path: Path
) -> None:
    path = write(prediction(0, gold, instance_id="other__name2-1"))
    repos = history.folder.parent
    assert one(path, tasks, repos=repos)["applies_reason"] == "no_clone"
    assert one(write(prediction(1, gold)), tasks)["applies_reason"] == "no_files_given"
    # A clone whose commit does not take the gold patch is not the one the task speaks of.
    rows = [{**row, "base_commit": history.git("rev-parse", "HEAD")} for row in lines(tasks)]
    wrong = write_lines(tmp_path / "wrong.jsonl", rows)
    row = one(write(prediction(1, gold)), wrong, repos=repos)
    assert (row["applies"], row["applies_reason"]) == (None, "gold_does_not_apply")


def test_files_of_a_folder(tasks: Path, gold: str, write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "files" / "owner__name-1" / "pkg"
    folder.mkdir(parents=True)
    (folder / "mod.py").write_text(MODULE, "utf-8")
    (folder / "out.py").symlink_to(tasks)
    files = tmp_path / "files"
    row = one(write(prediction(1, gold)), tasks, files=files)
    assert (row["applies"], row["functions_by"]) == (True, "syntax")
    row = one(write(prediction(1, edit("f"))), tasks, files=files)
    assert (row["applies"], row["applies_reason"]) == (None, "not_given")
    row = one(write(prediction(1, edit("pkg/out.py"))), tasks, files=files)
    assert (row["applies"], row["applies_reason"]) == (None, "link")
    assert one(write(prediction(2, gold)), tasks, files=files)["applies_reason"] == "no_folder"


def test_tests_are_noticed(tasks: Path, gold: str, write: Write) -> None:
    test = edit("tests/test_mod.py")
    row = one(write(prediction(1, gold + test)), tasks)
    assert (row["touches_tests"], row["only_tests"], row["file_precision"]) == (True, False, 0.5)
    assert one(write(prediction(1, test)), tasks)["only_tests"] is True


def test_reports_are_joined_where_they_speak_of_one_attempt(
    tasks: Path, gold: str, write: Write, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    report.write_text(
        json.dumps({"resolved_ids": ["owner__name-1"], "completed_ids": ["owner__name-2"]}), "utf-8"
    )
    path = write(prediction(1, gold), prediction(2, gold))
    result = score_predictions(path, str(tasks), Options(resolved=[report]))
    assert [row["resolved"] for row in lines(result.scored)] == [True, False]
    assert result.report["all_tasks"]["resolved"]["metric"]["value"] == 1 / 4
    path = write(prediction(1, gold), prediction(1, gold, sample=1))
    result = score_predictions(path, str(tasks), Options(resolved=[report]))
    assert [row["resolved"] for row in lines(result.scored)] == [None, None]
    assert result.report["resolved_unknown"] == 2


def test_two_files_are_compared_over_the_tasks_of_both(
    tasks: Path, gold: str, write: Write
) -> None:
    ours = write(prediction(1, gold), prediction(2, gold), name="a.jsonl")
    theirs = write(
        prediction(2, edit("f")), prediction(0, gold, instance_id="other__name2-1"), name="b.jsonl"
    )
    report = score_predictions(ours, str(tasks), Options(against=theirs)).report["against"]
    assert report["tasks"] == 1
    recall = report["metrics"]["file_recall"]
    assert recall["effect"]["value"] == 1.0
    assert (recall["higher"], recall["lower"], recall["equal"]) == (1, 0, 0)


def test_kept_predictions_are_tasks(tasks: Path, gold: str, write: Write, tmp_path: Path) -> None:
    path = write(prediction(1, gold), prediction(2, ""), prediction(2, edit("f"), sample=3))
    keep = Keep("sample >= 0 and not touches_tests and file_recall != 0.5", tmp_path / "k.jsonl")
    kept = score_predictions(path, str(tasks), Options(keep=keep)).report["kept"]
    assert (kept["passed"], kept["rows"], kept["empty"]) == (3, 2, 1)
    row = lines(keep.rows)[1]
    assert (row["patch"], row["predicted_by"], row["sample"]) == (edit("f"), "m", 3)
    assert row["problem_statement"] == "add subtracts"


def test_the_later_row_takes_its_own_place(tasks: Path, gold: str, write: Write) -> None:
    path = write(prediction(1, None), prediction(2, gold), prediction(1, gold))
    scored = lines(score_predictions(path, str(tasks)).scored)
    assert [row["instance_id"] for row in scored] == ["owner__name-2", "owner__name-1"]


def test_same_inputs_same_bytes(tasks: Path, gold: str, write: Write) -> None:
    path = write(prediction(1, gold), prediction(2, edit("f")))
    first = score_predictions(path, str(tasks))
    before = first.scored.read_bytes(), first.summary.read_bytes()
    again = score_predictions(path, str(tasks))
    assert (again.scored.read_bytes(), again.summary.read_bytes()) == before


def test_what_cannot_be_scored_is_refused(tasks: Path, gold: str, write: Write) -> None:
    with pytest.raises(DataError, match="no prediction for any of the 4 tasks"):
        score_predictions(write(prediction(9, gold)), str(tasks))
    path = write(prediction(1, gold))
    with pytest.raises(UsageError, match="name one"):
        score_predictions(path, str(tasks), Options(repos=path.parent, files=path.parent))
    with pytest.raises(UsageError, match="own input"):
        score_predictions(path, str(tasks), Options(output=path))
    with pytest.raises(UsageError, match="no such folder"):
        score_predictions(path, str(tasks), Options(repos=path))


ROW = {"applies": True, "similarity": 0.5, "model": "m", "resolved": None, "sample": 2}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("applies", True),
        ("applies and similarity > 0.4", True),
        ("0.1 < similarity < 0.5", False),
        ("model == 'm' or nothing == 1", None),
        ("resolved", False),
        ("not resolved", True),
        ("resolved == False", False),
        ("resolved != True", False),
        ("resolved + 1 > 0", False),
        ("sample / 0 == 1", False),
        ("-sample * 2 + 1 == -3", True),
        ("'m' in model", True),
        ("similarity > 'x'", None),
        ("model + 1 == 2", None),
        ("__import__('os')", None),
        ("applies.real", None),
        ("sample ** 9 ** 9", None),
        ("[1][0]", None),
        ("(lambda: 1)()", None),
        ("applies if applies else 1", None),
        ("applies :=1", None),
        ("", None),
        ("not " * 60 + "applies", None),
        ("(" * 500 + "1", None),
        ("1" * (MAX_CHARS + 1), None),
    ],
)
def test_filters(text: str, passes: bool | None) -> None:
    if passes is None:
        with pytest.raises(UsageError):
            Filter(text, ROW)(ROW)
    else:
        assert Filter(text, ROW)(ROW) is passes


def test_a_wrong_name_is_answered_with_the_near_one() -> None:
    with pytest.raises(UsageError) as caught:
        Filter("aplies", ROW)
    assert caught.value.hint == "did you mean applies?"
