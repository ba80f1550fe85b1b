"""Programs that run beside this one, within limits: nothing else in the package starts any.

Work on what a stranger wrote that can loop or swell without end (a chat template) happens in a
child: it has a small environment, a bounded memory and a bounded time, and whatever becomes of it
is one error here.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swe_scaffold.errors import ScaffoldError

MIB = 1 << 20
_READ_BYTES = 64 * 1024


class ChildFailed(ScaffoldError):
    """A child ran out of time or memory, wrote too much, or died."""

    exit_code = 5


class Conversation:
    """A Python module of ours in a process of its own, asked one JSON value after the other.

    Args:
        module: Its dotted name; it calls `answer_requests`.
        seconds: Most processor time per request; five times that on the clock.
        memory_bytes: Most memory beyond what the child has once it is ready (not on macOS, whose
            kernel does not enforce it).
        reply_bytes: Longest reply.
    """

    def __init__(
        self, module: str, *, seconds: float, memory_bytes: int, reply_bytes: int = 64 * MIB
    ) -> None:
        self._seconds, self._reply_bytes = seconds, reply_bytes
        command = [sys.executable, "-P", "-m", module, str(seconds), str(memory_bytes)]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            # Ctrl-C at the terminal is this process's to answer.
            start_new_session=True,
        )
        self._end = weakref.finalize(self, _kill, self._child)

    def ask(self, request: Any) -> Any:
        """Return the child's reply to a JSON value; it does not outlive a failure.

        Raises:
            ChildFailed: No reply within the limits.
        """
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request, allow_nan=False).encode("ascii") + b"\n")
            self._child.stdin.flush()
            line = self._read_line()
        except BrokenPipeError:
            line = b""
        except ChildFailed:
            self._end()
            raise
        if not line.endswith(b"\n"):
            self._end()
            raise ChildFailed(f"more than {self._seconds:g} s of processor time, or a crash")
        return json.loads(line)

    def close(self) -> None:
        """End the child."""
        self._end()

    def _read_line(self) -> bytes:
        assert self._child.stdout is not None
        stream, line = self._child.stdout.fileno(), bytearray()
        # The first reply waits for the child's imports too.
        deadline = time.monotonic() + 5 * self._seconds + 60
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ChildFailed(f"no reply within {5 * self._seconds + 60:g} s")
            chunk = os.read(stream, _READ_BYTES)
            if not chunk:
                break
            line += chunk
            if len(line) > self._reply_bytes:
                raise ChildFailed(f"a reply of more than {self._reply_bytes // MIB} MiB")
        return bytes(line)


def answer_requests(answer: Callable[[Any], Any]) -> None:
    """Be the child: read a JSON value per line, write what `answer` makes of it, within limits.

    What `answer` raises is the parent's to read: `{"error": text}`.
    """
    seconds, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
        most = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(kind, (0, 0))
    for line in sys.stdin.buffer:
        # The kernel ends a child that loops, even where nobody waits for it any more.
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = math.ceil(used.ru_utime + used.ru_stime + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 whatever it is, the parent says it
            reply = {"error": f"{type(error).__name__}: {error}"[:2000]}
        sys.stdout.buffer.write(json.dumps(reply, allow_nan=False).encode("ascii") + b"\n")
        sys.stdout.buffer.flush()


def _environment() -> dict[str, str]:
    """Return what a child needs of this process's environment, secrets not among it."""
    own = str(Path(__file__).resolve().parents[1])
    path = [own, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1"}


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    child.wait()
