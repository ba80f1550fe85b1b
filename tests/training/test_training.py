"""A run as a whole: what it leaves behind, whom it refuses, how it fails."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from swe_scaffold.engine import loop as loop_module
from swe_scaffold.errors import (
    ConfigError,
    DataError,
    DivergedError,
    IntegrityError,
    LockedError,
    OutOfMemory,
    Stopped,
    UsageError,
)
from swe_scaffold.files import folder_lock
from swe_scaffold.manifest import verify_files
from swe_scaffold.signals import stop_by_exception
from tests.tiny_runs import (
    checkpoints,
    copy_model,
    evaluations,
    left_behind,
    left_over,
    make_config,
    metrics,
    read_json,
    steps,
    train,
)


def test_what_a_run_leaves_behind(uninterrupted: Path, model: Path, data: Path) -> None:
    manifest = read_json(uninterrupted / "manifest.json")
    verify_files(uninterrupted, manifest["files"])
    assert manifest["kind"] == "adapter"
    assert {"README.md", "tokenizer.json", "chat_template.jinja"} <= set(manifest["files"])
    assert manifest["base"]["name"] == model.name
    assert manifest["counts"]["trained"] == 12
    assert manifest["counts"]["held_out"] == 6
    assert manifest["result"]["steps"] == 6
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (uninterrupted / name).read_bytes() == (model / name).read_bytes()
    assert [line["step"] for line in steps(uninterrupted)] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in evaluations(uninterrupted)] == [0, 3, 6]
    assert checkpoints(uninterrupted) == [2, 4, 6]
    trained = [json.loads(line) for line in data.read_text("utf-8").split("\n") if line]
    wanted = sorted([row["instance_id"], row["meta"]["sha256"]] for row in trained)
    assert read_json(uninterrupted / "trained_rows.json") == wanted
    timing = (uninterrupted / "timing.jsonl").read_text("utf-8").split("\n")
    assert [json.loads(line)["step"] for line in timing if line] == [1, 2, 3, 4, 5, 6]


def test_a_run_learns(uninterrupted: Path) -> None:
    before, *_, after = [line["eval_nll"] for line in evaluations(uninterrupted)]
    assert after < before - 0.01


def test_two_runs_are_the_same_bytes(
    uninterrupted: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    train(make_config(model, tmp_path / "again"), data)
    assert left_behind(tmp_path / "again") == left_behind(uninterrupted)


def test_the_adapter_names_no_path_of_this_machine(uninterrupted: Path, model: Path) -> None:
    for name in ("adapter_config.json", "README.md", "adapter_model.safetensors"):
        data = (uninterrupted / name).read_bytes()
        assert str(model.parent).encode() not in data, name
        assert str(uninterrupted).encode() not in data, name
    assert read_json(uninterrupted / "adapter_config.json")["base_model_name_or_path"] == model.name


def test_peft_loads_the_adapter_that_was_trained(
    uninterrupted: Path, model: Path, data: Path
) -> None:
    """The hold-out's NLL, recomputed with plain transformers and PEFT, is the one in the record."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from swe_scaffold.rendering import Renderer
    from swe_scaffold.sources.examples import read_examples

    base = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, str(uninterrupted)).eval()
    total, tokens = 0.0, 0
    for row in Renderer.load(model).render_many(
        read_examples(data.with_name("rows.test.jsonl")).examples, max_length=128
    ):
        ids = torch.tensor([row.input_ids.tolist()])
        labels = ids.masked_fill(~torch.tensor([row.loss_mask.tolist()]), -100)
        with torch.no_grad():
            loss = tuned(input_ids=ids, labels=labels).loss
        total += float(loss) * row.targets
        tokens += row.targets
    recorded = evaluations(uninterrupted)[-1]
    assert recorded["eval_tokens"] == tokens
    assert recorded["eval_nll"] == pytest.approx(total / tokens, rel=1e-6)


@contextmanager
def sick_at(
    monkeypatch: pytest.MonkeyPatch, call: int, sickness: Callable[[], Any]
) -> Iterator[None]:
    """Let the n-th pass of a run go wrong."""
    healthy, calls = loop_module.token_nll, []

    def token_nll(model: Any, batch: Any) -> torch.Tensor:
        calls.append(batch)
        nll = healthy(model, batch)
        return nll * sickness() if len(calls) == call else nll

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "token_nll", token_nll)
        yield


def test_a_run_that_diverges_keeps_its_last_checkpoint(
    uninterrupted: Path,
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(model, tmp_path / "run")
    with (
        sick_at(monkeypatch, 5, lambda: math.nan),
        pytest.raises(DivergedError, match=r"not finite at step 5; rows: (row-\d\d(, |$)){4}") as e,
    ):
        train(config, data)
    assert e.value.exit_code == 6
    assert checkpoints(tmp_path / "run") == [2, 4]
    assert not (tmp_path / "run" / "manifest.json").exists()
    assert [line["step"] for line in steps(tmp_path / "run")] == [1, 2, 3, 4]
    train(config, data, resume=True)
    assert left_behind(tmp_path / "run") == left_behind(uninterrupted)


def test_a_hold_out_that_is_not_finite_stops_the_run(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swe_scaffold.engine import scoring

    monkeypatch.setattr(
        scoring, "token_nll", lambda _, batch: torch.full(batch.targets.shape, math.inf)
    )
    with pytest.raises(DivergedError, match=r"hold-out NLL is not finite at step 0; row: row-1\d"):
        train(make_config(model, tmp_path / "run"), data)


def test_out_of_memory_is_an_error_with_sizes(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with (
        sick_at(monkeypatch, 1, refuse),
        pytest.raises(OutOfMemory, match=r"a micro-batch of \d rows?, longest \d+ tokens") as error,
    ):
        train(make_config(model, tmp_path / "run"), data)
    assert error.value.exit_code == 7


def test_a_second_run_in_the_same_folder_is_refused(
    model: Path, data: Path, finished: Path
) -> None:
    before = left_over(finished)
    config = make_config(model, finished)
    with pytest.raises(UsageError, match="the output folder is not empty") as error:
        train(config, data)
    assert error.value.exit_code == 2
    assert "--resume" in error.value.hint
    assert "--overwrite" in error.value.hint
    with pytest.raises(UsageError, match="exclude each other"):
        train(config, data, resume=True, overwrite=True)
    assert left_over(finished) == before


def test_overwrite_replaces_the_run_and_nothing_else(
    model: Path, data: Path, finished: Path
) -> None:
    (finished / "evaluation" / "x").mkdir(parents=True)
    (finished / "notes.txt").write_text("mine", "utf-8")
    train(make_config(model, finished, max_steps=2), data, overwrite=True)
    assert [line["step"] for line in steps(finished)] == [1, 2]
    assert checkpoints(finished) == [2]
    assert not (finished / "evaluation").exists()
    assert (finished / "notes.txt").read_text("utf-8") == "mine"


def test_overwrite_destroys_nothing_until_the_new_run_can_begin(
    model: Path, data: Path, finished: Path, tmp_path: Path
) -> None:
    before = left_over(finished)
    bad: list[tuple[dict[str, Any], Path, type[Exception]]] = [
        ({"model_name": str(tmp_path / "nowhere")}, data, UsageError),
        ({"lora": {"target_modules": ["q_prj"]}}, data, ConfigError),
        ({"report_to": ["nobody"]}, data, ConfigError),
        ({}, tmp_path / "nothing.jsonl", Exception),
    ]
    for changes, rows, kind in bad:
        with pytest.raises(kind):
            train(make_config(model, finished, **changes), rows, overwrite=True)
        assert left_over(finished) == before


def test_overwrite_refuses_a_folder_that_holds_no_run(
    model: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "README.md").write_text("mine", "utf-8")
    (folder / "manifest.json").write_text("{}", "utf-8")
    config = make_config(model, folder)
    with pytest.raises(IntegrityError, match="no run of this tool"):
        train(config, data, overwrite=True)
    (folder / "run.json").write_text("{}", "utf-8")
    with pytest.raises(IntegrityError):
        train(config, data, overwrite=True)
    assert (folder / "README.md").read_text("utf-8") == "mine"
    with pytest.raises(UsageError, match="no run to resume"):
        train(make_config(model, tmp_path / "empty"), data, resume=True)


def test_a_locked_folder_is_refused_at_once(model: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with folder_lock(folder), pytest.raises(LockedError, match=rf"pid {os.getpid()}") as error:
        train(make_config(model, folder), data)
    assert error.value.exit_code == 8
    train(make_config(model, folder, max_steps=1), data)


def test_a_tokenizer_beyond_the_embeddings_is_refused(
    model: Path, data: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_model(model, tmp_path / "small")
    tensors = load_file(folder / "model.safetensors")
    name = "model.embed_tokens.weight"
    tensors[name] = tensors[name][:390].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ids = {"vocab_size": 390, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    edit_config(folder, **ids)
    with pytest.raises(IntegrityError, match=r"token id 39\d is beyond the model's 390 embeddings"):
        train(make_config(folder, tmp_path / "run"), data)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def edit_config(folder: Path, **changes: Any) -> None:
    config = read_json(folder / "config.json")
    (folder / "config.json").write_text(json.dumps({**config, **changes}), "utf-8")


def test_rows_beyond_the_context_are_refused(model: Path, data: Path, tmp_path: Path) -> None:
    folder = copy_model(model, tmp_path / "short")
    edit_config(folder, max_position_embeddings=76)
    with pytest.raises(
        UsageError, match=r"a row has \d+ tokens, the model's context is 76"
    ) as error:
        train(make_config(folder, tmp_path / "run"), data)
    assert error.value.where == "training.max_length"
    result = train(make_config(folder, tmp_path / "run", max_length=76, max_steps=1), data)
    assert result.counts["prompts_shortened"] or result.counts["skipped"]


def test_a_run_prints_nothing_of_its_libraries(
    model: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import warnings

    from transformers.utils import logging as library

    level = library.get_verbosity()
    library.set_verbosity_warning()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(make_config(model, tmp_path / "run", max_steps=1), data)
    finally:
        library.set_verbosity(level)
    assert capfd.readouterr() == ("", "")


def test_metrics_are_strict_json_without_times(uninterrupted: Path) -> None:
    for line in metrics(uninterrupted):
        assert not [key for key in line if "second" in key or "memory" in key]
        assert all(math.isfinite(value) for value in line.values())


def with_endless_weights(model: Path, to: Path) -> Path:
    """A base that takes a quarter of an hour to hash."""
    folder = copy_model(model, to)
    os.truncate(folder / "model.safetensors", 1 << 40)
    return folder


def test_what_is_wrong_with_the_rows_does_not_wait_for_the_base(
    model: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("no json\n")
    endless = with_endless_weights(model, tmp_path / "model")
    before = threading.active_count()
    with pytest.raises(DataError, match=r"rows\.jsonl:1"):
        train(make_config(endless, tmp_path / "run"), rows)
    assert threading.active_count() == before


def test_a_signal_does_not_wait_for_the_base(model: Path, data: Path, tmp_path: Path) -> None:
    endless = with_endless_weights(model, tmp_path / "model")
    before = threading.active_count()
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Stopped), stop_by_exception():
        train(make_config(endless, tmp_path / "run"), data)
    timer.join()
    assert threading.active_count() == before
    assert list((tmp_path / "run").glob("*.json*")) == []
