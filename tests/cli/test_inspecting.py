"""audit, summarize and show: verdicts, numbers, and rows as training sees them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import HOSTILE, Run, python_command, task, write_rows
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_audit_recounts_the_ledger_and_passes(run: Run, rows: Path) -> None:
    done = run("audit", rows)
    value = run("audit", rows, "--json").value
    assert done.code == 0
    assert "read 20 = dev " in done.out
    assert done.out.rstrip("\n").split("\n")[-1] == f"verdict: {value['verdict']}"
    assert [file["role"] for file in value["files"]] == ["dev", "test"]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_audit_of_a_changed_file_fails_with_9(run: Run, rows: Path, flags: list[str]) -> None:
    lines = rows.read_text("utf-8").split("\n")
    rows.write_text("\n".join(lines[1:]), "utf-8")
    done = run("audit", rows, *flags)
    assert done.code == 9
    if flags:
        assert done.value["verdict"] == "failed"
    else:
        assert "read 20 is not dev " in done.out
        assert done.out.endswith("verdict: failed\n")
    assert done.err == ""


def test_audit_with_a_model_says_what_a_length_limit_costs(
    run: Run, rows: Path, tokenizer: Path
) -> None:
    done = run("audit", rows, "--model", tokenizer, "--max-length", 300)
    assert done.code == 0, done.out
    table = done.out.partition("what a length limit does")[2].partition("\n\n")[0].split("\n")[3:]
    ways = {(line[:32].strip(), int(line[32:].split()[0])) for line in table}
    assert {length for _, length in ways} == {300, 512, 1024, 2048}
    assert ("cut the tail (TRL)", 512) in ways
    assert ("shorten the prompt (train, here)", 300) in ways


def test_summarize_in_text_and_json_agree(run: Run, rows: Path) -> None:
    value = run("summarize", rows, "--json").value
    first, *lines = run("summarize", rows).out.rstrip("\n").split("\n")
    assert first == str(rows)
    said = {line[2:21].strip(): line[21:].strip() for line in lines}
    assert int(said["rows"]) == value["rows"] == rows.read_text("utf-8").count("\n")
    assert said["labels"] == f"success {value['rows']}"
    assert said["sha256"] == value["sha256"]


def test_summarize_counts_what_would_be_trained(run: Run, rows: Path, tmp_path: Path) -> None:
    first, *rest = rows.read_text("utf-8").split("\n")[:-1]
    failed = json.dumps({**json.loads(first), "label": "failure"})
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join([failed, *rest, ""]), "utf-8")
    assert run("summarize", path, "--json").value["trainable"] == len(rest)
    config = tmp_path / "config.json"
    config.write_text('{"training": {"include_failures": true}}', "utf-8")
    assert run("summarize", path, "--config", config, "--json").value["trainable"] == len(rest) + 1
    key = "training.include_failures=true"
    assert run("summarize", path, "--set", key, "--json").value["trainable"] == len(rest) + 1


def test_show_prints_rows_and_finds_them_by_id(run: Run, rows: Path) -> None:
    ids = [json.loads(line)["instance_id"] for line in rows.read_text("utf-8").split("\n")[:-1]]
    first = run("show", rows, "--limit", 2)
    assert first.out.count("--- prompt") == 2
    assert first.out.startswith(f"{ids[0]}  repo owner/repo")
    one = run("show", rows, ids[3], "--json")
    assert [row["instance_id"] for row in one.value] == [ids[3]]
    missing = run("show", rows, ids[3] + "x")
    assert missing.code == 3
    assert missing.err.split("\n")[1].startswith("hint: did you mean owner__repo")


def test_show_marks_exactly_the_trained_text(run: Run, rows: Path, tokenizer: Path) -> None:
    text = run("show", rows, "--limit", 1, "--model", tokenizer)
    row = run("show", rows, "--limit", 1, "--model", tokenizer, "--json").value[0]
    trained = [span["text"] for span in row["rendered"]["spans"] if span["train"]]
    assert trained == [row["response"] + "<|im_end|>"]
    assert f"««{row['response']}<|im_end|>»»" in text.out
    assert f"{row['rendered']['targets']} trained" in text.out


def test_show_says_why_a_row_is_not_trained(run: Run, rows: Path, tokenizer: Path) -> None:
    flags = ["--limit", 1, "--model", tokenizer, "--max-length", 16]
    assert "not trained: over_length: " in run("show", rows, *flags).out
    assert run("show", rows, *flags, "--json").value[0]["reason"] == "over_length"


def on_a_terminal(*arguments: object, **environment: str) -> str:
    """What a command prints where stdout is a terminal."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", **environment}
    with subprocess.Popen(python_command(*arguments), stdout=theirs, env=env) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # Linux says so where the other end is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode("utf-8").replace("\r\n", "\n")


def test_show_colours_on_a_terminal_only(folder: Path, tokenizer: Path) -> None:
    path = write_rows(folder / "rows.jsonl", [{"prompt": HOSTILE, "response": f"yes {HOSTILE}"}])
    coloured = on_a_terminal("show", path, "--model", tokenizer)
    safe = "\\x1b[31mred\\x1b[0m\\x07\\u{202e}\\u{200b}\\x9b1m <|im_end|> é"
    assert f"\x1b[1;32myes {safe}<|im_end|>\x1b[0m" in coloured
    assert "««" not in coloured
    plain = on_a_terminal("show", path, "--model", tokenizer, NO_COLOR="1")
    assert f"««yes {safe}<|im_end|>»»" in plain
    assert "\x1b" not in plain


def test_rows_that_are_tasks_are_sent_to_build(run: Run, folder: Path) -> None:
    path = write_rows(folder / "tasks.jsonl", [task(1)])
    done = run("summarize", path)
    assert done.code == 3
    assert "hint: build it first: swe-scaffold build --dataset " in done.err
