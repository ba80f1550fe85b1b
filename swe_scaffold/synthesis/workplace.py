"""A copy of a project in which its tests run on one mutant after the other.

The copy is put back as it was after every run. pytest is asked for a report through its
environment; what the runs mean is decided in `validation`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from swe_scaffold.errors import DataError, EnvironmentFailure
from swe_scaffold.files import remove, write_bytes
from swe_scaffold.process import Finished, run_program
from swe_scaffold.synthesis.junit import Report, read_report

MAX_COPY_BYTES = 2 << 30
OUTPUT_BYTES = 16 << 20
_LEFT_OUT = frozenset(
    (
        *(".git", ".hg", ".svn", "__pycache__", "node_modules", ".tox", ".nox"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache"),
    )
)
_MAX_LINES, _MAX_LINE_CHARS = 8, 200
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,16}\b")
_ERROR_LINE = re.compile(r"[A-Za-z_.]{0,80}(?:Error|Exception)\b")


@dataclass(frozen=True, slots=True)
class Trial:
    """How mutants are tried.

    Args:
        command: The program and its arguments, run in the project's copy.
        tree: The folder that tasks are made from.
        project: The folder that is copied; it holds `tree`.
        seconds: Most time of one run.
        memory_bytes: Most address space of each process; None sets no limit.
    """

    command: tuple[str, ...]
    tree: Path
    project: Path
    seconds: float = 300.0
    memory_bytes: int | None = 8 << 30


class Run(NamedTuple):
    """How a run of the tests ended, and pytest's report where there is one."""

    finished: Finished
    report: Report | None

    def last_line(self) -> str:
        """Return the last line that names an error, or else the last one."""
        text = b"\n".join((self.finished.stdout, self.finished.stderr))[-(1 << 16) :]
        lines = [line.strip() for line in text.decode("utf-8", "replace").split("\n")]
        named = [line for line in lines if _ERROR_LINE.match(line.removeprefix("E").lstrip())]
        return (named or [line for line in lines if line] or [""])[-1]


class Workplace:
    """A copy of the project that mutants visit one after the other."""

    def __init__(self, trial: Trial, folder: Path) -> None:
        self.trial = trial
        self.folder = folder / f"worker-{os.getpid()}"
        self.copy = self.folder / "project"
        self.tree = self.copy / trial.tree.resolve().relative_to(trial.project.resolve())
        self._scratch = self.folder / "tmp"
        self._report = self.folder / "report.xml"
        self._changed: tuple[Path, Path] | None = None
        self._state: dict[str, tuple[object, ...]] = {}
        self.folder.mkdir()
        self._copy_again()

    def run(self, path: str = "", data: bytes = b"") -> Run:
        """Run the tests, with one file of the tree replaced where `path` is given."""
        self._restore()
        remove(self._report)
        remove(self._scratch)
        self._scratch.mkdir()
        if path:
            target = self.tree / path
            mode = stat.S_IMODE(target.stat().st_mode)
            self._changed = self.trial.tree / path, target
            write_bytes(target, data)
            target.chmod(mode)
        self._state = tree_state(self.copy)
        finished = run_program(
            self.trial.command,
            seconds=self.trial.seconds,
            cwd=self.copy,
            environment=self._environment(),
            output_bytes=OUTPUT_BYTES,
            memory_bytes=self.trial.memory_bytes,
        )
        return Run(finished, read_report(self._report))

    def clean(self, text: str) -> str:
        """Bound foreign words and take out what differs between machines and runs."""
        home = os.environ.get("HOME", "")
        for place, name in ((str(self.copy), ""), (str(self.folder), "TMP/"), (home, "~/")):
            for spelling in (os.path.realpath(place), place) if len(place) > 1 else ():
                text = text.replace(f"{spelling}/", name).replace(spelling, name or ".")
        lines = [cut(line, _MAX_LINE_CHARS) for line in text.strip("\n").split("\n")]
        lines = [*lines[:_MAX_LINES], "..."] if len(lines) > _MAX_LINES else lines
        return _ADDRESS.sub("0x...", "\n".join(lines))

    def _restore(self) -> None:
        """Put the copy back as it was before the last run."""
        changed, self._changed = self._changed, None
        if tree_state(self.copy) != self._state:
            self._copy_again()
        elif changed:
            shutil.copy2(*changed)

    def _copy_again(self) -> None:
        remove(self.copy)
        copy_project(self.trial.project, self.copy, option="--validate-in")
        if not self.tree.is_dir():
            hint = "choose another --validate-in; version control and environments are not copied"
            raise DataError("is left out of the copy", where=str(self.trial.tree), hint=hint)
        self._state = tree_state(self.copy)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **kept,
            "TMPDIR": str(self._scratch),
            # Before site-packages, where an editable install would lead to the unchanged tree.
            "PYTHONPATH": str(import_folder(self.tree, self.copy)),
            # A mutant of the same size within the same second must not meet the older bytecode.
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "PYTEST_ADDOPTS": report_options(str(self._report), str(self.folder / "cache")),
        }


def report_options(report: str, cache: str) -> str:
    """Return what has pytest write a report that names tests by their files, and its cache."""
    report, cache = shlex.quote(report), shlex.quote(cache)
    return (
        f"--junitxml={report} -o junit_family=xunit1 -o cache_dir={cache} "
        "--continue-on-collection-errors"
    )


def import_folder(tree: Path, top: Path) -> Path:
    """Return the folder that packages are imported from, above one that is a package itself."""
    while tree != top and (tree / "__init__.py").is_file():
        tree = tree.parent
    return tree


def copy_project(source: Path, copy: Path, *, option: str) -> None:
    """Copy files, folders and links as they are, without what is no part of the project.

    Raises:
        DataError: It is larger than MAX_COPY_BYTES; the hint names `option`.
        EnvironmentFailure: The disk says no.
    """
    size = 0

    def left_out(folder: str, names: list[str]) -> list[str]:
        nonlocal size
        found = []
        for name in names:
            state = (Path(folder) / name).lstat()
            kind = stat.S_IFMT(state.st_mode)
            odd = kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
            if odd or is_left_out(Path(folder) / name):
                found.append(name)
            else:
                size += state.st_size
        if size > MAX_COPY_BYTES:
            hint = f"name a smaller folder with {option}"
            raise DataError("is too large to copy", where=str(source), hint=hint)
        return found

    try:
        shutil.copytree(source, copy, symlinks=True, ignore=left_out)
    except shutil.Error as error:
        message = str(error.args[0][0][2]) if error.args and error.args[0] else str(error)
        raise EnvironmentFailure(f"cannot be copied: {message}", where=str(source)) from error


def is_left_out(path: Path) -> bool:
    """Whether a folder is no part of a project: version control, caches, environments."""
    return path.name in _LEFT_OUT or (path / "pyvenv.cfg").is_file()


def cut(text: str, most: int) -> str:
    """Bound a text, visibly."""
    return text if len(text) <= most else f"{text[:most]}..."


def tree_state(folder: Path) -> dict[str, tuple[object, ...]]:
    """Say of everything below a folder what would change if it were written to."""
    found: dict[str, tuple[object, ...]] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)  # noqa: PTH118 twice as fast, once per file and run
            try:
                state = os.lstat(path)
            except OSError:  # a name too long, among what a program made
                found[path] = ("unknown",)
                continue
            found[path] = (
                (state.st_mode,)
                if stat.S_ISDIR(state.st_mode)
                else (state.st_mode, state.st_size, state.st_mtime_ns)
            )
    return found
