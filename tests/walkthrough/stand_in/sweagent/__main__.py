"""What SWE-agent 1.1 does between its command line and its trajectory, as its source has it.

Configurations are merged, the bundle is copied to /root/tools, a call becomes a command line for a
shell (texts quoted, everything else not), output decides what happens next, and a `.traj` is
written after each step. In its environment SWE-ReX runs the shell, where this Python has it.
Before all that it tries what a program in the sandbox should not be able to do.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Template

REPORT = Path("/root/model.patch")
ANSI = re.compile(r"\x1B[@-_][0-?]*[ -/]*[@-~]")


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(first.get(key), dict)
        first[key] = merged(first[key], value) if both else value
    return first


class Bash:
    """Each command in a shell of its own."""

    def run(self, command: str) -> tuple[str, int]:
        line = [
            "/usr/bin/env",
            "bash",
            "-c",
            f"cd /repo; PATH=/root/tools/walkthrough/bin:$PATH\n{command}",
        ]
        done = subprocess.run(line, stdout=-1, stderr=subprocess.STDOUT, check=False)
        output = done.stdout.decode("utf-8", "backslashreplace")
        return ANSI.sub("", output).replace("\r\n", "\n"), done.returncode


class Rex:
    """One shell at a terminal, by SWE-ReX."""

    def __init__(self) -> None:
        from swerex.runtime.abstract import BashAction, CreateBashSessionRequest
        from swerex.runtime.local import LocalRuntime

        self.action, self.runtime, self.loop = BashAction, LocalRuntime(), asyncio.new_event_loop()
        request = CreateBashSessionRequest(startup_source=[str(Path.home() / ".bashrc")])
        self.loop.run_until_complete(self.runtime.create_session(request))
        self.run("cd /repo && export PATH=/root/tools/walkthrough/bin:$PATH")

    def run(self, command: str) -> tuple[str, int]:
        action = self.action(command=command, timeout=25, check="silent")
        done = self.loop.run_until_complete(self.runtime.run_in_session(action))
        return done.output, done.exit_code


def shell() -> Bash | Rex:
    try:
        return Rex()
    except ImportError:
        return Bash()


def command_line(tool: dict[str, Any], values: dict[str, Any]) -> str:
    """The parser `function_calling` of 1.1: texts are quoted, other values are not."""
    known = [argument["name"] for argument in tool["arguments"]]
    if extra := values.keys() - set(known):
        raise ValueError(f"Unexpected argument(s): {', '.join(extra)}")
    formatted = {}
    for argument in tool["arguments"]:
        key = argument["name"]
        if argument["required"] and key not in values:
            raise ValueError(f"Required argument(s) missing: {key}")
        value = values.get(key)
        quoted = shlex.quote(value) if isinstance(value, str) else "" if value is None else value
        template = Template(argument.get("argument_format", "{{value}}"))
        formatted[key] = template.render(value=quoted) if key in values else ""
    invoke = re.sub(r"\[?<([a-zA-Z_][a-zA-Z0-9_-]*)>\]?", r"{\1}", tool["signature"])
    return invoke.format(**formatted).strip()


def answers(model: dict[str, Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    if model["name"] == "replay":
        lines = Path(model["replay_path"]).read_text().splitlines()
        turns = next(iter(json.loads(lines[0]).values()))
        return turns[sum(entry["role"] == "assistant" for entry in history)]
    messages = [
        {key: entry[key] for key in ("role", "content", "tool_calls") if entry.get(key) is not None}
        | ({"tool_call_id": entry["tool_call_ids"][0]} if entry["role"] == "tool" else {})
        for entry in history
    ]
    body = {
        "model": model["name"].split("/", 1)[1],
        "messages": messages,
        "seed": 0,
    }
    request = urllib.request.Request(
        f"{model['api_base']}/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {model['api_key']}"},
    )
    with urllib.request.urlopen(request, timeout=20) as reply:
        said = json.load(reply)["choices"][0]["message"]
    return {"message": said["content"] or "", "tool_calls": said.get("tool_calls") or []}


def attempts(address: str) -> dict[str, Any]:
    """Try what must fail, and say what came of it; the address is one outside."""
    tried: dict[str, Any] = {"environment": dict(os.environ), "here": str(Path.cwd())}
    for line in (
        "touch /repo/pwned",
        "rm -rf /repo/README.md",
        "chmod 777 /repo",
        "mount -o remount,rw /repo",
        "git -C /repo commit --allow-empty -m x",
        "touch /walkthrough/toolbox.py",
        "cat /etc/shadow",
    ):
        tried[line] = subprocess.run(line.split(), capture_output=True, check=False).returncode
    host, _, port = address.rpartition(":")
    tried["outside"] = reachable(host, int(port)) if port else None
    tried["server"] = reachable("127.0.0.1", 8000)
    tried["away"] = reachable("192.0.2.1", 80)
    tried["files"] = sorted(os.listdir("/"))  # noqa: PTH208
    tried["processes"] = [path.name for path in Path("/proc").glob("[0-9]*")]
    return tried


def reachable(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def configuration(arguments: list[str]) -> dict[str, Any]:
    """Return all files and arguments as one; later ones win."""
    config: dict[str, Any] = {}
    for name, given in zip(arguments[::2], arguments[1::2], strict=True):
        value: Any = given
        if name == "--config":
            value = yaml.safe_load(Path(given).read_text())
        else:
            for key in reversed(name.removeprefix("--").split(".")):
                value = {key: value}
        merged(config, value)
    return config


class Run:
    """One session."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.agent, self.place = config["agent"], config["problem_statement"]
        self.out = Path(config["output_dir"], self.place["id"])
        self.out.mkdir(parents=True)
        bundle = self.agent["tools"]["bundles"][0]["path"]
        self.bundle = Path(os.environ["SWE_AGENT_CONFIG_ROOT"], bundle)
        shutil.copytree(self.bundle, "/root/tools/walkthrough")
        self.known = yaml.safe_load((self.bundle / "config.yaml").read_text())["tools"]
        task = Path(self.place["path"]).read_text()
        named = {"problem_statement": task, "repo": config["env"]["repo"]["repo_name"]}
        named |= self.place.get("extra_fields", {})
        templates = self.agent["templates"]
        self.history: list[dict[str, Any]] = [
            {"role": role, "content": Template(templates[key]).render(**named), "agent": "main"}
            for role, key in (("system", "system_template"), ("user", "instance_template"))
        ]
        self.steps: list[dict[str, Any]] = []
        self.info: dict[str, Any] = {"exit_status": None, "submission": None}
        self.shell = shell()
        # Quoted for a shell, typed at a terminal.
        said, code = self.shell.run(f"export PROBLEM_STATEMENT={shlex.quote(task)}")
        if code:
            sys.exit(said)
        for line in config["env"]["post_startup_commands"]:
            said, code = self.shell.run(line)
            if code:
                sys.exit(said)

    def step(self) -> None:
        """Ask, do what is asked for, and write everything down."""
        try:
            turn = answers(self.agent["model"], self.history)
        except (LookupError, OSError) as error:
            turn, self.info["exit_status"] = {"message": f"Exit due to {error}"}, "exit_error"
        calls = turn.get("tool_calls") or []
        action = observation = ""
        if calls:
            action, observation = self.call(calls[0]["function"])
            observation = self.controlled(observation)
        elif self.info["exit_status"] is None:
            self.info["exit_status"] = "exit_format"
        said = {"role": "assistant", "content": turn["message"], "action": action}
        self.history.append(said | {"tool_calls": calls or None, "agent": "main"})
        if calls:
            shown = Template(self.agent["templates"]["next_step_template"])
            told = {"role": "tool", "content": shown.render(observation=observation)}
            self.history.append(told | {"tool_call_ids": [calls[0]["id"]], "agent": "main"})
        step = {"action": action, "observation": observation, "response": turn["message"]}
        self.steps.append(step)
        self.write()

    def call(self, function: dict[str, Any]) -> tuple[str, str]:
        """Run a call; `raw` stands for whatever found a way around the bundle."""
        name, values = function["name"], json.loads(function["arguments"])
        try:
            action = values["command"] if name == "raw" else command_line(self.known[name], values)
        except (KeyError, ValueError) as error:
            return "", str(error)
        return action, self.shell.run(action)[0]

    def controlled(self, observation: str) -> str:
        """Take what the output says for what is to be done, as SWE-agent does."""
        for token in ("RETRY-WITH-OUTPUT", "RETRY-WITHOUT-OUTPUT", "EXIT-FORFEIT"):
            if f"###SWE-AGENT-{token}###" in observation:
                self.info["exit_status"] = "exit_forfeit"
                return observation
        if "<<SWE_AGENT_SUBMISSION>>" in observation:
            observation = REPORT.read_text() if REPORT.exists() else ""
            self.info = {"exit_status": "submitted", "submission": observation or None}
        return observation

    def write(self) -> None:
        model = dict(self.agent["model"])
        # Where pydantic is 2.13 or later: it is no field of the class that models share.
        model.pop("replay_path", None)
        config = {"agent": {"model": model}, "problem_statement": self.place}
        if "api_key" in config["agent"]["model"]:
            config["agent"]["model"]["api_key"] = "**********"
        document = {
            "trajectory": self.steps,
            "history": self.history,
            "info": self.info,
            "environment": "main",
            "replay_config": json.dumps(config),
        }
        Path(self.out, f"{self.place['id']}.traj").write_text(json.dumps(document, indent=2))


def load_environment(path: str | None) -> None:
    """Read variables from the file that is named, else from one here or in the checkout."""
    own = [Path(".env"), Path(__file__).resolve().parents[1] / ".env"]
    for file in [Path(path)] if path else [file for file in own if file.exists()]:
        for line in file.read_text().split():
            name, _, value = line.partition("=")
            os.environ.setdefault(name, value)


def main() -> None:
    if sys.argv[1] != "run":
        sys.exit(f"no command {sys.argv[1]}")
    config = configuration(sys.argv[2:])
    load_environment(config.get("env_var_path"))
    run = Run(config)
    Path(run.out, "attempts.json").write_text(json.dumps(attempts(config.get("probe", ""))))
    while run.info["exit_status"] is None:
        run.step()


main()
