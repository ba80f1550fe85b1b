"""Runs of other kinds than plain LoRA: interrupted, resumed, and what their folder says."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.tiny_runs import left_behind, make_config, read_json, train


def test_a_resumed_dora_run_is_the_uninterrupted_one(
    model: Path, data: Path, tmp_path: Path
) -> None:
    config = make_config(model, tmp_path / "run", lora={"use_dora": True, "use_rslora": True})
    folder = train(config, data).folder
    whole = left_behind(folder)
    (folder / "manifest.json").unlink()
    for step in (4, 6):
        shutil.rmtree(folder / "checkpoints" / f"step-{step}")
    train(config, data, resume=True)
    assert left_behind(folder) == whole
    decisions = {one["key"]: one for one in read_json(folder / "manifest.json")["decisions"]}
    assert decisions["lora.use_dora"]["value"] == "yes"
    assert decisions["lora.use_rslora"]["why"] == "scale 8/√4"
