"""`tasks mine`: a ledger that adds up, rows that build, and errors that name the next step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swe_scaffold.cli import mining  # noqa: F401 registration is its import
from tests.cli.conftest import Run
from tests.histories import History

MESSAGES = ("Parser accepts negative numbers", "Printer keeps the sign of zero", "wip", "Fixes #7")


@pytest.fixture
def clone(folder: Path) -> Path:
    """Five commits, the first without a parent."""
    history = History(folder / "clone")
    history.commit("The beginning of everything", {"a.py": "a = 0\n"})
    for number, message in enumerate(MESSAGES, 1):
        history.commit(message, {"a.py": f"a = {number}\n", "test_a.py": f"assert {number}\n"})
    history.git("remote", "add", "origin", "https://ann:secret@host.example/owner/name.git")
    return history.folder


def test_mined_tasks_build(run: Run, clone: Path) -> None:
    done = run("tasks", "mine", clone, "--output", "tasks.jsonl")
    assert done.code == 0, done.err
    assert "commits seen      5\n" in done.out
    assert "rejected          3 (no_parent 1, short_message 2)\n" in done.out
    assert "kept              2\n" in done.out
    assert "repository        owner/name at " in done.out
    assert "secret" not in done.out + done.err + Path("tasks.jsonl").read_text("utf-8")
    assert done.out.endswith("next: swe-scaffold build --dataset tasks.jsonl\n")
    built = run("build", "--dataset", "tasks.jsonl", "--output", "rows.jsonl", "--json")
    assert built.code == 0, built.err
    assert built.value["counts"]["read"] == 2


def test_json_and_issues(run: Run, clone: Path) -> None:
    Path("issues.json").write_text(
        json.dumps([{"number": 7, "title": "Sign lost", "body": "It gives 1."}]), "utf-8"
    )
    flags = ["--issues", "issues.json", "--repo", "some/body", "--json"]
    value = run("tasks", "mine", clone, "--output", "t.jsonl", *flags).value
    assert value["repo"] == "some/body"
    counts = value["counts"]
    assert counts["seen"] == 5 == counts["kept"] + sum(counts["rejected"].values())
    assert counts["message_source"] == {"commit": 2, "issue": 1}
    rows = [json.loads(line) for line in Path("t.jsonl").read_text("utf-8").split("\n") if line]
    assert rows[0]["problem_statement"] == "Sign lost\nIt gives 1."
    assert rows[0]["instance_id"].startswith("some__body-")
    before = Path("t.jsonl").read_bytes()
    assert run("tasks", "mine", clone, "--output", "t.jsonl", *flags).value == value
    assert Path("t.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "seen", "kept"),
    [
        (["--max-commits", 3], 3, 1),
        (["--start", "HEAD~3"], 2, 1),
        (["--since", "2023-11-14"], 5, 2),
        (["--max-patch-chars", 10], None, None),
        (["--since", "2100-01-01"], None, None),
    ],
)
def test_limits(
    run: Run, clone: Path, flags: list[object], seen: int | None, kept: int | None
) -> None:
    done = run("tasks", "mine", clone, "--output", "t.jsonl", *flags, "--json")
    if seen is None:
        assert done.code == 3
        assert "makes a task" in done.value["error"]
        assert not Path("t.jsonl").exists()
        return
    assert (done.value["counts"]["seen"], done.value["counts"]["kept"]) == (seen, kept)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["absent"], 3, "not a git repository"),
        (["clone", "--start=--all"], 3, "not a revision"),
        (["clone", "--start", "nothing"], 3, "there is no commit nothing"),
        (["clone", "--repo", "../x"], 2, "must be owner/name"),
        (["clone", "--since", "yesterday"], 2, "2024-01-31"),
        (["clone", "--issues", "absent.jsonl"], 3, "absent.jsonl"),
        (["clone", "--max-commits", 0], 2, "--max-commits"),
    ],
)
def test_errors(run: Run, clone: Path, arguments: list[object], code: int, said: str) -> None:
    done = run("tasks", "mine", *arguments, "--output", "t.jsonl")
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err
    assert not Path("t.jsonl").exists()
