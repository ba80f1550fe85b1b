"""What a sandboxed program sees, and how much of everything it may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swe_scaffold.process import MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one command may have.

    Attributes:
        seconds: Time on the clock.
        memory_bytes: Address space of each process.
        processes: Processes and threads at a time (not enforced for root under Landlock).
        file_bytes: Largest file, and all of the scratch folder where it is in memory.
        output_bytes: Most output; a command that writes more is ended.
    """

    seconds: float = 20.0
    memory_bytes: int = 2048 * MIB
    processes: int = 256
    file_bytes: int = 64 * MIB
    output_bytes: int = MIB // 4


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder at a place of the sandbox's own; without a `source`, a scratch folder."""

    inside: str
    source: Path | None = None
    writable: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A tree, more that may be read, and limits; `writable` is for a copy nobody needs.

    `environment` are variables beside the few that every program gets; `hidden` are pipes of the
    tree, by their paths in it, that nobody may write to; `interactive` allows sockets and
    terminals where there are namespaces.
    """

    tree: Path
    readable: tuple[Path, ...]
    limits: Limits
    writable: bool
    environment: Mapping[str, str]
    mounts: tuple[Mount, ...] = ()
    hidden: tuple[str, ...] = ()
    interactive: bool = False
