"""Evaluations that are there, that stopped half-way, of several models and in several processes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swe_scaffold.config import EvaluationConfig
from swe_scaffold.engine import loading, scoring
from swe_scaffold.errors import DataError, IntegrityError, UsageError
from swe_scaffold.evaluation import Evaluation, evaluate_model, evaluate_models
from swe_scaffold.evaluation.answers import chosen
from swe_scaffold.scores import read_evaluation, read_rows
from tests.tiny_runs import Listener, example, left_over, make_config, read_json, train, write_rows

FILES = ("scores.jsonl", "token_nll.f32")


def config(**settings: Any) -> EvaluationConfig:
    return EvaluationConfig(**{"iterations": 50, "tokens_per_batch": 96, **settings})


def evaluate(place: Path, **options: Any) -> Evaluation:
    settings = options.pop("settings", {})
    data = options.pop("data", place / "rows.test.jsonl")
    return evaluate_model(place / "run", data, config=config(**settings), offline=True, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def refuse_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(loading, "load_base", load)


def test_what_was_scored_is_used_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(place, compare_base=True, shuffled_control=True)
    before = left_over(first.path)
    refuse_loading(monkeypatch)
    again = evaluate(place, settings={"iterations": 40, "alpha": 0.1, "tokens_per_batch": 7})
    # Other statistics of the same scores; nothing that was known is lost.
    assert again.report["unseen"]["nll"]["level"] == 0.9
    for key in ("comparison", "base", "shuffled_prompts"):
        assert again.report[key] is not None
    after = left_over(first.path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"evaluation.json", "base/evaluation.json"}
    with pytest.raises(AssertionError, match="a model was loaded"):
        evaluate(place, fresh=True)


@pytest.mark.parametrize("what", ["data", "adapter", "max_length", "dtype", "scores"])
def test_nothing_else_is_used_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder = evaluate(place).path
    settings: dict[str, Any] = {}
    data = place / "rows.test.jsonl"
    if what == "data":
        data.write_bytes(data.read_bytes().replace(b"is wrong", b"is right", 1))
    elif what == "adapter":
        # Another run in the same place.
        shutil.rmtree(place / "run")
        train(make_config(place / "model", place / "run", seed=7), place / "rows.jsonl")
    elif what == "max_length":
        shutil.rmtree(place / "run")
        train(make_config(place / "model", place / "run", max_length=127), place / "rows.jsonl")
    elif what == "dtype":
        settings["dtype"] = "bfloat16"
    else:
        path = folder / "scores.jsonl"
        path.write_bytes(path.read_bytes().replace(b"row-1", b"row-2"))
    refuse_loading(monkeypatch)
    with pytest.raises((AssertionError, IntegrityError, DataError)) as error:
        evaluate(place, settings=settings, data=data, output=folder)
    if what != "data":
        assert "a model was loaded" in str(error.value)


def stop_after(monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    """End the evaluation in the middle of its scoring, as a signal would."""
    real, done = scoring.score, [0]

    def score(*arguments: Any, **options: Any) -> Any:
        if done[0] == passes:
            raise KeyboardInterrupt
        done[0] += 1
        return real(*arguments, **options)

    monkeypatch.setattr(scoring, "score", score)


def test_an_interrupted_evaluation_goes_on_to_the_same_bytes(place: Path, tmp_path: Path) -> None:
    whole = evaluate(place, output=tmp_path / "whole", shuffled_control=True)
    told = Listener()
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            evaluate(place, output=tmp_path / "cut", shuffled_control=True, reporter=told)
    assert "rows are kept; the same command goes on from there" in told.text
    partial = tmp_path / "cut" / "scores.partial.jsonl"
    lines = partial.read_text("utf-8").split("\n")[:-1]
    assert json.loads(lines[0]) == {"key": whole.report["key"]}
    rows = [json.loads(line) for line in lines[1:]]
    assert 0 < len(rows) < 12
    fields = {"instance_id", "repo", "label", "nll_sum", "tokens", "bytes", "prompt_tokens"}
    assert fields <= set(rows[0])
    # As if it had been killed in the middle of a line.
    partial.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20], "utf-8")
    listener = Listener()
    found = evaluate(place, output=tmp_path / "cut", shuffled_control=True, reporter=listener)
    assert f"going on: {len(rows) - 1} rows" in listener.text
    assert contents(found.path) == contents(whole.path)
    assert not list(found.path.glob("*.partial.jsonl"))
    assert (found.path / "shuffled.jsonl").read_bytes() == (
        whole.path / "shuffled.jsonl"
    ).read_bytes()


def test_what_another_model_left_is_not_taken_up(place: Path, tmp_path: Path) -> None:
    whole = evaluate(place, output=tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            evaluate(place, output=tmp_path / "cut", settings={"dtype": "bfloat16"})
    listener = Listener()
    found = evaluate(place, output=tmp_path / "cut", reporter=listener)
    assert "going on" not in listener.text
    assert contents(found.path) == contents(whole.path)


@pytest.mark.parametrize(
    "damage", [b"[]\n", b'{"row": 0}\n', b'{"row": -1, "token_nll": "AAAA"}\n']
)
def test_a_damaged_file_of_an_interrupted_run_costs_only_time(
    place: Path, tmp_path: Path, damage: bytes
) -> None:
    whole = evaluate(place, output=tmp_path / "whole")
    folder = tmp_path / "cut"
    folder.mkdir()
    head = json.dumps({"key": whole.report["key"]}).encode()
    (folder / "scores.partial.jsonl").write_bytes(head + b"\n" + damage)
    assert contents(evaluate(place, output=folder).path) == contents(whole.path)


@pytest.mark.slow
def test_two_processes_score_as_one(place: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [example(number) for number in range(20, 60)])
    one, two = (
        evaluate(place, data=rows, output=tmp_path / str(n), processes=n, compare_base=True)
        for n in (1, 2)
    )
    assert one.report["data"]["scored"] == 40
    for before, after in zip(one.scores, two.scores, strict=True):
        assert after.nll_sum == pytest.approx(before.nll_sum, rel=1e-6)
        assert (after.instance_id, after.tokens) == (before.instance_id, before.tokens)
    effects = [found.report["comparison"]["effect"]["value"] for found in (one, two)]
    assert effects[0] == pytest.approx(effects[1], abs=1e-6)


def test_several_models_are_shown_the_same_rows(place: Path, tmp_path: Path) -> None:
    other = make_config(place / "model", place / "short", max_length=96, seed=7)
    train(other, place / "rows.jsonl")
    rows = write_rows(tmp_path / "rows.jsonl", [example(number) for number in range(30, 50)])
    names = [str(place / name) for name in ("run", "short", "model")]
    found = evaluate_models(names, rows, config=config(), output=tmp_path / "out", offline=True)
    assert [one.report["model"]["name"] for one in found] == names
    assert len({one.path for one in found}) == 3
    shapes = [
        [(row.instance_id, row.tokens, row.prompt_tokens) for row in one.scores] for one in found
    ]
    assert shapes[0] == shapes[1] == shapes[2]
    assert [one.report["data"]["max_length"] for one in found] == [96, 96, 96]
    # One base for all: its numbers are those below the adapters, one by one.
    below = evaluate_model(
        place / "short",
        rows,
        config=config(),
        output=tmp_path / "b",
        compare_base=True,
        offline=True,
    )
    base = read_evaluation(below.path / "base").scores
    assert [row.nll_sum for row in found[2].scores] == [row.nll_sum for row in base]
    assert [row.nll_sum for row in found[1].scores] == [row.nll_sum for row in below.scores]
    assert found[0].scores[0].nll_sum != found[1].scores[0].nll_sum
    with pytest.raises(UsageError, match="named twice"):
        evaluate_models([names[0], names[0]], rows, config=config(), offline=True)


def test_a_base_beside_a_run_is_shown_what_the_run_is_shown(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = evaluate(place, compare_base=True)
    names = [place / "model", place / "run"]
    rows = place / "rows.test.jsonl"
    found = evaluate_models(names, rows, config=config(), offline=True)
    assert found[0].report["data"]["max_length"] == own.report["data"]["max_length"] == 128
    # The run's evaluation is the same one, and still knows its base.
    assert found[1].path == own.path
    assert found[1].report["comparison"] is not None
    other = make_config(place / "model", place / "short", max_length=96, seed=7)
    train(other, place / "rows.jsonl")
    shorter = evaluate_models([place / "run", place / "short"], rows, config=config(), offline=True)
    assert shorter[0].path != own.path
    assert shorter[1].path.name == own.path.name
    assert read_evaluation(own.path).report["comparison"] is not None


def test_an_evaluation_on_disk_says_all_that_is_known_of_a_row(place: Path) -> None:
    found = evaluate(place, compare_base=True)
    stored = read_evaluation(found.path)
    assert stored.scores == found.scores
    assert {row.seen_in_training for row in stored.scores} == {False}
    assert {row.seen_in_training for row in read_evaluation(found.path / "base").scores} == {None}
    for row, nll in zip(stored.scores, stored.token_nll(), strict=True):
        assert len(nll) == row.tokens
        assert float(nll.astype(np.float64).sum()) == row.nll_sum
    trained = evaluate(place, data=place / "rows.jsonl")
    assert {row.seen_in_training for row in trained.scores} == {True}
    assert {row.response_source for row in stored.scores} == {"change_summary"}


@pytest.mark.parametrize("name", ["scores.jsonl", "token_nll.f32"])
def test_a_changed_file_is_refused(place: Path, name: str) -> None:
    folder = evaluate(place).path
    path = folder / name
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\n")
    with pytest.raises(IntegrityError):
        read_evaluation(folder)


def test_scores_of_another_version_are_refused(place: Path) -> None:
    folder = evaluate(place).path
    report = read_json(folder / "evaluation.json")
    del report["files"]
    (folder / "evaluation.json").write_text(json.dumps(report), "utf-8")
    with pytest.raises(IntegrityError, match="no evaluation that this version can read"):
        read_evaluation(folder)
    with pytest.raises(UsageError, match="no evaluation"):
        read_evaluation(folder.parent)
    # Evaluating again makes it whole.
    assert read_rows(evaluate(place).path / "scores.jsonl")


def test_a_model_that_cannot_be_packed_is_padded_and_says_why(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packed = evaluate(place, output=tmp_path / "packed")
    monkeypatch.setattr(scoring, "stream_refusal", lambda *_: "it is of another kind")
    listener = Listener()
    padded = evaluate(place, output=tmp_path / "padded", reporter=listener)
    assert listener.lines.count("rows are padded: it is of another kind") == 1
    for before, after in zip(packed.scores, padded.scores, strict=True):
        assert after.nll_sum == pytest.approx(before.nll_sum, rel=1e-6)


def test_answers_are_kept_and_never_made_unasked(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"max_new_tokens": 4}
    first = evaluate(place, generate=3, settings=few, output=tmp_path)
    answers = (tmp_path / "generations.jsonl").read_bytes()
    assert first.report["health"]["prompts"] == 3
    with monkeypatch.context() as patch:
        refuse_loading(patch)
        again = evaluate(place, settings=few, output=tmp_path)
    assert again.report["health"] == first.report["health"]
    assert (tmp_path / "generations.jsonl").read_bytes() == answers
    # Another model in the same place was not asked for answers, and keeps none of another's.
    listener = Listener()
    options = {"config": config(**few), "output": tmp_path, "offline": True}
    other = evaluate_model(place / "model", place / "rows.test.jsonl", reporter=listener, **options)
    assert "replacing an evaluation of another model" in listener.text
    assert other.report["health"] is None
    assert not (tmp_path / "generations.jsonl").exists()


def test_models_that_have_seen_other_rows_answer_the_same_prompts(place: Path) -> None:
    scores = evaluate(place).scores
    everyone = chosen(scores, 4, seed=0)
    seen = [replace(row, seen_in_training=n == everyone[0]) for n, row in enumerate(scores)]
    others = chosen(seen, 4, seed=0)
    assert everyone[0] not in others
    assert len(set(everyone) & set(others)) == 3
    assert chosen(scores, 4, seed=1) != everyone


def test_a_foreign_adapter_stands_beside_its_base(place: Path, tmp_path: Path) -> None:
    foreign, base = tmp_path / "foreign", place / "model"
    foreign.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copyfile(place / "run" / name, foreign / name)
    rows, options = place / "rows.test.jsonl", {"config": config(), "offline": True}
    output = tmp_path / "out"
    found = evaluate_models([base, foreign], rows, base=str(base), output=output, **options)
    assert found[0].scores[0].nll_sum != found[1].scores[0].nll_sum
    with pytest.raises(UsageError, match="--base is for adapters"):
        evaluate_models([base], rows, base=str(base), output=output, **options)
