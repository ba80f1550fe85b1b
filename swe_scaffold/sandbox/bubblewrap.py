"""The first way: bubblewrap, with namespaces of its own for files, processes and the network."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Sequence
from pathlib import Path

from swe_scaffold.sandbox import calls
from swe_scaffold.sandbox.view import Mount, View

MOUNT = "/repo"
_SYSTEM = ("bin", "sbin", "lib", "lib64", "lib32")
# Where all memory is used, the kernel ends these processes before others; within, /proc is closed.
_FIRST_TO_GO = (
    *("/bin/sh", "-c", 'echo 1000 2>/dev/null >/proc/self/oom_score_adj; exec "$@"', "sh"),
)
_FILES = ("/etc/alternatives", "/etc/ld.so.cache")


def refusal() -> str:
    """Return why bubblewrap cannot be used here at all, or nothing."""
    missing = [name for name in ("bwrap", "prlimit") if not _find(name)]
    packages = {"bwrap": "bubblewrap", "prlimit": "util-linux"}
    if not calls.is_known_architecture():
        return "there is no table of this processor's system calls"
    return ", ".join(f"{packages[name]} is not installed" for name in missing)


def command_line(view: View, command: Sequence[str], filter_at: int) -> list[str]:
    """Return what runs a command so that it sees `view` and nothing else of this machine.

    The program for seccomp is read from the descriptor `filter_at`.
    """
    limits = view.limits
    # It is a session of its own already; one within would leave its group before it is bound to it.
    line = [*_FIRST_TO_GO, _find("bwrap"), "--unshare-all", "--die-with-parent"]
    line += ["--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox"]
    line += ["--ro-bind", "/usr", "/usr", *_system_folders()]
    size = ["--size", str(limits.file_bytes)]
    line += ["--proc", "/proc", "--dev", "/dev", *size, "--tmpfs", "/dev/shm"]
    # Root's identity outside is root's: bubblewrap leaves most of /proc/sys for it to write.
    line += ["--remount-ro", "/dev", "--remount-ro", "/proc", *size, "--tmpfs", "/tmp"]
    # After that folder: some of them may lie in it.
    for path in (*_FILES, *map(str, view.readable)):
        line += ["--ro-bind-try", path, path]
    line += ["--bind" if view.writable else "--ro-bind", str(view.tree), MOUNT]
    for path in view.hidden:
        # A read-only mount does not keep anybody from writing into a pipe.
        line += ["--ro-bind", "/dev/null", f"{MOUNT}/{path}"]
    for mount in view.mounts:
        line += _mounted(mount, size)
    line += ["--remount-ro", "/", "--chdir", MOUNT, "--seccomp", str(filter_at)]
    line += ["--", *_limited(view)]
    return [*line, *command]


def _mounted(mount: Mount, size: list[str]) -> list[str]:
    if mount.source is None:
        return [*size, "--tmpfs", mount.inside]
    return ["--bind" if mount.writable else "--ro-bind", str(mount.source), mount.inside]


def _limited(view: View) -> list[str]:
    limits = view.limits
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    # Inside: there the processes that are counted are the sandbox's alone.
    return [
        _find("prlimit"),
        f"--as={limits.memory_bytes}",
        f"--nproc={limits.processes}",
        f"--fsize={limits.file_bytes}",
        # With 1 no program of the host is started for one that crashes; with 0 it is.
        f"--core={0 if most == 0 else 1}",
    ]


def _system_folders() -> list[str]:
    found: list[str] = []
    for name in _SYSTEM:
        folder = Path("/", name)
        if folder.is_symlink():
            found += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            found += ["--ro-bind", str(folder), str(folder)]
    return found


def _find(name: str) -> str:
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
    return found or ""
