"""Sessions as a whole: what ends one, what is kept of it, and that the repository is untouched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import ConfigError, EnvironmentFailure, UsageError
from swe_scaffold.sandbox import take_snapshot
from swe_scaffold.walkthrough import Subject, explore
from swe_scaffold.walkthrough.environment import ReadOnlyEnvironment
from swe_scaffold.walkthrough.guide import ScriptedGuide
from swe_scaffold.walkthrough.seen import inspected, steps_of
from tests.walkthrough.conftest import Recited, turn, walk

pytest.importorskip("minisweagent", reason="needs the extra `agent`")


def test_the_guide_finds_what_the_task_names(repo: Path, backend: str) -> None:
    walked = walk(repo, ScriptedGuide(), backend=backend)
    assert walked.ok
    info = walked.trajectory["info"]
    assert info["sandbox"]["backend"] == backend
    assert info["repository"]["unchanged"] is True
    assert "1. `shop/prices.py:" in walked.report
    assert "Entry points: pyproject.toml, line 4" in walked.report
    assert "shop/prices.py" in [file.path for file in inspected(walked.trajectory)]
    assert walked.trajectory["trajectory_format"] == "mini-swe-agent-1.1"
    assert "TOP-SECRET" not in json.dumps(walked.trajectory)


def test_the_same_task_gives_the_same_calls(repo: Path, backends: list[str]) -> None:
    calls = [
        [step.command for step in steps_of(walk(repo, ScriptedGuide()).trajectory)]
        for _ in range(2)
    ]
    assert calls[0] == calls[1]
    assert len(calls[0]) > 8


def test_nothing_that_a_file_holds_ends_a_session(repo: Path, backend: str) -> None:
    model = Recited(turn("read_file", path="marker.txt"), bash=True)
    model.turns.append(turn("bash", command="cat marker.txt"))
    walked = walk(repo, model, backend=backend, allow_bash=True)
    assert walked.report == "done"
    shown = [step.output for step in steps_of(walked.trajectory)]
    assert all("COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT" in text for text in shown[:2])


def test_lists_and_shells_in_arguments_change_nothing(repo: Path, backend: str) -> None:
    attack = ["a'$(touch /repo/pwned)"]
    walked = walk(
        repo,
        Recited(
            turn("grep_search", pattern=attack),
            turn("grep_search", pattern=attack[0]),
            turn("read_file", path="$(touch pwned)"),
            turn("git_show", revision="HEAD", path="`touch pwned`"),
            turn("git_log", path="shop; touch pwned"),
        ),
        backend=backend,
    )
    assert walked.ok
    messages = walked.trajectory["messages"]
    complaints = [m for m in messages if m.get("extra", {}).get("interrupt_type")]
    assert len(complaints) == 1
    assert "pattern is no string" in complaints[0]["content"]


def test_git_runs_no_program_of_the_repository(repo: Path, backend: str) -> None:
    walked = walk(
        repo,
        Recited(
            turn("git_log"),
            turn("git_show", revision="HEAD"),
            turn(
                "bash",
                command="git status; git log -p; git diff; git ls-files; git blame README.md",
            ),
            bash=True,
        ),
        backend=backend,
        allow_bash=True,
    )
    steps = steps_of(walked.trajectory)
    assert "Begin" in steps[0].output
    assert "README.md" in steps[2].output


def test_a_call_that_takes_too_long_ends_and_the_next_one_works(
    repo: Path, backends: list[str]
) -> None:
    (repo / "slow.txt").write_text("a" * 40 + "b\n")
    walked = walk(
        repo,
        Recited(
            turn("list_dir"),
            turn("grep_search", pattern="(a+)+$", regex=True, path="slow.txt"),
            turn("read_file", path="README.md"),
        ),
        seconds=1.5,
    )
    steps = steps_of(walked.trajectory)
    assert steps[1].returncode == -1
    assert "no reply within" in steps[1].output
    assert "# Shop" in steps[2].output
    assert walked.ok


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ({"function": {"name": "read_file", "arguments": '{"path": "\\ud800"}'}}, "surrogate"),
        ({"function": {"name": "read_file", "arguments": "[" * 100_000}}, "no JSON"),
        (
            {"function": {"name": "read_file", "arguments": '{"path": "a", "path": ""}'}},
            "duplicate",
        ),
        ({"function": {"name": "x" * 10_000, "arguments": "{}"}}, "there is no tool xxx"),
        ({"function": "read_file"}, "there is no tool"),
        ("read_file", "there is no tool"),
    ],
)
def test_calls_that_are_none_are_told_and_survived(
    repo: Path, backends: list[str], call: Any, problem: str
) -> None:
    walked = walk(repo, Recited({"tool_calls": [call]}, turn("list_dir")))
    assert walked.ok
    complaint = walked.trajectory["messages"][3]["content"]
    assert problem in complaint
    assert len(complaint) < 500


def test_calls_without_an_id_and_with_an_object_are_calls(repo: Path, backends: list[str]) -> None:
    call = {"function": {"name": "read_file", "arguments": {"path": "README.md"}}}
    walked = walk(repo, Recited({"tool_calls": [call]}, {"tool_calls": [call, call]}))
    ids = [m["tool_calls"][0]["id"] for m in walked.trajectory["messages"] if "tool_calls" in m]
    assert ids == ["call_0001", "call_0002", "call_0003"]
    assert all("# Shop" in step.output for step in steps_of(walked.trajectory)[:2])
    assert walked.trajectory["messages"][4]["extra"]["calls_left_out"] == 1


def test_a_folder_holds_one_walkthrough(repo: Path, backends: list[str]) -> None:
    out = repo.parent / "out"
    explore(Subject(repo), ScriptedGuide, out)
    before = (out / "walkthrough.traj.json").read_bytes()
    with pytest.raises(UsageError, match="there is a walkthrough already"):
        explore(Subject(repo), ScriptedGuide, out)
    assert (out / "walkthrough.traj.json").read_bytes() == before

    class Failing(Recited):
        def answer(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            raise UsageError("no model")

    with pytest.raises(UsageError, match="no model"):
        explore(Subject(repo), Failing, out, overwrite=True)
    assert {path.name for path in out.iterdir()} - {".lock"} == {"walkthrough.traj.json"}


def test_other_tasks_and_trees_have_other_ids(repo: Path, backends: list[str]) -> None:
    def name(task: str) -> str:
        found = walk(repo, Recited(), task=task).trajectory["info"]["instance_id"]
        assert found.startswith("shop-")
        return str(found)

    first = name("a")
    assert name("a") == first
    assert name("b") != first
    (repo / "shop" / "new.py").write_text("")
    assert name("a") != first


def test_a_model_that_never_reports_is_stopped(repo: Path, backends: list[str]) -> None:
    walked = walk(repo, Recited(*[turn("list_dir")] * 9), max_steps=3)
    assert (walked.exit_status, walked.report, walked.ok) == ("LimitsExceeded", "", False)
    assert len(steps_of(walked.trajectory)) == 3


def test_answers_without_a_call_are_kept_and_complained_of(repo: Path, backends: list[str]) -> None:
    spelt = '<tool_call>\n{"name": "list_dir", "arguments": {"path": "shop"}}\n</tool_call>'
    model = Recited({"content": "I think."}, {"content": f"Look.\n{spelt}"})
    walked = walk(repo, model)
    assert walked.ok
    messages = walked.trajectory["messages"]
    assert [m["role"] for m in messages][2:6] == ["assistant", "user", "assistant", "tool"]
    assert messages[2]["content"] == "I think."
    assert "exactly one call" in messages[3]["content"]
    assert messages[4]["content"] == "Look."
    assert "prices.py" in messages[5]["content"]
    stubborn = walk(repo, Recited(*[{"content": "I think."}] * 9))
    assert stubborn.exit_status == "RepeatedFormatError"


def test_a_change_from_outside_is_noticed(repo: Path, backends: list[str]) -> None:
    class Meddling(Recited):
        def answer(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            (repo / "shop" / "cart.py").write_text("")
            return super().answer(messages)

    walked = explore(Subject(repo), lambda: Meddling(), repo.parent / "out")
    assert not walked.ok
    assert walked.changed == ["shop/cart.py"]
    assert "CHANGED: shop/cart.py" in (repo.parent / "out/walkthrough.md").read_text()


def test_a_model_that_fails_leaves_what_it_saw(repo: Path, backends: list[str]) -> None:
    class Failing(Recited):
        def answer(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            if len(messages) > 3:
                raise UsageError("the server is gone")
            return super().answer(messages)

    with pytest.raises(UsageError, match="the server is gone"):
        explore(Subject(repo), lambda: Failing(turn("list_dir")), repo.parent / "out")
    kept = json.loads((repo.parent / "out/walkthrough.traj.json").read_text())
    assert kept["info"]["exit_status"] == "UsageError"
    assert kept["info"]["repository"]["unchanged"] is True
    assert "Traceback" not in json.dumps(kept)
    assert len(steps_of(kept)) == 1


def test_the_folder_of_the_output_is_not_in_the_repository(repo: Path) -> None:
    before = take_snapshot(repo)
    with pytest.raises(UsageError, match="lies within the repository"):
        explore(Subject(repo), ScriptedGuide, repo / "out")
    assert before.changes(take_snapshot(repo)) == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"wraper_args": []}, "environment.wraper_args: unknown key"),
        ({"allow_bash": "false"}, "environment.allow_bash: is no bool"),
        ({"seconds": 0}, "environment.seconds: is no finite number above 0"),
        ({"seconds": float("nan")}, "environment.seconds: is no finite number above 0"),
        ({"seconds": float("inf")}, "environment.seconds: is no finite number above 0"),
        ({"processes": -1}, "environment.processes: is no finite number above 0"),
        ({"memory_mib": 64.0}, "environment.memory_mib: is no int"),
        ({"backend": "docker"}, "environment.backend: there is no 'docker'"),
    ],
)
def test_a_misspelt_setting_is_refused(repo: Path, values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as failed:
        ReadOnlyEnvironment(repo=str(repo), **values)
    assert str(failed.value).startswith(problem)


def test_tools_that_do_not_start_are_no_empty_repository(repo: Path, backend: str) -> None:
    with pytest.raises(EnvironmentFailure, match=f"tools do not start in the sandbox {backend}"):
        ReadOnlyEnvironment(repo=str(repo), backend=backend, memory_mib=12)
