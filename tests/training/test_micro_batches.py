"""Micro-batches of a run: chosen once, kept after an interruption, refused where none fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swe_scaffold.engine import budget
from swe_scaffold.engine.loop import Loop
from swe_scaffold.errors import Stopped
from swe_scaffold.types import TokenizedExample
from tests.tiny_runs import (
    Listener,
    checkpoints,
    left_behind,
    make_config,
    read_json,
    signal_at,
    train,
)

pytestmark = pytest.mark.slow

FEWEST, MORE = 1, 1024
# More than four of these rows have.
WHOLE_STEP = 400


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


@pytest.mark.parametrize("enough", [True, False])
def test_less_memory_after_an_interruption_changes_no_bit_or_is_said(
    uninterrupted: Path,
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    enough: bool,
) -> None:
    """Enough where layers are computed twice, or for the longest row alone."""
    stop_at_step_3(model, data, tmp_path / "run", monkeypatch)
    real = budget._Need.of

    def of(loop: Loop, longest: TokenizedExample) -> budget._Need:
        found = real(loop, longest)
        least, whole = found.bytes(longest.length, False), found.bytes(WHOLE_STEP, True)
        assert least < whole < found.bytes(WHOLE_STEP, False)
        return replace(found, free=whole if enough else least)

    monkeypatch.setattr(budget._Need, "of", of)
    listener = Listener()
    config = make_config(model, tmp_path / "run")
    train(config, data, resume=True, reporter=listener)
    same = left_behind(tmp_path / "run") == left_behind(uninterrupted)
    assert same == enough
    manifest = read_json(tmp_path / "run" / "manifest.json")
    (twice,) = (c for c in manifest["decisions"] if c["key"] == "activation_checkpointing")
    assert twice["value"] == ("auto = yes" if enough else "auto = no")
    assert ("tokens_per_micro_batch was 1024, is " in listener.text) == (not enough)
    assert [change["key"] for change in manifest["changes"]] == (
        [] if enough else ["tokens_per_micro_batch"]
    )


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
    assert "the last bits" not in listener.text


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
