"""Predictions: every row has one fate, what was answered is kept, and a resumed run is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.engine.sampling import Sampling
from swe_scaffold.errors import DataError, IntegrityError, LockedError, UsageError
from swe_scaffold.files import folder_lock, sha256_file
from swe_scaffold.prediction import Predictions, ask_text, predict, read_questions
from tests.histories import History
from tests.prediction.fake import (
    FENCED,
    PATCH,
    Interrupted,
    TableModel,
    chat,
    read_rows,
    task,
    write_rows,
)
from tests.tiny_runs import Listener

GREEDY, DRAWN = Sampling(), Sampling(temperature=1.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "tasks.jsonl", [task(number) for number in range(5)])


def run(model: TableModel, data: Path, output: Path | None, **options: Any) -> Predictions:
    limit = options.pop("limit", None)
    questions = read_questions(str(data), limit=limit)
    defaults: dict[str, Any] = {"sampling": GREEDY, "settings": {"limit": limit}}
    return predict(lambda: model, questions, output=output, **{**defaults, **options})


def test_a_prediction_is_a_line_the_harness_can_read(tmp_path: Path, data: Path) -> None:
    made = run(TableModel(), data, tmp_path / "preds.jsonl")
    rows = read_rows(tmp_path / "preds.jsonl")
    assert [row["instance_id"] for row in rows] == [f"owner__repo-{n}" for n in range(5)]
    assert rows[0] == {
        "instance_id": "owner__repo-0",
        "model_name_or_path": "table",
        "model_patch": PATCH,
        "raw_output": f"{FENCED}\nsample 0",
        "form": "fenced_diff",
        "repairs": {},
        "problem": "",
        "stopped": True,
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "prompt_cut": 0,
    }
    assert list(made.rows) == rows


def test_the_real_harness_takes_them(tmp_path: Path, data: Path) -> None:
    harness = pytest.importorskip("swebench.harness.utils", reason="needs the swebench package")
    run(TableModel({"owner__repo-3": "I do not know."}), data, tmp_path / "preds.jsonl")
    found = harness.get_predictions_from_file(str(tmp_path / "preds.jsonl"), "any", "test")
    assert len(found) == 5
    for row in found:
        assert {"instance_id", "model_name_or_path", "model_patch"} <= row.keys()
        assert isinstance(row["model_patch"], str)


def test_the_manifest_adds_up_and_names_what_was_written(tmp_path: Path, data: Path) -> None:
    rows = [*(task(number) for number in range(5)), task(1), chat(1)]
    rows.append({"instance_id": "only", "messages": [{"role": "assistant", "content": "x"}]})
    write_rows(data, rows)
    answers = {
        "owner__repo-0": None,
        "owner__repo-1": "No idea.",
        "owner__repo-2": PATCH.rstrip("\n"),
        "owner__repo-3": (PATCH.rstrip("\n"), False),
        "chat-1": "!!!!!!!!",
    }
    made = run(TableModel(answers), data, tmp_path / "preds.jsonl", limit=8)
    manifest = json.loads((tmp_path / "preds.manifest.json").read_text("utf-8"))
    assert manifest["counts"] == {
        "rows": 8,
        "predicted": 5,
        "skipped": {"duplicate": 1, "no_prompt": 1, "over_length": 1},
        "beyond_limit": 0,
        "predictions": 5,
        "prompts_shortened": 0,
    }
    assert manifest["repairs"] == {"final_newline": 1}
    assert manifest["problems"] == {"no_patch": 1, "truncated": 1}
    assert [row["instance_id"] for row in manifest["skipped"]] == [
        "owner__repo-1",
        "only",
        "owner__repo-0",
    ]
    health = {name: (m["value"], m["n"]) for name, m in manifest["health"].items()}
    assert health == {
        "stopped": (0.8, 5),
        "empty": (0.0, 5),
        "repeated": (0.2, 5),
        "parseable": (0.5, 4),
    }
    output = manifest["outputs"]["preds.jsonl"]
    assert output["sha256"] == sha256_file(tmp_path / "preds.jsonl")
    assert manifest["inputs"][0]["sha256"] == sha256_file(data)
    assert made.facts["counts"] == manifest["counts"]
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert names == {"tasks.jsonl", "preds.jsonl", "preds.manifest.json"}


def test_rows_beyond_the_limit_are_counted(tmp_path: Path, data: Path) -> None:
    counts = run(TableModel(), data, tmp_path / "p.jsonl", limit=2).facts["counts"]
    assert (counts["rows"], counts["predicted"], counts["beyond_limit"]) == (5, 2, 3)


def test_a_patch_that_was_cut_is_none(tmp_path: Path, data: Path) -> None:
    cut = PATCH.rstrip("\n")[:-3]
    [row, *_] = run(TableModel({"owner__repo-0": (cut, False)}), data, None).rows
    assert (row["model_patch"], row["problem"]) == ("", "truncated")
    [row, *_] = run(TableModel({"owner__repo-0": (FENCED + "And", False)}), data, None).rows
    assert (row["model_patch"], row["problem"]) == (PATCH, "")


def test_the_next_turn_of_a_chat_is_a_message_and_no_patch(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "chats.jsonl", [chat(1)])
    [row] = run(TableModel({"chat-1": FENCED}), data, None).rows
    assert (row["model_patch"], row["form"], row["problem"]) == ("", "none", "")
    assert row["message"] == {"role": "assistant", "content": FENCED}


def test_several_answers_stand_one_a_line_in_order(tmp_path: Path, data: Path) -> None:
    made = run(TableModel(), data, tmp_path / "p.jsonl", samples=3, sampling=DRAWN)
    places = [(row["instance_id"], row["sample"]) for row in made.rows]
    assert places == [(f"owner__repo-{n}", sample) for n in range(5) for sample in range(3)]
    assert made.facts["counts"]["predicted"] == 5
    assert made.facts["counts"]["predictions"] == 15
    with pytest.raises(UsageError, match="temperature 0"):
        run(TableModel(), data, tmp_path / "q.jsonl", samples=3)


@pytest.mark.parametrize("stop_after", [0, 1, 7, 14])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, data: Path, stop_after: int
) -> None:
    options: dict[str, Any] = {"samples": 3, "sampling": DRAWN}
    run(TableModel(), data, tmp_path / "whole.jsonl", **options)
    first, listener = TableModel(stop_after=stop_after), Listener()
    with pytest.raises(Interrupted):
        run(first, data, tmp_path / "p.jsonl", **options, reporter=listener)
    partial = tmp_path / "p.partial.jsonl"
    assert not (tmp_path / "p.jsonl").exists()
    assert partial.exists() == bool(stop_after)
    if stop_after:
        assert f"{stop_after} of 15 answers are kept" in listener.text
        assert len(read_rows(partial)) == 1 + stop_after
    second = TableModel()
    run(second, data, tmp_path / "p.jsonl", **options)
    assert not set(first.asked) & set(second.asked)
    assert len(first.asked) + len(second.asked) == 15
    assert (tmp_path / "p.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / "p.partial.jsonl").exists()


def interrupted(data: Path, output: Path, stop_after: int = 3) -> Path:
    with pytest.raises(Interrupted):
        run(TableModel(stop_after=stop_after), data, output)
    return output.with_name(f"{output.stem}.partial.jsonl")


@pytest.mark.parametrize("torn", [b'{"index": 1', b"\xff", b'{"index": 4, "sample": 0, "row": {}}'])
def test_a_line_that_was_half_written_is_asked_again(
    tmp_path: Path, data: Path, torn: bytes
) -> None:
    partial = interrupted(data, tmp_path / "p.jsonl")
    partial.write_bytes(partial.read_bytes() + torn)
    model = TableModel()
    run(model, data, tmp_path / "p.jsonl")
    assert len(model.asked) == 2
    assert len(read_rows(tmp_path / "p.jsonl")) == 5


def test_damage_elsewhere_is_refused(tmp_path: Path, data: Path) -> None:
    partial = interrupted(data, tmp_path / "p.jsonl")
    lines = partial.read_bytes().split(b"\n")
    for broken in ([lines[0], b"{", *lines[2:]], [b"{}", *lines[1:]], [lines[0], b"{}", b""]):
        partial.write_bytes(b"\n".join(broken))
        with pytest.raises(IntegrityError):
            run(TableModel(), data, tmp_path / "p.jsonl")


def test_another_run_is_refused_and_told_what_differs(tmp_path: Path, data: Path) -> None:
    partial = interrupted(data, tmp_path / "p.jsonl")
    before = partial.read_bytes()
    other = TableModel()
    other.version = 2
    with pytest.raises(UsageError, match=r"another run: not the same model$"):
        run(other, data, tmp_path / "p.jsonl")
    with pytest.raises(UsageError, match=r"not the same settings$"):
        run(TableModel(), data, tmp_path / "p.jsonl", sampling=Sampling(seed=1))
    write_rows(data, [task(number, problem_statement="other") for number in range(5)])
    with pytest.raises(UsageError, match=r"not the same data$") as refused:
        run(TableModel(), data, tmp_path / "p.jsonl")
    assert "--overwrite" in refused.value.hint
    assert partial.read_bytes() == before
    model = TableModel()
    run(model, data, tmp_path / "p.jsonl", overwrite=True)
    assert len(model.asked) == 5


def test_finished_predictions_are_replaced_only_when_asked_and_before_the_model_loads(
    tmp_path: Path, data: Path
) -> None:
    run(TableModel(), data, tmp_path / "p.jsonl")

    def never() -> TableModel:
        raise AssertionError("the model was loaded")

    with pytest.raises(UsageError, match="predictions already"):
        predict(never, read_questions(str(data)), sampling=GREEDY, output=tmp_path / "p.jsonl")
    run(TableModel({"owner__repo-0": "x"}), data, tmp_path / "p.jsonl", overwrite=True)
    assert read_rows(tmp_path / "p.jsonl")[0]["raw_output"] == "x"


def test_an_output_that_is_the_input_or_no_jsonl_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="its own input"):
        run(TableModel(), data, data, overwrite=True)
    with pytest.raises(UsageError, match=r"must end in \.jsonl"):
        run(TableModel(), data, tmp_path / "preds.json")


def test_two_runs_at_once_are_refused(tmp_path: Path, data: Path) -> None:
    with folder_lock(tmp_path, name=".p.lock"), pytest.raises(LockedError):
        run(TableModel(), data, tmp_path / "p.jsonl")


def test_an_answer_that_no_line_can_hold_is_skipped_at_once(tmp_path: Path, data: Path) -> None:
    answers = {"owner__repo-0": "x" * (17 << 20), "owner__repo-1": "half a pair \ud800"}
    made = run(TableModel(answers), data, tmp_path / "p.jsonl")
    assert made.facts["counts"]["skipped"] == {"unwritable": 2}
    assert len(read_rows(tmp_path / "p.jsonl")) == 3


def test_nothing_answered_is_an_error(tmp_path: Path, data: Path) -> None:
    nothing = TableModel({f"owner__repo-{n}": None for n in range(5)})
    with pytest.raises(DataError, match="no row was answered; the first: over_length, 12 tokens"):
        run(nothing, data, tmp_path / "p.jsonl")
    assert not (tmp_path / "p.jsonl").exists()


def test_edits_become_patches_where_there_is_a_clone(tmp_path: Path) -> None:
    history = History(tmp_path / "repos" / "owner__repo")
    old = "def add(first, second):\n    return first - second\n"
    commit = history.commit("one", {"pkg/mod.py": old, "pkg/bytes.py": b"\xff\0"})
    history.commit("two", {"pkg/mod.py": "changed\n"})
    edit = (
        "pkg/mod.py\n<<<<<<< SEARCH\n    return first - second\n=======\n"
        "    return first + second\n>>>>>>> REPLACE\n"
    )
    rows = [task(0, base_commit=commit), task(1, base_commit="0" * 40), task(2, repo="no/where")]
    rows.append(task(3, base_commit=commit, patch=""))
    data = write_rows(tmp_path / "tasks.jsonl", rows)
    model = TableModel(
        dict.fromkeys((f"owner__repo-{n}" for n in range(3)), edit)
        | {"owner__repo-3": edit.replace("mod.py", "bytes.py")}
    )
    made = run(model, data, None, repos=tmp_path / "repos")
    first, second, third, fourth = made.rows
    assert first["form"] == "search_replace"
    assert "-    return first - second\n+    return first + second\n" in first["model_patch"]
    assert {second["problem"], third["problem"]} == {"needs_files"}
    assert fourth["problem"] == "no_file"
    assert made.facts["code"] == {"found": 2, "no_commit": 2}
    with pytest.raises(DataError, match="no such folder"):
        run(model, data, None, repos=tmp_path / "nowhere")


def test_one_text_can_be_asked(tmp_path: Path) -> None:
    made = predict(lambda: TableModel({"text": "4"}), ask_text("2 + 2?"), sampling=GREEDY)
    assert (made.rows[0]["raw_output"], made.path) == ("4", None)
    with pytest.raises(DataError, match="nothing to answer"):
        ask_text(" \n")


def test_a_row_that_cannot_be_used_stops_with_its_place(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "t.jsonl", [task(0), {"nothing": 1}])
    with pytest.raises(DataError, match=r"t\.jsonl:2: no known row"):
        read_questions(str(data))
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    write_rows(data, [{"instance_id": "a__b-1", "traj_id": "t", "messages": said}])
    with pytest.raises(DataError, match="a trajectory") as refused:
        read_questions(str(data))
    assert "swe-scaffold build" in refused.value.hint


def test_the_same_question_has_the_same_key_however_its_row_was_written(tmp_path: Path) -> None:
    pair = {"instance_id": "owner__repo-0", "prompt": task(0)["problem_statement"], "response": "r"}
    data = write_rows(tmp_path / "t.jsonl", [task(0)])
    [of_task] = read_questions(str(data)).asked
    [of_pair] = read_questions(str(write_rows(tmp_path / "p.jsonl", [pair]))).asked
    assert of_task.key == of_pair.key
    assert (of_task.expects_patch, of_pair.expects_patch) == (True, False)
    [other] = read_questions(str(write_rows(data, [task(0, instance_id="x__y-1")]))).asked
    assert other.key != of_task.key
