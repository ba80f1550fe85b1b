"""train and evaluate on a tiny model: results, progress, refusals, interruption and resume."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, Done, Run, command, task, write_rows
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.slow

TRAINING = {
    "max_steps": 4,
    "learning_rate": 4e-3,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "eval_steps": 2,
    "save_steps": 2,
    "logging_steps": 2,
    "max_length": 400,
    "min_prompt_tokens": 16,
}


MODEL = "tiny-model-0-32-2"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a configuration and built rows."""
    folder = tmp_path_factory.mktemp("place")
    model = tiny_model(folder, tiny_tokenizer(folder))
    config = {"training": {**TRAINING, "model_name": str(model), "output_dir": str(folder / "run")}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    write_rows(folder / "tasks.jsonl", [task(number) for number in range(16)])
    sources = ["--dataset", folder / "tasks.jsonl", "--output", folder / "rows.jsonl"]
    done = command("build", *sources, "--emit-test", "--set", "dataset.dev_split=0.6", "-q")
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> Done:
    """The run that the others look at."""
    done = command("train", place / "config.json", place / "rows.jsonl")
    assert done.code == 0, done.err
    return done


def test_train_reports_the_run_and_the_next_command(trained: Done, place: Path) -> None:
    run = place / "run"
    assert "  optimizer steps    4 (" in trained.out
    assert f"  adapter            {run}\n" in trained.out
    next_line = trained.out.rstrip("\n").split("\n")[-1]
    assert next_line == f"next: swe-scaffold evaluate {run} {place}/rows.test.jsonl --compare-base"
    for name in ("adapter_model.safetensors", "manifest.json", "metrics.jsonl", "report.html"):
        assert (run / name).is_file(), name


def test_progress_is_on_stderr(trained: Done) -> None:
    assert "step 2/4  loss " in trained.err
    assert "hold-out NLL" in trained.err
    assert "step 2/4" not in trained.out


def test_quiet_training_says_nothing_and_prints_one_document(run: Run, place: Path) -> None:
    done = run(
        *("train", place / "config.json", place / "rows.jsonl", "--output", "quiet"),
        *("--max-steps", 2, "-q", "--json", "--set", "training.eval_strategy=no"),
    )
    assert (done.code, done.err) == (0, "")
    assert done.value["steps"] == 2
    assert done.value["folder"] == "quiet"
    assert done.value["eval_nll"] is None


def test_the_configuration_is_named_in_either_way_but_once(run: Run, place: Path) -> None:
    config, rows = place / "config.json", place / "rows.jsonl"
    options = ["--output", "named", "--max-steps", 1, "-q", "--json"]
    assert run("train", rows, "--config", config, *options).value["steps"] == 1
    for arguments in ([config], [config, rows, "--config", config], [config, rows, rows]):
        done = run("train", *arguments)
        assert done.code == 2
        assert "takes one configuration and one file of rows" in done.err


def test_micro_batches_are_a_flag(run: Run, place: Path) -> None:
    command = ("train", place / "config.json", place / "rows.jsonl", "--max-steps", 1)
    for value, kept in (("auto", "auto"), ("70", 70)):
        done = run(
            *command, "--tokens-per-micro-batch", value, "--output", f"micro-{value}", "--json"
        )
        assert done.code == 0, done.err
        manifest = json.loads(Path(f"micro-{value}", "manifest.json").read_text("utf-8"))
        assert manifest["config"]["training"]["tokens_per_micro_batch"] == kept
        assert done.value["speed"]["steps"] == 1
    for wrong in ("0", "-3", "2.5", "all"):
        done = run(*command, "--tokens-per-micro-batch", wrong, "--output", "wrong")
        assert done.code == 2
        assert done.err.startswith("error: --tokens-per-micro-batch: ")


@pytest.mark.usefixtures("trained")
def test_a_folder_with_a_run_is_refused(run: Run, place: Path) -> None:
    done = run("train", place / "config.json", place / "rows.jsonl")
    assert done.code == 2
    assert done.err.startswith(
        f"error: {place}/run: the output folder is not empty\nhint: --resume"
    )


@pytest.mark.usefixtures("trained")
def test_evaluate_prints_what_it_writes(run: Run, place: Path) -> None:
    flags = ["--compare-base", "--shuffled-control"]
    done = run("evaluate", place / "run", place / "rows.test.jsonl", *flags)
    assert done.code == 0, done.err
    written = Path(done.out.rstrip("\n").rpartition("written: ")[2])
    report = json.loads(written.read_text("utf-8"))
    assert f"rows: {report['data']['rows']} = scored {report['data']['scored']} + " in done.out
    assert "value [95 % interval]" in done.out
    assert f"tuned - base: {report['comparison']['effect']['value']:.3f}"[:16] in done.out
    assert "own prompt - other prompt: " in done.out
    assert "seen in training" not in done.out
    value = run("evaluate", place / "run", place / "rows.test.jsonl", *flags, "--json", "-q").value
    assert value["unseen"]["nll"] == report["unseen"]["nll"]


@pytest.mark.usefixtures("trained")
def test_evaluate_warns_of_rows_it_was_trained_on(run: Run, place: Path) -> None:
    flags = ["--cluster-by", "row", "--batch-size", 3, "--output", "out"]
    flags += ["--set", "evaluation.alpha=0.1"]
    done = run("evaluate", place / "run", place / "rows.jsonl", *flags)
    assert done.code == 0, done.err
    assert "seen in training" in done.out
    assert "beware: every row of this file was trained on" in done.out
    assert "by row\n" in done.out
    assert "value [90 % interval]" in done.out
    assert Path("out/scores.jsonl").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_saved_and_goes_on(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, trained: Done
) -> None:
    from swe_scaffold.engine.loop import Loop

    take = Loop.take

    def stop_at_3(loop: Loop, rows: Any) -> Any:
        if loop.step == 2:
            os.kill(os.getpid(), number)
        return take(loop, rows)

    arguments = ["train", place / "config.json", place / "rows.jsonl", "--output", "stopped"]
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "take", stop_at_3)
        done = run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert "error: stopped at step 3, a checkpoint was saved\nhint: " in done.err
    again = run(*arguments, "--resume")
    assert again.code == 0, again.err
    name = "adapter_model.safetensors"
    assert Path("stopped", name).read_bytes() == (place / "run" / name).read_bytes()


@pytest.mark.usefixtures("trained")
def test_the_recomputation_in_the_docs_gives_the_same_number(
    run: Run, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs/evaluation.md").read_text("utf-8")
    from_scores, from_models = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    done = run("evaluate", place / "run", place / "rows.test.jsonl", "--output", ".", "--json")
    nll = done.value["unseen"]["nll"]["value"]
    exec(from_scores, {})
    assert float(capsys.readouterr().out.split()[0]) == pytest.approx(nll, abs=1e-12)
    model = json.loads((place / "config.json").read_text("utf-8"))["training"]["model_name"]
    code, count = re.subn(
        r"^run, base, data = .*$",
        f"run, base, data = {str(place / 'run')!r}, {model!r}, {str(place / 'rows.test.jsonl')!r}",
        from_models,
        flags=re.MULTILINE,
    )
    assert count == 1
    exec(code, {})
    assert float(capsys.readouterr().out) == pytest.approx(nll, abs=1e-6)


def test_a_missing_model_is_an_environment_failure(run: Run, place: Path) -> None:
    done = run(
        *("train", place / "config.json", place / "rows.jsonl", "--output", "x", "--offline"),
        *("--set", "training.model_name=owner/not-here"),
    )
    assert done.code == 4
    assert done.err.startswith("error: cannot get owner/not-here: ")


@pytest.mark.usefixtures("trained")
def test_models_are_scored_on_the_same_rows_and_compared(run: Run, place: Path) -> None:
    rows, flags = place / "rows.test.jsonl", ("--set", "evaluation.iterations=50", "-q")
    names = (place / MODEL, place / "run")
    done = run("evaluate", *names, rows, "--output", "both", *flags)
    assert done.code == 0, done.err
    following = done.out.rstrip("\n").split("\n")[-1].removeprefix("next: swe-scaffold ").split()
    found = run(*following, *flags)
    assert found.code == 0, found.err
    assert "model - baseline: -" in found.out
    for title in ("by group", "by length of the response", "by token class", "p (Holm)"):
        assert title in found.out
    again = run("compare", *names, "--data", rows, "--json", "--generate", 2, *flags)
    model = again.value["models"][0]
    assert model["model"]["name"] == str(place / "run")
    assert set(model["health"]) == {"stopped", "empty", "repeated", "parseable"}
    assert run("compare", *names, "--data", rows, "--generate", 2, *flags).out.count("stopped") == 1


@pytest.mark.usefixtures("trained")
def test_the_gate_is_the_exit_code(run: Run, place: Path) -> None:
    rows, flags = place / "rows.test.jsonl", ("--set", "evaluation.iterations=50", "-q")
    names = (place / MODEL, place / "run", "--data", rows)
    assert run("compare", *names, "--gate", "better", *flags).code == 0
    done = run("compare", *names, "--gate", "better", "--margin", "9", *flags)
    assert done.code == 9
    assert "gate better: does not pass" in done.out
    assert "error: --gate better: the gate says no" in done.err
    refused = run("compare", *names, "--gate", "best", *flags)
    assert (refused.code, "better or not-worse" in refused.err) == (2, True)
    assert run("compare", *names, "--margin", "1", *flags).code == 2


def test_where_no_micro_batch_fits_the_arithmetic_is_said(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swe_scaffold.engine import budget

    monkeypatch.setattr(budget, "memory_limit_bytes", lambda _, sharers: 1 << 20)
    done = run("train", place / "config.json", place / "rows.jsonl", "--output", "too-large", "-q")
    assert done.code == 7
    error, hint = done.err.rstrip("\n").split("\n")
    assert re.fullmatch(
        r"error: a micro-batch of \d+ tokens does not fit: activations [\d.]+ GiB \+ work on them "
        r"[\d.]+ GiB \+ gradients, optimizer and logits [\d.]+ GiB = [\d.]+ GiB, with activation "
        r"checkpointing [\d.]+ GiB; 0.00 GiB are free",
        error,
    )
    assert hint.startswith("hint: set training.max_length below ")
    assert not (Path("too-large") / "manifest.json").exists()


@pytest.mark.usefixtures("trained")
def test_comparing_wants_evaluations_or_rows(run: Run, place: Path) -> None:
    done = run("compare", place / MODEL, place / "run")
    assert done.code == 2
    assert "--data" in done.err
    assert run("compare", place / MODEL, "--data", place / "rows.test.jsonl").code == 2
    seen = run("compare", place / MODEL, place / "run", "--data", place / "rows.jsonl", "-q")
    assert seen.code == 5
    assert "--seen drop" in seen.err
    assert run("evaluate", place / "run").code == 2
