"""The parts of benchmarks/bench_train.py that need no peer: rows, gates, speeds, our side."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from swe_scaffold.config import load_config
from tests.benchmarks.conftest import FOLDER, LITGPT, OURS, ROOT, SEED, TRL

TEXTS = ["\n".join(f"def part_{k}(value): return value + {k}" for k in range(400))]


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
        found, absent = options.peers(given)
        return [*found, *(f"no {name}" for name in absent)]

    assert chosen("start")[:2] == [TRL, LITGPT]
    assert chosen("trajectories")[0] == TRL
    assert SEED in chosen("speed")
    assert f"no {SEED}" in chosen("speed", "--shape", "bigvocab")
    assert chosen("speed", "--only", "TRL, defaults") == ["TRL, defaults"]
    packed = f"{TRL}, packed"
    assert chosen("speed", "--device", "cuda", "--only", packed) == [packed]
    cuda = ["TRL, best-tuned", packed, "TRL, defaults", "no litgpt", "no unsloth"]
    assert chosen("speed", "--device", "cuda") == cuda
    python = tmp_path / "elsewhere" / "python"
    python.parent.mkdir()
    python.touch()
    assert "unsloth" in chosen("speed", "--device", "cuda", "--peer-python", f"unsloth={python}")
    with pytest.raises(SystemExit, match="none of"):
        chosen("speed", "--only", "nobody")


def test_commands_say_where_they_compute_and_keep_what_is_inherited(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = load("train_contenders")
    monkeypatch.setenv("PYTHONPATH", "/inherited")
    makes = who.Makes(tmp_path, {"trl": Path("/trl/python")}, {"device": "cpu", "length": "9"}, {})
    own = makes.own(OURS, tmp_path / "rows", [0])
    assert own.environment["PYTHONPATH"].split(os.pathsep) == [str(ROOT), str(FOLDER), "/inherited"]
    assert own.environment["CUDA_VISIBLE_DEVICES"] == ""
    assert "training.dtype=bfloat16" in own.command
    packed = next(iter(who.CUDA_SETTINGS["TRL, best-tuned, packed"].values()))
    peer = makes.peer("x", packed, tmp_path / "tokens", [0, 1], {"accumulation": "99"})
    assert peer.command[0] == "/trl/python"
    assert {"length=16384", "accumulation=99"} <= {*peer.command}
    assert (peer.environment["PYTHONPATH"], peer.environment["OMP_NUM_THREADS"]) == (
        "/inherited",
        "2",
    )


@pytest.mark.slow
def test_a_made_model_is_kept_while_it_is_the_same(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = load("train_material")
    wanted = material.Wanted(1, 1, 1, least=0, length=512, held_out=0, gate_rows=1, gate_steps=1)

    def make() -> int:
        made = material.make(tmp_path, "tiny", wanted, source=None, tokenizer=None)
        return (made.model / "model.safetensors").stat().st_mtime_ns

    first = make()
    assert make() == first
    monkeypatch.setattr(material, "SEED", 43)
    assert make() != first


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
    judging = load("train_judging")
    wanted = material.Wanted(4, 2, 1, least=0, length=512, held_out=2, gate_rows=3, gate_steps=2)
    shape = material.Shape(32, 2, 4, 2, 48, 512)
    made = make(material, shape, tmp_path, wanted)
    assert len(files.read_rows(made.tokens)) == 8
    assert len(files.read_rows(made.held_out)) == 2
    recipe = [
        "device=cpu",
        "rows_per_step=3",
        "length=512",
        "clip=0",
        "epochs=2",
        "training.dtype=float32",
    ]
    saved = ["training.save_strategy=steps", "training.save_steps=1"]
    own, plain = tmp_path / "own", tmp_path / "plain"
    run("train_ours", "ours", made.model, made.gate_rows, *recipe, *saved, own)
    ours.export_step(own / "run", own)
    more = ["rows_per_step=3", f"init={own / 'init.safetensors'}"]
    first = [f"measured={made.gate_tokens}", "measured_step=3"]
    run("train_reference", "first+steps", made.model, made.gate_tokens, *more, *first, plain)
    found = judging.agreement(own, plain, "float32")
    assert not found.trouble
    right = json.loads((plain / "found.json").read_bytes())
    assert len(right["losses"]) == 2
    assert right["first"] == pytest.approx(right["losses"][0], abs=1e-6)
    inside = json.loads((own / "inside.json").read_bytes())
    assert 0 < inside["training_seconds"] < inside["first_step_seconds"] + 5 < 60
    assert inside["training_cpu_seconds"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "failed", "page"),
    [
        pytest.param([], ["TRL, best-tuned", "TRL, defaults"], "## On ", id="peers"),
        pytest.param(["--set", "training.nonsense=1"], [OURS], "failed: ", id="ours"),
    ],
)
def test_who_fails_ends_nothing_for_the_others(
    load, tmp_path: Path, words: list[str], failed: list[str], page: str
) -> None:
    python = tmp_path / "python"
    version = 'case "$1" in -c) exit 0;; esac'
    python.write_text(f"#!/bin/sh\n{version}\necho no luck\nexit 1\n")
    python.chmod(0o755)
    pythons = [f"--peer-python={name}={python}" for name in ("trl", "litgpt")]
    rows = ["--length=512", "--rows-per-step=2", "--gate-rows=2", "--repeats=1"]
    output = tmp_path / "page.md"
    given = ["speed", "--shape=tiny", "--cores=1", f"--work={tmp_path / 'work'}", *rows, *words]
    only = "--only=TRL, best-tuned;TRL, defaults"
    code = load("bench_train").main([*given, *pythons, only, f"--output={output}"])
    # Without a peer that passed, nothing says how far off ours may be.
    assert code == 9
    text = output.read_text("utf-8")
    assert all(re.search(rf"\*\*{name}[^*]*\.\*\* failed: ", text) for name in failed)
    assert page in text
    assert json.loads(output.with_suffix(".json").read_bytes())["verdicts"]


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
