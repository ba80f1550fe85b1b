"""The repository as mini-swe-agent's environment: typed tools in a sandbox, and a record of both.

It works under `swe-scaffold walkthrough` and, named in a configuration, under `mini` itself. A
session ends by a call of `report` alone; nothing that a tool prints can end it.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from swe_scaffold.errors import ConfigError, EnvironmentFailure
from swe_scaffold.git.program import git_environment
from swe_scaffold.process import ChildFailed, Dialogue
from swe_scaffold.sandbox import (
    Limits,
    Sandbox,
    Snapshot,
    open_sandbox,
    python_folders,
    take_snapshot,
)
from swe_scaffold.terminal import show
from swe_scaffold.walkthrough import toolbox
from swe_scaffold.walkthrough.tools import BASH, REPORT, problem_of

_START_SECONDS = 30.0
_MOST_CHANGES = 20
# The kernel takes no more as one argument than 128 KiB.
_MOST_COMMAND = 100_000


@dataclass(frozen=True, slots=True)
class EnvironmentConfig:
    """What a configuration may say under `environment`.

    Attributes:
        repo: The repository.
        backend: `auto`, `bwrap` or `landlock`.
        allow_bash: Whether there is a shell, in the same sandbox.
        seconds: Most time for one call.
        memory_mib: Most memory of each process.
        processes: Most processes at a time.
        output_kib: Most output of one command.
    """

    repo: str = "."
    backend: str = "auto"
    allow_bash: bool = False
    seconds: float = 20.0
    memory_mib: int = 2048
    processes: int = 256
    output_kib: int = 256


_DEFAULTS = EnvironmentConfig()


class ReadOnlyEnvironment:
    """Executes an agent's calls where they can change nothing.

    Args:
        values: The fields of `EnvironmentConfig`; no others are taken.

    Raises:
        ConfigError: There is no such key, or its value is of another type.
        UsageError: There is no such folder.
        EnvironmentFailure: No sandbox works here, or none for such a tree.
        IntegrityError: The sandbox let a write through.
    """

    def __init__(self, **values: Any) -> None:
        self.config = _checked(values)
        self.repo = Path(self.config.repo).resolve()
        self._tools = Path(toolbox.__file__).resolve()
        self.sandbox = self._open()
        self.before: Snapshot = take_snapshot(self.repo)
        self._keep_from_special_files()
        self._dialogue: Dialogue | None = self._start_tools()
        self.after: Snapshot | None = None

    def execute(self, action: Mapping[str, Any], cwd: str = "") -> dict[str, Any]:
        """Do what an action asks for: `tool` and `arguments`, or `command` for a shell.

        Raises:
            minisweagent.exceptions.Submitted: The agent called `report`.
        """
        name, arguments = action.get("tool", BASH), action.get("arguments")
        if name == BASH and arguments is None:
            arguments = {"command": action.get("command", "")}
        start = time.monotonic()
        problem = problem_of(name, arguments, bash=self.config.allow_bash)
        if problem or not isinstance(arguments, Mapping):
            output = _output(f"error: {problem}", 2)
        elif name == REPORT:
            self._submit(str(arguments["text"]))
        elif name == BASH:
            output = self._shell(str(arguments["command"]))
        else:
            output = self._call(str(name), dict(arguments))
        output["extra"]["seconds"] = round(time.monotonic() - start, 3)
        return output

    def finish(self) -> Snapshot:
        """End the tools, and look at the tree again."""
        if self._dialogue is not None:
            self._dialogue.close()
            self._dialogue = None
        self.after = take_snapshot(self.repo)
        return self.after

    @property
    def unchanged(self) -> bool | None:
        """Whether the tree is what it was; None before `finish`."""
        return None if self.after is None else self.after.sha256 == self.before.sha256

    def get_template_vars(self, **more: Any) -> dict[str, Any]:
        """Return what templates may name."""
        return {**_as_dict(self.config), "repo": self.repo.name, **more}

    def serialize(self) -> dict[str, Any]:
        """Return what the trajectory says: settings, sandbox, and the tree before and after."""
        tree = tree_facts(self.before, self.after)
        environment = {**_as_dict(self.config), "repo": self.repo.name}
        kind = type(self)
        return {
            "info": {
                "config": {
                    "environment": environment,
                    "environment_type": f"{kind.__module__}.{kind.__qualname__}",
                },
                "sandbox": self.sandbox.facts(),
                "repository": tree,
            }
        }

    def _open(self) -> Sandbox:
        config = self.config
        return open_sandbox(
            self.repo,
            backend=config.backend,
            readable=[self._tools, *python_folders()],
            limits=Limits(
                seconds=config.seconds,
                memory_bytes=config.memory_mib << 20,
                processes=config.processes,
                output_bytes=config.output_kib << 10,
            ),
            environment=git_environment("safe.directory=*"),
        )

    def _keep_from_special_files(self) -> None:
        """See to it that nothing that stands in the tree leads out of it."""
        if self.before.devices and self.sandbox.backend == "landlock":
            first = show(os.fsdecode(self.before.devices[0]))
            raise EnvironmentFailure(
                f"has a device ({first}), which Landlock would let programs read",
                where=str(self.repo),
                hint="remove it, or install bubblewrap",
            )
        if self.before.pipes and self.config.allow_bash:
            self.sandbox = self.sandbox.hiding([os.fsdecode(name) for name in self.before.pipes])

    def _start_tools(self) -> Dialogue:
        """Start the program that the tools are, and hear that it answers.

        Raises:
            EnvironmentFailure: It does not.
        """
        tools = self.sandbox.converse([_python(), "-I", "-S", str(self._tools)])
        try:
            tools.ask({"tool": "", "arguments": {}}, seconds=_START_SECONDS)
        except ChildFailed as error:
            raise EnvironmentFailure(
                f"the tools do not start in the sandbox {self.sandbox.backend}: {error.message}",
                where=str(self._tools),
                hint="they need Python, and the memory to start it",
            ) from None
        return tools

    def _call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if self._dialogue is None:
            self._dialogue = self._start_tools()
        seconds = self.config.seconds
        try:
            reply = self._dialogue.ask({"tool": name, "arguments": arguments}, seconds=seconds)
        except ChildFailed as error:
            # The next call starts it anew.
            self._dialogue = None
            return _output(f"error: {name}: {error.message}", -1, str(error.message))
        shown = {key: reply[key] for key in ("path", "first", "last") if key in reply}
        output = _output(reply["text"], 0 if reply["ok"] else 1, shown=shown)
        # For the guide; where all of them are is no part of what an agent is told.
        return output | {"hits": reply.get("hits", [])}

    def _shell(self, command: str) -> dict[str, Any]:
        if "\0" in command or len(command.encode("utf-8", "replace")) > _MOST_COMMAND:
            return _output(f"error: a command has no NUL, and {_MOST_COMMAND:,} bytes at most", 2)
        done = self.sandbox.run(["/bin/bash", "-c", command])
        text, note = done.stdout.decode("utf-8", "replace"), ""
        if done.timed_out:
            note = f"ended after {self.config.seconds:g} s"
        elif done.cut:
            note = f"ended after {self.config.output_kib} KiB of output"
        return _output(text, -1 if note else done.returncode, note)

    def _submit(self, text: str) -> NoReturn:
        from minisweagent.exceptions import Submitted

        self.finish()
        exit_status = {"exit_status": "Submitted", "submission": text}
        raise Submitted({"role": "exit", "content": text, "extra": exit_status})


def tree_facts(before: Snapshot, after: Snapshot | None) -> dict[str, Any]:
    """Return what a record says of the tree before and after."""
    unchanged = None if after is None else after.sha256 == before.sha256
    tree: dict[str, Any] = {
        "sha256_before": before.sha256,
        "sha256_after": after.sha256 if after else None,
        "unchanged": unchanged,
        "files": before.files,
        "bytes": before.size,
        "unread": before.unread,
    }
    if after is not None and not unchanged:
        tree["changed"] = before.changes(after)[:_MOST_CHANGES]
    return tree


def _output(
    text: str, returncode: int, exception_info: str = "", shown: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "output": text,
        "returncode": returncode,
        "exception_info": exception_info,
        "extra": dict(shown or {}),
    }


def _checked(values: Mapping[str, Any]) -> EnvironmentConfig:
    """Return the settings; what is misspelt is refused, and not ignored."""
    known: dict[str, type] = {
        field.name: type(getattr(_DEFAULTS, field.name)) for field in fields(EnvironmentConfig)
    }
    for key, value in values.items():
        where = f"environment.{key}"
        if key not in known:
            raise ConfigError("unknown key", where=where, hint=f"known: {', '.join(known)}")
        wanted = known[key]
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ConfigError(f"is no {wanted.__name__}", where=where)
        if wanted in (int, float) and not _is_amount(value):
            raise ConfigError("is no finite number above 0", where=where)
    config = EnvironmentConfig(**values)
    if config.backend not in ("auto", "bwrap", "landlock"):
        raise ConfigError(
            f"there is no {config.backend!r}",
            where="environment.backend",
            hint="auto, bwrap or landlock",
        )
    return config


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _as_dict(config: EnvironmentConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _python() -> str:
    """Return this interpreter without its virtual environment, which no sandbox sees."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
