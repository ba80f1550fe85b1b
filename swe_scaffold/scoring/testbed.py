"""Where the tests of one task run: a copy of its files in a sandbox, made anew for every run.

    FOLDER/base             the files of the task; no program sees them
    FOLDER/room/tree        their copy: what patches and tests may change
    FOLDER/room/out-NNNN    pytest's report, under a name that is drawn for each run

The sandbox sees the room and nothing else of this machine that could be written. git applies the
patches in there, too. What runs mean is decided in `verdicts`.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swe_scaffold.changed_paths import is_test
from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.files import disk_errors, write_bytes
from swe_scaffold.git.program import find_git, git_environment
from swe_scaffold.git.trial import Trial, is_safe_path, read_answer
from swe_scaffold.process import MIB, Finished, run_program
from swe_scaffold.python_tree import regular_bytes
from swe_scaffold.sandbox import Limits, Sandbox, open_sandbox
from swe_scaffold.scoring.interpreter import Interpreter
from swe_scaffold.synthesis.junit import Report, read_report
from swe_scaffold.synthesis.workplace import import_folder, report_options, tree_state
from swe_scaffold.terminal import show

_TREE = "tree"
_GIT_SECONDS, _CLEAR_SECONDS = 60.0, 600.0
_PROCESSES, _FILE_BYTES, _OUTPUT_BYTES = 512, 512 * MIB, 16 * MIB
# What comes before the program's own words proves that the sandbox stood.
_STARTED = b"started\n"
_SCRIPT = 'echo started; cd "$1" && shift && exec "$@"'
_TAIL_LINES, _TAIL_WIDTH, _TAIL_BYTES = 8, 160, 1 << 14
# What differs from run to run.
_TIMES = re.compile(r"\b[0-9]+\.[0-9]+s\b(?: \([0-9:]+\))?")
_ADDRESSES = re.compile(r"\b0x[0-9a-fA-F]{6,16}\b")


@dataclass(frozen=True, slots=True)
class Bench:
    """How tests are run, for all tasks alike.

    Attributes:
        command: The program that runs them, and its arguments.
        interpreter: The Python it finds.
        backend: Which sandbox: `auto`, `bwrap` or `landlock`.
        seconds: Most time of one run.
        memory_bytes: Most address space of each process.
    """

    command: tuple[str, ...]
    interpreter: Interpreter
    backend: str = "auto"
    seconds: float = 300.0
    memory_bytes: int = 8 << 30

    def enclose(self, room: Path) -> Sandbox:
        """Return the sandbox in which a room can be changed.

        Raises:
            EnvironmentFailure: None works here.
        """
        programs = os.pathsep.join(
            (str(self.interpreter.programs), "/usr/local/bin", "/usr/bin", "/bin")
        )
        git = Path(find_git()).resolve().parent.parent
        return open_sandbox(
            room,
            backend=self.backend,
            readable=(*self.interpreter.readable, *([] if git == Path("/usr") else [git])),
            limits=Limits(
                seconds=self.seconds,
                memory_bytes=self.memory_bytes,
                processes=_PROCESSES,
                file_bytes=_FILE_BYTES,
                output_bytes=_OUTPUT_BYTES,
            ),
            writable=True,
            # Tests of servers talk to themselves, those of terminals have one.
            interactive=True,
            environment={
                "PATH": programs,
                "PYTHONHASHSEED": "0",
                # The user in there has no name, for which some programs ask.
                "USER": "sandbox",
                "LOGNAME": "sandbox",
            },
        )


@dataclass(frozen=True, slots=True)
class Run:
    """How a run of the tests ended.

    Attributes:
        ended: `timeout`, `output` (too much of it), `killed`, or nothing where it ended by itself.
        returncode: The exit code.
        report: What pytest reported, if it did.
        tests_changed: Whether files of tests are not what they were before.
        tail: The last lines it wrote.
        seconds: Time on the clock.
    """

    ended: str
    returncode: int
    report: Report | None
    tests_changed: bool = False
    tail: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)


class Testbed:
    """One worker's room.

    Args:
        bench: See there.
        folder: An empty folder of this worker's own.

    Raises:
        EnvironmentFailure: No sandbox works here.
    """

    __test__ = False  # for pytest, which looks at names

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self._own = bench, folder / "base"
        self.base = self._own
        self._room = folder / "room"
        self._tree = self._room / _TREE
        self._room.mkdir(parents=True)
        self._sandbox = bench.enclose(self._room)
        self.packages = "."

    def begin(self, base: Path | None = None, packages: str = ".") -> None:
        """Begin another task: `base` is a folder that is there, else an empty one to be filled.

        `packages` is the folder that patches and packages are in, relative to it.
        """
        clear(self._own)
        self.base, self.packages = base or self._own, packages
        if base is None:
            with disk_errors(self._own):
                self._own.mkdir()

    def renew(self) -> None:
        """Make the copy what the base is."""
        clear(self._room)
        with disk_errors(self._tree):
            self._room.mkdir()
            shutil.copytree(self.base, self._tree, symlinks=True)

    def apply(self, patch: str, *, reverse: bool = False) -> Trial:
        """Have git apply a patch to the copy; one that does not apply changes nothing."""
        diff = self._room / "patch.diff"
        self._remove(diff)
        write_bytes(diff, patch.encode("utf-8", "surrogatepass"))
        mount = self._sandbox.mount
        # Above the tree no repository is looked for; in it there is none.
        variables = {**git_environment(), "GIT_CEILING_DIRECTORIES": mount}
        settings = [f"{name}={value}" for name, value in variables.items()]
        options = ["--whitespace=nowarn", *(["-R"] if reverse else [])]
        done = self._run(
            ["/usr/bin/env", *settings, find_git(), "apply", *options, f"{mount}/patch.diff"],
            self.packages,
            seconds=_GIT_SECONDS,
        )
        return read_answer(done, done.stdout)

    def state(self) -> dict[str, tuple[object, ...]]:
        """Return what would change if a file of the copy were written to, by path."""
        top = f"{self._tree / self.packages}{os.sep}"
        found = tree_state(self._tree / self.packages)
        return {os.path.normpath(path.removeprefix(top)): known for path, known in found.items()}

    def put_back(self, paths: Sequence[str]) -> None:
        """Make some files of the copy what they are in the base, or remove those it lacks.

        Links that a patch made are not followed.
        """
        for path in filter(is_safe_path, paths):
            place = self._tree / self.packages
            with disk_errors(place / path):
                for part in path.split("/")[:-1]:
                    place = place / part
                    if place.is_symlink() or (place.exists() and not place.is_dir()):
                        place.unlink()
                target, source = self._tree / self.packages / path, self._in_base(path)
                self._remove(target)
                if source is not None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, target, follow_symlinks=False)

    def has_file(self, path: str) -> bool:
        """Whether there is such a regular file in the copy."""
        if not is_safe_path(path):
            return False
        with contextlib.suppress(OSError):
            return stat.S_ISREG(os.lstat(self._tree / self.packages / path).st_mode)
        return False

    def read(self, path: str, limit: int = 32 * MIB) -> bytes:
        """Return a regular file of the copy; empty where there is none."""
        with contextlib.suppress(OSError):
            return regular_bytes(self._tree / self.packages / path, limit)[0]
        return b""

    def test(self, targets: Sequence[str]) -> Run:
        """Run the command in the copy, on some test files or on what it finds itself."""
        name = f"out-{secrets.token_hex(8)}"
        mount = self._sandbox.mount
        self._room.joinpath(name).mkdir()
        options = report_options(f"{mount}/{name}/report.xml", f"{mount}/{name}/cache")
        variables = [
            f"PYTEST_ADDOPTS={options} --rootdir={mount}/{_TREE}",
            # Before site-packages, where an installed copy would be found first.
            f"PYTHONPATH={os.pathsep.join(self._import_folders())}",
        ]
        before = self._test_files()
        start = time.monotonic()
        done = self._run(["/usr/bin/env", *variables, *self.bench.command, *targets], ".")
        seconds = time.monotonic() - start
        return Run(
            "timeout" if done.timed_out else "output" if done.cut else _killed(done.returncode),
            done.returncode,
            read_report(self._room / name / "report.xml"),
            any(self._test_files().get(path) != known for path, known in before.items()),
            self._tail(done.stdout),
            round(seconds, 2),
        )

    def _run(self, command: Sequence[str], folder: str, seconds: float | None = None) -> Finished:
        """Run a program in a folder of the copy; what it says is in `stdout`.

        Raises:
            EnvironmentFailure: The sandbox did not start it.
        """
        place = os.path.normpath(f"{self._sandbox.mount}/{_TREE}/{folder}")
        done = self._sandbox.run(["/bin/sh", "-c", _SCRIPT, "sh", place, *command], seconds=seconds)
        if not done.stdout.startswith(_STARTED):
            said = done.stdout.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
            raise EnvironmentFailure(
                f"the sandbox could not be started: {show(said, width=160)}",
                where=self._sandbox.backend,
            )
        told = done.stdout.removeprefix(_STARTED)
        return Finished(done.returncode, told, done.stderr, done.timed_out, done.cut)

    def _import_folders(self) -> list[str]:
        """Return where packages of the copy are, as the sandbox names it."""
        tree = self._tree / self.packages
        found = [import_folder(tree, self._tree), self._tree]
        source = self._tree / "src"
        if source.is_dir() and not (source / "__init__.py").exists():
            found.insert(0, source)
        mount = self._sandbox.mount
        names = [os.path.relpath(path, self._room) for path in dict.fromkeys(found)]
        return [os.path.normpath(f"{mount}/{name}") for name in names]

    def _test_files(self) -> dict[str, tuple[object, ...]]:
        """Return the state of Python files among tests, which a run is not to change."""
        state = self.state()
        return {path: state[path] for path in state if path.endswith(".py") and is_test(path)}

    def _in_base(self, path: str) -> Path | None:
        place = self.base / self.packages / path
        with contextlib.suppress(OSError):
            mode = os.lstat(place).st_mode
            return place if stat.S_ISREG(mode) or stat.S_ISLNK(mode) else None
        return None

    def _remove(self, path: Path) -> None:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            clear(path)

    def _tail(self, output: bytes) -> tuple[str, ...]:
        text = output[-_TAIL_BYTES:].decode("utf-8", "replace")
        text = text.replace(f"{self._sandbox.mount}/{_TREE}/", "")
        lines = [line.rstrip() for line in _ADDRESSES.sub("0x...", text).split("\n")]
        lines = [_TIMES.sub("...s", line) for line in lines if line.strip()]
        return tuple(show(line, width=_TAIL_WIDTH) for line in lines[-_TAIL_LINES:])


def clear(folder: Path) -> None:
    """Remove a folder and all below it, whatever a program made of it: modes, or depths.

    Raises:
        EnvironmentFailure: It is there still.
    """
    if not folder.is_dir():
        return
    waiting = [folder]
    with contextlib.suppress(OSError, RecursionError):
        while waiting:
            place = waiting.pop()
            place.chmod(stat.S_IRWXU)
            with os.scandir(place) as entries:
                waiting += [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
        shutil.rmtree(folder)
        return
    # These do not name what is deep inside by its whole path.
    for program in (["/bin/chmod", "-R", "u+rwx"], ["/bin/rm", "-rf"]):
        run_program([*program, "--", str(folder)], seconds=_CLEAR_SECONDS)
    if folder.exists():
        raise EnvironmentFailure("cannot be removed", where=str(folder))


def _killed(code: int) -> str:
    # A shell says 128 and the signal.
    return "killed" if code < 0 or code > 128 else ""
