"""Interrupted anywhere, a run ends in the same bytes; what differs is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import (
    IntegrityError,
    Stopped,
    UsageError,
)
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_runs import (
    Listener,
    checkpoints,
    copy_model,
    evaluations,
    examples,
    flip_byte,
    left_behind,
    left_over,
    make_config,
    read_json,
    signal_at,
    train,
    write_split,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("step", "number"), [*((step, signal.SIGTERM) for step in range(1, 7)), (3, signal.SIGINT)]
)
def test_a_signal_saves_and_resume_is_bit_identical(
    uninterrupted: Path,
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    number: int,
) -> None:
    config = make_config(model, tmp_path / "run")
    before = signal.getsignal(number)
    with signal_at(monkeypatch, step, number), pytest.raises(Stopped) as error:
        train(config, data)
    assert error.value.exit_code == 128 + number
    assert f"stopped at step {step}" in error.value.message
    assert "--resume" in error.value.hint
    assert checkpoints(tmp_path / "run")[-1] == step
    assert signal.getsignal(number) is before
    listener = Listener()
    train(config, data, resume=True, reporter=listener)
    assert f"going on from step {step}" in listener.text
    assert left_behind(tmp_path / "run") == left_behind(uninterrupted)
    timing = (tmp_path / "run" / "timing.jsonl").read_text("utf-8").split("\n")
    assert [json.loads(line)["step"] for line in timing if line] == [1, 2, 3, 4, 5, 6]


def test_with_nothing_left_to_do_a_signal_lets_the_run_finish(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(model, tmp_path / "run", eval_strategy="no")
    with signal_at(monkeypatch, 6, signal.SIGTERM):
        assert train(config, data).steps == 6
    assert (tmp_path / "run" / "manifest.json").is_file()


@pytest.mark.parametrize("step", [3, 6])
def test_a_signal_does_not_wait_for_an_evaluation(
    uninterrupted: Path,
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    """The checkpoint is saved without it, and the resumed run makes up for it first."""
    from swe_scaffold.engine import scoring

    real, scored = scoring.score, []

    def score(*arguments: Any, **options: Any) -> Any:
        for row in chain.from_iterable(real(*arguments, **options)):
            scored.append(row)
            if len(scored) == 6 * (1 + step // 3) - 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield [row]

    config = make_config(model, tmp_path / "run", load_best=True)
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score", score)
        with pytest.raises(Stopped, match=f"stopped at step {step}"):
            train(config, data)
    assert len(scored) == 6 * (1 + step // 3) - 3
    assert [line["step"] for line in evaluations(tmp_path / "run")] == list(range(0, step, 3))
    train(config, data, resume=True)
    assert left_behind(tmp_path / "run") == left_behind(uninterrupted)


def test_preempted_every_three_steps(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "max_steps": 14,
        "save_strategy": "no",
        "save_total_limit": 1,
        "eval_steps": 4,
        "logging_steps": 5,
    }
    whole, parts = Listener(), Listener()
    train(make_config(model, tmp_path / "whole", **options), data, reporter=whole)
    config = make_config(model, tmp_path / "parts", **options)
    for stop in (3, 6, 9, 12):
        with signal_at(monkeypatch, stop, signal.SIGTERM), pytest.raises(Stopped):
            train(config, data, resume=stop > 3, reporter=parts)
        assert checkpoints(tmp_path / "parts") == [stop]
    train(config, data, resume=True, reporter=parts)
    assert left_behind(tmp_path / "parts") == left_behind(tmp_path / "whole")
    # The lines on the terminal too: their window of steps is part of a checkpoint.
    said = [
        [line for line in listener.lines if line.startswith("step ")] for listener in (whole, parts)
    ]
    assert said[0] == said[1]


RUN = """
import sys
from pathlib import Path
from tests.tiny_runs import make_config, train
model, output, data, resume = sys.argv[1:]
train(make_config(Path(model), Path(output)), Path(data), resume=resume == "resume")
"""


def start(model: Path, output: Path, data: Path, how: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", RUN, *map(str, (model, output, data)), how]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(arguments, env=environment, cwd=ROOT, stderr=subprocess.PIPE)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
def test_kill_minus_9_and_resume(
    uninterrupted: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    killed = start(model, folder, data, "begin")
    wait_for(folder / "checkpoints" / "step-2", killed)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "manifest.json").exists()
    listener = Listener()
    train(make_config(model, folder), data, resume=True, reporter=listener)
    assert "going on from step" in listener.text
    assert left_behind(folder) == left_behind(uninterrupted)


@pytest.mark.parametrize("damage", ["flip", "missing", "empty folder"])
def test_a_damaged_checkpoint_is_passed_over_and_does_not_outlive_good_ones(
    uninterrupted: Path, model: Path, data: Path, half: Path, damage: str
) -> None:
    broken = half / "checkpoints" / "step-4"
    if damage == "flip":
        flip_byte(broken / "optimizer.safetensors")
    elif damage == "missing":
        (broken / "adapter_model.safetensors").unlink()
    else:
        shutil.rmtree(broken)
        (half / "checkpoints" / "step-99").mkdir()
    listener = Listener()
    config = make_config(model, half, save_total_limit=1)
    train(config, data, resume=True, reporter=listener)
    assert "passed over step-" in listener.text
    assert "going on from step 2" in listener.text
    assert checkpoints(half) == [6]
    assert left_behind(half) == left_behind(uninterrupted)


def test_where_every_checkpoint_is_damaged_it_starts_anew_and_says_so(
    uninterrupted: Path, model: Path, data: Path, half: Path
) -> None:
    for step in (2, 4):
        flip_byte(half / "checkpoints" / f"step-{step}" / "adapter_model.safetensors")
    listener = Listener()
    train(make_config(model, half), data, resume=True, reporter=listener)
    assert "no usable checkpoint: starting from step 0" in listener.text
    assert left_behind(half) == left_behind(uninterrupted)
    assert checkpoints(half) == [2, 4, 6]


def test_what_a_kill_left_in_a_save_is_cleared_away(
    uninterrupted: Path, model: Path, data: Path, half: Path
) -> None:
    places = half / "checkpoints"
    shutil.copytree(places / "step-4", places / ".tmp-step-6-0123456789abcdef")
    (half / "timing.jsonl").write_bytes((half / "timing.jsonl").read_bytes() + b'{"step": 6, "wa')
    train(make_config(model, half), data, resume=True)
    assert sorted(path.name for path in places.iterdir()) == ["step-2", "step-4", "step-6"]
    assert left_behind(half) == left_behind(uninterrupted)


def test_a_shortened_log_is_refused(model: Path, data: Path, half: Path) -> None:
    (half / "metrics.jsonl").write_bytes(b"")
    with pytest.raises(IntegrityError, match="were recorded"):
        train(make_config(model, half), data, resume=True)


def test_resuming_a_finished_run_changes_nothing(
    uninterrupted: Path, model: Path, data: Path, finished: Path
) -> None:
    result = train(make_config(model, finished), data, resume=True)
    assert result.steps == 6
    assert left_behind(finished) == left_behind(uninterrupted)
    assert (finished / "manifest.json").is_file()


def test_a_finished_run_without_checkpoints_is_not_trained_again(
    uninterrupted: Path, model: Path, data: Path, finished: Path
) -> None:
    shutil.rmtree(finished / "checkpoints")
    with pytest.raises(UsageError, match="has finished") as error:
        train(make_config(model, finished), data, resume=True)
    assert "--overwrite" in error.value.hint
    assert left_behind(finished) == left_behind(uninterrupted)
    assert (finished / "manifest.json").is_file()


Change = Callable[[Path, Path, Path], tuple[Path, Path]]


def _other_data(model: Path, data: Path, place: Path) -> tuple[Path, Path]:
    return model, write_split(place / "rows.jsonl", examples(0, 11), examples(12, 18))


def _other_hold_out(model: Path, data: Path, place: Path) -> tuple[Path, Path]:
    return model, write_split(place / "rows.jsonl", examples(0, 12), examples(13, 18))


def _other_base(model: Path, data: Path, place: Path) -> tuple[Path, Path]:
    return tiny_model(place, tiny_tokenizer(place), seed=1, hidden=16), data


def _other_tokenizer(model: Path, data: Path, place: Path) -> tuple[Path, Path]:
    """Two letters change places: same size, same base weights."""
    copy = copy_model(model, place / "other")
    tokenizer = read_json(copy / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    return copy, data


def _other_template(model: Path, data: Path, place: Path) -> tuple[Path, Path]:
    copy = copy_model(model, place / "other")
    template = (copy / "chat_template.jinja").read_text("utf-8")
    (copy / "chat_template.jinja").write_text("{# mine #}" + template, "utf-8")
    return copy, data


REFUSED: dict[str, tuple[Change, str]] = {
    "data": (_other_data, r"different: .*data \(was"),
    "hold-out": (_other_hold_out, r"different: holdout \(was"),
    "base of the same shape": (_other_base, r"different: base \(was"),
    "tokenizer": (_other_tokenizer, r"tokenizer \(was"),
    "template": (_other_template, r"template \(was"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_resume_refuses_what_is_not_the_same(
    model: Path, data: Path, half: Path, tmp_path: Path, case: str
) -> None:
    change, message = REFUSED[case]
    place = tmp_path / "changed"
    place.mkdir()
    other_model, other_data = change(model, data, place)
    before = left_over(half)
    with pytest.raises(IntegrityError, match=message) as error:
        train(make_config(other_model, half), other_data, resume=True, trust_template=True)
    assert error.value.exit_code == 5
    assert left_over(half) == before


CHANGED: list[tuple[str, Any]] = [
    ("learning_rate", 0.03),
    ("num_train_epochs", 3.0),
    ("max_steps", 7),
    ("per_device_train_batch_size", 4),
    ("gradient_accumulation_steps", 4),
    ("warmup_ratio", 0.5),
    ("weight_decay", 0.5),
    ("lr_scheduler_type", "linear"),
    ("eval_strategy", "epoch"),
    ("eval_steps", 2),
    ("save_strategy", "no"),
    ("save_steps", 1),
    ("max_grad_norm", None),
    ("max_length", 127),
    ("min_prompt_tokens", 9),
    ("seed", 1),
    ("include_failures", True),
    ("load_best", True),
    ("lora.r", 5),
    ("lora.alpha", 9),
    ("lora.dropout", 0.2),
    ("lora.target_modules", ["q_proj"]),
]


@pytest.mark.parametrize(("key", "value"), CHANGED)
def test_resume_refuses_another_configuration_by_key(
    model: Path, data: Path, half: Path, key: str, value: Any
) -> None:
    group, _, name = key.rpartition(".")
    changes = {group: {name: value}} if group else {name: value}
    if key == "load_best":
        changes["eval_strategy"] = "steps"
    with pytest.raises(IntegrityError, match=rf"different: training\.{key} \(was ") as error:
        train(make_config(model, half, **changes), data, resume=True)
    assert json.dumps(value) in error.value.message
    assert error.value.exit_code == 5


def test_the_record_is_compared_before_there_is_a_checkpoint(
    model: Path, data: Path, half: Path
) -> None:
    shutil.rmtree(half / "checkpoints")
    with pytest.raises(IntegrityError, match=r"different: training\.seed \(was 42, is 1\)"):
        train(make_config(model, half, seed=1), data, resume=True)


def test_resume_refuses_another_dtype(model: Path, data: Path, half: Path) -> None:
    with pytest.raises(IntegrityError, match=r"device \(was cpu/float32, is cpu/bfloat16\)"):
        train(make_config(model, half, dtype="bfloat16"), data, resume=True)


def test_resume_refuses_a_checkpoint_of_another_run(model: Path, data: Path, half: Path) -> None:
    path = half / "checkpoints" / "step-4" / "manifest.json"
    content = read_json(path)
    content["fingerprint"]["data"] = "0" * 64
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(IntegrityError, match=r"different: data"):
        train(make_config(model, half), data, resume=True)


def test_what_is_shown_or_kept_may_change(
    uninterrupted: Path, model: Path, data: Path, half: Path, tmp_path: Path
) -> None:
    moved = half.rename(tmp_path / "moved")
    copied = copy_model(model, tmp_path / model.name)
    options: dict[str, Any] = {"logging_steps": 1, "save_total_limit": 1, "report_to": []}
    train(make_config(copied, moved, **options), data, resume=True)
    assert left_behind(moved) == left_behind(uninterrupted)
    assert checkpoints(moved) == [6]
