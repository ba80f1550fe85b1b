"""SWE-agent's configuration and bundle: what it would take, and that they say what ours says."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from swe_scaffold.walkthrough.prompts import INSTANCE, SYSTEM
from swe_scaffold.walkthrough.swe_agent import CALL_SECONDS, CONFIG, CONFIGS, PORT
from swe_scaffold.walkthrough.tools import REPORT, definitions
from tests.walkthrough.swe_agent_schema import BUNDLE, RUN, TOOL, problems

CONFIGURATION: dict[str, Any] = yaml.safe_load((CONFIGS / CONFIG).read_text())
FOLDER = CONFIGS / "swe_agent" / CONFIGURATION["agent"]["tools"]["bundles"][0]["path"]
TOOLS: dict[str, Any] = yaml.safe_load((FOLDER / "config.yaml").read_text())


def test_every_key_is_one_that_swe_agent_knows() -> None:
    assert problems(CONFIGURATION, RUN) == []
    assert problems(TOOLS, BUNDLE) == []
    for name, tool in TOOLS["tools"].items():
        assert problems(tool, TOOL, name) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("agent.tools.enable_bash_tools", False, "unknown, ignored"),
        ("agent.templates.system_prompt", "x", "unknown, ignored"),
        ("agent.tools.enable_bash_tool", "no", "is no bool"),
        ("agent.tools.execution_timeout", True, "is no int"),
        ("agent.model.api_url", "x", "unknown, refused"),
        ("env.repo.rest", False, "unknown, refused"),
        ("env.repo.type", "preexistent", "no type"),
        ("actions.open_prs", True, "unknown, refused"),
        ("problem_statement.type", "text", "text is missing"),
        ("agent.tools.bundles", ["tools/walkthrough"], "no mapping"),
    ],
)
def test_what_is_misspelt_would_be_noticed(path: str, value: object, problem: str) -> None:
    changed = copy.deepcopy(CONFIGURATION)
    *folders, last = path.split(".")
    place = changed
    for name in folders:
        place = place[name]
    place[last] = value
    assert any(problem in line for line in problems(changed, RUN)), problems(changed, RUN)


def test_the_prompts_are_ours() -> None:
    templates = CONFIGURATION["agent"]["templates"]
    assert templates["system_template"] == SYSTEM
    assert templates["instance_template"] == INSTANCE


def test_the_tools_are_ours() -> None:
    offered = [tool["function"] for tool in definitions(bash=False)]
    assert [function["name"] for function in offered] == list(TOOLS["tools"])
    for function in offered:
        ours, theirs = function["parameters"], TOOLS["tools"][function["name"]]
        assert theirs["docstring"] == function["description"]
        assert [argument["name"] for argument in theirs["arguments"]] == list(ours["properties"])
        for argument in theirs["arguments"]:
            declared = ours["properties"][argument["name"]]
            assert {key: argument[key] for key in ("type", "description")} == declared
            assert argument["required"] == (argument["name"] in ours["required"])
            # No character of a value means anything to a shell, and its type arrives.
            written = "{{value|tojson|urlencode}}"
            if argument["name"] == "text":
                # A command of more than 128 KiB would end the session.
                written = (
                    "{% set written = value|tojson|urlencode %}"
                    "{{written if written|length < 120000 else 'too-long'}}"
                )
            assert argument["argument_format"] == f"{argument['name']}={written}"
        named = re.findall(r"<(\w+)>", theirs["signature"])
        assert named == list(ours["properties"])
        assert theirs["signature"].split()[0] == function["name"]
        script = FOLDER / "bin" / function["name"]
        assert os.access(script, os.X_OK)
        assert f"swe_agent_tool.py {function['name']} " in script.read_text()
    assert {path.name for path in (FOLDER / "bin").iterdir()} == set(TOOLS["tools"])


def test_nothing_in_it_writes_or_reaches_out() -> None:
    tools, model = CONFIGURATION["agent"]["tools"], CONFIGURATION["agent"]["model"]
    assert tools["enable_bash_tool"] is False
    assert tools["parse_function"]["type"] == "function_calling"
    assert tools["submit_command"] == REPORT
    assert tools["execution_timeout"] == CALL_SECONDS
    assert CONFIGURATION["env"]["repo"] == {
        "type": "preexisting",
        "repo_name": "repo",
        "reset": False,
    }
    assert CONFIGURATION["actions"] == {"open_pr": False, "apply_patch_locally": False}
    assert (model["per_instance_cost_limit"], model["total_cost_limit"]) == (0, 0)
    assert model["api_base"] == f"http://127.0.0.1:{PORT}/v1"
    assert any(
        "test ! -w /repo/." in line for line in CONFIGURATION["env"]["post_startup_commands"]
    )


def test_it_starts_nowhere_but_in_the_sandbox(tmp_path: Path) -> None:
    for line in CONFIGURATION["env"]["post_startup_commands"]:
        outside = line.replace("/repo", str(tmp_path)).replace("/walkthrough", str(tmp_path))
        done = subprocess.run(["bash", "-c", outside], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert done.stdout.startswith("not started: ")
