"""predict on a tiny model and on a small server: output, refusals, interruption, one-off texts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import HOSTILE, PATCH, Run, python_command
from tests.prediction.chat_server import Handler, Seen, echo, serving
from tests.tiny import tiny_model, tiny_tokenizer

SAID = f"Here:\n```diff\n{PATCH.format(number=1)}```\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    return tiny_model(place, tiny_tokenizer(place), hidden=16)


@pytest.mark.slow
def test_predictions_of_a_model_are_written_and_told(run: Run, model: Path, tasks: Path) -> None:
    arguments = ["predict", model, tasks, "--max-new-tokens", 6, "--output", "preds.jsonl"]
    done = run(*arguments)
    assert done.code == 0, done.err
    assert "  rows               20\n  predicted          20\n" in done.out
    assert "  written            preds.jsonl\n" in done.out
    assert "share [95 % interval]" in done.out
    rows = [json.loads(line) for line in Path("preds.jsonl").read_text("utf-8").split("\n") if line]
    assert len(rows) == 20
    assert rows[0].keys() >= {"instance_id", "model_name_or_path", "model_patch", "raw_output"}
    refused = run(*arguments)
    assert refused.code == 2
    assert refused.err.startswith("error: preds.jsonl: there are predictions already\nhint: --over")
    again = run(*arguments, "--overwrite", "--json", "-q")
    assert (again.code, again.err) == (0, "")
    assert again.value["counts"]["predicted"] == 20
    assert again.value["output"] == "preds.jsonl"
    drawn = ["-k", 2, "--temperature", 0.9, "--top-p", 0.9, "--seed", 3, "--limit", 2]
    done = run("predict", model, tasks, *drawn, "--max-new-tokens", 6, "--output", "k.jsonl", "-q")
    assert "  answers            4\n" in done.out
    text = run("predict", model, "--text", "add?", "--max-new-tokens", 4, "--json", "-q")
    assert text.value["predictions"][0]["completion_tokens"] == 4


def test_a_text_is_answered_and_nothing_is_written(run: Run, folder: Path) -> None:
    with serving(lambda handler, *_: handler.complete(SAID + HOSTILE)) as place:
        done = run("predict", "--api-base", place.url, "--model", "m", "--text", "Fix add.")
    assert done.code == 0, done.err
    assert done.out.startswith("Here:\n```diff\ndiff --git a/pkg/mod.py b/pkg/mod.py\n")
    assert "\npatch (fenced_diff):\ndiff --git a/pkg/mod.py b/pkg/mod.py\n" in done.out
    assert "\x1b" not in done.out
    assert r"\x1b[31mred" in done.out
    assert list(folder.iterdir()) == []


def test_a_text_that_was_cut_says_so(run: Run) -> None:
    with serving(lambda handler, *_: handler.complete("So", "length")) as place:
        done = run("predict", "--api-base", place.url, "--model", "m", "--text", "Why?")
    assert done.out == "So\n[cut after 5 tokens]\n"


def test_a_server_answers_rows(run: Run, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-canary")
    with serving(lambda handler, *_: handler.complete(SAID)) as place:
        served = ["--api-base", place.url, "--model", "m", "--api-key-env", "MY_KEY"]
        done = run("predict", tasks, *served, "--output", "p.jsonl", "--json", "-v", "--offline")
    assert done.code == 0, done.err
    assert done.value["forms"] == {"fenced_diff": 20}
    assert done.value["health"]["parseable"]["value"] == 1
    assert "sk-canary" not in done.out + done.err + Path("p.manifest.json").read_text("utf-8")


def test_arguments_that_do_not_go_together(run: Run, tasks: Path) -> None:
    served = ["--api-base", "http://127.0.0.1:1/v1", "--model", "m"]
    cases = [
        ([tasks, "--output", "p.jsonl"], "takes MODEL and DATA, not 1 arguments"),
        (["m", tasks, *served, "--output", "p.jsonl"], "takes DATA with --api-base, not 2"),
        (["m", tasks, "--text", "x"], "takes MODEL with --text, not 2"),
        (["m", *served, "--text", "x"], "takes no argument with --api-base and --text, not 1"),
        (["m", tasks], "--output is missing"),
        (["m", tasks, "--model", "m", "--output", "p.jsonl"], "go with --api-base"),
        ([tasks, *served[:2], "--output", "p.jsonl"], "--api-base needs --model"),
        ([tasks, *served, "--base", "b", "--output", "p.jsonl"], "for models on this machine"),
        (["m", tasks, "-k", 2, "--output", "p.jsonl"], "at temperature 0 all would be the same"),
        (["m", tasks, "--top-p", 0, "--output", "p.jsonl"], "top_p must be above 0"),
        (["m", tasks, "--output", "p.txt"], "must end in .jsonl"),
    ]
    for arguments, problem in cases:
        done = run("predict", *arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert problem in done.err, done.err
    assert run("predict", "m", "no.jsonl", "--output", "p.jsonl").code == 3
    offline = ["--api-base", "http://192.0.2.1/v1", "--model", "m", "--offline"]
    done = run("predict", tasks, *offline, "--output", "p.jsonl", "--json")
    assert done.code == 4
    assert "offline" in done.value["error"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_ends_at_once_and_goes_on_later(
    run: Run, tasks: Path, folder: Path, number: int, code: int
) -> None:
    def hang(handler: Handler, request: Seen, before: int) -> None:
        if "add(7, 1)" in request.body["messages"][0]["content"] and not before:
            time.sleep(60)
        echo(handler, request, before)

    with serving(hang) as place:
        command = ["predict", tasks, "--api-base", place.url, "--model", "m", "--output", "p.jsonl"]
        child = subprocess.Popen(
            python_command(*command), cwd=folder, stderr=subprocess.PIPE, env=dict(os.environ)
        )
        partial = folder / "p.partial.jsonl"
        end = time.monotonic() + 60
        while time.monotonic() < end:
            # 19 answers below a head; and the request that hangs has come, too.
            answered = partial.is_file() and partial.read_bytes().count(b"\n") == 20
            if answered and len(place.seen) == 20:
                break
            time.sleep(0.05)
        child.send_signal(number)
        start = time.monotonic()
        _, err = child.communicate(timeout=30)
        assert time.monotonic() - start < 10
        assert child.returncode == code
        assert b"19 of 20 answers are kept; the same command goes on from there" in err
        assert len(place.seen) == 20
        done = run(*command)
    assert done.code == 0, done.err
    assert "going on: 19 of 20 answers are there" in done.err
    assert len(place.seen) == 21
    assert (folder / "p.jsonl").read_bytes().count(b"\n") == 20
