"""export on a tiny run: what is printed, one JSON document, refusals and exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_runs import examples, make_config, train, write_split

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, its model and rows: not to be changed."""
    place = tmp_path_factory.mktemp("made")
    model = tiny_model(place, tiny_tokenizer(place), hidden=16)
    data = write_split(place / "rows.jsonl", examples(0, 12), examples(12, 18))
    train(make_config(model, place / "run"), data)
    return place


def test_what_was_proved_is_printed(run: Run, made: Path, folder: Path) -> None:
    done = run("export", made / "run", "--output", "out", "--max-shard-size", "10KB")
    assert done.code == 0, done.err
    assert "  kind             merged\n" in done.out
    assert "  weights equal    27, 8 merged\n" in done.out
    assert " of 6 rows\n" in done.out
    assert "(0.0001 allowed)" in done.out
    assert done.out.endswith("load it with transformers' AutoModelForCausalLM: out\n")
    assert "equal to base + adapter: 27 tensors" in done.err
    assert (folder / "out" / "model.safetensors.index.json").is_file()


def test_json_is_one_document(run: Run, made: Path) -> None:
    done = run("export", made / "run", "--output", "out", "-q", "--json", "--dtype", "bfloat16")
    assert (done.code, done.err) == (0, "")
    manifest = done.value["manifest"]
    assert (done.value["folder"], done.value["url"]) == ("out", None)
    written = json.loads(Path("out/manifest.json").read_text("utf-8"))
    assert written == {"schema": 1, **manifest}
    assert manifest["export"]["command"] == [
        *("swe-scaffold", "export", "run", "--output", "out", "--dtype", "bfloat16"),
        *("--max-shard-size", "2000000000", "--proof-rows", "16"),
    ]


def test_the_export_is_evaluated_and_exported_rows_stay_seen(run: Run, made: Path) -> None:
    assert run("export", made / "run", "--output", "out", "-q").code == 0
    done = run("evaluate", "out", made / "rows.jsonl", "-q")
    assert "beware: every row of this file was trained on" in done.out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--dtype", "int8"], 2, "error: --dtype: must be one of float32, bfloat16, float16"),
        (["--max-shard-size", "big"], 2, "error: --max-shard-size: is no size"),
        (["--max-shard-size", "0.1"], 2, "error: --max-shard-size: is no size"),
        (["--public"], 2, "error: --public: goes with --push alone"),
        (["--push", "a/b"], 2, "error: --push: needs the network, and the run is offline"),
        (["--push", "a/b", "--offline"], 2, "error: --push: needs the network"),
        (["--data", "missing.jsonl"], 3, "error: missing.jsonl: "),
        (["--base", "missing"], 2, "error: 'missing' is not a folder or a hub id"),
    ],
)
def test_what_is_refused(
    run: Run, made: Path, folder: Path, options: list[str], code: int, message: str
) -> None:
    done = run("export", made / "run", "--output", "out", *options)
    assert done.code == code, done.err
    assert message in done.err
    assert not (folder / "out").exists()
    document = run("export", made / "run", "--output", "out", "--json", *options)
    assert document.value["exit_code"] == code


def test_a_model_is_no_run(run: Run, made: Path) -> None:
    model = next(made.glob("tiny-model-*"))
    done = run("export", model, "--output", "out")
    assert done.code == 2
    assert "is no finished run with a manifest" in done.err
    assert "hint: name the folder that `swe-scaffold train` wrote" in done.err


def test_another_base_is_refused(run: Run, made: Path, folder: Path) -> None:
    other = tiny_model(folder, tiny_tokenizer(folder), seed=1, hidden=16)
    shutil.copytree(made, folder / "copy")
    done = run("export", "copy/run", "--output", "out", "--base", other)
    assert done.code == 5
    assert "this is not the base the adapter was trained on" in done.err
    assert not Path("out").exists()
