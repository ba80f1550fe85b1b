"""The parts of benchmarks/bench_train.py that need no peer: rows, gates, speeds, our side."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

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
    error = load("train_judging").gradient_error
    right = {"0.q.B": np.array([3.0, 4.0]), "0.q.A": np.zeros(2)}
    assert error({"0.q.B": np.array([3.0, 4.0])}, right) == 0
    assert error({"0.q.B": np.array([3.0, 4.5])}, right) == pytest.approx(0.1)
    assert error({"0.q.A": np.zeros(2)}, right) == math.inf
    wrong = {"0.q.B": np.array([3.0, 4.0]), "0.q.A": np.ones(2)}
    assert error(wrong, right) == pytest.approx(math.sqrt(2) / 5)


def test_losses_of_other_steps_are_infinitely_far_apart(load) -> None:
    off = load("train_judging").loss_error
    assert off([9.1, 9.0], [9.1, 9.0009]) == pytest.approx(9e-4)
    assert off([9.1], [9.1, 9.0]) == math.inf
    assert off([math.nan, 9.0], [9.1, 9.0]) == math.inf
    late = [[9.0] * 16 + [8.9], [9.0] * 16 + [8.8]]
    assert off(*late) == 0
    early = [[9.0] * 15 + [8.9], [9.0] * 15 + [8.8]]
    assert off(*early) == pytest.approx(0.1)


def leave(folder: Path, losses: list[float], gradient: list[float]) -> Path:
    folder.mkdir(parents=True)
    (folder / "found.json").write_text(json.dumps({"losses": losses, "step_ends": [1.0, 1.5]}))
    save_file({"0.q.B": np.array(gradient, np.float32)}, folder / "gradient.safetensors")
    return folder


OURS, TRL, LITGPT, SEED = (
    "ours, bfloat16",
    "TRL, best-tuned",
    "litgpt, best-tuned",
    "the seed's way",
)
PEER = [3.0, 4.05]
NEAR = [3.0, 4.02]
# Reversed, as where labels are shifted twice.
WRONG = [4.0, 3.0]


@pytest.mark.parametrize(
    ("own", "peer", "planted", "missed"),
    [
        pytest.param(NEAR, PEER, None, [], id="within the peer's rounding"),
        pytest.param([3.0, 4.4], PEER, None, [OURS, "our gradient"], id="further off, by both"),
        pytest.param([3.0, 4.06], PEER, None, ["our gradient"], id="further off than the peer"),
        pytest.param(NEAR, PEER, WRONG, [LITGPT], id="a wrong peer fails"),
        pytest.param(
            [3.0, 4.06], PEER, WRONG, [LITGPT, "our gradient"], id="and does not loosen the bound"
        ),
        pytest.param(NEAR, WRONG, None, [TRL, "our gradient"], id="no right peer, no bound"),
    ],
)
def test_every_gradient_is_held_to_a_bound(
    load, tmp_path: Path, own: list[float], peer: list[float], planted: object, missed: list[str]
) -> None:
    judging = load("train_judging")
    plain = leave(tmp_path / "plain", [9.0, 8.9], [3.0, 4.0])
    gradients = {OURS: own, TRL: peer} | ({LITGPT: planted} if planted else {})
    found = {
        name: judging.agreement(leave(tmp_path / name, [9.0001, 8.9], given), plain, "bfloat16")
        for name, given in gradients.items()
    }
    verdicts = judging.Verdicts()
    lines = verdicts.first_steps("here", found)
    assert [line[0] for line in lines[1:]] == [*gradients]
    failed = [verdict["goal"] for verdict in verdicts.said if not verdict["met"]]
    assert len(failed) == len(missed)
    assert all(word in goal for word, goal in zip(missed, failed, strict=True))
    assert verdicts.equal == (not missed)


@pytest.mark.parametrize(
    ("losses", "gradient", "dtype", "trouble"),
    [
        ([9.0, 8.901], NEAR, "bfloat16", ""),
        ([9.0, 8.907], NEAR, "bfloat16", "loss off by 7.0e-03"),
        ([9.0], NEAR, "bfloat16", "loss off by inf"),
        ([9.0, 8.9], NEAR, "float32", "gradient off by 4.0e-03"),
        ([9.0, 8.9], [3.0, 4.0001], "float32", ""),
    ],
)
def test_steps_are_held_against_the_plain_loop(
    load, tmp_path: Path, losses: list[float], gradient: list[float], dtype: str, trouble: str
) -> None:
    plain = leave(tmp_path / "plain", [9.0, 8.9], [3.0, 4.0])
    folder = leave(tmp_path / "found", losses, gradient)
    assert load("train_judging").agreement(folder, plain, dtype).trouble == trouble


def test_what_is_rough_or_packed_is_held_to_what_it_can_keep(load, tmp_path: Path) -> None:
    judging, who = load("train_judging"), load("train_contenders")
    plain = leave(tmp_path / "plain", [9.0, 8.9], [3.0, 4.0])
    rough = who.SETTINGS[LITGPT]["bfloat16, 1 row"]
    packed = who.CUDA_SETTINGS["TRL, best-tuned, packed"]["16,384 tokens, sdpa"]
    off, one = leave(tmp_path / "off", [9.02, 8.9], NEAR), leave(tmp_path / "one", [9.0], NEAR)
    assert judging.agreement(off, plain, "bfloat16").trouble
    assert not judging.agreement(off, plain, "bfloat16", rough).trouble
    assert judging.agreement(one, plain, "bfloat16").trouble
    assert not judging.agreement(one, plain, "bfloat16", packed).trouble


def test_steps_are_held_against_the_reference_and_against_ours(load, tmp_path: Path) -> None:
    judging, who = load("train_judging"), load("train_contenders")
    given = {OURS: [9.0, 8.9], TRL: [9.0, 8.8], SEED: [9.3, 9.2]}
    folders = {name: leave(tmp_path / name, losses, NEAR) for name, losses in given.items()}
    peers = {name: next(iter(who.SETTINGS[name].values())) for name in (TRL, SEED)}
    alone, together = judging.Verdicts(), judging.Verdicts()
    alone.losses("here", folders, peers, 9.0, every=False)
    assert alone.equal
    together.losses("here", folders, peers, 9.0, every=True)
    assert not together.equal
    assert any("all 2 steps" in verdict["goal"] for verdict in together.said)
    assert not any("seed" in verdict["goal"] for verdict in together.said)


@pytest.mark.parametrize(
    ("away", "met"),
    [
        pytest.param(0.0, True, id="the same"),
        pytest.param(0.04, True, id="within a twentieth of the way"),
        pytest.param(0.06, False, id="not within it"),
        pytest.param(1.0, False, id="an adapter that was never trained"),
    ],
)
def test_held_out_rows_tell_an_untrained_adapter(load, away: float, met: bool) -> None:
    verdicts, targets = load("train_judging").Verdicts(), [100] * 20
    trained = [700.0 + k for k in range(20)]
    # Training moved everything by so little that a fixed margin would let anything pass.
    untrained = [value + 0.01 for value in trained]
    found = [value + 0.01 * away for value in trained]
    lines = verdicts.held_out(
        "here",
        {OURS: trained, TRL: found, "untrained": untrained, SEED: untrained},
        targets,
        free=[SEED],
    )
    assert [line[0] for line in lines[1:]] == [OURS, TRL, "untrained", SEED]
    (verdict,) = verdicts.said
    assert verdict["met"] is verdicts.equal is met


def test_where_training_moved_nothing_nobody_passes(load) -> None:
    verdicts, nll = load("train_judging").Verdicts(), [700.0, 701.0, 702.0]
    verdicts.held_out("here", {OURS: nll, TRL: nll, "untrained": nll}, [100] * 3)
    assert not verdicts.equal


def test_one_run_is_never_met(load) -> None:
    judging, measuring, pages = load("train_judging"), load("measuring"), load("pages")
    runs = {OURS: (1.0, 1.01, 1, 1, 1), TRL: (2.0, 2.02, 2, 2, 2), SEED: (9.0,), LITGPT: (2, 3) * 3}
    figures = {
        name: {"training_seconds": measuring.summary(values)} for name, values in runs.items()
    }
    verdicts = judging.Verdicts()
    for name in (TRL, SEED, LITGPT):
        verdicts.ratio(f"tokens/s of {name}", figures, (OURS, name), "training_seconds", 1.5)
    trl, seed, litgpt = verdicts.said
    assert trl["met"]
    assert trl["value"] == pytest.approx(2.0)
    assert (seed["met"], seed["doubt"]) == (False, f"{SEED}: one run")
    assert not litgpt["met"]
    assert "spread" in litgpt["doubt"]
    assert f"**not measured** ({SEED}: one run" in pages.verdict(seed)


def test_the_work_of_qwen_3b_is_what_arithmetic_says(load) -> None:
    speeds, material = load("train_speeds"), load("train_material")
    shape = material.SHAPES["qwen3b"]
    assert shape.trunk == pytest.approx(2.775e9, rel=0.01)
    # Two passes over the trunk, then three over attention, then the head at targets.
    alone = speeds.training_flops(shape, [1337], 0) / 1337
    assert alone == pytest.approx(11.10e9 + 0.59e9, rel=0.01)
    head = speeds.training_flops(shape, [1337], 677) - speeds.training_flops(shape, [1337], 0)
    assert head / 1337 == pytest.approx(0.63e9, rel=0.01)
    parts = speeds.training_flops(shape, [1000, 1000], 0)
    assert parts < speeds.training_flops(shape, [2000], 0)


def test_work_is_counted_as_train_counts_it(load) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from swe_scaffold.engine.flops import StepWork

    speeds, material = load("train_speeds"), load("train_material")
    shape = material.SHAPES["tiny"]
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config).requires_grad_(False)
    work = StepWork.of(model)
    right = work.per_token * 300 + work.per_square * (100**2 + 200**2) + work.per_target * 70
    assert speeds.training_flops(shape, [100, 200], 70) == right


def test_a_large_device_is_held_to_its_share_and_to_seconds(load) -> None:
    judging, speeds, measuring = load("train_judging"), load("train_speeds"), load("measuring")
    figures = {
        "training_seconds": measuring.summary([20.0] * 5),
        "wall_seconds": measuring.summary([46.0] * 5),
    }
    verdicts, work = judging.Verdicts(), speeds.Work(1, 1, flops=1.3e3, peak=100.0)
    verdicts.device(figures, work)
    assert [verdict["met"] for verdict in verdicts.said] == [True, False]
    assert "0.65" in verdicts.said[0]["detail"]
    once = {**figures, "training_seconds": measuring.summary([20.0])}
    verdicts.device(once, work)
    assert (verdicts.said[2]["met"], verdicts.said[2]["doubt"]) == (False, "one run")


def test_parts_of_a_single_run_give_its_spread(load) -> None:
    within = load("train_speeds").within_one_run
    tokens = [9, *(100, 300) * 10]
    ends = [50.0]
    for count in tokens[1:]:
        ends.append(ends[-1] + count / 100)
    figure = within(ends[-1], ends, tokens)
    assert figure["measured"]
    assert (figure["median"], figure["runs"]) == (ends[-1], 5)
    assert figure["spread"] == pytest.approx(0)
    slower = [*ends[:-4], *(end + 5 for end in ends[-4:])]
    assert not within(slower[-1], slower, tokens)["measured"]
    assert not within(ends[3], ends[:4], tokens[:4])["measured"]


def test_the_table_counts_tokens_and_names_what_is_not_measured(load) -> None:
    speeds, measuring = load("train_speeds"), load("measuring")
    inside = {"training_seconds": 2.0, "training_cpu_seconds": 1.9, "first_step_seconds": 1.0}
    steady = [measuring.Run(3.0, 4.0, 9_000_000, 5_000_000, 0.0, inside) for _ in range(5)]
    shaky = [*steady, measuring.Run(3.0, 4.0, 9, 5, 0.0, {**inside, "training_seconds": 3.0})]
    figures = {"a": measuring.summarize(steady), "b": measuring.summarize(shaky)}
    work = speeds.Work(tokens=1000, targets=400, flops=8e9, peak=1e10)
    _, first, second = speeds.table(figures, work)
    assert first[:3] == ["a", "200", "500"]
    assert first[4:6] == ["2.00", "1.90 (1.90 to 1.90)"]
    assert first[9:] == ["9 (5)", "40%", "0.0%"]
    assert second[-1] == "50.0%: **not measured**"


def test_the_fastest_setting_that_is_right_is_taken(load) -> None:
    tuning, judging, who = load("train_tuning"), load("train_judging"), load("train_contenders")
    run = load("measuring").Run(3.0, 3.0, 1, 1, 0.0)
    peer = who.Peer("trl", "trl")

    def trial(name: str, seconds: float, gradient: float) -> object:
        found = judging.Agreement(9.0, 1e-5, gradient, "bfloat16")
        return tuning.Trial(name, peer, found.trouble, run, found, (seconds,))

    failed = tuning.Trial("compiled", peer, "failed: no compiler")
    slow, fast, wrong = trial("slow", 3, 1e-3), trial("fast", 2, 1e-3), trial("wrong", 1, 0.9)
    trials = [failed, slow, fast, wrong]
    assert tuning.best(trials) is fast
    assert tuning.best([failed, wrong]) is wrong
    assert tuning.best([failed]) is None
    lines = tuning.table({"TRL, best-tuned": trials})
    assert tuning.finalists(trials) == [2, 1]
    assert tuning.finalists(trials[:2]) == []
    lucky = fast.and_again(trial("fast", 9, 1e-3)).and_again(trial("fast", 8, 1e-3))
    assert lucky.seconds == (2, 9, 8)
    assert tuning.best([failed, slow, lucky]) is slow
    assert fast.and_again(failed).trouble == "failed: no compiler"
    told = ["failed: no compiler", "", "**taken**", "gradient off by 9.0e-01"]
    assert [line[-1] for line in lines[1:]] == told


def test_what_the_measured_steps_would_take(load, tmp_path: Path) -> None:
    expected = load("train_tuning").expected_seconds
    run = load("measuring").Run(10.0, 3.0, 1, 1, 0.0)
    (tmp_path / "found.json").write_text(json.dumps({"step_ends": [5.0, 6.0, 7.0]}))
    assert expected(tmp_path, run, 2, whole=False) == 6
    assert expected(tmp_path, run, 62, whole=False) == 66
    assert expected(tmp_path, run, 2, whole=True) == 9


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


def test_verdicts_can_name_what_peers_compute_in(load) -> None:
    every = load("train_contenders").SETTINGS
    first = {name: next(iter(settings.values())).precision for name, settings in every.items()}
    assert first["TRL, defaults"] == "float32 weights, bfloat16 autocast"
    assert (first[LITGPT], first["litgpt, float32"], first[SEED]) == (
        "bfloat16",
        "float32",
        "float32",
    )
    assert every[TRL]["bfloat16, sdpa, 1 row"].precision == "bfloat16"


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
