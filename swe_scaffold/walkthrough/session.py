"""One walkthrough: mini-swe-agent's loop, our environment, a trajectory whatever happens."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.errors import ScaffoldError
from swe_scaffold.files import utc_now, write_json
from swe_scaffold.sandbox import Snapshot
from swe_scaffold.terminal import SILENT, Reporter
from swe_scaffold.version import VERSION
from swe_scaffold.walkthrough.chat_model import ChatModel
from swe_scaffold.walkthrough.environment import ReadOnlyEnvironment
from swe_scaffold.walkthrough.prompts import INSTANCE, SYSTEM
from swe_scaffold.walkthrough.tools import REPORT

_FORMAT_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Walk:
    """How a walkthrough ended.

    Attributes:
        exit_status: `Submitted`, or why it ended without a report.
        report: What was submitted.
        unchanged: Whether the tree is what it was.
        changed: The paths that are not, the first of them.
        steps: Answers of the model.
        seconds: From the first step to the last look at the tree.
        trajectory: The whole of it, in mini-swe-agent's format.
    """

    exit_status: str
    report: str
    unchanged: bool
    changed: list[str]
    steps: int
    seconds: float
    trajectory: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether there is a report, and the tree is what it was."""
        return self.exit_status == "Submitted" and self.unchanged


def walk(
    environment: ReadOnlyEnvironment,
    model: ChatModel,
    task: str,
    *,
    known: Mapping[str, str] | None = None,
    max_steps: int = 40,
    output: Path | None = None,
    reporter: Reporter = SILENT,
) -> Walk:
    """Let a model walk through a repository, and look at the tree again in the end.

    Args:
        environment: The repository, and the sandbox.
        model: Who chooses the steps.
        task: What the walkthrough is about.
        known: What the record says of the task: `instance_id`, `repo`; where there is no id, it is
            made of repository and task.
        max_steps: Most answers of the model.
        output: Where the trajectory is written, after every step.
        reporter: Where each step is told.

    Raises:
        MissingExtra: mini-swe-agent is not installed.
        ScaffoldError: The model failed; the trajectory so far is kept.
    """
    facts: dict[str, Any] = {
        "instance_id": name_of(environment.repo.name, environment.before, task),
        **{name: value for name, value in (known or {}).items() if value},
        "task": task,
        "swe_scaffold_version": VERSION,
        "started": utc_now(),
    }
    agent = _agent_class()(
        model,
        environment,
        system_template=SYSTEM,
        instance_template=INSTANCE,
        step_limit=max_steps,
        cost_limit=0.0,
        max_consecutive_format_errors=_FORMAT_ERRORS,
        output_path=output,
    )
    agent.facts, agent.reporter = facts, reporter
    start = time.monotonic()
    try:
        ended = agent.run(task)
    finally:
        try:
            if environment.after is None:
                environment.finish()
        finally:
            facts["seconds"] = round(time.monotonic() - start, 3)
            trajectory: dict[str, Any] = agent.save(output)
    repository = trajectory["info"]["repository"]
    return Walk(
        exit_status=str(ended.get("exit_status", "")),
        report=str(ended.get("submission", "")),
        unchanged=bool(environment.unchanged),
        changed=list(repository.get("changed", [])),
        steps=agent.n_calls,
        seconds=facts["seconds"],
        trajectory=trajectory,
    )


def name_of(repo: str, tree: Snapshot, task: str) -> str:
    """Return an id that other repositories, states of this one, and other tasks do not have."""
    known = f"{tree.sha256}\0{task}".encode("utf-8", "surrogatepass")
    return f"{repo}-{hashlib.sha256(known).hexdigest()[:12]}"


def require_agent() -> None:
    """Import mini-swe-agent without what it does on the way: a banner, a folder, variables.

    Raises:
        ImportError: It is not installed.
    """
    with _undisturbed():
        importlib.import_module("minisweagent.agents.default")


def _agent_class() -> type[Any]:
    require_agent()
    from minisweagent.agents.default import DefaultAgent

    class Agent(DefaultAgent):  # type: ignore[misc]
        """mini-swe-agent's loop; it writes atomically, tells its steps, keeps no traceback."""

        facts: dict[str, Any]
        reporter: Reporter

        def query(self) -> dict[str, Any]:
            message: dict[str, Any] = super().query()
            for action in message["extra"]["actions"]:
                said = REPORT if action["tool"] == REPORT else action["command"]
                self.reporter.say(f"step {self.n_calls}: {said}")
            return message

        def handle_uncaught_exception(self, e: Exception) -> list[dict[str, Any]]:
            reason = str(e) if isinstance(e, ScaffoldError) else type(e).__name__
            extra = {"exit_status": type(e).__name__, "submission": ""}
            exit_message = {"role": "exit", "content": reason, "extra": extra}
            found: list[dict[str, Any]] = self.add_messages(exit_message)
            return found

        def save(self, path: Path | None, *extra_dicts: Any) -> dict[str, Any]:
            data: dict[str, Any] = self.serialize({"info": self.facts}, *extra_dicts)
            data["info"]["config"]["agent"].pop("output_path", None)
            if path is not None:
                write_json(path, data)
            return data

    return Agent


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Import inside as if nobody had settings: no folder of the user's is made or read."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MSWEA_GLOBAL_CONFIG_DIR"] = folder
        os.environ["MSWEA_SILENT_STARTUP"] = "1"
        try:
            yield
        finally:
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)
    logging.getLogger("minisweagent").setLevel(logging.ERROR)
