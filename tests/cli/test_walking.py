"""The command walkthrough: exit codes, pages, a served model, and mini-swe-agent's own command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.sandbox import open_sandbox, take_snapshot
from swe_scaffold.sources import open_source
from swe_scaffold.types import Trajectory
from swe_scaffold.walkthrough.prompts import INSTANCE, SYSTEM
from tests.cli.conftest import (
    MINI,
    ROOT,
    Run,
    python_command,
    require_walkthroughs,
    run_mini,
    task,
    write_rows,
)
from tests.prediction.chat_server import Handler, Seen, serving


@pytest.fixture
def repo(folder: Path) -> Path:
    require_walkthroughs(folder)
    root = folder / "shop"
    root.mkdir()
    (root / "prices.py").write_text("def apply_discount(total, rate):\n    return total * rate\n")
    (root / "README.md").write_text("# Shop <script>alert(1)</script>\n\nA shop.\n")
    return root


def test_a_walkthrough_without_a_model(run: Run, repo: Path, folder: Path) -> None:
    before = take_snapshot(repo)
    done = run("walkthrough", repo, "--task", "`apply_discount` is wrong", "--output", "out")
    assert done.code == 0, done.err
    assert "1. `prices.py:1` has apply_discount" in done.out
    assert "unchanged" in done.out
    assert "step 1: list_dir" in done.err
    assert take_snapshot(repo).sha256 == before.sha256
    names = {path.name for path in (folder / "out").iterdir()} - {".lock"}
    ends = ("traj.json", "atif.json", "md", "html")
    assert names == {f"walkthrough.{end}" for end in ends}
    page = (folder / "out/walkthrough.html").read_text()
    assert "<script>" not in page
    assert "apply_discount" in page
    quiet = run("walkthrough", repo, "--output", "out2", "--json", "-q")
    assert quiet.value["submitted"]
    assert quiet.value["unchanged"]
    assert quiet.err == ""


def test_what_it_leaves_is_read_as_a_trajectory(run: Run, repo: Path, folder: Path) -> None:
    assert run("walkthrough", repo, "--output", "out").code == 0
    for name in ("walkthrough.traj.json", "walkthrough.atif.json"):
        [found] = list(open_source(str(folder / "out" / name)))
        assert isinstance(found, Trajectory), found
        assert [tool["function"]["name"] for tool in found.tools][:2] == ["list_dir", "read_file"]
        turns = [message for message in found.messages if message.role == "assistant"]
        # A guide that says what it was told to is nothing to learn from.
        assert {message.train_reason for message in turns} == {"scripted"}


def test_what_cannot_be_done_is_one_line(run: Run, repo: Path, folder: Path) -> None:
    rows = write_rows(folder / "tasks.jsonl", [task(1)])
    for arguments, code, problem in [
        (["missing"], 2, "missing: is not a folder"),
        ([repo, "--task", "a", "--task-file", "b"], 2, "--task and --task-file both say"),
        ([repo, "--instance", "x"], 2, "--instance and --in go together"),
        ([repo, "--instance", "no__such-1", "--in", rows], 3, "has no task no__such-1"),
        ([repo, "--task-file", "missing.md"], 3, "missing.md: no such file"),
        ([repo, "--api-base", "http://127.0.0.1:9/v1"], 2, "--api-base needs --model"),
        ([repo, "--output", repo / "out"], 2, "lies within the repository"),
        ([repo, "--api-base", "http://127.0.0.1:9/v1", "--model", "m", "--base", "b"], 2, "--base"),
        ([repo, "--model", "m", "--api-key-env", "KEY"], 2, "--api-key-env goes with --api-base"),
        ([repo, "--temperature", "0.5"], 2, "--temperature is for models"),
        ([repo, "--task", ""], 2, "--task: is empty"),
        ([repo, "--max-steps", "2"], 9, "ended without a report (LimitsExceeded)"),
        ([repo], 2, "there is a walkthrough already"),
    ]:
        done = run("walkthrough", *arguments)
        assert (done.code, problem in done.err) == (code, True), done.err
    assert not (repo / "out").exists()
    assert (folder / "shop-walkthrough/walkthrough.html").is_file()
    done = run("walkthrough", repo, "--max-steps", "2", "--overwrite", "--json")
    assert (done.code, done.value["submitted"]) == (9, False)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["bwrap", "landlock"])
def test_a_package_in_the_temporary_folder_works(repo: Path, folder: Path, backend: str) -> None:
    """Where the sandbox has a scratch folder of its own there may be the package."""
    try:
        open_sandbox(repo, backend=backend)
    except EnvironmentFailure as error:
        pytest.skip(str(error))
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "swe_scaffold", folder / "here/swe_scaffold", ignore=ignored)
    line = [sys.executable, "-P", "-m", "swe_scaffold", "walkthrough", repo, "--output", "o"]
    done = subprocess.run(
        [*map(str, line), "--sandbox", backend, "--task", "`apply_discount` is wrong"],
        env={**os.environ, "PYTHONPATH": str(folder / "here")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1. `prices.py:1` has apply_discount" in done.stdout


def test_the_command_in_a_folder_of_modules_imports_none(repo: Path, folder: Path) -> None:
    script = Path(sys.executable).with_name("swe-scaffold")
    if not script.is_file():
        pytest.skip("the command is not installed here")
    for name in ("json", "typer", "sitecustomize", "swe_scaffold", "minisweagent"):
        (repo / f"{name}.py").write_text("raise SystemExit('the repository ran')\n")
    before = take_snapshot(repo)
    line = [str(script), "walkthrough", ".", "--output", str(folder / "o"), "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(line, cwd=repo, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "json.py" in done.stdout
    assert before.changes(take_snapshot(repo)) == []


def test_in_the_repository_itself_it_is_written_beside_it(
    run: Run, repo: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo)
    done = run("walkthrough", ".")
    assert done.code == 0, done.err
    assert (folder / "shop-walkthrough/walkthrough.md").is_file()
    assert {path.name for path in repo.iterdir()} == {"README.md", "prices.py"}


def test_a_task_of_a_file_of_tasks(run: Run, repo: Path, folder: Path) -> None:
    row = task(1)
    rows = write_rows(folder / "tasks.jsonl", [row])
    done = run("walkthrough", repo, "--instance", row["instance_id"], "--in", rows, "--output", "o")
    assert done.code == 0, done.err
    kept = json.loads((folder / "o/walkthrough.traj.json").read_text())
    assert kept["info"]["instance_id"] == row["instance_id"]
    assert kept["info"]["task"] == row["problem_statement"]


def test_a_served_model_guides(run: Run, repo: Path, folder: Path) -> None:
    calls = [
        {"name": "read_file", "arguments": '{"path": "prices.py"}'},
        {"name": "report", "arguments": '{"text": "It is prices.py:2."}'},
    ]

    def behave(handler: Handler, request: Seen, before: int) -> None:
        function = calls[sum(m["role"] == "assistant" for m in request.body["messages"])]
        call = {"id": "c", "type": "function", "function": function}
        handler.complete("", tool_calls=[call])

    with serving(behave) as place:
        done = run(
            "walkthrough", repo, "--api-base", place.url, "--model", "m", "--output", "o", "--json"
        )
    assert done.code == 0, done.err
    assert done.value["report"] == "It is prices.py:2."
    assert done.value["files"] == [{"path": "prices.py", "ranges": [[1, 2]]}]
    first, second = place.seen
    assert first.body["tools"][0]["function"]["name"] == "list_dir"
    assert second.body["messages"][-1]["role"] == "tool"
    assert "apply_discount" in second.body["messages"][-1]["content"]
    [found] = list(open_source(str(folder / "o/walkthrough.traj.json")))
    assert isinstance(found, Trajectory)
    assert [m.trained for m in found.messages if m.role == "assistant"] == [True, True]


def test_a_server_that_is_not_there_ends_it_and_what_was_seen_is_kept(
    run: Run, repo: Path, folder: Path
) -> None:
    done = run(
        "walkthrough", repo, "--api-base", "http://127.0.0.1:9/v1", "--model", "m", "--output", "o"
    )
    assert done.code == 4
    assert "error: http://127.0.0.1:9/v1: " in done.err
    assert json.loads((folder / "o/walkthrough.traj.json").read_text())["info"]["exit_status"]


def test_the_configuration_of_mini_says_what_the_command_does() -> None:
    tree = yaml.safe_load(MINI.read_text("utf-8"))
    assert tree["agent"]["system_template"] == SYSTEM
    assert tree["agent"]["instance_template"] == INSTANCE


@pytest.mark.slow
def test_mini_swe_agent_runs_the_configuration(repo: Path, folder: Path) -> None:
    before = take_snapshot(repo)
    done = run_mini(repo, folder / "w.traj.json", "-t", "`apply_discount` is wrong")
    assert done.returncode == 0, done.stderr[-2000:]
    kept = json.loads((folder / "w.traj.json").read_text())
    assert kept["info"]["exit_status"] == "Submitted"
    assert kept["info"]["repository"]["unchanged"] is True
    assert "prices.py:1" in kept["info"]["submission"]
    assert take_snapshot(repo).sha256 == before.sha256


@pytest.mark.slow
def test_a_stopped_walkthrough_keeps_what_it_saw(repo: Path, folder: Path) -> None:
    def behave(handler: Handler, request: Seen, before: int) -> None:
        if len(request.body["messages"]) > 3:
            time.sleep(60)
        function = {"name": "read_file", "arguments": '{"path": "prices.py"}'}
        handler.complete("", tool_calls=[{"id": "c", "type": "function", "function": function}])

    kept = folder / "o/walkthrough.traj.json"
    with serving(behave) as place:
        options = ["--api-base", place.url, "--model", "m", "--output", "o"]
        child = subprocess.Popen(
            python_command("walkthrough", str(repo), *options), cwd=folder, stderr=subprocess.PIPE
        )
        end = time.monotonic() + 60
        while time.monotonic() < end and len(place.seen) < 2:
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 143, err
    assert b"Traceback" not in err
    found = json.loads(kept.read_text())
    assert found["info"]["repository"]["unchanged"] is True
    assert found["messages"][-1]["role"] == "tool"
