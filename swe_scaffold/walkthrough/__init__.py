"""Read-only walkthroughs of a repository: an agent looks, explains, and cannot change anything.

- `__init__.py`: `explore`, one repository; what is written, and where.
- `batch.py`: many tasks.  `found.py`: what was found of their gold patches, with intervals.
- `session.py`: mini-swe-agent's loop around model and environment.
- `environment.py`: the tools in a sandbox, the tree before and after.
- `tools.py`: what an agent is offered.  `toolbox.py`: the tools, a program of its own.
- `guides.py`: who chooses the steps.  `chat_model.py`: what all models share.
- `guide.py`: the one that needs no model.  `ranking.py`: which files it puts first.
- `asked_model.py`: a language model.
- `prompts.py`: what it is told.  `summary.py`: the page in Markdown.
- `seen.py`: what was looked at, against a patch.
- `swe_agent.py`: SWE-agent 1.1 in a sandbox.  `swe_agent_run.py`: its trajectory.
- `swe_agent_tool.py`: what its bundle of tools runs.  `relay.py`: its way to a model's server.

mini-swe-agent comes with the extra `agent` and is imported where a session begins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.errors import UsageError
from swe_scaffold.files import folder_lock, remove, require_writable, write_json, write_text
from swe_scaffold.terminal import SILENT, Reporter
from swe_scaffold.walkthrough.chat_model import ChatModel
from swe_scaffold.walkthrough.environment import ReadOnlyEnvironment
from swe_scaffold.walkthrough.prompts import DEFAULT_TASK
from swe_scaffold.walkthrough.session import Walk, require_agent, walk
from swe_scaffold.walkthrough.summary import summary

__all__ = [
    "DEFAULT_TASK",
    "PAGE",
    "TRAJECTORY",
    "Subject",
    "Walk",
    "clear_room",
    "explore",
    "require_agent",
]

TRAJECTORY, ATIF = "walkthrough.traj.json", "walkthrough.atif.json"
SUMMARY, PAGE = "walkthrough.md", "walkthrough.html"
# What SWE-agent writes, where it is the agent.
SWE_AGENT = "walkthrough.sweagent"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is explored, and why.

    Attributes:
        repo: The folder.
        task: What the walkthrough is about, in words.
        instance_id: The id of the task, if it has one.
        repo_name: The repository's name, as `owner/name`, if it is known.
    """

    repo: Path
    task: str = DEFAULT_TASK
    instance_id: str = ""
    repo_name: str = ""


def explore(
    subject: Subject,
    open_guide: Callable[[], ChatModel],
    output: Path,
    *,
    page: Callable[[Mapping[str, Any]], str] | None = None,
    max_steps: int = 40,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
    **environment: Any,
) -> Walk:
    """Walk through a repository and write what came of it into a folder outside of it.

    Args:
        subject: The repository and the task.
        open_guide: Opens who chooses the steps, once everything else is in order.
        output: Folder for the trajectory (after every step), its ATIF form and the summary.
        page: Makes an HTML page of the trajectory, which is written too.
        max_steps: Most answers of the model.
        overwrite: Whether an earlier walkthrough in this folder goes.
        reporter: Where each step is told.
        environment: Settings of the sandbox, as `environment.EnvironmentConfig` has them.

    Raises:
        UsageError: There is no such folder, or the output lies within it, or has a walkthrough.
        LockedError: Another walkthrough is being written there.
        EnvironmentFailure: No sandbox works here, or the model cannot be reached.
        IntegrityError: The sandbox let a write through.
    """
    require_agent()
    require_outside(output, subject.repo)
    require_writable(output)
    with folder_lock(output):
        clear_room(output, overwrite=overwrite)
        place = ReadOnlyEnvironment(repo=str(subject.repo), **environment)
        walked = walk(
            place,
            open_guide(),
            subject.task,
            known={"instance_id": subject.instance_id, "repo": subject.repo_name},
            max_steps=max_steps,
            output=output / TRAJECTORY,
            reporter=reporter,
        )
        write_text(output / SUMMARY, summary(walked.trajectory))
        if walked.steps:
            write_json(output / ATIF, as_atif(walked.trajectory))
        if page is not None:
            write_text(output / PAGE, page(walked.trajectory))
    return walked


def clear_room(output: Path, *, overwrite: bool) -> None:
    """Refuse a folder with a walkthrough, or remove all of it: none is made of two.

    Raises:
        UsageError: There is one, and it is not to be replaced.
    """
    there = [output / name for name in (TRAJECTORY, ATIF, SUMMARY, PAGE, SWE_AGENT)]
    there = [path for path in there if os.path.lexists(path)]
    if there and not overwrite:
        raise UsageError(
            f"there is a walkthrough already ({there[0].name})",
            where=f"--output {output}",
            hint="name another folder, or add --overwrite",
        )
    for path in there:
        remove(path)


def as_atif(trajectory: dict[str, Any]) -> dict[str, Any]:
    """Return a trajectory of ours as an ATIF document, by way of the rows that `build` makes."""
    from swe_scaffold.dataset.atif import example_to_atif
    from swe_scaffold.dataset.trajectories import trajectory_to_example
    from swe_scaffold.sources.mini_swe_agent import read
    from swe_scaffold.types import Origin

    found = read(trajectory, Origin(TRAJECTORY, 0))
    return example_to_atif(trajectory_to_example(found))


def require_outside(output: Path, repo: Path) -> None:
    """Refuse to write into the repository.

    Raises:
        UsageError: The folder lies in it.
    """
    if output.resolve().is_relative_to(repo.resolve()):
        raise UsageError(
            "lies within the repository, which is not to be changed",
            where=f"--output {output}",
            hint="name a folder elsewhere",
        )
