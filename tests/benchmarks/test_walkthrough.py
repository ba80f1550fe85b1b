"""Benchmarks of walkthroughs: on a small tree everyone is shown the same, and ranks are right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.sandbox import open_sandbox

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("minisweagent", reason="needs the extra `agent`")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
def test_everyone_is_shown_the_same(tmp_path: Path) -> None:
    for backend in ("bwrap", "landlock"):
        try:
            open_sandbox(tmp_path, backend=backend)
        except EnvironmentFailure as error:
            pytest.skip(str(error))
    tree = tmp_path / "tree"
    tree.mkdir()
    lines = "".join(f"def name_{number}(): ...\n" for number in range(220))
    (tree / "many.py").write_text(lines)
    page = tmp_path / "page.md"
    done = run(
        *(str(ROOT / "benchmarks/bench_walkthrough.py"), "commands", "--repo", str(tree)),
        *("--pattern", "name_21", "--repeats", "1", "--cores", "0"),
        *("--work", str(tmp_path / "work"), "--output", str(page)),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(page.with_suffix(".json").read_bytes())
    assert [verdict["met"] for verdict in found["verdicts"]] == [True] * 6
    figures = found["contenders"]
    assert figures["ours, bwrap"]["nothing_cpu_ms"]["median"] > 0
    assert "nothing_ms" not in figures["typed, bwrap"]
    assert "1 files" in page.read_text()


def test_a_trial_finds_the_file_of_a_patch_where_it_is_now(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    package = tmp_path / "trees" / "shop-2.0" / "src" / "shop"
    package.mkdir(parents=True)
    (package / "prices.py").write_text("def apply_discount(total): ...\n")
    (package / "cart.py").write_text("from shop.prices import apply_discount\n")

    def task(number: int, repo: str, path: str) -> dict[str, Any]:
        patch = f"--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-a\n+b\n"
        said = "`apply_discount` is wrong"
        return {"instance_id": str(number), "repo": repo, "problem_statement": said, "patch": patch}

    rows = [task(1, "x/shop", "shop/prices.py"), task(2, "x/shop", "gone.py")]
    rows += [task(3, "x/other", "shop/prices.py"), task(4, "x/shop", "src/shop/cart.py")]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "tasks.parquet")
    page = tmp_path / "page.md"
    done = run(
        *(str(ROOT / "benchmarks/walkthrough_trial.py"), "--trees", str(tmp_path / "trees")),
        *("--tasks", str(tmp_path / "tasks.parquet"), "--jobs", "1", "--output", str(page)),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(page.with_suffix(".json").read_bytes())
    assert [(row["instance_id"], row["rank"], row["moved"]) for row in found["found"]] == [
        ("1", 1, True),
        ("4", 2, False),
    ]
    assert found["left_out"] == {
        "no file of the patch is in the tree": 1,
        "no tree of the repository": 1,
    }
    assert found["all"]["mrr"] == 0.75
