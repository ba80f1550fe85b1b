"""Clones read as data: the only room that runs git, and only to look at objects and patches.

Everything in a clone may come from a stranger, its configuration included. So git gets no work
tree, no index, no hooks, no filters, no pager, no transport and no configuration but the
repository's own with every setting that could run a program overridden; only plumbing is called,
within limits on time, memory and output. Nothing is checked out, fetched or written. What commits
mean is left to `mining`.

- `__init__.py`: clones and their objects.
- `trial.py`: whether a patch applies to some files, without any clone.
- `program.py`: git itself, with the settings that keep it harmless.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from swe_scaffold.errors import DataError, EnvironmentFailure
from swe_scaffold.git.program import MAX_BLOB_BYTES, find_git, run_git
from swe_scaffold.process import MIB, Finished
from swe_scaffold.terminal import show

__all__ = [
    "EXECUTABLE",
    "MAX_BLOB_BYTES",
    "REGULAR",
    "SUBMODULE",
    "Blob",
    "Change",
    "Commit",
    "Node",
    "Repository",
    "is_object_id",
    "is_repository",
    "open_repository",
]

REGULAR, EXECUTABLE, SUBMODULE = "100644", "100755", "160000"

_SECONDS = 120.0
_OUTPUT_BYTES = 64 * MIB
_LISTING_BYTES = 512 * MIB
# So many blobs of the largest size stay below _OUTPUT_BYTES.
_BLOBS = 60
_NO_PROGRAMS = ("--no-ext-diff", "--no-textconv")
# Each spelled out, as a repository's configuration would change the text otherwise.
_PATCH = (
    *("-p", "-M50%", "-l400", "--unified=3", "--inter-hunk-context=0", "--full-index"),
    *("--diff-algorithm=myers", "--indent-heuristic", "--no-color", "-O/dev/null"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "--ignore-submodules=none"),
)
_RAW = ("--raw", "-z", "--no-renames", "--no-abbrev", "--ignore-submodules=none")
_OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# Lines of a patch begin with its own words or a mark, never with an object id alone.
_PATCH_START = re.compile(rb"^([0-9a-f]{40}(?:[0-9a-f]{24})?)\n", re.MULTILINE)
_PERSON = re.compile(rb"(.*?) ?<([^<>\n]*)> (-?[0-9]{1,20}) [+-][0-9]{4,6}")

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Node(NamedTuple):
    """A commit's place in history; at the end of a shallow clone there are no parents."""

    sha: str
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """Who made a commit, when it was committed (seconds since 1970), and its message as bytes."""

    sha: str
    author: str
    email: str
    committed: int
    message: bytes


class Change(NamedTuple):
    """One path of a commit against its parent; a missing side has the mode `000000`."""

    old_mode: str
    new_mode: str
    path: str


class Blob(NamedTuple):
    """A file of a tree; the size of one that the clone lacks is 0."""

    id: str
    size: int
    mode: str


def is_object_id(text: str) -> bool:
    """Whether a text is a full object id, the only kind that data may name."""
    return _OBJECT_ID.fullmatch(text) is not None


def is_repository(path: Path) -> bool:
    """Whether a folder looks like a clone: a work tree with `.git`, or a bare repository."""
    return _git_folder(path) is not None


def open_repository(path: Path, *, shown: str = "") -> Repository:
    """Open a clone: a work tree or a bare repository, whoever owns it.

    Args:
        path: Its top folder; folders above are not searched.
        shown: Its name in messages; the path where empty.

    Raises:
        DataError: There is none.
        EnvironmentFailure: git is not installed.
    """
    shown = shown or str(path)
    folder = _git_folder(path)
    if folder is None:
        hint = "name the top folder of a clone, or a bare mirror"
        raise DataError("not a git repository", where=shown, hint=hint)
    repository = Repository(folder.absolute(), shown)
    repository.ask("rev-parse", "--git-dir")
    return repository


class Repository:
    """A clone opened for reading; made by `open_repository`.

    What git cannot read, or what is beyond the limits, is None in the place of its commit or blob;
    only a question about the whole repository raises.
    """

    def __init__(self, folder: Path, shown: str) -> None:
        self.folder, self.shown = folder, shown
        self._git = find_git()

    def ask(self, *arguments: str, output_bytes: int = _OUTPUT_BYTES) -> bytes:
        """Run one plumbing command and return what it says.

        Raises:
            DataError: git says no, or more than it may.
            EnvironmentFailure: It takes too long.
        """
        done = self._run(*arguments, output_bytes=output_bytes)
        if done.timed_out:
            message = f"git {arguments[0]} took more than {_SECONDS:g} s"
            raise EnvironmentFailure(message, where=self.shown)
        if done.cut:
            message = f"git {arguments[0]} says more than {output_bytes // MIB} MiB"
            raise DataError(message, where=self.shown)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
            problem = said.removeprefix("fatal: ") or f"git ended with {done.returncode}"
            raise DataError(f"git cannot read it: {show(problem)}", where=self.shown)
        return done.stdout

    def resolve(self, revision: str) -> str:
        """Return the commit that a name stands for.

        Raises:
            DataError: It stands for none, or would be an option.
        """
        if revision.startswith("-") or not revision.isprintable() or not revision.strip():
            raise DataError(f"not a revision: {show(revision, width=60)}", where=self.shown)
        done = self._run("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        sha = done.stdout.decode("ascii", "replace").strip()
        if not done.ok or not is_object_id(sha):
            message = f"there is no commit {show(revision, width=60)}"
            raise DataError(message, where=self.shown)
        return sha

    def has_commit(self, sha: str) -> bool:
        """Whether a full commit id is here."""
        return is_object_id(sha) and self._run("cat-file", "-e", f"{sha}^{{commit}}").ok

    def remote(self) -> str:
        """Return the URL of `origin`, or nothing; it may hold credentials."""
        done = self._run("config", "--get", "remote.origin.url")
        return done.stdout.decode("utf-8", "replace").strip() if done.ok else ""

    def history(
        self, start: str, *, limit: int | None = None, since: int | None = None
    ) -> list[Node]:
        """List the commits reachable from one, newest first.

        Args:
            start: A commit id.
            limit: Most commits.
            since: Only commits at or after this time, in seconds since 1970.
        """
        bounds = [] if limit is None else [f"--max-count={limit}"]
        bounds += [] if since is None else [f"--max-age={since}"]
        listed = self.ask(
            "rev-list", "--parents", *bounds, _id(start), "--", output_bytes=_LISTING_BYTES
        )
        lines = (line.split(" ") for line in listed.decode("ascii").split("\n") if line)
        return [Node(sha, tuple(parents)) for sha, *parents in lines]

    def commits(self, ids: Sequence[str]) -> Iterator[Commit | None]:
        """Yield commits as they were made, in order."""
        for sha, data in zip(ids, _halving(ids, self._objects), strict=True):
            yield None if data is None else _parse_commit(sha, data)

    def changes(self, pairs: Sequence[tuple[str, str]]) -> Iterator[list[Change] | None]:
        """Yield the paths that differ between each commit and its parent, without renames."""

        def run(batch: Sequence[tuple[str, str]]) -> list[list[Change] | None] | None:
            done = self._compare(batch, *_RAW)
            if not done.ok:
                return None
            found = _parse_raw(done.stdout)
            return [found.get(commit, []) for commit, _ in batch]

        return _halving(pairs, run)

    def patches(self, pairs: Sequence[tuple[str, str]]) -> Iterator[bytes | None]:
        """Yield the patch from each parent to its commit, in git's form with three lines around."""

        def run(batch: Sequence[tuple[str, str]]) -> list[bytes | None] | None:
            done = self._compare(batch, *_PATCH)
            if not done.ok:
                return None
            pieces = _PATCH_START.split(done.stdout)
            found = dict(zip(pieces[1::2], pieces[2::2], strict=True))
            return [found.get(commit.encode("ascii"), b"") for commit, _ in batch]

        return _halving(pairs, run)

    def tree(self, commit: str) -> dict[str, Blob]:
        """Return the files of a commit by path, sorted; names that are not UTF-8 are left out.

        Raises:
            DataError: It cannot be listed.
        """
        listed = self.ask(
            "ls-tree",
            "-r",
            "-z",
            "--long",
            "--full-tree",
            _id(commit),
            output_bytes=4 * _OUTPUT_BYTES,
        )
        files: dict[str, Blob] = {}
        for entry in listed.split(b"\0"):
            facts, _, name = entry.partition(b"\t")
            try:
                path = name.decode("utf-8")
            except UnicodeDecodeError:
                continue
            mode, kind, blob, size = facts.decode("ascii").split() if facts else ("", "", "", "")
            if kind == "blob":
                files[path] = Blob(blob, int(size) if size.isdecimal() else 0, mode)
        return dict(sorted(files.items()))

    def read_blobs(self, blobs: Sequence[Blob]) -> Iterator[bytes | None]:
        """Yield the content of blobs in order; None for one over MAX_BLOB_BYTES."""
        for start in range(0, len(blobs), _BLOBS):
            batch = blobs[start : start + _BLOBS]
            small = [blob.id for blob in batch if blob.size <= MAX_BLOB_BYTES]
            found = dict(zip(small, _halving(small, self._objects), strict=True))
            yield from (found.get(blob.id) for blob in batch)

    def _objects(self, ids: Sequence[str]) -> list[bytes | None] | None:
        """Return the content of objects, None for a missing one; None for all if git fails."""
        asked = "".join(f"{_id(sha)}\n" for sha in ids).encode("ascii")
        done = self._run("cat-file", "--batch", stdin=asked)
        return _parse_objects(done.stdout, len(ids)) if done.ok else None

    def _compare(self, pairs: Sequence[tuple[str, str]], *form: str) -> Finished:
        asked = "".join(f"{_id(commit)} {_id(parent)}\n" for commit, parent in pairs)
        arguments = ("diff-tree", "--stdin", "-r", *_NO_PROGRAMS, *form)
        return self._run(*arguments, stdin=asked.encode("ascii"))

    def _run(
        self, *arguments: str, stdin: bytes = b"", output_bytes: int = _OUTPUT_BYTES
    ) -> Finished:
        # `--bare` and a folder that is nobody's: attributes of a work tree are not looked for.
        place = ("--bare", f"--git-dir={self.folder}")
        return run_git(
            [self._git, *place, *arguments],
            cwd=Path("/"),
            seconds=_SECONDS,
            stdin=stdin,
            output_bytes=output_bytes,
        )


def _git_folder(path: Path) -> Path | None:
    try:
        if (path / ".git").exists():
            return path / ".git"
        bare = (path / "HEAD").is_file() and (path / "objects").is_dir()
    except OSError:
        return None
    return path if bare else None


def _id(sha: str) -> str:
    if not is_object_id(sha):
        raise DataError(f"not an object id: {show(sha, width=60)}")
    return sha


def _halving(
    items: Sequence[_In], run: Callable[[Sequence[_In]], list[_Out | None] | None]
) -> Iterator[_Out | None]:
    """Run a batch whole, or where git fails on it, in halves down to the one it fails on."""
    if not items:
        return
    results = run(items)
    if results is not None:
        yield from results
    elif len(items) == 1:
        yield None
    else:
        middle = len(items) // 2
        yield from _halving(items[:middle], run)
        yield from _halving(items[middle:], run)


def _parse_objects(output: bytes, count: int) -> list[bytes | None] | None:
    found: list[bytes | None] = []
    start = 0
    for _ in range(count):
        end = output.find(b"\n", start)
        header = output[start : max(end, start)].split(b" ")
        start = end + 1
        if len(header) != 3 or not header[2].isdigit():
            found.append(None)
            continue
        size = int(header[2])
        found.append(output[start : start + size])
        start += size + 1
    return found if start == len(output) else None


def _parse_commit(sha: str, data: bytes) -> Commit | None:
    head, _, message = data.partition(b"\n\n")
    people: dict[bytes, re.Match[bytes]] = {}
    for line in head.split(b"\n"):
        word, _, rest = line.partition(b" ")
        if word in (b"author", b"committer") and (match := _PERSON.fullmatch(rest)):
            people.setdefault(word, match)
    if len(people) != 2:
        return None
    author, email, _ = people[b"author"].groups()
    return Commit(
        sha=sha,
        author=author.decode("utf-8", "replace"),
        email=email.decode("utf-8", "replace"),
        committed=int(people[b"committer"][3]),
        message=message,
    )


def _parse_raw(output: bytes) -> dict[str, list[Change]]:
    found: dict[str, list[Change]] = {}
    fields = iter(output.split(b"\0"))
    changes: list[Change] = []
    for field in fields:
        if field.startswith(b":"):
            old_mode, new_mode = field[1:].decode("ascii").split(" ")[:2]
            path = next(fields, b"").decode("utf-8", "surrogateescape")
            changes.append(Change(old_mode, new_mode, path))
        elif field:
            changes = found.setdefault(field.decode("ascii"), [])
    return found
