"""A preflight as a whole: what it finds, what it refuses, and no trace of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from swe_scaffold.config import config_origins
from swe_scaffold.engine import loop as loop_module
from swe_scaffold.errors import (
    ConfigError,
    DataError,
    EnvironmentFailure,
    IntegrityError,
    OutOfMemory,
    UsageError,
)
from swe_scaffold.rendering import Renderer
from swe_scaffold.training.plan import evaluation_steps
from swe_scaffold.training.preflight import Preflight, preflight
from swe_scaffold.types import Example, Message, TokenizedExample
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_runs import (
    copy_model,
    evaluations,
    example,
    examples,
    left_over,
    make_config,
    read_json,
    renamed,
    train,
    write_rows,
)

THINK = "<tool_call>"


def look(model: Path, data: Path, output: Path, **training: Any) -> Preflight:
    return preflight(make_config(model, output, **training), data, offline=True)


def names(result: Preflight) -> list[str]:
    return [finding.name for finding in result.findings]


def taught(
    folder: Path, rows: list[Example], change: Callable[[TokenizedExample, Renderer], Any]
) -> Path:
    """A model that was trained, all of it, on changed rows until it knows how they begin."""
    from transformers import AutoModelForCausalLM

    source = tiny_model(folder / "source", tiny_tokenizer(folder))
    renderer = Renderer.load(source, offline=True)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    whole = [row for row in map(renderer.render, rows) if isinstance(row, TokenizedExample)]
    changed = [change(row, renderer) for row in whole]
    for _ in range(25):
        for row in changed:
            optimizer.zero_grad()
            ids = torch.tensor([row.input_ids.tolist()])
            labels = ids.masked_fill(~torch.tensor([row.loss_mask.tolist()]), -100)
            model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
    model.save_pretrained(folder / "taught")
    for path in renderer.tokenizer.files:
        (folder / "taught" / path.name).write_bytes(path.read_bytes())
    return folder / "taught"


def thinking(row: TokenizedExample, renderer: Renderer) -> TokenizedExample:
    """The row with a control token before its response."""
    place = int(row.target_positions[0])
    ids, mask = row.input_ids.tolist(), row.loss_mask.tolist()
    ids.insert(place, renderer.tokenizer.added[THINK])
    mask.insert(place, True)
    return replace(row, input_ids=np.array(ids, np.int32), loss_mask=np.array(mask))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", examples(0, 20))


@pytest.fixture(scope="module")
def fine(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Preflight:
    return look(model, data, tmp_path_factory.mktemp("runs") / "run")


def test_a_run_that_is_ready(fine: Preflight) -> None:
    assert (fine.exit_code, fine.findings) == (0, ())
    mask, words = fine.mask, fine.vocabulary
    assert (mask.rows, mask.spans, mask.spans_without_end, mask.pad_targets) == (12, 12, 0, 0)
    assert (mask.end, mask.end_is_stop, mask.rows_with_default) == ("<|im_end|>", True, 12)
    assert mask.proof["rows"] == 18
    assert mask.targets == fine.rows["target_tokens"]
    assert words.highest_id < words.embeddings
    assert words.longest_row <= words.max_length == 128
    assert fine.memory.fits
    starts = fine.starts
    assert (starts.rows, starts.of_rows, starts.seed) == (12, 12, 42)
    assert starts.fights == ()
    assert [place.position for place in starts.summary.positions] == list(range(1, 17))
    assert starts.summary.first.clusters == 4
    assert starts.texts[starts.summary.of_data[0].token] == "-"


def test_time_is_that_of_every_pass_of_the_run(fine: Preflight) -> None:
    time = fine.time
    assert time is not None
    # Six steps of one pass; the base, the third and the sixth step are scored.
    assert (time.steps, time.passes, time.evaluations) == (6, 6, 3)
    assert len(time.timed) == 3
    assert time.low <= time.seconds <= time.high
    assert time.evaluation_seconds > 0
    # Two epochs, and no padding.
    assert time.tokens == 2 * int(str(fine.rows["tokens"]))


def test_the_counted_evaluations_are_those_of_a_run(
    uninterrupted: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    config = make_config(model, tmp_path / "run", max_steps=4, eval_strategy="epoch")
    train(config, data)
    for folder, settings, steps in (
        (uninterrupted, make_config(model, uninterrupted).training, 6),
        (tmp_path / "run", config.training, 4),
    ):
        done = [line["step"] for line in evaluations(folder)]
        assert evaluation_steps(settings, steps, 3) == done


def test_it_is_one_document_of_plain_values(fine: Preflight) -> None:
    value = json.loads(json.dumps(fine.as_dict(), allow_nan=False))
    assert (value["ready"], value["exit_code"]) == (True, 0)
    first = value["starts"]["summary"]["of_data"][0]
    assert (first["text"], first["rows"]) == ("-", 12)
    assert 0 < first["probability"] < 1
    assert (
        value["starts"]["summary"]["first"]["ci"][0] < value["starts"]["summary"]["first"]["value"]
    )


def test_the_numbers_are_those_of_the_base(fine: Preflight, model: Path, data: Path) -> None:
    from transformers import AutoModelForCausalLM

    renderer = Renderer.load(model, offline=True)
    module = AutoModelForCausalLM.from_pretrained(model, dtype="float32").eval()
    losses = []
    for number in range(12):
        row = renderer.render(example(number))
        assert isinstance(row, TokenizedExample)
        place = int(row.target_positions[0])
        with torch.no_grad():
            logits = module(input_ids=torch.tensor([row.input_ids.tolist()])).logits[0, place - 1]
        losses.append(-float(logits.double().log_softmax(-1)[row.input_ids[place]]))
    assert fine.starts.summary.positions[0].mean == pytest.approx(sum(losses) / 12, rel=1e-5)


def test_nothing_is_written_and_no_state_is_kept(model: Path, data: Path, tmp_path: Path) -> None:
    before = left_over(model)
    look(model, data, tmp_path / "deep" / "run")
    assert not (tmp_path / "deep").exists()
    assert left_over(model) == before
    (tmp_path / "run").mkdir()
    look(model, data, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
def test_it_draws_the_same_rows_again(model: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", examples(0, 200))
    options: dict[str, Any] = {"eval_strategy": "no"}
    one, two = (look(model, path, tmp_path / "run", **options) for _ in range(2))
    assert (one.starts.rows, one.starts.of_rows) == (128, 200)
    assert one.starts.summary == two.starts.summary
    other = look(model, path, tmp_path / "run", **options, seed=1)
    assert other.starts.summary != one.starts.summary


@pytest.mark.slow
def test_data_that_fight_the_template_are_found_and_stop(rows: Path, tmp_path: Path) -> None:
    sure = taught(tmp_path, examples(0, 20), thinking)
    result = look(sure, rows, tmp_path / "run", eval_strategy="no")
    assert (result.exit_code, names(result)) == (9, ["fights_the_template"])
    assert THINK in result.findings[0].message
    assert result.starts.summary.of_model[0].probability > 0.8
    assert result.starts.summary.agreement.value == 0


@pytest.mark.slow
def test_a_base_that_begins_as_the_data_do_is_left_alone(rows: Path, tmp_path: Path) -> None:
    taught_alike = taught(tmp_path, examples(0, 20), lambda row, _: row)
    result = look(taught_alike, rows, tmp_path / "run", eval_strategy="no")
    assert (result.exit_code, result.findings) == (0, ())
    assert result.starts.summary.agreement.value == 1


@pytest.mark.slow
def test_responses_that_begin_blank_are_a_warning(tmp_path: Path) -> None:
    sure = taught(tmp_path, examples(0, 20), lambda row, _: row)
    blank = [renamed(row, response=f"\n\n{row.response}") for row in examples(0, 20)]
    path = write_rows(tmp_path / "rows.jsonl", blank)
    result = look(sure, path, tmp_path / "run", eval_strategy="no")
    assert result.exit_code == 0
    # The base is sure of "-", and that is no control token.
    assert names(result) == ["fights_the_template", "blank_first_token"]
    assert "20 of 20 responses begin with white space" in result.findings[1].message


def test_generation_that_does_not_stop_at_the_end_is_a_warning(
    model: Path, data: Path, tmp_path: Path
) -> None:
    other = copy_model(model, tmp_path / "model")
    settings = read_json(other / "generation_config.json")
    settings["eos_token_id"] = settings["bos_token_id"]
    (other / "generation_config.json").write_text(json.dumps(settings), "utf-8")
    result = look(other, data, tmp_path / "run")
    assert (result.exit_code, names(result)) == (0, ["never_stops"])
    assert str(settings["bos_token_id"]) in result.findings[0].message


def test_an_end_token_the_head_cannot_tell_apart_is_a_stop(
    model: Path, data: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    other = copy_model(model, tmp_path / "model")
    tensors = load_file(other / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    table[-3:] = table[-3].clone()
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    result = look(other, data, tmp_path / "run")
    assert (result.exit_code, names(result)) == (9, ["end_cannot_be_learned"])
    assert "1 in 3" in result.findings[0].message


def test_mixed_system_prompts_are_a_warning(model: Path, tmp_path: Path) -> None:
    own = [
        renamed(
            row,
            messages=(
                Message("system", "Answer in French."),
                Message("user", row.prompt),
                Message("assistant", row.response, train=True),
            ),
        )
        for row in examples(0, 4)
    ]
    path = write_rows(tmp_path / "rows.jsonl", [*own, *examples(4, 12)])
    result = look(model, path, tmp_path / "run", eval_strategy="no")
    assert names(result) == ["mixed_system_prompts"]
    assert (result.mask.rows_with_default, result.mask.rows) == (8, 12)
    assert result.mask.system_prompts == 2


def test_a_pass_that_does_not_fit_says_what_would(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = loop_module.token_nll

    def token_nll(module: Any, batch: Any) -> torch.Tensor:
        if len(batch.counts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return healthy(module, batch)

    monkeypatch.setattr(loop_module, "token_nll", token_nll)
    result = look(model, data, tmp_path / "run")
    assert (result.exit_code, names(result)) == (OutOfMemory.exit_code, ["does_not_fit"])
    assert result.time is None
    hint = result.findings[0].hint
    assert "training.tokens_per_micro_batch to " in hint
    assert result.as_dict()["ready"] is False


def test_what_a_run_refuses_is_refused_before_the_weights_are_read(
    model: Path, data: Path, tmp_path: Path
) -> None:
    # A model without weights: whoever loads them fails with another error.
    bare = copy_model(model, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(IntegrityError, match="no model"):
        look(bare, data, tmp_path / "run")
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("x", "utf-8")
    with pytest.raises(UsageError, match="not empty"):
        look(bare, data, full)
    with pytest.raises(IntegrityError, match="no run of this tool"):
        preflight(make_config(bare, full), data, overwrite=True)
    with pytest.raises(EnvironmentFailure, match="no folder"):
        look(bare, data, full / "file" / "run")
    failures = write_rows(tmp_path / "none.jsonl", [replace(example(0), response=" ")])
    with pytest.raises(DataError):
        look(bare, failures, tmp_path / "run", eval_strategy="no")
    config = read_json(bare / "config.json")
    for key, value, kind, text in (
        ("max_position_embeddings", 32, UsageError, "the model's context is 32"),
        ("vocab_size", 300, IntegrityError, "beyond the model's 300 embeddings"),
    ):
        (bare / "config.json").write_text(json.dumps({**config, key: value}), "utf-8")
        with pytest.raises(kind, match=text):
            look(bare, data, tmp_path / "run")
    with pytest.raises(ConfigError, match="nothing of the sort"):
        look(bare, data, tmp_path / "run", report_to=["nothing of the sort"])


def test_choices_name_value_and_who_decided(model: Path, data: Path, tmp_path: Path) -> None:
    origins = {"training.learning_rate": "--set", "training.lora.r": "file"}
    config = make_config(model, tmp_path / "run", num_train_epochs=3.0, max_steps=None)
    result = preflight(config, data, offline=True, origins=origins)
    choices = {choice.key: choice for choice in result.decisions}
    assert choices["learning_rate"].origin == "--set"
    assert choices["lora.r"].origin == "file"
    assert choices["seed"].origin == "default"
    assert choices["rows"].value == "18 = 12 trained + 6 held out + 0 skipped"
    assert choices["num_train_epochs"].why == "9 steps = 3 epochs of 3"
    assert choices["lora.target_modules"].value == "k_proj, o_proj, q_proj, v_proj"
    # r 4 on width 16: q and o 16 to 16, k and v 16 to 8, two layers.
    assert choices["lora.target_modules"].why.startswith("896 trained of ")
    assert choices["dtype"].value == "auto = float32"
    assert "rows.test.jsonl" in choices["hold-out"].why
    assert choices["cache"].value == "off"
    assert "warm-up over 2 of 9 steps" in choices["lr_scheduler_type"].why


def test_a_finished_run_keeps_its_choices(model: Path, data: Path, tmp_path: Path) -> None:
    config = make_config(model, tmp_path / "run", max_steps=1)
    train(config, data, origins={"training.max_steps": "--max-steps"})
    choices = read_json(tmp_path / "run" / "manifest.json")["decisions"]
    assert {"key": "max_steps", "value": "1", "origin": "--max-steps"}.items() <= next(
        choice for choice in choices if choice["key"] == "max_steps"
    ).items()
    assert str(tmp_path) not in json.dumps(choices)
    assert str(model.parent) not in json.dumps(choices)


def test_origins_are_those_of_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"training": {"fp16": true, "seed": 3, "lora": {"r": 2}}}', "utf-8")
    found = config_origins(
        path,
        overrides=["training.seed=4", 'training.lora={"alpha": 3}'],
        flags={"training.max_steps": 5, "training.output_dir": None, "dataset.max_examples": 3},
    )
    assert found == {
        "training.dtype": "file",
        "training.seed": "--set",
        "training.lora.r": "file",
        "training.lora.alpha": "--set",
        "training.max_steps": "--max-steps",
        "dataset.max_examples": "--limit",
    }
