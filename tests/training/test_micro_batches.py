"""Micro-batches of a run: chosen once, kept after an interruption, refused where none fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from swe_scaffold.engine import budget
from swe_scaffold.errors import Stopped
from tests.tiny_runs import Listener, checkpoints, left_behind, make_config, signal_at, train

pytestmark = pytest.mark.slow

FEWEST, MORE = 1, 1024


def fitting(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Let the run find that so many tokens are enough, or its longest row."""
    monkeypatch.setattr(budget, "CPU_TRAINING_TOKENS", tokens)


def stop_at_step_3(
    model: Path, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **training: object
) -> None:
    config = make_config(model, folder, **training)
    with signal_at(monkeypatch, 3), pytest.raises(Stopped):
        train(config, data)
    assert checkpoints(folder)[-1] == 3


def test_more_memory_after_an_interruption_changes_no_bit(
    uninterrupted: Path, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting(monkeypatch, FEWEST)
    train(make_config(model, tmp_path / "whole"), data)
    assert left_behind(tmp_path / "whole") != left_behind(uninterrupted)
    stop_at_step_3(model, data, tmp_path / "run", monkeypatch)
    fitting(monkeypatch, MORE)
    train(make_config(model, tmp_path / "run"), data, resume=True)
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


def test_less_memory_after_an_interruption_is_said(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at_step_3(model, data, tmp_path / "run", monkeypatch)
    fitting(monkeypatch, FEWEST)
    listener = Listener()
    result = train(make_config(model, tmp_path / "run"), data, resume=True, reporter=listener)
    assert result.steps == 6
    assert "micro-batches held 1024 tokens, and " in listener.text
    assert "fit now: the last bits may differ" in listener.text


def test_a_number_that_was_asked_for_is_taken_at_its_word(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One micro-batch size, whatever auto had chosen before the change was allowed."""
    stop_at_step_3(model, data, tmp_path / "run", monkeypatch)
    listener = Listener()
    config = make_config(model, tmp_path / "run", tokens_per_micro_batch=1)
    allowed = ["training.tokens_per_micro_batch"]
    train(config, data, resume=True, allow_change=allowed, reporter=listener)
    assert "was auto, is 1" in listener.text.replace('"', "")
    assert "micro-batches held" not in listener.text


def test_bfloat16_resumes_bit_identically_within_a_logging_window(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"dtype": "bfloat16", "logging_steps": 4}
    whole, resumed = Listener(), Listener()
    train(make_config(model, tmp_path / "whole", **keys), data, reporter=whole)
    stop_at_step_3(model, data, tmp_path / "run", monkeypatch, **keys)
    train(make_config(model, tmp_path / "run", **keys), data, resume=True, reporter=resumed)
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")
    (said,) = (line for line in whole.lines if line.startswith("step 4/6  loss "))
    assert said in resumed.lines
