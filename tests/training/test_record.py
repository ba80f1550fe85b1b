"""The record of a run: what it went on under, what changed, what of before it may still rely on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from swe_scaffold.engine.loop import Loop
from swe_scaffold.errors import IntegrityError, UsageError
from tests.tiny_runs import (
    Listener,
    checkpoints,
    evaluations,
    examples,
    flip_byte,
    left_behind,
    left_over,
    make_config,
    metrics,
    read_json,
    train,
    write_split,
)

pytestmark = pytest.mark.slow
RATE = "training.learning_rate"


def test_a_change_that_is_allowed_is_on_the_record(model: Path, data: Path, half: Path) -> None:
    config = make_config(model, half, learning_rate=0.03)
    key = "training.learning_rate"
    with pytest.raises(IntegrityError) as error:
        train(config, data, resume=True)
    assert f"--allow-change {key}" in error.value.hint
    with pytest.raises(UsageError, match="no part of what") as unknown:
        train(config, data, resume=True, allow_change=["training.learning_rat"])
    assert unknown.value.hint == f"did you mean {key}?"
    with pytest.raises(UsageError, match="--resume alone"):
        train(config, data, overwrite=True, allow_change=[key])
    listener = Listener()
    result = train(config, data, resume=True, allow_change=[key], reporter=listener)
    change = {"step": 4, "key": key, "was": "0.02", "is": "0.03"}
    assert read_json(half / "run.json")["changes"] == [change]
    assert read_json(half / "manifest.json")["changes"] == [change]
    assert f"changed from step 4 on: {key} was 0.02, is 0.03" in listener.text
    assert result.steps == 6
    # What was allowed once holds from then on, for checkpoints from before the change too.
    for step in (5, 6):
        shutil.rmtree(half / "checkpoints" / f"step-{step}", ignore_errors=True)
    assert train(config, data, resume=True).steps == 6
    with pytest.raises(IntegrityError, match="learning_rate"):
        train(make_config(model, half), data, resume=True)


def test_rows_trained_before_a_change_of_data_stay_known(
    model: Path, data: Path, half: Path, tmp_path: Path
) -> None:
    before = {name for name, _ in read_json(half / "trained_rows.json")}
    config = make_config(model, half)
    allowed = ["data", "holdout"]
    leaky = write_split(tmp_path / "leaky.jsonl", examples(13, 18), examples(0, 6))
    with pytest.raises(IntegrityError, match="held-out rows are trained in this run"):
        train(config, leaky, resume=True, allow_change=allowed)
    other = write_split(tmp_path / "other.jsonl", examples(20, 26), examples(12, 18))
    train(config, other, resume=True, allow_change=allowed)
    now = {name for name, _ in read_json(half / "trained_rows.json")}
    assert now == before | {f"row-{number}" for number in range(20, 26)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"schema": 1, "kind": "run"}',
        b'{"schema": 1, "kind": "run", "fingerprint": {}, "changes": ["learning_rate"]}',
    ],
)
def test_a_damaged_record_is_refused(model: Path, data: Path, half: Path, content: bytes) -> None:
    (half / "run.json").write_bytes(content)
    with pytest.raises(IntegrityError):
        train(make_config(model, half), data, resume=True)


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**read_json(path), **changes}), "utf-8")


def test_what_may_change_the_last_bits_is_said_and_on_the_record(
    model: Path, data: Path, half: Path
) -> None:
    packages = {**read_json(half / "run.json")["packages"], "torch": "1.0.0"}
    rewrite(half / "run.json", packages=packages, python="3.2.1", git_revision="a" * 40, threads=7)
    listener = Listener()
    train(make_config(model, half), data, resume=True, reporter=listener)
    found = {change["key"]: change for change in read_json(half / "manifest.json")["changes"]}
    assert {"torch", "python", "threads"} <= set(found)
    assert found["torch"] == {"step": 4, "key": "torch", "was": "1.0.0", "is": torch.__version__}
    assert f"torch was 1.0.0, is {torch.__version__}: the last bits may differ" in listener.text
    assert "threads was 7, is 1: the last bits may differ" in listener.text
    again = Listener()
    train(make_config(model, half), data, resume=True, reporter=again)
    assert "the last bits" not in again.text
    assert len(read_json(half / "manifest.json")["changes"]) == len(found)


def test_a_change_made_after_a_checkpoint_that_is_lost_is_dated_back(
    model: Path, data: Path, half: Path
) -> None:
    config = make_config(model, half, learning_rate=0.03, save_steps=1)
    allowed = [RATE, "training.save_steps"]
    train(config, data, resume=True, allow_change=allowed)
    for step in (4, 5, 6):
        flip_byte(half / "checkpoints" / f"step-{step}" / "optimizer.safetensors")
    train(config, data, resume=True)
    for name in ("run.json", "manifest.json"):
        changes = read_json(half / name)["changes"]
        assert {(change["key"], change["step"]) for change in changes} == {
            (key, 2) for key in allowed
        }
    peak = max(line["lr"] for line in metrics(half) if "lr" in line and line["step"] > 2)
    assert peak > 0.02


def test_the_best_of_another_hold_out_is_forgotten(model: Path, data: Path, tmp_path: Path) -> None:
    """The lowest so far must not be compared with a number about other rows."""
    config = make_config(model, tmp_path / "run", load_best=True, save_steps=1)
    train(config, data)
    assert read_json(tmp_path / "run" / "manifest.json")["result"]["best_step"]
    for step in (5, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step}")
    state = tmp_path / "run" / "checkpoints" / "step-4" / "state.json"
    assert read_json(state)["best"][1] == 3
    other = write_split(tmp_path / "other.jsonl", examples(0, 12), examples(20, 26))
    listener = Listener()
    train(config, other, resume=True, allow_change=["data", "holdout"], reporter=listener)
    result = read_json(tmp_path / "run" / "manifest.json")["result"]
    last = evaluations(tmp_path / "run")[-1]
    assert (result["best_step"], result["eval_nll"]) == (6, last["eval_nll"])
    assert "the best step so far is forgotten: it was that of another hold-out" in listener.text


@pytest.mark.parametrize("damage", ["flip", "missing"])
def test_a_best_checkpoint_that_is_lost_is_forgotten_before_more_steps_are_taken(
    model: Path, data: Path, tmp_path: Path, damage: str
) -> None:
    config = make_config(model, tmp_path / "run", load_best=True, save_steps=1)
    train(config, data)
    places = tmp_path / "run" / "checkpoints"
    for step in (5, 6):
        shutil.rmtree(places / f"step-{step}")
    if damage == "flip":
        flip_byte(places / "step-3" / "adapter_model.safetensors")
    else:
        shutil.rmtree(places / "step-3")
    listener = Listener()
    train(config, data, resume=True, reporter=listener)
    said = next(line for line in listener.lines if "is forgotten" in line)
    assert "step-3" in said
    assert listener.lines.index(said) < listener.lines.index("going on from step 4")
    assert read_json(tmp_path / "run" / "manifest.json")["result"]["best_step"] == 6


@pytest.mark.parametrize("best", [["x"], [1.0, "../../elsewhere"], [1.0, 1e999], {"a": 1}])
def test_a_refused_resume_changes_nothing(
    model: Path, data: Path, half: Path, best: object
) -> None:
    """A state that makes no sense, a change asked for at the same time."""
    from swe_scaffold.manifest import file_entries

    place = half / "checkpoints" / "step-4"
    rewrite(place / "state.json", best=best)
    manifest = read_json(place / "manifest.json")
    rewrite(place / "manifest.json", files=file_entries(place, sorted(manifest["files"])))
    before = left_over(half)
    config = make_config(model, half, learning_rate=0.03)
    with pytest.raises(IntegrityError, match="malformed state"):
        train(config, data, resume=True, allow_change=[RATE])
    assert left_over(half) == before


def test_a_finished_run_with_a_shortened_log_keeps_its_manifest(
    model: Path, data: Path, finished: Path
) -> None:
    log = finished / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    before = left_over(finished)
    with pytest.raises(IntegrityError, match="were recorded"):
        train(make_config(model, finished), data, resume=True)
    assert left_over(finished) == before


def test_a_list_of_trained_rows_that_is_lost_is_made_again(
    uninterrupted: Path, model: Path, data: Path, half: Path, tmp_path: Path
) -> None:
    """But not where other rows were trained before a change of data."""
    (half / "trained_rows.json").unlink()
    other = write_split(tmp_path / "other.jsonl", examples(20, 26), examples(12, 18))
    with pytest.raises(IntegrityError, match="missing or damaged"):
        train(make_config(model, half), other, resume=True, allow_change=["data", "holdout"])
    train(make_config(model, half), data, resume=True)
    assert left_behind(half) == left_behind(uninterrupted)


def test_speed_is_that_of_all_parts_of_a_run(model: Path, data: Path, half: Path) -> None:
    train(make_config(model, half), data, resume=True)
    speed = read_json(half / "manifest.json")["speed"]
    lines = [json.loads(line) for line in (half / "timing.jsonl").read_text().splitlines()]
    assert speed["steps"] == len(lines) == 6
    tokens = sum(line["tokens"] for line in metrics(half) if "tokens" in line)
    seconds = sum(line["wall_seconds"] for line in lines)
    assert speed["tokens_per_second"] == pytest.approx(tokens / seconds, rel=0.02)
    assert speed["first_step_seconds"] == lines[0]["since_start_seconds"]
    assert checkpoints(half)[-1] == 6
    train(make_config(model, half), data, resume=True)
    assert read_json(half / "manifest.json")["speed"]["steps"] == 6


def test_what_is_in_the_log_of_another_run_or_none_breaks_nothing(
    model: Path, data: Path, half: Path
) -> None:
    log = half / "timing.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()][:4]
    lines[1]["tokens_per_second"] = float("inf")
    lines[2] = {"step": 3, "wall_seconds": "long"}
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    train(make_config(model, half), data, resume=True)
    speed = read_json(half / "manifest.json")["speed"]
    assert speed["steps"] == 4
    assert 0 < speed["tokens_per_second"] < 1e9


def test_mfu_is_that_of_the_steps_in_which_it_was_measured(
    model: Path, data: Path, half: Path
) -> None:
    train(make_config(model, half, measure_mfu=True), data, resume=True)
    lines = [json.loads(line) for line in (half / "timing.jsonl").read_text().splitlines()]
    assert ["mfu" in line for line in lines] == [False] * 4 + [True] * 2
    found = read_json(half / "manifest.json")["speed"]["mfu"]
    assert min(line["mfu"] for line in lines[4:]) <= found <= max(line["mfu"] for line in lines[4:])


def test_what_a_run_sees_twice_is_on_the_record_once(
    model: Path, data: Path, half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of two processes went on as one, and was killed before its next checkpoint."""
    from swe_scaffold.manifest import file_entries

    place = half / "checkpoints" / "step-4"
    rewrite(place / "state.json", processes=2)
    manifest = read_json(place / "manifest.json")
    rewrite(place / "manifest.json", files=file_entries(place, sorted(manifest["files"])))
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "take", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(make_config(model, half), data, resume=True)
    train(make_config(model, half), data, resume=True)
    changes = read_json(half / "manifest.json")["changes"]
    assert changes == [{"step": 4, "key": "processes", "was": 2, "is": 1}]
