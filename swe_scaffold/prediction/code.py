"""Files of local clones, as they are before a task is solved: what search/replace edits need."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from swe_scaffold.errors import DataError
from swe_scaffold.git import EXECUTABLE, REGULAR, Blob, Repository
from swe_scaffold.mining.clones import NoCodeError, find_clone
from swe_scaffold.patches import ReadFile
from swe_scaffold.types import Example, Origin, Task

_TREES = 4


@dataclass(frozen=True, slots=True)
class _Tree:
    repository: Repository
    files: dict[str, Blob]

    def read(self, path: str) -> str | None:
        blob = self.files.get(path)
        if blob is None or blob.mode not in (REGULAR, EXECUTABLE):
            return None
        data = next(self.repository.read_blobs([blob]))
        try:
            return None if data is None or b"\0" in data else data.decode("utf-8")
        except UnicodeDecodeError:
            return None


class CodeFiles:
    """Reads files at the base commit of a row; the trees of the last few are remembered.

    Clones are found as `mining.clones.find_clone` says.
    """

    def __init__(self, repos: Path) -> None:
        self._repos = repos
        self._trees: OrderedDict[tuple[str, str], _Tree | str] = OrderedDict()

    def of(self, example: Example) -> tuple[ReadFile | None, str]:
        """Return what reads the files of a row's repository, and `found` or why there are none."""
        commit = str(example.meta.get("base_commit") or "")
        key = (example.repo, commit)
        if key not in self._trees:
            self._trees[key] = self._open(*key)
        self._trees.move_to_end(key)
        while len(self._trees) > _TREES:
            self._trees.popitem(last=False)
        tree = self._trees[key]
        return (None, tree) if isinstance(tree, str) else (tree.read, "found")

    def _open(self, repo: str, commit: str) -> _Tree | str:
        task = Task("", repo, "", Origin("", 0), base_commit=commit)
        try:
            repository = find_clone(self._repos, task)
            return _Tree(repository, repository.tree(commit))
        except NoCodeError as problem:
            return problem.reason
        except DataError:
            return "unreadable"
