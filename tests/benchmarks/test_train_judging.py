"""What is judged of a comparison of trainers: gates, settings, ratios and their doubts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.benchmarks.conftest import LITGPT, OURS, SEED, TRL


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
    from transformers import Qwen2ForCausalLM

    from swe_scaffold.engine.flops import StepWork

    speeds, material = load("train_speeds"), load("train_material")
    shape = material.SHAPES["tiny"]
    config = material.qwen2(shape, {"<|endoftext|>": 0, "<|im_end|>": 1})
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
