"""The command that walks through a repository, or those of many tasks: walkthrough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    keep_option,
)
from swe_scaffold.cli.walk_endings import end, finish, page_of
from swe_scaffold.cli.walk_options import (
    Instance,
    MaxSteps,
    Overwrite,
    Task,
    TaskFile,
    Tasks,
    beside,
    subject_of,
)
from swe_scaffold.errors import CheckFailed, IntegrityError, ScaffoldError, UsageError
from swe_scaffold.terminal import show

if TYPE_CHECKING:
    from swe_scaffold.scoring import reading
    from swe_scaffold.walkthrough import Subject
    from swe_scaffold.walkthrough.batch import Batch
    from swe_scaffold.walkthrough.guides import Guide

Backend = Literal["auto", "bwrap", "landlock"]
_BATCH_FOLDER = Path("walkthroughs")


@command(
    APP,
    "walkthrough",
    examples=(
        "swe-scaffold walkthrough path/to/repository --task 'Where are redirects followed?'",
        "swe-scaffold walkthrough . --api-base http://127.0.0.1:8000/v1 --model qwen",
        "swe-scaffold walkthrough . --model artifacts/checkpoints/mine",
        "swe-scaffold walkthrough --batch tasks.jsonl --repos clones/ --jobs 4",
    ),
)
def walkthrough(  # noqa: PLR0913 one parameter per option
    session: Session,
    repo: Annotated[
        Path | None,
        typer.Argument(metavar="REPO", help="Folder of the repository.", show_default=False),
    ] = None,
    task: Task = None,
    task_file: TaskFile = None,
    instance: Instance = None,
    tasks: Tasks = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="TASKS",
            help="A walkthrough for every task of a file, folder or hub id; needs --repos.",
        ),
    ] = None,
    repos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Clones of the repositories of --batch."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split of the source of --batch.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Walkthroughs of --batch at a time.")
    ] = 1,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Another --batch, compared task by task."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR", help="Of --batch, write the trajectories that pass, as 'hit_at_5'."
        ),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where --keep writes (JSONL), for build.")
    ] = None,
    cluster_by: Annotated[
        str,
        typer.Option(
            metavar="UNIT", help="Independent unit of --batch's intervals: group, repo or row."
        ),
    ] = "group",
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
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where trajectory, summary and page are written; never in the repository.",
            show_default="REPO-walkthrough here, or beside the repository if here is in it; "
            f"of --batch {_BATCH_FOLDER}",
        ),
    ] = None,
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

    With --batch every task gets a walkthrough of its base commit, and what was found is held
    against its gold patch. The same command goes on where it stopped.
    """
    from swe_scaffold.engine.sampling import Sampling
    from swe_scaffold.walkthrough.guides import Guide

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
    one = {"REPO": repo, "--task": task, "--task-file": task_file, "--instance": instance}
    many = {"--repos": repos, "--split": split, "--against": against, "--jobs": jobs > 1}
    many |= {"--cluster-by": cluster_by != "group", "--keep": keep, "--rows": rows}
    _require_one_kind(batch, one | {"--in": tasks}, many)
    guide = Guide(
        model=model,
        api_base=api_base,
        key_variable=api_key_env or "",
        timeout_seconds=timeout,
        base=base,
        trust_template=trust_template,
        sampling=Sampling(max_new_tokens, temperature, 1.0, 0),
        bash=allow_bash,
        offline=session.offline,
    )
    environment = {"backend": sandbox, "allow_bash": allow_bash}
    if batch is None:
        assert repo is not None
        subject = subject_of(repo, task, task_file, instance, tasks, offline=session.offline)
        return _walk_one(
            session, subject, guide, output, environment, max_steps=max_steps, overwrite=overwrite
        )
    assert repos is not None
    from swe_scaffold.metrics.clustered import Settings
    from swe_scaffold.scoring.reading import read_tasks
    from swe_scaffold.walkthrough.batch import Batch

    found = read_tasks(batch, split=split, offline=session.offline)
    chosen = Batch(
        repos=repos,
        output=output or _BATCH_FOLDER,
        page=page_of,
        guide=guide,
        max_steps=max_steps,
        environment=environment,
        jobs=jobs,
        settings=Settings(cluster_by=cluster_by),
        keep=keep_option(keep, rows, example="hit_at_5 and file_f1 > 0.2"),
    )
    return _walk_many(session, found, chosen, against, overwrite=overwrite)


def _walk_one(
    session: Session,
    subject: Subject,
    guide: Guide,
    output: Path | None,
    environment: Mapping[str, Any],
    *,
    max_steps: int,
    overwrite: bool,
) -> int:
    from swe_scaffold.walkthrough import explore

    output = output or beside(subject.repo)
    walked = explore(
        subject,
        lambda: guide.make(session.reporter),
        output,
        page=page_of,
        max_steps=max_steps,
        overwrite=overwrite,
        reporter=session.reporter,
        **environment,
    )
    return finish(session, walked, output)


def _walk_many(
    session: Session,
    tasks: reading.TaskFile,
    batch: Batch,
    against: Path | None,
    *,
    overwrite: bool,
) -> int:
    from swe_scaffold.cli.walking_text import many_text
    from swe_scaffold.files import write_text
    from swe_scaffold.report.walks_page import walks_page
    from swe_scaffold.walkthrough.batch import INDEX, walk_tasks

    walks = walk_tasks(tasks, batch, other=against, overwrite=overwrite, reporter=session.reporter)
    write_text(batch.output / INDEX, walks_page(walks.report, walks.rows))
    session.result(walks.report, many_text(walks.report, batch.output))
    return end(session, _shortfall(walks.rows))


def _shortfall(rows: Sequence[Mapping[str, Any]]) -> ScaffoldError | None:
    """Return what is wrong with a batch that has come to its end."""
    others = [row for row in rows if row["status"] != "submitted"]
    changed = [row["instance_id"] for row in others if row["status"] == "changed"]
    if changed:
        return IntegrityError(f"a tree is not what it was: {', '.join(map(show, changed[:5]))}")
    if not others:
        return None
    row = others[0]
    why = row["detail"] or row.get("exit_status", "")
    first = f"{show(row['instance_id'])}: {row['status']}, {show(why)}"
    return CheckFailed(
        f"{len(others)} of {len(rows)} tasks have no report ({first})",
        hint="those without a clone are tried again by the same command",
    )


def _require_one_kind(
    batch: str | None, one: Mapping[str, object], many: Mapping[str, object]
) -> None:
    """Refuse options of the other kind: one repository, or many tasks."""
    if batch is None:
        if others := [name for name, value in many.items() if value]:
            raise UsageError(f"{others[0]} goes with --batch")
        if one["REPO"] is None:
            hint = "swe-scaffold walkthrough path/to/repository, or --batch TASKS --repos DIR"
            raise UsageError("no repository is named", hint=hint)
        return
    if others := [name for name, value in one.items() if value is not None]:
        raise UsageError(f"{others[0]} is for one repository, --batch for many")
    if many["--repos"] is None:
        raise UsageError("--batch needs --repos, the folder of the clones")


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
