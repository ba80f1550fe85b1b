"""Two processes under a launcher: the run of one, what ends one ends both, and they go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swe_scaffold.config import dump_config
from swe_scaffold.engine.adapter import read_tensors
from tests.tiny_runs import (
    Listener,
    checkpoints,
    examples,
    left_behind,
    make_config,
    metrics,
    read_json,
    train,
    write_split,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MEDDLING = str(Path(__file__).with_name("meddling.py"))
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
)
FSDP = ("--use_fsdp", "--fsdp_version", "2", "-m", "swe_scaffold")
# Each row alone in a micro-batch, and two of them at once in the logs.
KEYS = {"tokens_per_micro_batch": 100, "logging_steps": 4}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen rows to train, so that the fourth step of an epoch has one, and seven held out."""
    folder = tmp_path_factory.mktemp("rows")
    return write_split(folder / "rows.jsonl", examples(0, 13), examples(13, 20))


@pytest.fixture(scope="module")
def config(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of up to four rows: dropout, checkpoints, evaluations."""
    path = tmp_path_factory.mktemp("config") / "config.json"
    settings = make_config(model, path.parent / "run", **KEYS)
    path.write_text(json.dumps(dump_config(settings)), "utf-8")
    return path


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Start processes as a user does."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def options(config: Path, rows: Path, folder: Path, *more: str) -> list[str]:
    return ["train", str(config), str(rows), "--offline", "--output", str(folder), *more]


@pytest.fixture(scope="module")
def alone(model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(make_config(model, folder, **KEYS), rows)
    return folder


@pytest.fixture(scope="module")
def both(config: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that each hold all weights, started by accelerate."""
    folder = tmp_path_factory.mktemp("both") / "run"
    ended = launch(
        *ACCELERATE, "--multi_gpu", "-m", "swe_scaffold", *options(config, rows, folder, "--json")
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["steps"] == 6
    assert ended.stderr.count("step 4/6") == 1
    return folder


def assert_same_to_rounding(folder: Path, other: Path) -> None:
    found, wanted = metrics(folder), metrics(other)
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for line, expected in zip(found, wanted, strict=True):
        assert line == pytest.approx(expected, rel=2e-6, abs=1e-9)
    weights = read_tensors(folder / "adapter_model.safetensors")
    for name, tensor in read_tensors(other / "adapter_model.safetensors").items():
        # Adam divides tiny gradients by themselves: rounding shows most where little happens.
        assert float((weights[name] - tensor).norm()) <= 1e-4 * float(tensor.norm()), name


def about_processes(folder: Path) -> dict[str, str]:
    entries = read_json(folder / "manifest.json")["decisions"]
    found: dict[str, str] = next(entry for entry in entries if entry["key"] == "processes")
    return found


def test_two_processes_do_what_one_does(alone: Path, both: Path) -> None:
    """Same initialisation, order, dropout, losses, norms and weights, to float32 rounding."""
    assert_same_to_rounding(both, alone)
    # Nothing has been trained yet: each row's likelihood is that of one process to the bit.
    assert metrics(both)[0] == metrics(alone)[0]
    assert {path.name for path in both.iterdir()} == {
        *(path.name for path in alone.iterdir()),
        "report.html",
    }
    assert about_processes(both)["value"] == "2"


def test_a_base_divided_by_fsdp2_gives_the_same(
    config: Path, rows: Path, both: Path, tmp_path: Path
) -> None:
    """Steps of four rows and of one: who has fewer micro-batches takes part with nothing."""
    folder = tmp_path / "run"
    ended = launch(*ACCELERATE, *FSDP, *options(config, rows, folder))
    assert ended.returncode == 0, ended.stderr
    assert "divided among them" in about_processes(folder)["why"]
    assert left_behind(folder) == left_behind(both)


def test_a_dead_process_ends_the_run_with_its_last_step_kept(
    config: Path, rows: Path, both: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ended = launch(*TORCHRUN, MEDDLING, "1", "6", "die", *options(config, rows, folder))
    assert ended.returncode != 0
    assert ended.stderr.count("error: another process of this run has died") == 1, ended.stderr
    assert "hint: its last complete step is kept" in ended.stderr
    # Saved every second step, and here because the other process is gone.
    assert checkpoints(folder) == [2, 4, 5]
    assert not (folder / "manifest.json").exists()
    ended = launch(*TORCHRUN, "-m", "swe_scaffold", *options(config, rows, folder, "--resume"))
    assert ended.returncode == 0, ended.stderr
    assert "going on from step 5" in ended.stderr
    assert left_behind(folder) == left_behind(both)


def test_a_signal_to_the_launcher_stops_both_and_one_goes_on(
    model: Path, config: Path, rows: Path, alone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ended = launch(*TORCHRUN, MEDDLING, "1", "3", "terminate", *options(config, rows, folder))
    assert ended.stderr.count("error: stopped at step 3, a checkpoint was saved") == 1, ended.stderr
    assert checkpoints(folder) == [2, 3]
    listener = Listener()
    train(make_config(model, folder, **KEYS), rows, resume=True, reporter=listener)
    assert "processes was 2, is 1: the last bits may differ" in listener.text
    assert_same_to_rounding(folder, alone)


def test_a_process_that_stops_first_waits_until_the_checkpoint_is_written(
    config: Path, rows: Path, tmp_path: Path
) -> None:
    """The launcher ends all as soon as one is gone."""
    folder = tmp_path / "run"
    ended = launch(*TORCHRUN, MEDDLING, "1", "3", "stop", *options(config, rows, folder))
    assert ended.stderr.count("error: stopped at step 3, a checkpoint was saved") == 1, ended.stderr
    assert checkpoints(folder) == [2, 3]


def test_an_error_of_one_process_is_said_once_and_ends_both(
    config: Path, rows: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    ended = launch(*TORCHRUN, MEDDLING, "1", "3", "diverge", *options(config, rows, folder))
    assert ended.stderr.count("error: ") == 1, ended.stderr
    assert "error: the loss is not finite; rows: row-03" in ended.stderr
    assert "exitcode  : 6" in ended.stderr
    assert checkpoints(folder) == [2]


def test_what_all_meet_is_said_once(config: Path, rows: Path, tmp_path: Path) -> None:
    """Before they join, and after: a key that does not exist, a folder that is taken."""
    (tmp_path / "taken").write_text("mine", "utf-8")
    wrong = options(config, rows, tmp_path / "run", "--set", "training.sead=1")
    for arguments, said in (
        (wrong, "training.sead"),
        (options(config, rows, tmp_path), "the output folder is not empty"),
    ):
        ended = launch(*TORCHRUN, "-m", "swe_scaffold", *arguments)
        assert ended.stderr.count(said) == 1, ended.stderr
        assert "exitcode  : 2" in ended.stderr
