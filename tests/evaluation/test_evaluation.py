"""Evaluation: plain transformers' numbers, verified adapters, seen and unseen rows apart."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from swe_scaffold.config import EvaluationConfig
from swe_scaffold.engine import scoring as engine_scoring
from swe_scaffold.errors import DataError, IntegrityError, LockedError, UsageError
from swe_scaffold.evaluation import Evaluation, evaluate_model
from swe_scaffold.evaluation.rows import shuffled_pairs
from swe_scaffold.files import folder_lock, sha256_file
from swe_scaffold.jsonl import loads_strict
from swe_scaffold.models import find_model
from swe_scaffold.rendering import Renderer
from swe_scaffold.sources.examples import read_examples
from swe_scaffold.types import Message
from tests.tiny import tiny_model
from tests.tiny_runs import (
    FAILURE,
    Listener,
    copy_model,
    example,
    examples,
    flip_byte,
    left_over,
    read_json,
    renamed,
    write_rows,
)

FAST = {"iterations": 50, "batch_size": 4}


def evaluate(place: Path, data: str = "rows.test.jsonl", **options: Any) -> Evaluation:
    settings = {**FAST, **options.pop("settings", {})}
    model = options.pop("model", place / "run")
    return evaluate_model(
        model, place / data, config=EvaluationConfig(**settings), offline=True, **options
    )


def numbers(value: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of a report by its path."""
    if isinstance(value, dict):
        parts = [numbers(item, f"{path}.{key}") for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts = [numbers(item, f"{path}[{place}]") for place, item in enumerate(value)]
    else:
        return {path: value}
    return {key: item for part in parts for key, item in part.items()}


def assert_same_number(key: str, found: Any, wanted: Any) -> None:
    """To 1e-6; what divides by a small variance magnifies rounding."""
    if isinstance(wanted, float):
        tolerance = 1e-3 if key.endswith(("design_effect", "p_value", "p_holm")) else 1e-6
        assert found == pytest.approx(wanted, rel=tolerance, abs=5 * tolerance), key
    else:
        assert found == wanted, key


def scores(result: Evaluation) -> list[dict[str, Any]]:
    assert result.path is not None
    lines = (result.path / "scores.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_numbers_are_those_of_plain_transformers(made: Path, batch_size: int) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    result = evaluate(made, settings={"batch_size": batch_size}, compare_base=True)
    load = AutoModelForCausalLM.from_pretrained
    base, below = (load(str(made / "model"), dtype=torch.float32) for _ in range(2))
    totals = {}
    for name, model in (("base", base), ("unseen", PeftModel.from_pretrained(below, made / "run"))):
        model.eval()
        nll, tokens = 0.0, 0
        rows = Renderer.load(made / "model").render_many(
            read_examples(made / "rows.test.jsonl").examples, max_length=128, min_prompt_tokens=8
        )
        for row in rows:
            ids = torch.tensor([row.input_ids.tolist()])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0].double()
            losses = -logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
            mask = torch.tensor(row.loss_mask[1:])
            nll += float(losses[mask].sum())
            tokens += int(mask.sum())
        totals[name] = nll / tokens
        assert result.report[name]["totals"]["tokens"] == tokens
    for name, wanted in totals.items():
        summary = result.report[name]
        assert summary["nll"]["value"] == pytest.approx(wanted, rel=1e-6)
        assert summary["perplexity"]["value"] == pytest.approx(math.exp(wanted), rel=1e-5)
    difference = totals["unseen"] - totals["base"]
    effect = result.report["comparison"]["effect"]["value"]
    assert effect == pytest.approx(difference, abs=2e-6)
    assert difference < -0.01


def test_batch_size_and_order_change_no_number(made: Path, tmp_path: Path) -> None:
    rows = examples(0, 24)
    write_rows(tmp_path / "rows.jsonl", rows)
    write_rows(tmp_path / "turned.jsonl", rows[::-1])
    reports = []
    for data, batch_size in (("rows", 1), ("rows", 2), ("rows", 8), ("turned", None)):
        result = evaluate(
            tmp_path,
            f"{data}.jsonl",
            model=made / "run",
            settings={"batch_size": batch_size},
            compare_base=True,
            shuffled_control=True,
            output=tmp_path / f"{data}-{batch_size}",
        )
        report = read_json(tmp_path / f"{data}-{batch_size}" / "evaluation.json")
        assert report == loads_strict(json.dumps(result.report), "report")
        for key in ("settings", "data", "files", "key", "shuffled_key"):
            del report[key]
        if data == "turned":  # another seeded order of other row numbers
            del report["shuffled_prompts"]
        reports.append(numbers(report))
    first = reports[0]
    for other in reports[1:]:
        assert set(other) <= set(first)
        for key, value in other.items():
            assert_same_number(key, value, first[key])


def test_a_report_is_strict_json_and_names_what_it_is_about(made: Path) -> None:
    result = evaluate(made, compare_base=True, shuffled_control=True)
    assert result.path == made / "run" / "evaluation" / sha256_file(made / "rows.test.jsonl")[:16]
    text = (result.path / "evaluation.json").read_bytes()
    report = loads_strict(text, "evaluation.json")
    assert report["data"]["sha256"] == sha256_file(made / "rows.test.jsonl")
    assert report["model"]["adapter_sha256"] == sha256_file(
        made / "run" / "adapter_model.safetensors"
    )
    assert report["model"]["base_sha256"] == read_json(made / "run/manifest.json")["base"]["sha256"]
    assert set(report["files"]) == {"scores.jsonl", "shuffled.jsonl", "token_nll.f32"}
    for name, entry in report["files"].items():
        assert entry["sha256"] == sha256_file(result.path / name)
    again = evaluate(made, compare_base=True, shuffled_control=True)
    assert again.path is not None
    assert (again.path / "evaluation.json").read_bytes() == text


def test_every_scored_row_is_a_line(made: Path, tmp_path: Path) -> None:
    bad = [
        renamed(example(30), response="long " * 200),
        renamed(example(31), response=" ", label=FAILURE),
    ]
    write_rows(tmp_path / "rows.jsonl", [*examples(10, 14), *bad, example(15, label=FAILURE)])
    result = evaluate(tmp_path, "rows.jsonl", model=made / "run")
    data = result.report["data"]
    assert (data["rows"], data["scored"]) == (7, 5)
    assert data["skipped"] == {"empty_response": 1, "over_length": 1}
    lines = scores(result)
    assert [line["instance_id"] for line in lines] == [f"row-{n}" for n in (10, 11, 12, 13, 15)]
    assert [line["seen_in_training"] for line in lines] == [True, True, False, False, False]
    assert [line["label"] for line in lines] == ["success"] * 4 + ["failure"]
    for line in lines:
        by_class = line["nll_by_class"].values()
        assert math.fsum(nll for nll, _ in by_class) == pytest.approx(line["nll_sum"], rel=1e-9)
        assert sum(tokens for _, tokens in by_class) == line["tokens"]
        assert {"added", "removed", "end"} & set(line["nll_by_class"])


def test_trained_and_unseen_rows_are_told_apart(made: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "mixed.jsonl", examples(8, 15))
    report = evaluate(tmp_path, "mixed.jsonl", model=made / "run", compare_base=True).report
    assert (report["rows_seen_in_training"], report["rows_unseen"]) == (4, 3)
    assert report["trained"]["totals"]["examples"] == 4
    assert report["unseen"]["totals"]["examples"] == 3
    assert report["base"]["totals"]["examples"] == 3
    assert report["compared_rows"] == "unseen"
    assert report["notes"] == []


def test_a_file_of_trained_rows_alone_says_so(made: Path) -> None:
    report = evaluate(made, "rows.jsonl", compare_base=True).report
    assert report["rows_unseen"] == 0
    assert report["unseen"] is None
    assert report["compared_rows"] == "trained"
    assert report["notes"] == [
        "every row of this file was trained on: this says nothing about new rows"
    ]


def test_a_row_is_known_by_its_content_and_not_by_its_name(made: Path, tmp_path: Path) -> None:
    rows = [renamed(example(3), instance_id="another-name"), renamed(example(20), prompt="new")]
    write_rows(tmp_path / "rows.jsonl", rows)
    result = evaluate(tmp_path, "rows.jsonl", model=made / "run")
    assert [line["seen_in_training"] for line in scores(result)] == [True, False]


def test_model_and_run_may_move_together(made: Path, place: Path) -> None:
    wanted = evaluate(made).report["unseen"]
    (place / "model").rename(place / "renamed")
    shutil.move(place / "run", place / "elsewhere-run")
    without_original(place / "elsewhere-run", "gone")
    with pytest.raises(IntegrityError, match="the base 'model' is not where it was") as error:
        evaluate(place, model=place / "elsewhere-run")
    assert "--base" in error.value.hint
    (place / "renamed").rename(place / "model")
    found = evaluate(place, model=place / "elsewhere-run").report
    assert found["unseen"] == wanted
    assert Path(found["model"]["base"]).resolve() == place / "model"


def without_original(run: Path, gone: str) -> None:
    """Let the manifest remember a model folder that is not there any more."""
    manifest = read_json(run / "manifest.json")
    manifest["config"]["training"]["model_name"] = gone
    (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def test_the_base_can_be_named_and_is_verified(place: Path) -> None:
    wanted = evaluate(place).report
    moved = copy_model(place / "model", place / "far" / "away")
    listener = Listener()
    found = evaluate(place, base=str(moved), reporter=listener).report
    assert found["model"]["base"] == str(moved)
    assert found["unseen"] == wanted["unseen"]
    assert f"base: {moved} (sha256 {found['model']['base_sha256'][:12]})" in listener.text
    other = tiny_model(place, place / "tiny-tokenizer", seed=1, hidden=16)
    with pytest.raises(IntegrityError, match="not the base the adapter was trained on") as error:
        evaluate(place, base=str(other))
    assert error.value.exit_code == 5


def test_another_base_in_the_old_place_is_refused(place: Path) -> None:
    other = tiny_model(place, place / "tiny-tokenizer", seed=1, hidden=16)
    shutil.rmtree(place / "model")
    other.rename(place / "model")
    with pytest.raises(IntegrityError, match="not the base"):
        evaluate(place)


def test_another_tokenizer_beside_the_same_weights_is_refused(place: Path) -> None:
    path = place / "model" / "tokenizer.json"
    tokenizer = read_json(path)
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(tokenizer), "utf-8")
    with pytest.raises(IntegrityError, match="tokenizer is not the one the adapter was trained"):
        evaluate(place)


def test_another_chat_template_beside_the_same_weights_is_refused(place: Path) -> None:
    path = place / "model" / "chat_template.jinja"
    path.write_text("{# other #}" + path.read_text("utf-8"), "utf-8")
    with pytest.raises(IntegrityError, match="chat template is not the one"):
        evaluate(place, trust_template=True)


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "trained_rows.json"]
)
def test_a_tampered_adapter_is_refused(place: Path, name: str) -> None:
    flip_byte(place / "run" / name, -5)
    with pytest.raises(IntegrityError, match="does not match its recorded SHA-256") as error:
        evaluate(place)
    assert error.value.exit_code == 5
    assert name in error.value.where


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}},
        {"files": None},
        {"files": {"adapter_model.safetensors": {}}},
        {"base": None},
        {"base": {"local": True}},
        {"config": {}},
        {"fingerprint": None},
        {"schema": 7},
    ],
)
def test_a_malformed_manifest_is_refused_without_a_crash(
    place: Path, change: dict[str, Any]
) -> None:
    path = place / "run" / "manifest.json"
    path.write_text(json.dumps({**read_json(path), **change}), "utf-8")
    with pytest.raises(IntegrityError):
        evaluate(place)


def test_an_adapter_without_a_manifest_needs_its_base(place: Path) -> None:
    foreign = place / "foreign"
    foreign.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copyfile(place / "run" / name, foreign / name)
    with pytest.raises(UsageError, match="has no manifest") as error:
        evaluate(place, model=foreign)
    assert error.value.hint == "give --base"
    found = evaluate(place, model=foreign, base=str(place / "model")).report
    assert found["unseen"]["nll"] == evaluate(place).report["unseen"]["nll"]
    assert found["rows_unseen"] == 12
    assert "no record of what this model was trained on" in found["notes"][0]


def test_a_run_that_has_not_finished_is_refused(place: Path) -> None:
    (place / "run" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="has not finished") as error:
        evaluate(place)
    assert "--resume" in error.value.hint


def test_a_plain_model_is_scored_with_its_own_context(place: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(place)
    wanted = evaluate(place, compare_base=True).report["base"]
    report = evaluate(place, model="model").report
    assert report["unseen"]["nll"]["value"] == pytest.approx(wanted["nll"]["value"], rel=1e-6)
    assert (place / "artifacts" / "evaluation").is_dir()
    assert report["data"]["max_length"] == 4096
    config = read_json(place / "model" / "config.json")
    (place / "model" / "config.json").write_text(
        json.dumps({**config, "max_position_embeddings": 80}), "utf-8"
    )
    short = evaluate(place, model="model").report["data"]
    assert short["max_length"] == 80
    assert sum(short["skipped"].values()) + short["scored"] == 12


def test_what_needs_an_adapter_says_so(place: Path) -> None:
    with pytest.raises(UsageError, match="no adapter to compare"):
        evaluate(place, model=place / "model", compare_base=True)
    with pytest.raises(UsageError, match="--base is for adapters"):
        evaluate(place, model=place / "model", base="x")


def test_no_rows_to_score_is_an_error(place: Path) -> None:
    write_rows(place / "empty.jsonl", [renamed(example(1), response=" ", label=FAILURE)])
    with pytest.raises(DataError, match=r"no rows to score \(1 read.*empty_response"):
        evaluate(place, "empty.jsonl")


def test_the_shuffled_control_is_a_derangement_within_groups(made: Path) -> None:
    same = [renamed(example(n), prompt="the same", repo="owner/same") for n in (40, 41)]
    alone = renamed(example(50), repo="owner/alone")
    chat = renamed(
        example(51), messages=(Message("user", "q"), Message("assistant", "a")), repo="owner/repo0"
    )
    pair = [renamed(example(n), repo="owner/pair") for n in (60, 61)]
    rows = [*examples(0, 12), *pair, *same, alone, chat]
    pairs: Any = [(row, None) for row in rows]
    swapped = shuffled_pairs(pairs, seed=3)
    assert [index for index, _ in swapped] == list(range(14))
    prompts = {row.prompt: row for row in rows}
    for index, row in swapped:
        own, other = rows[index], prompts[row.prompt]
        assert row.response == own.response
        assert row.instance_id == own.instance_id
        assert other.prompt != own.prompt
        assert other.group == own.group
    # Every prompt is given away once: a permutation, not a choice.
    assert Counter(row.prompt for _, row in swapped) == Counter(row.prompt for row in rows[:14])
    assert swapped == shuffled_pairs(pairs, seed=3)
    assert swapped != shuffled_pairs(pairs, seed=4)


def test_the_shuffled_control_compares_the_same_tokens(made: Path) -> None:
    report = evaluate(made, shuffled_control=True).report
    control = report["shuffled_prompts"]
    assert control["left_out"] == 0
    assert control["comparison"]["effect"]["n"] == 12
    assert control["comparison"]["effect"]["tokens"] == report["unseen"]["totals"]["tokens"]
    own = control["comparison"]["tuned_nll"]
    assert own == pytest.approx(report["unseen"]["nll"]["value"], rel=1e-12)
    assert control["comparison"]["base_nll"] != own


def test_the_control_leaves_trained_rows_out_where_there_are_unseen_ones(
    made: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "mixed.jsonl", examples(4, 20))
    report = evaluate(tmp_path, "mixed.jsonl", model=made / "run", shuffled_control=True).report
    control = report["shuffled_prompts"]
    assert (report["rows_seen_in_training"], control["comparison"]["effect"]["n"]) == (8, 8)
    own = report["unseen"]["nll"]["value"]
    assert control["comparison"]["tuned_nll"] == pytest.approx(own, rel=1e-12)
    seen = evaluate(made, "rows.jsonl", shuffled_control=True).report["shuffled_prompts"]
    assert seen["comparison"]["effect"]["n"] == 12


def test_rows_alone_in_their_group_leave_no_control(made: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "few.jsonl", examples(12, 16))
    control = evaluate(tmp_path, "few.jsonl", model=made / "run", shuffled_control=True).report[
        "shuffled_prompts"
    ]
    assert control["comparison"] is None
    assert (control["left_out"], control["reason"]) == (4, "no group has two prompts")


def test_out_of_memory_changes_no_number(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = evaluate(made).report["unseen"]
    real = engine_scoring.token_nll

    def token_nll(model: Any, batch: Any) -> torch.Tensor:
        if len(batch.counts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, batch)

    monkeypatch.setattr(engine_scoring, "token_nll", token_nll)
    found = numbers(evaluate(made, settings={"batch_size": 8}).report["unseen"])
    for key, value in numbers(wanted).items():
        assert_same_number(key, found[key], value)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_dtype_is_as_asked_for(made: Path, tmp_path: Path, name: str) -> None:
    report = evaluate(made, settings={"dtype": name}, output=tmp_path).report
    assert report["model"]["dtype"] == name
    wanted = evaluate(made).report
    assert wanted["model"]["dtype"] == "float32"
    assert report["unseen"]["nll"]["value"] == pytest.approx(
        wanted["unseen"]["nll"]["value"], rel=1e-2
    )
    assert (report["unseen"] == wanted["unseen"]) == (name == "float32")


def test_evaluating_changes_nothing_of_the_run(place: Path) -> None:
    before = left_over(place / "run")
    listener = Listener()
    evaluate(place, reporter=listener)
    after = left_over(place / "run")
    assert {name: after[name] for name in before if "evaluation" not in name} == {
        name: data for name, data in before.items() if "evaluation" not in name
    }


def test_two_evaluations_do_not_mix(place: Path, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "out"), pytest.raises(LockedError):
        evaluate(place, output=tmp_path / "out")


def test_the_target_knows_what_the_adapter_was_trained_on(made: Path) -> None:
    target = find_model(str(made / "run"))
    assert len(target.trained) == 12
    assert (target.max_length, target.min_prompt_tokens) == (128, 8)
    assert find_model(str(made / "model")).adapter is None
