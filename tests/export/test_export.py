"""An export is base + adapter, or it is not written; it knows its past and names no machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swe_scaffold.engine import merging
from swe_scaffold.errors import EnvironmentFailure, IntegrityError, ScaffoldError, UsageError
from swe_scaffold.evaluation import evaluate_model
from swe_scaffold.export import ExportOptions, export_model
from swe_scaffold.manifest import file_entries
from swe_scaffold.models import find_model
from tests.export.conftest import train_in
from tests.tiny_runs import examples, flip_byte, left_over, read_json, renamed, write_rows

DTYPES = ("float32", "bfloat16", "float16")


def export(place: Path, **options: Any) -> Path:
    output = place / str(options.pop("to", "out"))
    export_model(place / "run", output, ExportOptions(offline=True, **options))
    return output


def proof(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / "manifest.json")["export"]["proof"]
    return found


def test_plain_transformers_and_peft_agree(place: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = export(place)
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer("The function add returns a wrong value.", return_tensors="pt").input_ids
    merged = AutoModelForCausalLM.from_pretrained(out)
    base = AutoModelForCausalLM.from_pretrained(place / "model")
    with torch.no_grad():
        plain = base(ids).logits.clone()
        tuned = PeftModel.from_pretrained(base, place / "run").eval()(ids).logits
        torch.testing.assert_close(merged(ids).logits, tuned, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(plain, tuned, atol=1e-2)
    told = merged.generate(ids, max_new_tokens=4, do_sample=False)
    assert told.shape[1] > ids.shape[1]


def test_an_evaluation_of_the_export_is_that_of_the_run(place: Path) -> None:
    out = export(place)
    merged = evaluate_model(out, place / "rows.test.jsonl", output=place / "scores")
    tuned = evaluate_model(place / "run", place / "rows.test.jsonl", output=place / "others")
    for one, other in zip(merged.scores, tuned.scores, strict=True):
        assert one.nll_sum / one.tokens == pytest.approx(other.nll_sum / other.tokens, abs=2e-6)


def test_it_knows_the_rows_that_were_trained(place: Path) -> None:
    out = export(place)
    assert find_model(str(out)).trained == find_model(str(place / "run")).trained
    report = evaluate_model(out, place / "rows.jsonl", output=place / "scores").report
    assert (report["rows_unseen"], report["rows_seen_in_training"]) == (0, 12)


@pytest.mark.parametrize("file", ["model.safetensors", "trained_rows.json", "config.json"])
def test_a_changed_export_is_refused(place: Path, file: str) -> None:
    out = export(place)
    flip_byte(out / file)
    with pytest.raises(IntegrityError, match="does not match its recorded SHA-256"):
        find_model(str(out))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_measured_difference_stands_in_manifest_and_card(place: Path, dtype: str) -> None:
    out = export(place, dtype=dtype)
    found = proof(out)
    assert found["difference"] <= found["tolerance"] / 2
    assert found["difference_rms"] <= found["tolerance_rms"] / 2
    assert (found["rows"], found["weights_merged"], found["dtype"]) == (6, 8, dtype)
    assert found["effect_rms"] > 10 * found["difference_rms"]
    card = (out / "README.md").read_text("utf-8")
    assert "| largest difference of a logit |" in card
    assert f"| stored as | {dtype} |" in card
    assert read_json(out / "config.json")["dtype"] == dtype


def test_same_inputs_same_bytes(place: Path) -> None:
    first, again = left_over(export(place)), left_over(export(place, overwrite=True))
    assert set(first) == set(again)
    # The manifest tells the time.
    assert {name for name in first if first[name] != again[name]} <= {"manifest.json"}


def test_shards_hold_the_same_tensors(place: Path) -> None:
    from safetensors.torch import load_file

    whole = load_file(export(place) / "model.safetensors")
    out = export(place, to="shards", max_shard_bytes=9000)
    index = read_json(out / "model.safetensors.index.json")
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(out / file)[name], whole[name])
    assert set(index["weight_map"]) == set(whole)
    assert find_model(str(out)).trained


def test_the_base_is_kept_where_nothing_was_merged(place: Path) -> None:
    from safetensors.torch import load_file

    out = export(place)
    before, after = (load_file(place / x / "model.safetensors") for x in ("model", "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 8
    assert all(name.rpartition(".")[0].endswith("_proj") for name in changed)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (place / "model" / name).read_bytes()
    assert {path.suffix for path in out.iterdir()} <= {".json", ".md", ".jinja", ".safetensors"}


def test_no_place_of_this_machine_is_in_it(place: Path) -> None:
    config = read_json(place / "model" / "config.json")
    out = export(place, data=place / "rows.test.jsonl", base=str(place / "model"))
    adapter = export(place, to="adapter", adapter_only=True)
    assert config.get("_name_or_path") is None
    for folder in (out, adapter):
        for name, data in left_over(folder).items():
            assert str(place.parent).encode() not in data, name


def test_a_path_in_the_base_s_config_is_left_out(tmp_path: Path) -> None:
    config = {"model_type": "qwen2", "_name_or_path": "/home/someone/model", "dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    changed = json.loads(merging.merged_config(tmp_path, None))
    assert changed == {"model_type": "qwen2", "dtype": "float32"}


def enlarge(place: Path, factor: float) -> None:
    """Make the adapter's effect so many times as large, as if it had been trained so."""
    from safetensors.torch import load_file, save_file

    weights = place / "run" / "adapter_model.safetensors"
    tensors = load_file(weights)
    changed = {n: t * (factor if ".lora_B." in n else 1.0) for n, t in tensors.items()}
    save_file(changed, weights, metadata={"format": "pt"})
    manifest = read_json(place / "run" / "manifest.json")
    manifest["files"] |= file_entries(place / "run", [weights.name])
    (place / "run" / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def spoil_pairs(change: Callable[[dict[str, Any], str], None]) -> Callable[[Any], Any]:
    real = merging._pairs

    def spoilt(adapter: Path, stored: Any) -> Any:
        pairs = real(adapter, stored)
        change(pairs, sorted(name for name in pairs if "q_proj" in name)[0])
        return pairs

    return spoilt


def swap(pairs: dict[str, Any], name: str) -> None:
    a, b = pairs[name]["A"], pairs[name]["B"]
    pairs[name] = {"A": b.T.contiguous(), "B": a.T.contiguous()}


def scaled(factor: float) -> Callable[[Any], Any]:
    real = merging._scale
    return lambda adapter: factor * real(adapter)


SPOILT = {
    "a layer is not merged": ("_pairs", lambda: spoil_pairs(lambda p, name: p.pop(name))),
    "a matrix is transposed": ("_pairs", lambda: spoil_pairs(swap)),
    "merged twice": ("_scale", lambda: scaled(2.0)),
    "alpha is wrong": ("_scale", lambda: scaled(0.9)),
    "not merged": ("_scale", lambda: scaled(0.0)),
}


def test_a_base_stored_without_the_first_part_of_its_names_is_merged(tmp_path: Path) -> None:
    """As a base is that was saved without its head."""
    from safetensors.torch import load_file, save_file

    def shorten(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        short = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
        assert set(short) != set(weights)
        save_file(short, model / "model.safetensors", metadata={"format": "pt"})

    train_in(tmp_path, change=shorten)
    export_model(tmp_path / "run", tmp_path / "out", ExportOptions(offline=True))
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert set(merged) == set(load_file(tmp_path / "model" / "model.safetensors"))
    rows = tmp_path / "rows.test.jsonl"
    scores = evaluate_model(tmp_path / "out", rows, output=tmp_path / "scores").scores
    others = evaluate_model(tmp_path / "run", rows, output=tmp_path / "others").scores
    for one, other in zip(scores, others, strict=True):
        assert one.nll_sum == pytest.approx(other.nll_sum, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("what", SPOILT)
def test_a_wrong_merge_is_refused_and_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, what: str, dtype: str
) -> None:
    name, spoil = SPOILT[what]
    monkeypatch.setattr(merging, name, spoil())
    before = sorted(path.name for path in place.iterdir())
    with pytest.raises(IntegrityError, match=r"proj\.weight is not base \+ adapter") as refusal:
        export(place, dtype=dtype)
    assert refusal.value.exit_code == 5
    assert sorted(path.name for path in place.iterdir()) == before


def test_a_wrong_merge_within_one_unit_of_rounding_is_told() -> None:
    from swe_scaffold.engine.equality import _difference

    generator = torch.Generator().manual_seed(0)
    weight, delta = torch.ones(64, 64), 0.004 * torch.rand(64, 64, generator=generator)
    for dtype in (torch.bfloat16, torch.float16):
        right = (weight + delta).to(dtype)
        assert _difference(weight, weight + delta, right) == ""
    wrong = (weight + 1.2 * delta).to(torch.bfloat16)
    assert "elements are rounded otherwise" in _difference(weight, weight + delta, wrong)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("what", SPOILT)
def test_the_logits_alone_tell_a_wrong_merge(
    place: Path, monkeypatch: pytest.MonkeyPatch, what: str, dtype: str
) -> None:
    from swe_scaffold.engine import equality

    monkeypatch.setattr(equality, "compare_weights", lambda *_, **__: (0, 0))
    enlarge(place, 30.0)
    name, spoil = SPOILT[what]
    monkeypatch.setattr(merging, name, spoil())
    with pytest.raises(IntegrityError, match="its logits differ from base"):
        export(place, dtype=dtype)
    assert not (place / "out").exists()


@pytest.mark.parametrize("dtype", DTYPES)
def test_right_weights_that_compute_otherwise_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    real = merging.merged_config

    def spoilt(base: Path, dtype: str | None) -> bytes:
        config = json.loads(real(base, dtype))
        config["rms_norm_eps"] = 10.0
        return json.dumps(config).encode()

    monkeypatch.setattr(merging, "merged_config", spoilt)
    with pytest.raises(IntegrityError, match="its logits differ from base"):
        export(place, dtype=dtype)
    assert not (place / "out").exists()


def test_rounding_that_eats_the_adapter_is_said(place: Path) -> None:
    enlarge(place, 0.0004)
    export(place, to="exact", dtype="float32")
    assert read_json(place / "exact" / "manifest.json")["export"]["notes"] == []
    out = export(place, dtype="bfloat16")
    (note,) = read_json(out / "manifest.json")["export"]["notes"]
    assert "rounding to bfloat16 moves the logits by" in note
    assert "rounding to bfloat16" in (out / "README.md").read_text("utf-8")


def other_base(place: Path) -> None:
    flip_byte(place / "model" / "model.safetensors", -3)


def unfinished(place: Path) -> None:
    (place / "run" / "manifest.json").unlink()


def no_run(place: Path) -> None:
    shutil.rmtree(place / "run")
    shutil.copytree(place / "model", place / "run")


def other_adapter(place: Path) -> None:
    flip_byte(place / "run" / "adapter_model.safetensors")


def no_holdout(place: Path) -> None:
    (place / "rows.test.jsonl").unlink()


def other_holdout(place: Path) -> None:
    with (place / "rows.test.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    (place / "rows.jsonl").unlink()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (other_base, IntegrityError, "is not the base the adapter was trained on"),
        (unfinished, UsageError, "has not finished"),
        (no_run, UsageError, "is no finished run"),
        (other_adapter, IntegrityError, "does not match its recorded SHA-256"),
        (other_holdout, UsageError, "is not where its manifest says, or is another file"),
    ],
)
def test_what_is_refused(
    place: Path, change: Callable[[Path], None], kind: type[ScaffoldError], message: str
) -> None:
    change(place)
    with pytest.raises(kind, match=message):
        export(place)
    assert not (place / "out").exists()
    assert not list(place.glob(".tmp-*"))


def test_without_the_holdout_rows_are_given_or_none_is_trusted(place: Path) -> None:
    no_holdout(place)
    # The training file is still there: all of its rows were trained, and that is said.
    out = export(place)
    assert read_json(out / "manifest.json")["export"]["notes"] == [
        "every row of the proof was trained on"
    ]
    (place / "rows.jsonl").unlink()
    with pytest.raises(UsageError, match="hold-out") as refusal:
        export(place, to="other")
    assert "--data FILE" in refusal.value.hint
    given = write_rows(place / "given.jsonl", [*examples(0, 3), *examples(40, 43)])
    rows = read_json(export(place, to="other", data=given) / "manifest.json")["export"]["rows"]
    assert sorted(rows["chosen"]) == ["row-40", "row-41", "row-42"]
    assert rows["name"] == "given.jsonl"


def test_a_long_response_is_compared_in_parts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from swe_scaffold.engine import equality

    whole = proof(export(place))
    sizes = []
    real = equality._logits

    def watched(model: Any, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        sizes.append(len(places))
        return real(model, ids, places)

    monkeypatch.setattr(equality, "_logits", watched)
    monkeypatch.setattr(equality, "_CHUNK_ELEMENTS", 403 * 5)
    parts = proof(export(place, overwrite=True))
    assert max(sizes) <= 5 < whole["positions"] / whole["rows"]
    assert parts["reference_nll"] == pytest.approx(whole["reference_nll"], abs=1e-6)
    assert parts["positions"] == whole["positions"]


def test_a_folder_with_other_things_is_left_alone(place: Path) -> None:
    out = place / "out"
    out.mkdir()
    export(place)
    with pytest.raises(UsageError, match="not empty"):
        export(place)
    export(place, overwrite=True)
    (out / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(IntegrityError, match=r"holds 'notes\.txt', which the export did not"):
        export(place, overwrite=True)
    with pytest.raises(IntegrityError, match="holds no export"):
        export(place, to="model", overwrite=True)
    with pytest.raises(UsageError, match="the run itself"):
        export(place, to="run", overwrite=True)
    with pytest.raises(UsageError, match="the run itself"):
        export_model(place / "run", place, ExportOptions(overwrite=True))
    assert (out / "notes.txt").read_text("utf-8") == "mine"


def test_too_little_disk_is_found_before_anything_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(EnvironmentFailure, match=r"takes 0\.07 GB, 0\.00 GB are free"):
        export(place)
    assert not (place / "out").exists()


def test_an_adapter_goes_as_it_is(place: Path) -> None:
    out = export(place, adapter_only=True)
    weights = "adapter_model.safetensors"
    assert (out / weights).read_bytes() == (place / "run" / weights).read_bytes()
    reference = find_model(str(out), base=str(place / "model"))
    assert reference.trained == find_model(str(place / "run")).trained
    with pytest.raises(IntegrityError, match="not where it was"):
        find_model(str(out))
    # It is as good a run as the one it came from.
    options = ExportOptions(offline=True, base=str(place / "model"), data=place / "rows.test.jsonl")
    export_model(out, place / "merged", options)
    assert find_model(str(place / "merged")).trained


def test_evaluations_of_other_weights_are_counted_only(place: Path) -> None:
    (report,) = (place / "run" / "evaluation").glob("*/evaluation.json")
    other = place / "run" / "evaluation" / "other" / "evaluation.json"
    other.parent.mkdir()
    value = read_json(report)
    value["model"]["adapter_sha256"] = "0" * 64
    other.write_text(json.dumps(value), "utf-8")
    card = (export(place) / "README.md").read_text("utf-8")
    assert card.count("### On rows.test.jsonl") == 1
    assert "**Tuned − base**, on unseen rows: −" in card
    assert "Evaluations of other weights in the run folder, left out here: 1." in card


def test_untied_weights_of_another_dtype_are_kept_as_they_are(place: Path) -> None:
    from transformers import AutoModelForCausalLM

    from swe_scaffold.engine.devices import choose_device
    from swe_scaffold.engine.model import load_base
    from tests.tiny_runs import make_config, train

    model = AutoModelForCausalLM.from_pretrained(place / "model")
    config = model.config
    config.tie_word_embeddings = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        untied = type(model)(config).to(torch.bfloat16)
    shutil.rmtree(place / "run")
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        (place / "model" / name).unlink()
    untied.save_pretrained(place / "model")
    train(make_config(place / "model", place / "run"), place / "rows.jsonl")
    out = export(place)
    assert proof(out)["dtype"] == proof(out)["reference_dtype"] == "bfloat16"
    read = load_base(str(out), choose_device("bfloat16")).module
    assert not torch.equal(read.lm_head.weight, read.model.embed_tokens.weight)
    assert torch.equal(read.lm_head.weight, untied.lm_head.weight)


def test_no_more_rows_are_compared_than_asked(place: Path) -> None:
    rows = [renamed(row, instance_id=f"new-{row.instance_id}") for row in examples(12, 14)]
    given = write_rows(place / "given.jsonl", rows)
    out = export(place, data=given, proof_rows=1)
    assert proof(out)["rows"] == 1
    assert read_json(out / "manifest.json")["export"]["rows"]["available"] == 2
