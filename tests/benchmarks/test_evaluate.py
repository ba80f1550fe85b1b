"""The parts of benchmarks/bench_evaluate.py that need no peer: material, our side, gates, pages."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.conftest import FOLDER, ROOT

WORDS = ("parser", "token", "returns", "value", "when", "empty", "list", "given", "raises")


def write_tasks(path: Path, count: int) -> Path:
    patch = (
        "diff --git a/pkg/mod{n}.py b/pkg/mod{n}.py\n--- a/pkg/mod{n}.py\n+++ b/pkg/mod{n}.py\n"
        "@@ -1,2 +1,2 @@ def reader():\n     return value\n-    total = {n}\n+    total = {n} + 1\n"
    )
    rows = [
        {
            "instance_id": f"owner__name-{n}",
            "repo": f"owner/name{n % 3}",
            "problem_statement": " ".join(WORDS[(n + k * k) % 9] for k in range(20 + 9 * n)),
            "patch": patch.format(n=n),
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.slow
def test_the_command_gives_the_sums_of_the_plain_loop(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material, gates = load("evaluate_material"), load("evaluate_gates")
    shape = {"hidden": 16, "layers": 2, "heads": 4, "kv_heads": 2, "inner": 24, "vocabulary": 400}
    monkeypatch.setitem(material.SHAPES, "tiny", shape)
    built = material.build_rows(write_tasks(tmp_path / "tasks.jsonl", 12), tmp_path)
    material.make_model("tiny", tmp_path / "model", tokenizer=None, rows=built)
    rows, tokens, lengths = material.choose_rows(
        built, tmp_path / "model", rows=5, length=250, work=tmp_path
    )
    assert lengths["tokens"]["p100"] <= 250
    chosen = [json.loads(line) for line in rows.read_text("utf-8").split("\n")[:-1]]
    given = [json.loads(line) for line in tokens.read_text("ascii").split("\n")[:-1]]
    assert [row["instance_id"] for row in chosen] == [row["key"] for row in given]
    assert len(given) == 5
    found = {}
    for name, source in (("evaluate", rows), ("plain", tokens)):
        out = tmp_path / name
        out.mkdir()
        code = "import evaluate_ours; evaluate_ours.main()"
        command = [sys.executable, "-c", code, name, tmp_path / "model", source, out]
        path = os.pathsep.join([str(ROOT), str(FOLDER)])
        subprocess.run(
            command, check=True, env={**os.environ, "PYTHONPATH": path}, capture_output=True
        )
        found[name] = json.loads((out / "found.json").read_bytes())
    worst = gates.worst_difference(found["evaluate"]["sums"], found["plain"]["sums"])
    assert worst <= gates.TOLERANCE
    targets = sum(len(row["continuation"]) for row in given)
    wanted = math.fsum(found["plain"]["sums"].values()) / targets
    assert found["evaluate"]["mean"] == pytest.approx(wanted, rel=1e-6)
    inside = json.loads((tmp_path / "evaluate" / "inside.json").read_bytes())
    assert 0 < inside["scoring_seconds"] < 60


def test_rows_that_differ_are_no_match(load) -> None:
    gates = load("evaluate_gates")
    assert gates.worst_difference({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}) == 0
    assert gates.worst_difference({"a": 1.1, "b": 2.0}, {"a": 1.0, "b": 2.0}) == pytest.approx(0.1)
    assert gates.worst_difference({"a": 1.0}, {"a": 1.0, "b": 2.0}) == math.inf


def test_what_moves_with_the_batch_size_is_told(load) -> None:
    right = {"a": 10.0, "b": 20.0}
    found = {
        "one, float32, batch 1": {"mean": 3.0, "sums": right},
        "one, float32, batch 8": {"mean": 3.3, "sums": {"a": 11.0, "b": 22.0}},
        "two, float32, batch 1": {"mean": 3.0},
    }
    heading, *lines = load("evaluate_gates").table(found, right, 10)
    assert len(heading) == 5
    assert lines == [
        ["one, float32", "1", "3.000000", "+0.0e+00", "0.0e+00"],
        ["one, float32", "8", "3.300000", "+1.0e-01", "1.0e-01"],
        ["one, float32", "**spread**", "", "**1.0e-01**", "**1.0e-01**"],
        ["two, float32", "1", "3.000000", "+0.0e+00", "-"],
    ]


def test_what_a_run_measures_of_itself_is_summed_up_and_shown(load, tmp_path: Path) -> None:
    measuring, pages = load("measuring"), load("pages")
    code = (
        "import json, pathlib, sys; "
        "value = json.dumps({'scoring_seconds': 2.0, 'scoring_cpu_seconds': 1.5}); "
        "pathlib.Path(sys.argv[1], 'inside.json').write_text(value)"
    )
    often = measuring.Contender("often", [sys.executable, "-c", code], {})
    rare = measuring.Contender("rare", [sys.executable, "-c", code], {}, once=True)
    runs = measuring.interleave([often, rare], repeats=2, work=tmp_path, cores=[0])
    assert {name: len(found) for name, found in runs.items()} == {"often": 2, "rare": 1}
    figures = {name: measuring.summarize(found) for name, found in runs.items()}
    assert figures["often"]["scoring_seconds"]["median"] == 2.0
    result = {
        **dict.fromkeys(("title", "date", "commit", "cores", "command"), "x"),
        "load_before": [0],
        "load_after": [0],
        "machine": {"processor": "p", "cores": 1, "memory": "m", "system": "s", "packages": {}},
        "data": {
            **{"rows": 8, "bytes": 1, "sha256": "x", "base": "x", "seed": 1},
            "quantiles_bytes": {},
        },
        "rows": 8,
        "contenders": figures,
        "notes": {},
        "tables": {"Moves": [["a", "b"], ["1", "2"]]},
        "verdicts": [],
    }
    page = pages.page(result)
    assert "| often | 4.00 | 2.00 (2.00 to 2.00) | 1.50 (1.50 to 1.50) |" in page
    assert "## Moves\n\n| a | b |\n|---|---|\n| 1 | 2 |\n" in page
    assert "scoring s" not in pages.page({**result, "timed": False})


def test_without_a_command_it_says_what_there_is(load, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("bench_evaluate").main([]) == 0
    assert "numbers" in capsys.readouterr().out


def test_without_the_peers_it_says_how_to_get_them(load, tmp_path: Path) -> None:
    given = ["speed", "--from", "x.jsonl", "--peers", str(tmp_path), "--work", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"run `bench_evaluate.py prepare` first"):
        load("bench_evaluate").main(given)
