"""Code for prompts, from local clones: files a task's patch touches, or those its text speaks of.

Clones are looked for below one folder and read at the task's `base_commit`, so nothing of the fix
is there. `oracle` uses the patch to choose, `bm25` only the problem statement. A task whose code
cannot be shown stays as it is, with the reason. How pieces look in a prompt is left to `dataset`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from swe_scaffold.changed_paths import kind_of
from swe_scaffold.diffs import DEV_NULL, Hunk, parse_patch
from swe_scaffold.errors import DataError
from swe_scaffold.git import (
    EXECUTABLE,
    MAX_BLOB_BYTES,
    REGULAR,
    Blob,
    Repository,
)
from swe_scaffold.mining.clones import NoCodeError, find_clone
from swe_scaffold.mining.code_pieces import (
    Span,
    applies_exactly,
    around_lines,
    changed_lines,
    cut,
    sections,
    text_lines,
)
from swe_scaffold.mining.retrieval import Index, Vocabulary
from swe_scaffold.terminal import show
from swe_scaffold.types import CodeContext, Task

Mode = Literal["oracle", "bm25"]
CountTokens = Callable[[str], int]

MAX_FILES = 20
MAX_TREE_FILES = 30_000
MAX_TREE_BYTES = 128 << 20
CHARS_PER_TOKEN = 4
_TREES = 4
_MAX_TERMS = 4_000_000


@dataclass(frozen=True, slots=True)
class Contextual:
    """A task with its code, or unchanged with the reason why there is none.

    Attributes:
        task: With `context`, and `extra["context"]` naming the mode, where code was found.
        missing: `no_clone`, `no_commit`, `no_file`, `patch_mismatch`, `tree_too_large`,
            `unreadable`, `over_budget`, or empty.
        detail: The same for people.
        left_out: Chosen files that are not shown whole, or not at all.
    """

    task: Task
    missing: str = ""
    detail: str = ""
    left_out: int = 0


@dataclass(slots=True)
class _Tree:
    repository: Repository
    files: dict[str, Blob]
    index: tuple[Index, tuple[str, ...]] | None = None


def estimate_tokens(text: str) -> int:
    """Estimate tokens as characters divided by four, rounded up; code is often denser."""
    return -(-len(text) // CHARS_PER_TOKEN)


class CodeContexts:
    """Adds code to tasks; trees, indexes and words are remembered from one task to the next.

    Args:
        repos: The folder of clones and bare mirrors.
        mode: `oracle` or `bm25`.
        tokens: Most tokens of all code shown with one task.
        count: Counts the tokens of a text.
    """

    def __init__(
        self, repos: Path, *, mode: Mode, tokens: int, count: CountTokens = estimate_tokens
    ) -> None:
        self._repos, self._mode, self._tokens, self._count = repos, mode, tokens, count
        self._trees: OrderedDict[tuple[str, str], _Tree] = OrderedDict()
        self._vocabulary = Vocabulary()

    def add(self, task: Task) -> Contextual:
        """Return the task with its code; what it brought along before is replaced.

        Raises:
            MissingExtra: bm25s is not installed.
        """
        room = _Room(self._tokens, self._count)
        try:
            tree = self._tree(task)
            if self._mode == "oracle":
                _take_touched(room, task.patch, tree)
            else:
                self._take_ranked(room, task.problem_statement, tree)
        except NoCodeError as problem:
            return Contextual(task, problem.reason, problem.detail)
        except DataError as error:
            return Contextual(task, "unreadable", error.message)
        if not room.pieces:
            detail = f"no piece of code fits into {self._tokens} tokens"
            return Contextual(task, "over_budget", detail, room.left_out)
        extra = {**task.extra, "context": self._mode}
        return Contextual(
            replace(task, context=tuple(room.pieces), extra=extra), left_out=room.left_out
        )

    def _tree(self, task: Task) -> _Tree:
        key = (task.repo, task.base_commit)
        if len(self._vocabulary) > _MAX_TERMS:
            # An index is made of its vocabulary's numbers and goes with it.
            self._vocabulary = Vocabulary()
            self._trees.clear()
        if key not in self._trees:
            repository = find_clone(self._repos, task)
            self._trees[key] = _Tree(repository, repository.tree(task.base_commit))
        self._trees.move_to_end(key)
        while len(self._trees) > _TREES:
            self._trees.popitem(last=False)
        return self._trees[key]

    def _take_ranked(self, room: _Room, query: str, tree: _Tree) -> None:
        """Take the best files whole, or their best sections where a file does not fit."""
        index, paths = self._index(tree)
        ranked = index.rank(self._vocabulary.numbers(query))[:MAX_FILES]
        if not ranked:
            raise NoCodeError("no_file", "no file shares a word with the problem statement")
        for file in _read(tree, [paths[position] for position in ranked]):
            if file.text is None or room.take(file, [file.whole]):
                continue
            spans = sections(file.path, file.text)
            documents = [self._vocabulary.document(cut(file.lines, span)) for span in spans]
            order = Index(documents).rank(self._vocabulary.numbers(query))
            room.take(file, [spans[position] for position in order])
            room.left_out += 1

    def _index(self, tree: _Tree) -> tuple[Index, tuple[str, ...]]:
        if tree.index is None:
            tree.index = self._make_index(tree)
        return tree.index

    def _make_index(self, tree: _Tree) -> tuple[Index, tuple[str, ...]]:
        """Index the code of a tree: UTF-8 files of up to MAX_BLOB_BYTES, without tests."""
        files = {
            path: blob
            for path, blob in tree.files.items()
            if blob.size <= MAX_BLOB_BYTES and _is_shown(blob) and kind_of(path) == "code"
        }
        size = sum(blob.size for blob in files.values())
        if len(files) > MAX_TREE_FILES or size > MAX_TREE_BYTES:
            detail = f"{len(files)} files of code, {size >> 20} MiB"
            raise NoCodeError("tree_too_large", detail)
        keys = {path: f"{blob.id}:{path}" for path, blob in files.items()}
        documents = {path: self._vocabulary.known(key) for path, key in keys.items()}
        for file in _read(tree, [path for path, known in documents.items() if known is None]):
            if file.text is None:
                del documents[file.path]
            else:
                text = f"{file.path}\n{file.text}"
                documents[file.path] = self._vocabulary.read(keys[file.path], text)
        kept = {path: document for path, document in documents.items() if document is not None}
        return Index(list(kept.values())), tuple(kept)


class _File:
    """A file as it is at the commit; `text` is None where it is too large or not UTF-8 text."""

    def __init__(self, path: str, text: str | None) -> None:
        self.path, self.text = path, text

    @cached_property
    def lines(self) -> list[str]:
        return text_lines(self.text or "")

    @property
    def whole(self) -> Span:
        return Span(1, max(1, len(self.lines)))


class _Room:
    """Pieces of code within a budget, in the order they are to be shown."""

    def __init__(self, tokens: int, count: CountTokens) -> None:
        self.pieces: list[CodeContext] = []
        self.left_out = 0
        self._left, self._count = tokens, count

    def take(self, file: _File, spans: Sequence[Span]) -> bool:
        """Take the spans that fit, the first one first; they are shown in the file's order."""
        taken: list[Span] = []
        for span in spans:
            cost = self.cost(file, span)
            if cost <= self._left:
                self._left -= cost
                taken.append(span)
        self.pieces += [_piece(file, span) for span in sorted(taken)]
        return len(taken) == len(spans)

    def fits(self, files: Sequence[_File]) -> bool:
        """Whether all of some files can be shown whole."""
        return sum(self.cost(file, file.whole) for file in files) <= self._left

    def cost(self, file: _File, span: Span) -> int:
        """Count the tokens of a piece with its heading and fence."""
        piece = _piece(file, span)
        heading = f"{piece.path}, lines {span.first}-{span.last}:\n```\n"
        return self._count(f"{heading}{piece.text}```\n\n")


def _take_touched(room: _Room, patch: str, tree: _Tree) -> None:
    """Take the files that a patch changes: whole if all fit, else only around the changes.

    Files it adds are not there yet. Code comes first, and of it what changes most.
    """
    changes: dict[str, list[Hunk]] = {}
    for change in parse_patch(patch):
        if change.old_path != DEV_NULL:
            changes.setdefault(change.old_path, []).extend(change.hunks)
    if not changes:
        raise NoCodeError("no_file", "the patch changes no file that exists")
    if missing := [path for path in changes if path not in tree.files]:
        raise NoCodeError("no_file", f"not in the tree: {show(missing[0], width=80)}")
    paths = sorted(changes, key=lambda p: (kind_of(p) != "code", -len(changed_lines(changes[p]))))
    files = [file for file in _read(tree, paths) if file.text is not None]
    if not files:
        raise NoCodeError("unreadable", "no file that the patch changes is text in the clone")
    room.left_out += len(paths) - len(files)
    for file in files:
        if not applies_exactly(changes[file.path], file.text or ""):
            detail = f"the patch does not fit {show(file.path, width=80)}"
            raise NoCodeError("patch_mismatch", detail)
    whole = room.fits(files)
    for file in files:
        spans = [file.whole]
        if not whole:
            lines = changed_lines(changes[file.path]) or [1]
            spans = around_lines(file.path, file.text or "", lines)
        room.left_out += not (room.take(file, spans) and whole)


def _read(tree: _Tree, paths: Sequence[str]) -> Iterator[_File]:
    contents = tree.repository.read_blobs([tree.files[path] for path in paths])
    for path, data in zip(paths, contents, strict=True):
        shown = data is not None and _is_shown(tree.files[path]) and b"\0" not in data
        try:
            yield _File(path, data.decode("utf-8") if shown and data is not None else None)
        except UnicodeDecodeError:
            yield _File(path, None)


def _is_shown(blob: Blob) -> bool:
    return blob.mode in (REGULAR, EXECUTABLE)


def _piece(file: _File, span: Span) -> CodeContext:
    return CodeContext(file.path, span.first, cut(file.lines, span))
