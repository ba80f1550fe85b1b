"""The parts of benchmarks/bench_build.py that need no peer: rows, measuring, gates, pages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from swe_scaffold.diffs import parse_patch

PATCH = (
    "diff --git a/pkg/mod.py b/pkg/mod.py\n--- a/pkg/mod.py\n+++ b/pkg/mod.py\n"
    "@@ -1,2 +1,2 @@ def reader():\n     return value\n-    total = first\n+    total = second\n"
)
BASE = [
    {
        "instance_id": f"owner__name-{number}",
        "repo": "owner/name",
        "problem_statement": " ".join(f"word{number}x{place}" for place in range(200)),
        "patch": PATCH,
        "PASS_TO_PASS": json.dumps(["tests/test_mod.py::test_it"]),
    }
    for number in range(3)
]


def test_rows_are_distinct_valid_and_depend_on_their_number_only(load, tmp_path: Path) -> None:
    rows = load("build_rows")
    make = rows.Variations(BASE, seed=1)
    made = rows.write_rows(make, 7, tmp_path / "r.jsonl", jobs=1)
    read = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert read == [rows.Variations(BASE, seed=1).row(number) for number in range(7)]
    assert made["rows"] == len({row["instance_id"] for row in read}) == 7
    assert rows.pair_similarity(read[0]["problem_statement"], read[3]["problem_statement"]) < 0.5
    for row in read:
        assert row["patch"].startswith("diff --git a/")
        (file,) = parse_patch(row["patch"])
        assert [hunk.complete for hunk in file.hunks] == [True]


def test_rows_come_to_the_length_asked(load) -> None:
    make = load("build_rows").Variations(BASE, seed=1, row_bytes=20_000)
    assert 19_900 < len(make.line(2)) < 22_500


def test_planted_copies_have_the_similarities_meant(load, tmp_path: Path) -> None:
    rows = load("build_rows")
    rows.write_texts(rows.Variations(BASE, seed=1), 200, tmp_path / "t.jsonl", jobs=1)
    texts, pairs = rows.read_texts(tmp_path / "t.jsonl"), rows.planted_pairs(200)
    found = [rows.pair_similarity(texts[a], texts[b]) for a, b in pairs]
    assert len(texts) == 200
    assert all(0.5 < value < 1 for value in found)
    assert min(found) < 0.7 < max(found)


def test_a_run_is_timed_with_its_children(load, tmp_path: Path) -> None:
    measuring = load("measuring")
    code = (
        "import subprocess, sys, time; data = bytearray(60_000_000); "
        "subprocess.run([sys.executable, '-c', 'sum(range(3_000_000))']); time.sleep(0.2)"
    )
    run = measuring.measure(
        measuring.Contender("x", [sys.executable, "-c", code], {}), tmp_path, [0]
    )
    assert run.wall_seconds > 0.2
    assert run.cpu_seconds > 0.02
    assert 60e6 < run.peak_anonymous <= run.peak_pss < 200e6


def test_a_command_that_fails_says_so(load, tmp_path: Path) -> None:
    measuring = load("measuring")
    broken = measuring.Contender("x", [sys.executable, "-c", "raise SystemExit('no luck')"], {})
    with pytest.raises(measuring.CommandFailed, match="no luck") as caught:
        measuring.measure(broken, tmp_path, [0])
    assert caught.value.last_line == "no luck"


def test_a_command_that_takes_too_long_is_killed(load, tmp_path: Path) -> None:
    measuring = load("measuring")
    code = "import time; time.sleep(60)"
    slow = measuring.Contender("x", [sys.executable, "-c", code], {}, limit=0.5)
    with pytest.raises(measuring.CommandFailed, match=r"killed after 0\.5 s"):
        measuring.measure(slow, tmp_path, [0])


def test_who_fails_is_left_out_and_the_others_go_on(load, tmp_path: Path) -> None:
    measuring = load("measuring")
    fine = measuring.Contender("fine", [sys.executable, "-c", ""], {})
    # Fails in its second turn.
    code = "import pathlib, sys; f = pathlib.Path(sys.argv[1]); f.exists() and sys.exit('no luck')"
    again = f"{code}; f.write_text('')"
    broken = measuring.Contender(
        "broken", [sys.executable, "-c", again, str(tmp_path / "mark")], {}
    )
    heard, seen = [], []
    runs = measuring.interleave(
        [broken, fine],
        repeats=3,
        work=tmp_path,
        cores=[0],
        failed=lambda name, error: heard.append((name, error.last_line)),
        after=lambda runs: seen.append({name: len(found) for name, found in runs.items()}),
    )
    assert {name: len(found) for name, found in runs.items()} == {"fine": 3}
    assert heard == [("broken", "no luck")]
    assert seen[0] == {"broken": 1}
    assert seen[-1] == {"fine": 3}
    (tmp_path / "mark").write_text("")
    with pytest.raises(measuring.CommandFailed):
        measuring.interleave([broken], repeats=1, work=tmp_path, cores=[0])


def test_a_wide_spread_is_not_measured(load) -> None:
    summary, ratio = load("measuring").summary, load("pages").ratio
    steady, wild = summary([1.0, 1.01, 1.04, 1, 1]), summary([2.9, 3.0, 3.2, 3, 3])
    assert steady["measured"]
    assert not wild["measured"]
    assert not ratio("x", ours=steady, theirs=wild, least=2)["met"]
    found = ratio("x", ours=steady, theirs=summary([3.0, 3.1, 3.0, 3.0, 2.98]), least=2)
    assert (found["met"], found["doubt"]) == (True, "")
    assert (found["value"], found["fastest"]) == (3.0, 2.98)


@pytest.mark.parametrize(("runs", "word"), [(1, "one run"), (2, "2 runs"), (4, "4 runs")])
def test_fewer_than_five_runs_are_never_measured(load, runs: int, word: str) -> None:
    measuring, pages = load("measuring"), load("pages")
    few, enough = (measuring.summary([value] * count) for value, count in ((9.0, runs), (1.0, 5)))
    assert measuring.doubt(few) == word
    found = pages.ratio("x", ours=enough, theirs=few, least=2)
    assert (found["met"], found["doubt"]) == (False, f"theirs: {word}")
    assert word in pages.told_spread(few)
    assert "not measured" in pages.told_spread(few)
    assert pages.told_spread(enough) == "0.0%"


@pytest.mark.parametrize(
    ("own", "peer", "word"),
    [
        (([1, 2, 3], [0, 1, 1]), ([1, 2, 3], [0, 1, 1]), "equal ids, equal targets"),
        (([1, 2, 3], [0, 1, 0]), ([1, 2, 3], [0, 1, 1]), "line feed"),
        (([1, 2, 3, 4], [0, 1, 1, 1]), ([1, 2], [0, 1]), "over max_length"),
        (([1, 2, 3, 4], [0, 1, 1, 1]), ([1, 9, 3, 4], [0, 1, 1, 1]), "merged over"),
        (([1, 2, 3, 4, 5, 6], [0, 1, 1, 1, 1, 1]), ([1, 2, 3, 4, 9, 6], [0] * 6), "another"),
    ],
)
def test_differences_of_ids_are_classed(load, tmp_path: Path, own, peer, word: str) -> None:
    gates = load("build_gates")
    paths = [tmp_path / name for name in ("own", "peer", "built")]
    for path, (ids, targets) in zip(paths, (own, peer), strict=False):
        targets = list(map(bool, targets))
        path.write_text(json.dumps({"key": "a", "ids": ids, "targets": targets}) + "\n")
    paths[2].write_text(json.dumps({"instance_id": "a", "prompt": "p", "response": "r"}) + "\n")
    ((found, count),) = gates.compare_tokens(*paths, specials=["<|end|>"]).items()
    assert (word in found, count) == (True, 1)
    assert gates.right_rows({found: 1}) == (word != "another")


def test_recall_and_precision_are_counted(load) -> None:
    judged = load("build_gates").judge_pairs(
        [(0, 1), (4, 5)],
        planted=[(0, 1), (2, 3)],
        similarities=[0.9, 0.8],
        texts=["a b c d e", "a b c d e", "x", "y", "one", "two"],
    )
    assert judged["recall_from_0.7"] == 0.5
    assert judged["precision_at_0.7"] == 0.5


def test_without_a_command_it_says_what_there_is(load, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("bench_build").main([]) == 0
    assert "near-duplicates" in capsys.readouterr().out
