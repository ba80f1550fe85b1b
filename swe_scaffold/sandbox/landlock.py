"""The second way, without namespaces: Landlock and seccomp, put on by `confine`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from swe_scaffold.sandbox import calls, confine
from swe_scaffold.sandbox.view import View

_READ = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/etc/alternatives")
_FILES = ("/etc/ld.so.cache", "/dev/urandom", "/dev/random", "/dev/zero")


def refusal() -> str:
    """Return why Landlock cannot be used here, or nothing."""
    if sys.platform != "linux":
        return "Landlock is a feature of Linux"
    if not calls.is_known_architecture():
        return "there is no table of this processor's system calls"
    found = confine.abi()
    if found < confine.LEAST_ABI:
        return f"this kernel offers Landlock {found or 'not at all'}, needed is 6 (Linux 6.12)"
    return ""


def command_line(view: View, command: Sequence[str], filter_at: int) -> list[str]:
    """Return what runs a command so that it can read `view` and little else.

    The program for seccomp is read from the descriptor `filter_at`.
    """
    tree, limits = str(view.tree), view.limits
    request = {
        "read": [*_READ, *map(str, view.readable), *([] if view.writable else [tree])],
        "files": _FILES,
        "write": [tree] if view.writable else [],
        "folder": tree,
        "calls": filter_at,
        "parent": os.getpid(),
        "memory_bytes": limits.memory_bytes,
        "processes": limits.processes,
        "file_bytes": limits.file_bytes,
    }
    program = str(Path(confine.__file__).resolve())
    return [sys.executable, "-I", "-S", program, json.dumps(request, allow_nan=False), *command]
