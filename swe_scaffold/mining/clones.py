"""The clone of a task's repository, looked for below one folder."""

from __future__ import annotations

import re
from pathlib import Path

from swe_scaffold.git import Repository, is_object_id, is_repository, open_repository
from swe_scaffold.terminal import show
from swe_scaffold.types import Task

_REPO_PART = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)


class NoCodeError(Exception):
    """Why a task's code cannot be had: a snake_case `reason`, and the same for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def find_clone(repos: Path, task: Task) -> Repository:
    """Open the first clone of the task's repository that has its base commit.

    For `owner/name`, these folders below `repos` are tried, each also with `.git` at its end:
    `owner__name`, `owner/name`, `name`.

    Raises:
        NoCodeError: There is no clone (`no_clone`) or none with the commit (`no_commit`).
        DataError: What stands there cannot be opened.
    """
    if not is_object_id(task.base_commit):
        raise NoCodeError("no_commit", "the task names no base commit")
    found = False
    for name in _folder_names(task.repo):
        folder = repos / name
        if not is_repository(folder):
            continue
        found = True
        repository = open_repository(folder)
        if repository.has_commit(task.base_commit):
            return repository
    if found:
        raise NoCodeError("no_commit", f"{task.base_commit} is not in the clone")
    raise NoCodeError("no_clone", f"there is no clone of {show(task.repo, width=80)}")


def _folder_names(repo: str) -> list[str]:
    parts = repo.split("/")
    if len(parts) > 2 or not all(map(_REPO_PART.fullmatch, parts)):
        return []
    names = ["__".join(parts), repo, parts[-1]]
    return [name + end for name in dict.fromkeys(names) for end in ("", ".git")]
