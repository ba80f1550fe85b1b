"""The command that walks through a repository: walkthrough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from swe_scaffold.cli.app import APP, Session, command
from swe_scaffold.cli.options import (
    ApiBase,
    ApiKeyEnv,
    Base,
    Temperature,
    Timeout,
    TrustTemplate,
)
from swe_scaffold.cli.tables import facts
from swe_scaffold.errors import CheckFailed, DataError, IntegrityError, ScaffoldError, UsageError
from swe_scaffold.terminal import show

if TYPE_CHECKING:
    from swe_scaffold.engine.sampling import Sampling
    from swe_scaffold.walkthrough import Subject, Walk
    from swe_scaffold.walkthrough.chat_model import ChatModel

Backend = Literal["auto", "bwrap", "landlock"]
Repo = Annotated[Path, typer.Argument(metavar="REPO", help="Folder of the repository.")]
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
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier walkthrough there.")
]
MaxSteps = Annotated[int, typer.Option(metavar="N", min=1, help="Most answers of the model.")]


@command(
    APP,
    "walkthrough",
    examples=(
        "swe-scaffold walkthrough path/to/repository --task 'Where are redirects followed?'",
        "swe-scaffold walkthrough . --api-base http://127.0.0.1:8000/v1 --model qwen",
        "swe-scaffold walkthrough . --model artifacts/checkpoints/mine",
    ),
)
def walkthrough(  # noqa: PLR0913 one parameter per option
    session: Session,
    repo: Repo,
    task: Task = None,
    task_file: TaskFile = None,
    instance: Instance = None,
    tasks: Tasks = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Run folder, model folder or hub id; with --api-base the name at the server.",
            show_default="a scripted guide",
        ),
    ] = None,
    api_base: ApiBase = None,
    api_key_env: ApiKeyEnv = None,
    timeout: Timeout = 600.0,
    temperature: Temperature = 0.0,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most tokens of an answer.")
    ] = 1024,
    base: Base = None,
    trust_template: TrustTemplate = False,
    output: Output = None,
    overwrite: Overwrite = False,
    max_steps: MaxSteps = 40,
    sandbox: Annotated[
        Backend,
        typer.Option(
            metavar="auto|bwrap|landlock",
            help="bubblewrap, or Landlock and seccomp; auto takes the first that works.",
        ),
    ] = "auto",
    allow_bash: Annotated[
        bool, typer.Option("--allow-bash", help="Offer a shell too, in the same sandbox.")
    ] = False,
) -> int:
    """Let an agent look through a repository that it cannot change, and report.

    Without --model a scripted guide does so, offline and in seconds. Whoever guides works in a
    sandbox without network; the content of the whole tree is compared before and after.
    """
    from swe_scaffold.engine.sampling import Sampling
    from swe_scaffold.walkthrough import explore

    _require_used(
        model,
        api_base,
        {
            "--temperature": temperature,
            "--max-new-tokens": max_new_tokens != 1024,
            "--base": base,
            "--trust-template": trust_template,
            "--api-key-env": api_key_env,
            "--timeout": timeout != 600.0,
        },
    )
    subject = subject_of(repo, task, task_file, instance, tasks, offline=session.offline)
    output = output or beside(repo)
    walked = explore(
        subject,
        _opener(
            session,
            model,
            api_base,
            sampling=Sampling(max_new_tokens, temperature, 1.0, 0),
            bash=allow_bash,
            served={"key_variable": api_key_env or "", "timeout_seconds": timeout},
            local={"base": base, "trust_template": trust_template},
        ),
        output,
        max_steps=max_steps,
        overwrite=overwrite,
        reporter=session.reporter,
        backend=sandbox,
        allow_bash=allow_bash,
    )
    return finish(session, walked, output)


def finish(session: Session, walked: Walk, output: Path) -> int:
    """Write the page, print the result, and say what is wrong with it."""
    from swe_scaffold.files import write_text
    from swe_scaffold.walkthrough import PAGE

    write_text(output / PAGE, _page(walked))
    session.result(_value(walked, output), _text(walked, output))
    if problem := _problem(walked):
        # With --json the one document has said it.
        if session.json:
            return problem.exit_code
        raise problem
    return 0


def _require_used(model: str | None, api_base: str | None, given: Mapping[str, object]) -> None:
    """Refuse options that would do nothing."""
    if api_base is not None and model is None:
        raise UsageError("--api-base needs --model, the name the server knows it by")
    of_servers, of_folders = ("--api-key-env", "--timeout"), ("--base", "--trust-template")
    for name, value in given.items():
        if value and model is None:
            raise UsageError(f"{name} is for models", hint="name one with --model")
        if value and name in of_servers and api_base is None:
            raise UsageError(f"{name} goes with --api-base")
        if value and name in of_folders and api_base is not None:
            raise UsageError(f"{name} is for models on this machine")


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
    """Return what is explored and why, from whichever option says so.

    Raises:
        UsageError: Several do, or there is no such folder.
        DataError: A file or task cannot be read.
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
        return Subject(repo, _statement(tasks, instance, offline=offline), instance)
    return Subject(repo, task or DEFAULT_TASK)


def _statement(tasks: str, instance: str, *, offline: bool) -> str:
    from swe_scaffold.sources import open_source
    from swe_scaffold.types import Task

    for item in open_source(tasks, offline=offline):
        if isinstance(item, Task) and item.instance_id == instance:
            return item.problem_statement
    raise DataError(f"has no task {show(instance)}", where=tasks)


def _opener(
    session: Session,
    model: str | None,
    api_base: str | None,
    *,
    sampling: Sampling,
    bash: bool,
    served: Mapping[str, Any],
    local: Mapping[str, Any],
) -> Callable[[], ChatModel]:
    """Return what opens the guide that the options name."""
    if model is None:

        def scripted() -> ChatModel:
            from swe_scaffold.walkthrough.guide import ScriptedGuide

            return ScriptedGuide()

        return scripted

    def loaded() -> ChatModel:
        from swe_scaffold.prediction.http import open_endpoint
        from swe_scaffold.prediction.local import load_local
        from swe_scaffold.prediction.server import ServedModel
        from swe_scaffold.walkthrough.asked_model import PATIENCE, AskedModel

        if api_base is None:
            found = load_local(model, offline=session.offline, reporter=session.reporter, **local)
            return AskedModel(found, sampling, bash=bash)
        endpoint = open_endpoint(api_base, offline=session.offline, **served)
        asked = ServedModel(endpoint, model, 1, PATIENCE, session.reporter)
        return AskedModel(asked, sampling, bash=bash)

    return loaded


def _page(walked: Walk) -> str:
    from dataclasses import asdict

    from swe_scaffold.report.walk_page import walk_page
    from swe_scaffold.walkthrough.seen import inspected, steps_of
    from swe_scaffold.walkthrough.summary import verdict

    trajectory = walked.trajectory
    steps = [asdict(step) for step in steps_of(trajectory)]
    files = [asdict(file) for file in inspected(trajectory)]
    info = trajectory["info"]
    return walk_page(info, verdict(info["repository"]), steps, files)


def _value(walked: Walk, output: Path) -> dict[str, Any]:
    from swe_scaffold.walkthrough.seen import inspected

    return {
        "exit_status": walked.exit_status,
        "submitted": walked.exit_status == "Submitted",
        "unchanged": walked.unchanged,
        "changed": walked.changed,
        "steps": walked.steps,
        "seconds": walked.seconds,
        "files": [
            {"path": file.path, "ranges": [list(pair) for pair in file.ranges]}
            for file in inspected(walked.trajectory)
        ],
        "report": walked.report,
        "output": str(output),
    }


def _text(walked: Walk, output: Path) -> str:
    from swe_scaffold.terminal import show_block
    from swe_scaffold.walkthrough import PAGE
    from swe_scaffold.walkthrough.seen import inspected
    from swe_scaffold.walkthrough.summary import verdict

    about = facts(
        "walkthrough",
        [
            ("ended", walked.exit_status),
            ("steps", f"{walked.steps} in {walked.seconds:.1f} s"),
            ("files inspected", str(len(inspected(walked.trajectory)))),
            ("repository", verdict(walked.trajectory["info"]["repository"])),
            ("page", str(output / PAGE)),
        ],
    )
    return f"{show_block(walked.report)}\n\n{about}" if walked.report else about


def _problem(walked: Walk) -> ScaffoldError | None:
    """Return what is wrong with a walkthrough that has come to its end."""
    if not walked.unchanged:
        return IntegrityError(
            f"the repository is not what it was: {', '.join(map(show, walked.changed[:5]))}",
            hint="if nothing else works in this folder, please report this",
        )
    if walked.exit_status != "Submitted":
        return CheckFailed(
            f"the walkthrough ended without a report ({show(walked.exit_status)})",
            hint="raise --max-steps, or choose another model; what it saw is kept",
        )
    return None
