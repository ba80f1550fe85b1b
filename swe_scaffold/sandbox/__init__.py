"""Running things where they can harm nothing: a tree is seen, and cannot be changed.

- `__init__.py`: `open_sandbox`, which chooses a way, tries it, and refuses where none holds.
- `view.py`: what is seen, and the limits.
- `bubblewrap.py`: namespaces.  `landlock.py`: where those are not to be had.
- `calls.py`: system calls that are refused, in both.
- `confine.py`: the program that puts on Landlock and seccomp; it is started on its own.
- `trees.py`: a tree as one hash, before and after.

Programs get a small environment, no network, no other files than the system's, the tree and what
is named, a scratch folder that goes with them, and limits on time, memory, processes and output.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swe_scaffold.errors import EnvironmentFailure, IntegrityError, UsageError
from swe_scaffold.process import Dialogue, Finished, run_program
from swe_scaffold.sandbox import bubblewrap, calls, landlock
from swe_scaffold.sandbox.trees import Snapshot, take_snapshot
from swe_scaffold.sandbox.view import Limits, Mount, View

__all__ = ["Limits", "Mount", "Sandbox", "Snapshot", "View", "open_sandbox", "take_snapshot"]

_Line = Callable[[View, Sequence[str], int], list[str]]

_WAYS: dict[str, tuple[Callable[[], str], _Line]] = {
    "bwrap": (bubblewrap.refusal, bubblewrap.command_line),
    "landlock": (landlock.refusal, landlock.command_line),
}
_MOST_HIDDEN = 1000
_HINT = "install bubblewrap (apt install bubblewrap), or use Linux 6.12 or later with Landlock"
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# What must fail. Should any of it work, it leaves the tree as it was.
_PROBE = """
attempt() { if "$@" 2>/dev/null; then echo "$*"; fi; }
attempt touch ./.swe-scaffold-write-probe
attempt mkdir ./.swe-scaffold-write-probe.d
attempt chmod "$(stat -c %a .)" .
rm -rf ./.swe-scaffold-write-probe ./.swe-scaffold-write-probe.d 2>/dev/null
echo done
"""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A way to run programs beside a tree. Made by `open_sandbox`.

    Attributes:
        backend: Which way: `bwrap` or `landlock`.
        view: What programs see.
    """

    backend: str
    view: View
    _line: _Line = field(repr=False)

    @property
    def mount(self) -> str:
        """Where programs find the tree; they start there."""
        return bubblewrap.MOUNT if self.backend == "bwrap" else str(self.view.tree)

    def run(self, command: Sequence[str], *, seconds: float | None = None) -> Finished:
        """Run a program to its end; its errors come with its output, in `stdout`.

        Raises:
            EnvironmentFailure: The sandbox cannot be started.
        """
        limits = self.view.limits
        merged = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *command]
        with self._filter() as descriptor:
            return run_program(
                self._line(self.view, merged, descriptor),
                seconds=limits.seconds if seconds is None else seconds,
                cwd=self.view.tree,
                environment={**_ENVIRONMENT, **self.view.environment},
                output_bytes=limits.output_bytes,
                gentle=self._is_gentle,
                descriptors=(descriptor,),
            )

    def converse(self, command: Sequence[str]) -> Dialogue:
        """Start a program that answers JSON values, one a line.

        Raises:
            EnvironmentFailure: The sandbox cannot be started.
        """
        with self._filter() as descriptor:
            return Dialogue(
                self._line(self.view, command, descriptor),
                environment={**_ENVIRONMENT, **self.view.environment},
                cwd=self.view.tree,
                gentle=self._is_gentle,
                descriptors=(descriptor,),
            )

    def hiding(self, pipes: Sequence[str]) -> Sandbox:
        """Return the same without pipes or sockets of the tree, which somebody outside may read.

        Raises:
            EnvironmentFailure: There are too many.
        """
        if len(pipes) > _MOST_HIDDEN:
            raise EnvironmentFailure(
                f"has {len(pipes):,} pipes and sockets, which a program could write to",
                where=str(self.view.tree),
                hint="remove them, or do without a shell",
            )
        return replace(self, view=replace(self.view, hidden=tuple(pipes)))

    def facts(self) -> dict[str, Any]:
        """Return what a record says of the sandbox."""
        limits = self.view.limits
        return {
            "backend": self.backend,
            "network": False,
            "writable": self.view.writable,
            "limits": {
                "seconds": limits.seconds,
                "memory_bytes": limits.memory_bytes,
                "processes": limits.processes,
                "file_bytes": limits.file_bytes,
                "output_bytes": limits.output_bytes,
            },
        }

    @property
    def _is_gentle(self) -> bool:
        # `confine` removes its scratch folder. Whoever asks bubblewrap to end while it begins may
        # be left with what it has begun; killed as a group, all of it ends.
        return self.backend == "landlock"

    @contextlib.contextmanager
    def _filter(self) -> Iterator[int]:
        """Yield a descriptor from which the calls to refuse are read, once."""
        program = calls.seccomp_program(
            namespaces=self.backend == "bwrap", interactive=self.view.interactive
        )
        reading, writing = os.pipe()
        try:
            # A pipe holds all of it before anybody reads.
            os.write(writing, program)
            os.close(writing)
            yield reading
        finally:
            os.close(reading)


def open_sandbox(  # noqa: PLR0913 one argument per freedom
    tree: Path,
    *,
    backend: str = "auto",
    readable: Sequence[Path] = (),
    limits: Limits | None = None,
    writable: bool = False,
    environment: Mapping[str, str] | None = None,
    mounts: Sequence[Mount] = (),
    interactive: bool = False,
) -> Sandbox:
    """Choose a sandbox that works here, and see to it that the tree cannot be written in it.

    Args:
        tree: The folder that programs see.
        backend: `auto` takes bubblewrap where it works, else Landlock.
        readable: More folders and files that they may read, at the same place.
        limits: What each program may have.
        writable: For a copy of a tree: programs may change it, and nothing else.
        environment: More variables for the programs.
        mounts: More files and folders, at other places than here; bubblewrap alone can do that.
        interactive: Allow sockets in a network that the sandbox has alone, and terminals of its
            own; under Landlock there are neither.

    Raises:
        UsageError: There is no such folder.
        EnvironmentFailure: No sandbox works here.
        IntegrityError: A write got through: nothing is run in such a sandbox.
    """
    try:
        tree = tree.resolve(strict=True)
    except OSError as error:
        raise UsageError((error.strerror or "cannot be read").lower(), where=str(tree)) from None
    if not tree.is_dir():
        raise UsageError("is not a folder", where=str(tree))
    view = View(
        tree,
        tuple(readable),
        limits or Limits(),
        writable,
        environment or {},
        tuple(mounts),
        interactive=interactive,
    )
    refusals = []
    if backend not in ("auto", *_WAYS):
        raise UsageError(f"there is no sandbox {backend!r}", hint=f"auto, {', '.join(_WAYS)}")
    for name in _WAYS if backend == "auto" else (backend,):
        refuses, line = _WAYS[name]
        sandbox = Sandbox(name, view, line)
        reason = refuses() or _unable(name, view) or _failure(sandbox)
        if not reason:
            return sandbox
        refusals.append(f"{name}: {reason}")
    raise EnvironmentFailure(f"no sandbox works here ({'; '.join(refusals)})", hint=_HINT)


def python_folders() -> tuple[Path, ...]:
    """Return what this interpreter needs to run in a sandbox, its packages not among it."""
    return tuple(
        dict.fromkeys(
            Path(path).resolve()
            for path in (sys.base_prefix, sys.base_exec_prefix)
            # Of the system's Python everything is there, and the root would be everything.
            if path not in ("/usr", "/")
        )
    )


def _unable(name: str, view: View) -> str:
    if view.mounts and name != "bwrap":
        return "without namespaces nothing stands at another place than here"
    return ""


def _failure(sandbox: Sandbox) -> str:
    """Return why a sandbox cannot be used, after programs have tried to write in it.

    Raises:
        IntegrityError: One of them could.
    """
    if sandbox.view.writable:
        done = sandbox.run(["/bin/sh", "-c", "echo done"])
    else:
        done = sandbox.run(["/bin/sh", "-c", _PROBE])
    said = done.stdout.decode("utf-8", "replace").strip().split("\n")
    if done.ok and said == ["done"]:
        return ""
    if done.ok and said[-1] == "done":
        raise IntegrityError(
            f"the sandbox {sandbox.backend} let through: {said[0]}",
            where=str(sandbox.view.tree),
            hint="please report this; nothing was run in it",
        )
    last = said[-1] or f"it ended with {done.returncode}"
    return last[:200]
