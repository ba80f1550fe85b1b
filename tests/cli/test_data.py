"""build: the ledger in text and JSON, flags against the configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Done, Run, task, write_rows


def test_build_accounts_for_every_row(run: Run, tasks: Path) -> None:
    build = ["build", "--dataset", tasks, "--output", "rows.jsonl", "--emit-test"]
    build += ["--set", "dataset.dev_split=0.7"]
    done, value = run(*build), run(*build, "--json").value
    counts = value["counts"]
    assert counts["read"] == 20 == counts["dev"] + counts["test"] + counts["skipped"]
    assert f"rows read         {counts['read']}\n" in done.out
    assert "1 (empty_response 1)" in done.out
    assert f"dev: success {counts['dev']}; test: success {counts['test']}" in done.out
    assert f"{counts['dev_repos']} repositories in dev" in done.out
    for path in value["written"]:
        assert f"written: {path}\n" in done.out
        assert Path(path).is_file()
    assert "next: swe-scaffold audit rows.jsonl" in done.out


@pytest.mark.parametrize(
    ("flags", "dev", "skipped"),
    [
        (["--limit", 5], 5, 1),
        (["--limit", 0], 19, 1),
        (["--limit", 0, "--config", "config.json", "--set", "dataset.max_examples=5"], 19, 1),
        (["--set", "dataset.max_examples=4"], 4, 1),
        (["--config", "config.json"], 3, 1),
        (["--config", "config.json", "--set", "dataset.max_examples=4"], 4, 1),
        (["--config", "config.json", "--set", "dataset.max_examples=4", "--limit", 6], 6, 1),
        (["--include-empty"], 20, 0),
        (["--min-patch-chars", 100000], None, None),
    ],
)
def test_flags_win_over_set_over_file_over_defaults(
    run: Run, tasks: Path, flags: list[object], dev: int | None, skipped: int | None
) -> None:
    Path("config.json").write_text('{"dataset": {"max_examples": 3}}', "utf-8")
    done = run(
        "build",
        "--dataset",
        tasks,
        "--output",
        "r.jsonl",
        "--set",
        "dataset.dev_split=1",
        *flags,
        "--json",
    )
    if dev is None:
        assert done.code == 3
        assert "20 read" in done.value["error"]
        return
    counts = done.value["counts"]
    assert (counts["dev"], counts["skipped"]) == (dev, skipped)


def test_several_datasets_are_read_in_order(run: Run, tasks: Path, folder: Path) -> None:
    more = write_rows(folder / "more.jsonl", [task(30), task(31)])
    done = run("build", "--dataset", tasks, "--dataset", more, "--output", "rows.jsonl", "--json")
    assert done.value["counts"]["read"] == 22


def test_the_report_of_skipped_rows_goes_where_it_is_told(run: Run, tasks: Path) -> None:
    flags = ["--skipped-report", "skipped.jsonl", "--include-empty"]
    assert run("build", "--dataset", tasks, "--output", "rows.jsonl", *flags).code == 0
    assert not Path("skipped.jsonl").exists()
    done = run(
        "build", "--dataset", tasks, "--output", "rows.jsonl", *flags, "--force-skipped-report"
    )
    assert done.code == 0
    assert Path("skipped.jsonl").read_bytes() == b""


def test_split_from_keeps_the_sides(run: Run, tasks: Path) -> None:
    def sides(done: Done) -> dict[str, str]:
        manifest = json.loads(Path(done.value["manifest"]).read_text("utf-8"))
        return dict(manifest["split"]["assignment"])

    row = ["--set", "dataset.split_by=row", "--json"]
    first = run("build", "--dataset", tasks, "--output", "a.jsonl", *row)
    again = run(
        "build",
        "--dataset",
        tasks,
        "--output",
        "b.jsonl",
        *row,
        "--set",
        "dataset.seed=7",
        "--split-from",
        first.value["manifest"],
    )
    other = run("build", "--dataset", tasks, "--output", "c.jsonl", *row, "--set", "dataset.seed=7")
    assert sides(again) == sides(first) != sides(other)
