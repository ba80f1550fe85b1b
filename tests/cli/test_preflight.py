"""train --dry-run on a tiny model: one page, one document, the exit code, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, command, task, write_rows
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.slow

TRAINING = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_length": 400,
    "min_prompt_tokens": 16,
}
SPLIT = ("--set", "dataset.dev_split=0.6")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a configuration and built rows."""
    folder = tmp_path_factory.mktemp("place")
    model = tiny_model(folder, tiny_tokenizer(folder), hidden=16)
    config = {"training": {**TRAINING, "model_name": str(model), "output_dir": str(folder / "run")}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    write_rows(folder / "tasks.jsonl", [task(number) for number in range(16)])
    sources = ["--dataset", folder / "tasks.jsonl", "--output", folder / "rows.jsonl"]
    assert command("build", *sources, "--emit-test", "-q", *SPLIT).code == 0
    return folder


def test_one_page_says_whether_the_run_is_ready(run: Run, place: Path) -> None:
    done = run("train", place / "config.json", place / "rows.jsonl", "--dry-run", "--max-steps", 3)
    assert done.code == 0, done.err
    lines = done.out.split("\n")
    assert lines[0] == "preflight: ready"
    assert len(lines) < 70
    table = next(number for number, line in enumerate(lines) if line.startswith("choice "))
    assert max(map(len, lines[:table])) <= 100
    assert '\n  data begin   "d' in done.out
    assert "\n  fits " in done.out
    assert "yes: the largest pass of the run (4 rows, longest " in done.out
    (steps,) = (line for line in lines if line.startswith("max_steps "))
    assert steps.split()[1:3] == ["3", "--max-steps"]
    (seed,) = (line for line in lines if line.startswith("seed "))
    assert seed.split()[1:3] == ["42", "default"]
    assert "one step over the largest micro-batch" in done.err
    assert not (place / "run").exists()


def test_json_is_one_document(run: Run, place: Path) -> None:
    arguments = ["train", place / "config.json", place / "rows.jsonl", "--dry-run"]
    done = run(*arguments, "--json", "-q", "--no-cache")
    assert (done.code, done.err) == (0, "")
    assert done.value["ready"] is True
    assert done.value["time"]["steps"] == 4
    assert done.value["memory"]["fits"] is True
    assert {choice["key"] for choice in done.value["decisions"]} >= {"device", "dtype", "cache"}
    assert not (place / "run").exists()


def test_findings_stand_first_and_set_the_exit_code(run: Run, place: Path) -> None:
    model = place / "twins"
    model.mkdir()
    source = Path(json.loads((place / "config.json").read_text("utf-8"))["training"]["model_name"])
    for path in source.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"][-4:] = 0.5
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    setting = f"training.model_name={model}"
    arguments = ["train", place / "config.json", place / "rows.jsonl", "--set", setting]
    done = run(*arguments, "--dry-run")
    assert done.code == 9
    assert done.out.startswith("preflight: training would be pointless\n\nstop: end_cannot_be_")
    assert "  hint: use the model's chat variant" in done.out
    assert "never be likelier than 1 in 4" in " ".join(done.out.split())
    done = run(*arguments, "--dry-run", "--json")
    assert (done.code, done.value["exit_code"], done.value["ready"]) == (9, 9, False)


def test_what_a_run_refuses_is_an_error_here_too(run: Run, place: Path) -> None:
    arguments = ["train", place / "config.json", place / "rows.jsonl", "--dry-run"]
    done = run(*arguments, "--resume")
    assert (done.code, done.err.split("\n")[0]) == (
        2,
        "error: --dry-run: looks at a new run: it goes without --resume",
    )
    done = run(*arguments, "--set", 'training.lora.target_modules=["nothing"]', "--json")
    assert done.code == 2
    assert done.value["where"] == "training.lora.target_modules"
    (Path("full")).mkdir()
    (Path("full") / "file").write_text("x", "utf-8")
    done = run(*arguments, "--output", "full")
    assert (done.code, done.out) == (2, "")
    assert [path.name for path in Path("full").iterdir()] == ["file"]
