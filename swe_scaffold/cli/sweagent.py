"""The command that has SWE-agent walk through a repository: sweagent."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swe_scaffold.cli.app import APP, Session, command
from swe_scaffold.cli.options import ApiBase, ApiKeyEnv
from swe_scaffold.cli.walk_endings import finish, page_of
from swe_scaffold.cli.walk_options import (
    Instance,
    MaxSteps,
    Output,
    Overwrite,
    Task,
    TaskFile,
    Tasks,
    beside,
    subject_of,
)
from swe_scaffold.errors import DataError, UsageError

if TYPE_CHECKING:
    from swe_scaffold.walkthrough.swe_agent import Answers


@command(
    APP,
    "sweagent",
    examples=(
        "swe-scaffold sweagent . --api-base http://127.0.0.1:8000/v1 --model qwen",
        "swe-scaffold sweagent . --checkout ~/SWE-agent --replay walkthrough.traj.json",
        "swe-scaffold sweagent . --replay replay.jsonl -- --agent.tools.execution_timeout 60",
    ),
)
def sweagent(  # noqa: PLR0913 one parameter per option
    session: Session,
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="Folder of the repository.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGUMENT...]", help="More arguments of `sweagent run`."),
    ] = None,
    checkout: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Checkout of SWE-agent 1.1.", envvar="SWE_AGENT_CHECKOUT"
        ),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Python that has what SWE-agent needs.",
            envvar="SWE_AGENT_PYTHON",
            show_default="CHECKOUT/.venv/bin/python, or this one",
        ),
    ] = None,
    task: Task = None,
    task_file: TaskFile = None,
    instance: Instance = None,
    tasks: Tasks = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name at the server.")
    ] = None,
    api_base: ApiBase = None,
    api_key_env: ApiKeyEnv = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Instead of a model: SWE-agent's replay file or our trajectory."
        ),
    ] = None,
    output: Output = None,
    overwrite: Overwrite = False,
    max_steps: MaxSteps = 40,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Most time for all of it.")
    ] = 3600.0,
) -> int:
    """Let SWE-agent 1.1 look through a repository that it cannot change, and report.

    All of it runs in bubblewrap, with our tools and configs/scaffold_readonly.yaml: the repository
    is read-only, and nothing but the model's server can be reached.
    """
    from swe_scaffold.walkthrough.swe_agent import explore_with_swe_agent, find_swe_agent

    if checkout is None:
        raise UsageError(
            "needs --checkout, a checkout of SWE-agent 1.1",
            hint="git clone https://github.com/SWE-agent/SWE-agent, and pip install -e . in it",
        )
    subject = subject_of(repo, task, task_file, instance, tasks, offline=session.offline)
    guide = replace(
        _guide(model, api_base, api_key_env, replay, offline=session.offline), max_steps=max_steps
    )
    own = checkout / ".venv" / "bin" / "python"
    python = python or (own if own.exists() else Path(sys.executable))
    output = output or beside(repo)
    walked = explore_with_swe_agent(
        subject,
        find_swe_agent(checkout, python, arguments or (), seconds=time_limit),
        guide,
        output,
        page=page_of,
        overwrite=overwrite,
        reporter=session.reporter,
    )
    return finish(session, walked, output)


def _guide(
    model: str | None, api_base: str | None, key: str | None, replay: Path | None, *, offline: bool
) -> Answers:
    from swe_scaffold.prediction.http import open_endpoint
    from swe_scaffold.walkthrough.swe_agent import Answers, replaying

    if replay is not None:
        if model is not None or api_base is not None:
            raise UsageError("--replay and --model both say who chooses the steps")
        try:
            data = replay.read_bytes()
        except OSError as error:
            raise DataError((error.strerror or str(error)).lower(), where=str(replay)) from None
        return replaying(data, str(replay))
    if model is None or api_base is None:
        raise UsageError("needs --api-base and --model, or --replay")
    return Answers(model, open_endpoint(api_base, key_variable=key or "", offline=offline))
