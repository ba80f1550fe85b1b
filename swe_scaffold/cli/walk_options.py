"""Options of the commands that walk through a repository, and what they say together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swe_scaffold import types
from swe_scaffold.errors import DataError, UsageError
from swe_scaffold.terminal import show

if TYPE_CHECKING:
    from swe_scaffold.walkthrough import Subject

Task = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="What the walkthrough is about.", show_default="the repository"
    ),
]
TaskFile = Annotated[Path | None, typer.Option(metavar="FILE", help="The same, from a file.")]
Instance = Annotated[
    str | None,
    typer.Option(metavar="ID", help="The same, from the task with this instance_id of --in."),
]
Tasks = Annotated[
    str | None,
    typer.Option("--in", metavar="TASKS", help="Tasks that --instance names one of."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where trajectory, summary and page are written; never in the repository.",
        show_default="REPO-walkthrough here, or beside the repository if here is in it",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier walkthroughs there.")]
MaxSteps = Annotated[int, typer.Option(metavar="N", min=1, help="Most answers of the model.")]


def beside(repo: Path) -> Path:
    """Return a folder for what is written: here, or beside the repository if here is in it."""
    repo, here = repo.resolve(), Path.cwd().resolve()
    name = f"{repo.name or 'root'}-walkthrough"
    return repo.parent / name if here.is_relative_to(repo) else Path(name)


def subject_of(
    repo: Path,
    task: str | None,
    file: Path | None,
    instance: str | None,
    tasks: str | None,
    *,
    offline: bool,
) -> Subject:
    """Return the repository and the task that one of the options names.

    Raises:
        UsageError: Two of them do, or the repository is no folder.
        DataError: The file cannot be read, or there is no such task.
    """
    from swe_scaffold.walkthrough import DEFAULT_TASK, Subject

    given = [
        name
        for name, value in (("--task", task), ("--task-file", file), ("--instance", instance))
        if value is not None
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} both say what the walkthrough is about")
    if (instance is None) != (tasks is None):
        raise UsageError("--instance and --in go together")
    if not repo.is_dir():
        raise UsageError("is not a folder", where=str(repo))
    if file is not None:
        try:
            task = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not UTF-8 text"
            raise DataError(str(reason).lower(), where=str(file)) from None
    if task is not None and not task.strip():
        raise UsageError("is empty", where="--task" if file is None else str(file))
    if instance is not None and tasks is not None:
        named = _task(tasks, instance, offline=offline)
        return Subject(repo, named.problem_statement, instance, named.repo)
    return Subject(repo, task or DEFAULT_TASK)


def _task(tasks: str, instance: str, *, offline: bool) -> types.Task:
    from swe_scaffold.sources import open_source

    for item in open_source(tasks, offline=offline):
        if isinstance(item, types.Task) and item.instance_id == instance:
            return item
    raise DataError(f"has no task {show(instance)}", where=tasks)
