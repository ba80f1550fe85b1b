"""The run folder: claimed by one run, cleared of one run, and honest about what it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.training.folder import (
    circumstances,
    claim,
    clear,
    read_run,
    timing_so_far,
    write_card,
    write_run,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run under way, a lock beside it."""
    write_run(tmp_path, fingerprint={"data": "a"}, config={"training": {}}, threads=2)
    (tmp_path / ".lock").touch()
    (tmp_path / "checkpoints" / "step-1").mkdir(parents=True)
    (tmp_path / "metrics.jsonl").touch()
    return tmp_path


def test_an_empty_folder_is_anybodys(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    claim(tmp_path, resume=False, overwrite=False)
    claim(tmp_path, resume=False, overwrite=True)
    with pytest.raises(UsageError, match="no run to resume"):
        claim(tmp_path, resume=True, overwrite=False)


def test_a_run_is_gone_on_with_or_replaced_on_request_alone(folder: Path) -> None:
    claim(folder, resume=True, overwrite=False)
    claim(folder, resume=False, overwrite=True)
    with pytest.raises(UsageError, match="not empty"):
        claim(folder, resume=False, overwrite=False)
    with pytest.raises(UsageError, match="exclude each other"):
        claim(folder, resume=True, overwrite=True)
    assert (folder / "metrics.jsonl").exists()


def test_claiming_destroys_nothing_and_clearing_only_what_is_ours(folder: Path) -> None:
    (folder / "notes.txt").touch()
    claim(folder, resume=False, overwrite=True)
    assert (folder / "checkpoints" / "step-1").is_dir()
    clear(folder)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "notes.txt"]


def test_a_folder_cleared_by_half_is_still_known_as_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swe_scaffold.training import folder as module

    real, calls = module.remove, []

    def remove(path: Path) -> None:
        calls.append(path.name)
        if path.name == "run.json":
            raise KeyboardInterrupt
        real(path)

    monkeypatch.setattr(module, "remove", remove)
    with pytest.raises(KeyboardInterrupt):
        clear(folder)
    assert len(calls) > 10
    claim(folder, resume=False, overwrite=True)


def test_a_strangers_run_json_is_not_overwritten(folder: Path) -> None:
    for content in ("{}", "[", '{"schema": 1, "kind": "dataset"}'):
        (folder / "run.json").write_text(content, "utf-8")
        with pytest.raises(IntegrityError):
            claim(folder, resume=False, overwrite=True)


def test_versions_that_changed_are_listed(folder: Path) -> None:
    record = read_run(folder)
    found = circumstances(record)
    assert found["threads"] == "2"
    assert {"version", "python", "platform", "torch", "numpy"} < set(found)
    assert "torch" not in circumstances({**record, "packages": None})


@pytest.mark.parametrize(
    ("content", "step", "kept"),
    [
        (b"", 3, 0),
        (b'{"step": 1}\n{"step": 2}\n', 3, 24),
        (b'{"step": 1}\n{"step": 2}\n', 1, 12),
        (b'{"step": 1}\n{"st', 3, 12),
        (b'{"step": 1}\n\xff\n{"step": 2}\n', 3, 12),
        (b'{"step": 1}\n{"step": "x"}\n', 3, 12),
        (b'{"step": 1}\n[]\n', 3, 12),
        (b'{"step": 4}\n', 3, 0),
    ],
)
def test_a_timing_log_is_kept_as_far_as_it_is_whole(
    tmp_path: Path, content: bytes, step: int, kept: int
) -> None:
    (tmp_path / "timing.jsonl").write_bytes(content)
    size, lines = timing_so_far(tmp_path / "timing.jsonl", step)
    assert (size, len(lines)) == (kept, kept // 12)
    assert timing_so_far(tmp_path / "missing.jsonl", step) == (0, [])


def test_the_card_says_what_was_trained(tmp_path: Path) -> None:
    facts = {
        "base_name": 'a: "strange" name',
        "config": {
            "training": {
                "learning_rate": 0.1,
                "lr_scheduler_type": "cosine",
                "lora": {"r": 8, "alpha": 16, "dropout": 0.05},
            }
        },
        "counts": {"trained": 5, "target_tokens": 50, "held_out": 2},
        "result": {"steps": 3, "eval_nll": 1.23456},
        "fingerprint": {"data": "d" * 64, "base": "b" * 64},
    }
    write_card(tmp_path, facts)
    card = (tmp_path / "README.md").read_text("utf-8")
    assert card.startswith("---\nbase_model: 'a: \"strange\" name'\nlibrary_name: peft\n")
    assert "5 rows (50 response tokens) for 3 optimizer steps; 2 rows were held out" in card
    assert "| hold-out NLL per token | 1.2346 |" in card
    facts["result"] = {"steps": 3, "eval_nll": None}
    write_card(tmp_path, facts)
    assert "not evaluated" in (tmp_path / "README.md").read_text("utf-8")
