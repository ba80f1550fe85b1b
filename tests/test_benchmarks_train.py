"""The parts of benchmarks/bench_train.py that need no peer: rows, gates, speeds, our side."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from swe_scaffold.config import load_config

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
TEXTS = ["\n".join(f"def part_{k}(value): return value + {k}" for k in range(400))]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(FOLDER))

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


def cut_words(text: str, count: int) -> str:
    return " ".join(text.split(" ")[:count])


def test_a_row_depends_on_its_number_alone(load) -> None:
    rows = load("train_rows")
    first = [rows.synthetic_row(number, TEXTS, cut_words) for number in range(8)]
    again = [rows.synthetic_row(number, TEXTS, cut_words) for number in reversed(range(8))]
    assert first == again[::-1]
    assert len({row["prompt"] for row in first}) == 8
    assert all(row["response"].startswith("diff --git a/src/part_") for row in first)


def test_lengths_are_those_of_real_rows(load) -> None:
    rows = load("train_rows")
    draw = np.random.default_rng(0)
    lengths = [rows.token_length(draw) for _ in range(20_000)]
    assert np.median(lengths) == pytest.approx(350, rel=0.05)
    assert np.percentile(lengths, 90) == pytest.approx(1500, rel=0.05)


def test_trained_and_held_out_rows_are_others_and_spread_over_all_lengths(load) -> None:
    rows = load("train_rows")
    lengths = [int(value) for value in np.random.default_rng(1).permutation(1000)]
    trained, held = rows.spread_evenly(lengths, 16, held_out=8)
    assert len(trained) == 16
    assert len(held) == 8
    assert not set(trained) & set(held)
    assert trained == sorted(trained)
    chosen = sorted(lengths[place] for place in trained)
    assert chosen == pytest.approx([31 + 62.5 * k for k in range(16)], abs=2)


def test_adapters_have_one_name_wherever_they_come_from(load) -> None:
    files = load("train_files")
    saved = "base_model.model.model.layers.11.self_attn.q_proj.lora_A.weight"
    trained = "base_model.model.model.layers.11.self_attn.q_proj.lora_A.default.weight"
    assert files.plain_name(saved) == files.plain_name(trained) == "11.q.A"
    assert files.plain_name("model.layers.11.self_attn.q_proj.weight") is None
    named = iter([(saved, 1), ("model.norm.weight", 2)])
    assert files.adapter(named) == {"11.q.A": 1}


def test_what_nothing_predicts_is_no_target(load, tmp_path: Path) -> None:
    files = load("train_files")
    row = files.Row("a", [5, 6, 7], [1, 0, 1])
    assert row.labels == [5, -100, 7]
    assert row.targets == 1
    files.write_rows(tmp_path / "rows.jsonl", [row])
    assert files.read_rows(tmp_path / "rows.jsonl") == [row]
    assert [len(part) for part in files.parts([row] * 5, 2)] == [2, 2, 1]


def test_a_process_knows_when_it_began(load) -> None:
    code = (
        "import time; time.sleep(0.3); import train_files; print(train_files.seconds_since_start())"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
    )
    assert 0.3 <= float(done.stdout) < 10


def test_gradients_are_compared_as_a_whole(load) -> None:
    error = load("train_gates").gradient_error
    right = {"0.q.B": np.array([3.0, 4.0]), "0.q.A": np.zeros(2)}
    assert error({"0.q.B": np.array([3.0, 4.0])}, right) == 0
    assert error({"0.q.B": np.array([3.0, 4.5])}, right) == pytest.approx(0.1)
    assert error({"0.q.A": np.zeros(2)}, right) == math.inf
    wrong = {"0.q.B": np.array([3.0, 4.0]), "0.q.A": np.ones(2)}
    assert error(wrong, right) == pytest.approx(math.sqrt(2) / 5)


def test_losses_of_other_steps_or_too_far_apart_do_not_agree(load) -> None:
    agree = load("train_gates").losses_agree
    assert agree([9.1, 9.0], [9.1, 9.0009], "bfloat16") == (True, pytest.approx(9e-4))
    assert not agree([9.1, 9.0], [9.1, 9.0009], "float32")[0]
    assert agree([9.1], [9.1, 9.0], "bfloat16") == (False, math.inf)
    late = [[9.0] * 5 + [8.9], [9.0] * 5 + [8.8]]
    assert agree(*late, "float32")[0]


def test_adapters_are_equal_only_where_the_whole_interval_is_small(load) -> None:
    held_out = load("train_gates").held_out
    targets = [100] * 20
    nll = [700.0 + k for k in range(20)]
    met, away, (low, high) = held_out([value + 0.01 for value in nll], nll, targets)
    assert met
    assert [low, away, high] == pytest.approx([1e-4] * 3)
    noisy = [value + (40 if k % 2 else -40) for k, value in enumerate(nll)]
    met, away, (low, high) = held_out(noisy, nll, targets)
    assert low < 0 < high
    assert not met
    assert not held_out([value + 1 for value in nll], nll, targets)[0]


def leave(folder: Path, loss: float, gradient: list[float]) -> Path:
    folder.mkdir()
    (folder / "found.json").write_text(json.dumps({"losses": [loss], "loss": loss}))
    save_file({"0.q.B": np.array(gradient, np.float32)}, folder / "gradient.safetensors")
    return folder


@pytest.mark.parametrize(
    ("loss", "gradient", "passed"),
    [
        pytest.param(9.0001, [3.0, 4.02], True, id="within the peer's rounding"),
        pytest.param(9.0030, [3.0, 4.02], False, id="another loss"),
        pytest.param(9.0001, [3.0, 4.2], False, id="a gradient further off than the peer's"),
    ],
)
def test_one_step_that_differs_fails_the_gate(
    load, tmp_path: Path, loss: float, gradient: list[float], passed: bool
) -> None:
    verdicts = load("train_judging").Verdicts()
    folders = {
        "ours": leave(tmp_path / "ours", loss, gradient),
        "TRL, best-tuned": leave(tmp_path / "trl", 9.0002, [3.0, 4.05]),
    }
    lines = verdicts.first_step(folders, leave(tmp_path / "reference", 9.0, [3.0, 4.0]))
    assert verdicts.equal is passed
    assert [line[0] for line in lines] == ["one step", "ours", "TRL, best-tuned"]
    assert sum(not verdict["met"] for verdict in verdicts.said) == (0 if passed else 1)


def test_steps_are_held_against_the_reference_and_against_ours(load, tmp_path: Path) -> None:
    judging = load("train_judging")
    folders = {}
    for name, losses in (
        ("ours", [9.0, 8.9]),
        ("TRL, best-tuned", [9.0, 8.8]),
        ("the seed's way", [9.3, 9.2]),
    ):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "found.json").write_text(json.dumps({"losses": losses}))
    alone = judging.Verdicts()
    alone.losses(folders, 9.0, every=False)
    assert alone.equal
    together = judging.Verdicts()
    together.losses(folders, 9.0, every=True)
    assert not together.equal
    assert not any("seed" in verdict["goal"] for verdict in together.said)


def test_one_run_is_told_from_many(load) -> None:
    judging, measuring = load("train_judging"), load("measuring")
    runs = {
        name: [measuring.Run(1.0, 1.0, 5, 5, 0.0, {"training_seconds": value}) for value in values]
        for name, values in {
            "ours": (1.0, 1.01),
            "TRL, best-tuned": (2.0, 2.02),
            "the seed's way": (9.0,),
            "litgpt, best-tuned": (2.0, 3.0),
        }.items()
    }
    figures = {name: measuring.summarize(found) for name, found in runs.items()}
    verdicts = judging.Verdicts()
    goals = {name: 1.5 for name in figures if name != "ours"}
    verdicts.faster(goals, runs, figures, "training_seconds", "tokens/s of")
    trl, seed, litgpt = verdicts.said
    assert trl["met"]
    assert trl["value"] == pytest.approx(2.0)
    assert seed["met"]
    assert "one run" in seed["detail"]
    assert not litgpt["met"]
    assert not litgpt["measured"]


def test_the_work_of_qwen_3b_is_what_arithmetic_says(load) -> None:
    speeds, material = load("train_speeds"), load("train_material")
    shape = material.SHAPES["qwen3b"]
    assert shape.trunk == pytest.approx(2.775e9, rel=0.01)
    # Two passes over the trunk, then three and a half over attention, then the head at targets.
    alone = speeds.training_flops(shape, [1337], 0) / 1337
    assert alone == pytest.approx(11.10e9 + 0.69e9, rel=0.01)
    head = speeds.training_flops(shape, [1337], 677) - speeds.training_flops(shape, [1337], 0)
    assert head / 1337 == pytest.approx(0.63e9, rel=0.01)
    parts = speeds.training_flops(shape, [1000, 1000], 0)
    assert parts < speeds.training_flops(shape, [2000], 0)


def test_a_large_device_is_held_to_its_share_and_to_seconds(load) -> None:
    judging, speeds = load("train_judging"), load("train_speeds")
    figures = {"ours": {"training_seconds": {"median": 20.0}, "wall_seconds": {"median": 46.0}}}
    verdicts = judging.Verdicts()
    verdicts.device(figures, speeds.Work(1, 1, flops=1.3e3, peak=100.0))
    assert [verdict["met"] for verdict in verdicts.said] == [True, False]
    assert "65%" in verdicts.said[0]["detail"]


def test_the_table_counts_tokens_and_names_what_is_not_measured(load) -> None:
    speeds, measuring = load("train_speeds"), load("measuring")
    inside = {"training_seconds": 2.0, "first_step_seconds": 1.0}
    steady = [measuring.Run(3.0, 4.0, 9_000_000, 5_000_000, 0.0, inside) for _ in range(2)]
    shaky = [*steady, measuring.Run(3.0, 4.0, 9, 5, 0.0, {**inside, "training_seconds": 3.0})]
    figures = {"a": measuring.summarize(steady), "b": measuring.summarize(shaky)}
    work = speeds.Work(tokens=1000, targets=400, flops=8e9, peak=1e10)
    _, first, second = speeds.table(figures, work)
    assert first[:3] == ["a", "200", "500"]
    assert first[7:] == ["9 (5)", "40%", "0.0%"]
    assert "not measured" in second[-1]


def test_peers_are_held_against_what_they_were(load) -> None:
    speeds = load("train_speeds")
    figures = {
        name: {"training_seconds": {"median": seconds}}
        for name, seconds in {"TRL, best-tuned": 15.0, "litgpt, best-tuned": 10.0}.items()
    }
    assert speeds.against_earlier("bigvocab", figures)[1][2:] == ["1.50", "1.45", "yes"]
    assert speeds.against_earlier("like3b", figures)[1][-1] == "**no**"
    assert speeds.against_earlier("small", figures) == []


def test_the_recipe_of_our_side_is_a_configuration(load) -> None:
    ours = load("train_ours")
    options = {"rows_per_step": "16", "length": "2048", "training.dtype": "bfloat16"}

    def resolved(**more: str) -> object:
        given = ours.settings(Path("/models/base"), {**options, **more})
        assert given[::2] == ["--set"] * (len(given) // 2)
        return load_config(overrides=given[1::2]).training

    training = resolved()
    assert training.gradient_accumulation_steps * training.per_device_train_batch_size == 16
    assert (training.dtype, training.max_grad_norm) == ("bfloat16", 1.0)
    assert training.lora.dropout == 0.0
    # Peers are given the rows in the order that this seed draws.
    assert training.seed == load("train_material").SEED
    assert resolved(clip="0").max_grad_norm is None


def test_who_takes_part_follows_from_the_command(load, tmp_path: Path) -> None:
    options = load("train_options")
    for name in options.ENVIRONMENTS:
        python = tmp_path / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.touch()

    def chosen(*words: str) -> list[str]:
        given = options.parser("").parse_args([*words, "--peers", str(tmp_path)])
        found, absent = options.peers(given, given.shape)
        return [*found, *(f"no {name}" for name in absent)]

    assert chosen("start") == ["TRL, best-tuned", "litgpt, best-tuned"]
    assert chosen("trajectories") == ["TRL, best-tuned"]
    assert "the seed's way" in chosen("speed")
    assert "the seed's way" not in chosen("speed", "--shape", "bigvocab")
    assert chosen("speed", "--only", "TRL, defaults") == ["TRL, defaults"]
    assert chosen("speed", "--only", "TRL, best-tuned, packed") == ["TRL, best-tuned, packed"]
    assert "no unsloth" in chosen("speed", "--device", "cuda")
    with pytest.raises(SystemExit, match="none of"):
        chosen("speed", "--only", "nobody")


def test_without_a_command_it_says_what_there_is(load, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("bench_train").main([]) == 0
    assert "trajectories" in capsys.readouterr().out


def test_without_the_peers_it_says_how_to_get_them(load, tmp_path: Path) -> None:
    given = ["speed", "--peers", str(tmp_path), "--work", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"run `bench_train.py prepare` first"):
        load("bench_train").main(given)
    with pytest.raises(SystemExit, match="neither 1 nor all"):
        load("bench_train").main([*given, "--cores", "3"])


@pytest.mark.slow
def test_one_step_of_the_command_is_that_of_a_plain_loop(load, tmp_path: Path) -> None:
    material, files, ours = load("train_material"), load("train_files"), load("train_ours")
    gates = load("train_gates")
    wanted = material.Wanted(4, 2, 1, least=0, length=512, held_out=2, gate_rows=3)
    shape = material.Shape(32, 2, 4, 2, 48, 512)
    made = make(material, shape, tmp_path, wanted)
    assert len(files.read_rows(made.tokens)) == 8
    assert len(files.read_rows(made.held_out)) == 2
    options = ["rows_per_step=3", "length=512", "clip=0", "training.dtype=float32"]
    own, plain = tmp_path / "own", tmp_path / "plain"
    run("train_ours", "ours", made.model, made.gate_rows, *options, own)
    ours.export_step(own / "run", own)
    init = f"init={own / 'init.safetensors'}"
    run("train_reference", "step", made.model, made.gate_tokens, init, plain)
    losses = json.loads((own / "found.json").read_bytes())["losses"]
    right = json.loads((plain / "found.json").read_bytes())["loss"]
    assert gates.losses_agree(losses, [right], "float32")[0]
    gradients = [load_file(folder / "gradient.safetensors") for folder in (own, plain)]
    assert gates.gradient_error(*gradients) <= gates.GRADIENT_TOLERANCE
    inside = json.loads((own / "inside.json").read_bytes())
    assert 0 < inside["training_seconds"] < inside["first_step_seconds"] < 60


def make(material: ModuleType, shape: object, folder: Path, wanted: object) -> object:
    material.make_model(shape, folder / "model", texts=TEXTS, tokenizer=None)
    pool = folder / "pool.jsonl"
    rows = [
        {
            "instance_id": f"owner__name-{number}",
            "repo": f"owner/name-{number}",
            "prompt": " ".join(f"word{k * number % 11}" for k in range(20 + number)),
            "response": "\n".join(f"+ value = {k + number}" for k in range(3 + number % 5)),
        }
        for number in range(24)
    ]
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return material.choose(pool, folder / "model", folder, wanted)


def run(module: str, *words: object) -> None:
    *given, out = map(str, words)
    Path(out).mkdir()
    command = [sys.executable, "-c", f"import {module}; {module}.main()", *given, out]
    path = os.pathsep.join([str(ROOT), str(FOLDER)])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
