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
import selectors
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.errors import EnvironmentFailure, ScaffoldError

MIB = 1 << 20
_READ_BYTES = 64 * 1024
# For one that is asked to end: removing what it made may take a while.
_GRACE_SECONDS = 20.0


class ChildFailed(ScaffoldError):
    """A child ran out of time or memory, wrote too much, or died."""

    exit_code = 5


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended; `stdout` and `stderr` hold no more than was asked for.

    `returncode` is negative for a signal; `cut` says that it wrote more and was killed for it.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    cut: bool = False

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with 0."""
        return self.returncode == 0 and not (self.timed_out or self.cut)


def run_program(  # noqa: PLR0913 one argument per limit
    command: Sequence[str],
    *,
    seconds: float,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    output_bytes: int = 64 * MIB,
    memory_bytes: int | None = None,
    gentle: bool = False,
    descriptors: Sequence[int] = (),
) -> Finished:
    """Run a program to its end, without a shell, in a process group that does not outlive it.

    Args:
        command: The program and its arguments.
        seconds: Most time on the clock; then the group is killed.
        cwd: Where it runs.
        environment: All it sees of one; None gives it PATH, HOME, LANG and TMPDIR only.
        stdin: What it reads.
        output_bytes: Most bytes of each stream; a program that writes more is killed.
        memory_bytes: Most address space of each of its processes; None sets no limit.
        gentle: Whether it is asked to end, and has a moment to tidy up, before it is killed.
        descriptors: Open ones that it inherits beside its streams.

    Raises:
        EnvironmentFailure: It cannot be started.
    """
    limits = [] if memory_bytes is None else ["-v", str(memory_bytes >> 10)]
    # `ulimit` sets the limit in the child without running our code between fork and exec.
    prefix = ["/bin/sh", "-c", f'ulimit {" ".join(limits)}; exec "$@"', "sh"] if limits else []
    try:
        child = subprocess.Popen(
            [*prefix, *command],
            cwd=cwd,
            env=dict(_small_environment() if environment is None else environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=descriptors,
        )
    except OSError as error:
        message = f"cannot be started: {(error.strerror or str(error)).lower()}"
        raise EnvironmentFailure(message, where=command[0]) from None
    try:
        return _collect(child, stdin, seconds, output_bytes)
    finally:
        _end_group(child, gentle=gentle)


def _collect(
    child: subprocess.Popen[bytes], stdin: bytes, seconds: float, output_bytes: int
) -> Finished:
    """Feed and read a child until its streams end, it has written too much, or time is up."""
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    deadline = time.monotonic() + seconds
    read: dict[int, bytearray] = {child.stdout.fileno(): bytearray()}
    out, err = child.stdout.fileno(), child.stderr.fileno()
    read[err] = bytearray()
    feeding, left = child.stdin.fileno(), memoryview(stdin)
    os.set_blocking(feeding, False)
    with selectors.DefaultSelector() as selector:
        for stream in (out, err):
            selector.register(stream, selectors.EVENT_READ)
        selector.register(feeding, selectors.EVENT_WRITE)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready and time.monotonic() >= deadline:
                return Finished(-9, bytes(read[out]), bytes(read[err]), timed_out=True)
            for key, _ in ready:
                if key.fd == feeding:
                    left = _feed(feeding, left)
                    if not left:
                        selector.unregister(feeding)
                        child.stdin.close()
                    continue
                chunk = os.read(key.fd, _READ_BYTES)
                if not chunk:
                    selector.unregister(key.fd)
                read[key.fd] += chunk
                if len(read[key.fd]) > output_bytes:
                    kept = {fd: bytes(text[:output_bytes]) for fd, text in read.items()}
                    return Finished(-9, kept[out], kept[err], cut=True)
    try:
        code = child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Finished(-9, bytes(read[out]), bytes(read[err]), timed_out=True)
    return Finished(code, bytes(read[out]), bytes(read[err]))


def _feed(stream: int, left: memoryview) -> memoryview:
    """Write what fits; a program that reads no further has had enough."""
    try:
        return left[os.write(stream, left[:_READ_BYTES]) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]


class Dialogue:
    """A program that answers JSON values, one a line, until it is closed or fails.

    Args:
        command: The program and its arguments.
        environment: All it sees of one.
        cwd: Where it runs.
        reply_bytes: Longest reply.
        end: What it means that the program ends without a reply.
        gentle: As `run_program` has it.
        descriptors: As `run_program` has it.

    Raises:
        EnvironmentFailure: It cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path | None = None,
        reply_bytes: int = 64 * MIB,
        end: str = "it ended",
        gentle: bool = False,
        descriptors: Sequence[int] = (),
    ) -> None:
        self._reply_bytes, self._ended = reply_bytes, end
        try:
            self._child = subprocess.Popen(
                list(command),
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(environment),
                # Ctrl-C at the terminal is this process's to answer.
                start_new_session=True,
                pass_fds=descriptors,
            )
        except OSError as error:
            message = f"cannot be started: {(error.strerror or str(error)).lower()}"
            raise EnvironmentFailure(message, where=command[0]) from None
        self._end = weakref.finalize(self, _end_group, self._child, gentle=gentle)

    def ask(self, request: Any, *, seconds: float) -> Any:
        """Return the reply to a JSON value; the program does not outlive a failure.

        Raises:
            ChildFailed: No reply in time, too long a one, or none because the program has ended.
        """
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request, allow_nan=False).encode("ascii") + b"\n")
            self._child.stdin.flush()
            line = self._read_line(seconds)
        except BrokenPipeError:
            line = b""
        except ChildFailed:
            self._end()
            raise
        if not line.endswith(b"\n"):
            self._end()
            raise ChildFailed(self._ended)
        return json.loads(line)

    def close(self) -> None:
        """End the program."""
        self._end()

    def _read_line(self, seconds: float) -> bytes:
        assert self._child.stdout is not None
        stream, line = self._child.stdout.fileno(), bytearray()
        deadline = time.monotonic() + seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ChildFailed(f"no reply within {seconds:g} s")
            chunk = os.read(stream, _READ_BYTES)
            if not chunk:
                break
            line += chunk
            if len(line) > self._reply_bytes:
                raise ChildFailed(f"a reply of more than {self._reply_bytes // MIB} MiB")
        return bytes(line)


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
        self._seconds = seconds
        self._dialogue = Dialogue(
            [sys.executable, "-P", "-m", module, str(seconds), str(memory_bytes)],
            environment=_environment(),
            reply_bytes=reply_bytes,
            end=f"more than {seconds:g} s of processor time, or a crash",
        )

    def ask(self, request: Any) -> Any:
        """Return the child's reply to a JSON value; it does not outlive a failure.

        Raises:
            ChildFailed: No reply within the limits.
        """
        # The first reply waits for the child's imports too.
        return self._dialogue.ask(request, seconds=5 * self._seconds + 60)

    def close(self) -> None:
        """End the child."""
        self._dialogue.close()


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


def _small_environment() -> dict[str, str]:
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in names if name in os.environ}


def _end_group(child: subprocess.Popen[bytes], *, gentle: bool) -> None:
    """End a program and all of its group, whatever they do."""
    if gentle and child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    child.wait()
