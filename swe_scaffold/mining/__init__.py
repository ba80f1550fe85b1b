"""Tasks from the history of a clone: every commit becomes one or is counted with its reason.

A task asks for what one commit did: the patch in two parts (code, tests), told by the issue the
commit closes or by its own message. No test was run, so rows say `validated: false`.

- `__init__.py`: the walk through the history.
- `commits.py`: what a message and a commit mean.
- `clones.py`: the clone of a task's repository.
- `checkouts.py`: the files of its commit, as a folder.
- `code_context.py`, with `code_pieces.py` and `retrieval.py`: code for prompts, from clones.

Running git is `git`'s.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from swe_scaffold.changed_paths import main_language
from swe_scaffold.errors import DataError, UsageError
from swe_scaffold.git import Change, Commit, Node, Repository
from swe_scaffold.jsonl import BadLine
from swe_scaffold.mining.commits import (
    MAX_ISSUE_DIGITS,
    Message,
    Parts,
    closed_issues,
    committed_at,
    has_hunks,
    is_revert,
    judge_author,
    judge_changes,
    judge_message,
    mentioned_numbers,
    read_message,
    split_patch,
)
from swe_scaffold.sources.fields import text
from swe_scaffold.sources.local import open_file
from swe_scaffold.terminal import show

_BATCH = 128
_SHA_CHARS = 12
_REPO = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REMOTE = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://(?:[^/@]*@)?[^/@:]+(?::[0-9]+)?/|[^/:@]+@[^/:@]+:)(.+)"
)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class MiningLimits:
    """Which commits are looked at and which make tasks.

    Attributes:
        max_commits: Most commits to look at, the newest; None looks at all.
        since: Only commits at or after this time, in seconds since 1970.
        max_patch_chars: Longest patch, tests included.
        max_files: Most files a commit may touch.
        min_message_chars: Shortest problem statement.
        keep_docs: Whether a commit that changes documentation only makes a task.
    """

    max_commits: int | None = None
    since: int | None = None
    max_patch_chars: int = 20_000
    max_files: int = 20
    min_message_chars: int = 20
    keep_docs: bool = False


@dataclass(frozen=True, slots=True)
class Issues:
    """Texts of a tracker by number; `read` counts the rows, pull requests among them left out."""

    texts: Mapping[int, str]
    read: int
    pull_requests: int


class _Draft(NamedTuple):
    node: Node
    commit: Commit
    message: Message
    statement: str
    issues: tuple[int, ...]
    created_at: str
    language: str = ""


class Mining:
    """SWE-bench-schema rows of a history, newest commit first, and what became of every commit.

    In `counts`, seen = kept + rejected by reason. The same clone gives the same rows.

    Args:
        repository: The clone.
        repo: The name of rows, as `repository_name` gives it.
        start: Branch, tag or commit to begin at.
        limits: See there.
        issues: Texts for commits that close an issue.

    Raises:
        DataError: There is no such commit, or the history cannot be listed.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        repo: str,
        start: str = "HEAD",
        limits: MiningLimits | None = None,
        issues: Issues | None = None,
    ) -> None:
        self.repo, self.start = repo, repository.resolve(start)
        self._repository = repository
        self._limits = limits or MiningLimits()
        self._issues = issues or Issues({}, 0, 0)
        self._nodes = repository.history(
            self.start, limit=self._limits.max_commits, since=self._limits.since
        )
        self._rejected: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()

    def __len__(self) -> int:
        """Number of commits to look at."""
        return len(self._nodes)

    def rows(self, advance: Callable[[int], object] = int) -> Iterator[dict[str, Any]]:
        """Yield the tasks; `advance` is called with the number of commits that are done."""
        for counter in (self._rejected, self._kept, self._languages):
            counter.clear()
        for start in range(0, len(self._nodes), _BATCH):
            batch = self._nodes[start : start + _BATCH]
            for draft, parts in self._patches(self._touching(self._drafts(batch))):
                yield self._row(draft, parts)
            advance(len(batch))

    @property
    def counts(self) -> dict[str, Any]:
        """What became of every commit and of what kind the tasks are, once `rows` has ended."""
        kept = self._kept
        return {
            "seen": len(self._nodes),
            "kept": kept["commit"] + kept["issue"],
            "rejected": _sorted(self._rejected),
            "message_source": {name: kept[name] for name in ("commit", "issue")},
            "with_tests": kept["with_tests"],
            "trailers_removed": kept["trailers_removed"],
            "kept_by_language": _sorted(self._languages),
            "issues_read": self._issues.read,
            "issues_that_are_pull_requests": self._issues.pull_requests,
        }

    def _drafts(self, nodes: Sequence[Node]) -> Iterator[_Draft]:
        """Read commits with one parent and find what tells of each."""
        linear = []
        for node in nodes:
            if len(node.parents) == 1:
                linear.append(node)
            else:
                self._rejected["merge" if node.parents else "no_parent"] += 1
        commits = self._repository.commits([node.sha for node in linear])
        for node, commit in zip(linear, commits, strict=True):
            draft = "unreadable" if commit is None else self._draft(node, commit)
            if isinstance(draft, str):
                self._rejected[draft] += 1
            else:
                yield draft

    def _draft(self, node: Node, commit: Commit) -> _Draft | str:
        message, created_at = read_message(commit.message), committed_at(commit.committed)
        if message is None:
            return "not_utf8"
        if not created_at:
            return "unreadable"
        if reason := "revert" if is_revert(message) else judge_author(commit):
            return reason
        issues = tuple(
            number
            for number in closed_issues(message.text, self.repo)
            if number in self._issues.texts
        )
        statement = "\n\n".join(self._issues.texts[number] for number in issues) or message.text
        if issues:
            reason = "short_message" if len(statement) < self._limits.min_message_chars else ""
        else:
            reason = judge_message(message, min_chars=self._limits.min_message_chars)
        return reason or _Draft(node, commit, message, statement, issues, created_at)

    def _touching(self, drafts: Iterator[_Draft]) -> Iterator[_Draft]:
        """Keep commits that touch code, and note its language."""
        waiting = list(drafts)
        for draft, changes in zip(waiting, self._repository.changes(_pairs(waiting)), strict=True):
            reason = "unreadable" if changes is None else self._judge(changes)
            if reason:
                self._rejected[reason] += 1
            else:
                paths = (change.path for change in changes or ())
                yield draft._replace(language=main_language(paths))

    def _judge(self, changes: Sequence[Change]) -> str:
        limits = self._limits
        return judge_changes(changes, max_files=limits.max_files, keep_docs=limits.keep_docs)

    def _patches(self, drafts: Iterator[_Draft]) -> Iterator[tuple[_Draft, Parts]]:
        waiting = list(drafts)
        for draft, data in zip(waiting, self._repository.patches(_pairs(waiting)), strict=True):
            parts = "unreadable" if data is None else self._parts(data)
            if isinstance(parts, str):
                self._rejected[parts] += 1
            else:
                yield draft, parts

    def _parts(self, data: bytes) -> Parts | str:
        parts = split_patch(data)
        if isinstance(parts, str):
            return parts
        if not has_hunks(parts.patch):
            return "empty_patch"
        chars = len(parts.patch) + len(parts.test_patch)
        return "too_large" if chars > self._limits.max_patch_chars else parts

    def _row(self, draft: _Draft, parts: Parts) -> dict[str, Any]:
        source = "issue" if draft.issues else "commit"
        self._kept[source] += 1
        self._languages[draft.language or "none"] += 1
        self._kept["with_tests"] += bool(parts.test_patch)
        self._kept["trailers_removed"] += draft.message.trailers_removed
        return _task(self.repo, draft, parts, source)


def _task(repo: str, draft: _Draft, parts: Parts, source: str) -> dict[str, Any]:
    node = draft.node
    stem = _UNSAFE.sub("_", repo.replace("/", "__"))
    return {
        "instance_id": f"{stem}-{node.sha[:_SHA_CHARS]}",
        "repo": repo,
        "base_commit": node.parents[0],
        "patch": parts.patch,
        "test_patch": parts.test_patch,
        "problem_statement": draft.statement,
        "hints_text": "",
        "created_at": draft.created_at,
        "version": "",
        "FAIL_TO_PASS": "[]",
        "PASS_TO_PASS": "[]",
        "environment_setup_commit": "",
        "language": draft.language,
        "message_source": source,
        "validated": False,
        "commit": node.sha,
        "issue_numbers": list(draft.issues),
        "mentioned_numbers": list(mentioned_numbers(draft.message.text)),
    }


def repository_name(given: str | None, url: str, folder: Path) -> str:
    """Return `owner/name`: as given, else from a remote's URL, else the folder's name alone.

    A URL's user, password and host are left out; a remote that is a path on a machine is not used.

    Raises:
        UsageError: The given name has another form.
    """
    if given is not None:
        if not _REPO.fullmatch(given):
            raise UsageError(f"must be owner/name, got {show(given, width=60)}", where="--repo")
        return given
    remote = _REMOTE.fullmatch(url)
    path = "/".join(remote[1].strip("/").removesuffix(".git").split("/")[-2:]) if remote else ""
    if _REPO.fullmatch(path):
        return path
    name = _UNSAFE.sub("_", folder.absolute().name.removesuffix(".git")).lstrip(".-")
    return name or "repository"


def read_date(value: str) -> int:
    """Return a day or moment in ISO 8601 as seconds since 1970; without a zone it is UTC.

    Raises:
        UsageError: It is none.
    """
    try:
        moment = datetime.fromisoformat(value)
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(zoned.timestamp())
    except (ValueError, OverflowError):
        message = f"must be a date like 2024-01-31, got {show(value, width=40)}"
        raise UsageError(message, where="--since") from None


def read_issues(path: Path) -> Issues:
    """Read a tracker's rows: number, title, body; rows with `pull_request` are no issues.

    Raises:
        DataError: A row has another form, or a number stands twice.
    """
    file = open_file(path, str(path))
    texts: dict[int, str] = {}
    read = pull_requests = 0
    for line in file.rows():
        where = file.where(line.number)
        if isinstance(line, BadLine):
            raise DataError(line.message, where=where)
        read += 1
        try:
            number, body = _issue(line.value)
        except DataError as error:
            raise DataError(error.message, where=where) from None
        if line.value.get("pull_request"):
            pull_requests += 1
        elif number in texts:
            raise DataError(f"issue {number} stands twice", where=where)
        elif body:
            texts[number] = body
    return Issues(texts, read, pull_requests)


def _issue(row: Mapping[str, Any]) -> tuple[int, str]:
    number = row.get("number")
    if isinstance(number, str) and number.isascii() and number.isdigit():
        number = int(number[: MAX_ISSUE_DIGITS + 1])
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise DataError("number must be a whole number from 1")
    parts = (text(row, "title").strip(), text(row, "body").strip())
    return number, "\n".join(part for part in parts if part)


def _pairs(drafts: Sequence[_Draft]) -> list[tuple[str, str]]:
    return [(draft.node.sha, draft.node.parents[0]) for draft in drafts]


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return {key: counter[key] for key in sorted(counter) if counter[key]}
