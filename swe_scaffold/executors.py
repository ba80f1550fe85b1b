"""Where work is done: in this process, in several, or on Ray; results come in order.

Every worker process has a pipe of its own. Through a queue that all share, as in the standard
library's pool, one that is ended while it writes keeps the reader waiting for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from swe_scaffold.errors import EnvironmentFailure, MissingExtra, ScaffoldError
from swe_scaffold.terminal import show

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

Input = TypeVar("Input")
Output = TypeVar("Output")

# How long a worker has for its `finally` blocks before it is killed.
GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Executor:
    """Where work is done; what comes out is the same everywhere.

    `jobs` None takes one per processor, no more than there is work for. With `ray`, `address` is a
    running cluster (`auto` finds it); empty starts one on this machine.
    """

    kind: Literal["process", "ray"] = "process"
    jobs: int | None = 1
    address: str = ""


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_number() -> int:
    """Return which of several workers this process is, from 0; 0 outside of them."""
    return _NUMBER[0]


_NUMBER = [0]


def map_in_order(
    function: Callable[[Input], Output], inputs: Iterable[Input], executor: Executor, *, room: int
) -> Generator[Output, None, None]:
    """Yield `function(input)` for every input, in order; no more than a few results wait.

    Args:
        function: Importable under its name; what it takes and returns can be pickled.
        inputs: One at a time.
        executor: Where.
        room: For how many jobs there is work, where the executor does not say how many.

    Raises:
        EnvironmentFailure: A worker was killed, or the cluster cannot be used.
        MissingExtra: Ray is asked for and not installed.
    """
    jobs = executor.jobs or max(1, min(processors(), room))
    if executor.kind == "ray":
        return _on_ray(function, inputs, executor.address, jobs)
    if jobs == 1:
        return (function(value) for value in inputs)
    return _in_processes(function, inputs, jobs)


def _in_processes(
    function: Callable[[Input], Output], inputs: Iterable[Input], jobs: int
) -> Generator[Output, None, None]:
    with workers(jobs) as run:
        yield from run(function, inputs)


class RunInOrder(Protocol):
    """What `workers` yields."""

    def __call__(
        self,
        function: Callable[[Input], Output],
        items: Iterable[Input],
        *,
        chunk: int = 1,
        ahead: int = 1,
    ) -> Iterator[Output]:
        """Yield `function(item)` for every item, in order; both as `map_in_order` takes them.

        `chunk` items travel at a time; `ahead` chunks more than there are workers may wait.
        """


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[RunInOrder]:
    """Yield what runs a function on items, in `jobs` processes that stay for the block, or here.

    However the block ends, the processes end with it: `finally` runs in them, within a few seconds.

    Raises:
        EnvironmentFailure: A worker was killed.
    """
    if jobs <= 1:
        yield _run_here
        return
    team = _Team(jobs)
    try:
        yield team.run
    finally:
        team.end()


def _run_here(
    function: Callable[[Input], Output], items: Iterable[Input], *, chunk: int = 1, ahead: int = 1
) -> Iterator[Output]:
    return map(function, items)


class _Team:
    """Processes that answer one request after the other, each through a thread of this one."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._processes: list[SpawnProcess] = []
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()

    def run(
        self,
        function: Callable[[Input], Output],
        items: Iterable[Input],
        *,
        chunk: int = 1,
        ahead: int = 1,
    ) -> Iterator[Output]:
        waiting: deque[Future[list[Output]]] = deque()
        rest = iter(items)
        try:
            while part := list(islice(rest, chunk)):
                waiting.append(self._ask(function, part))
                if len(waiting) > self._jobs + ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def end(self) -> None:
        """End every process: by SIGTERM first, and where that is not enough by SIGKILL."""
        for _ in self._processes:
            self._requests.put(None)
        try:
            for process in self._processes:
                process.terminate()
            deadline = time.monotonic() + GRACE_SECONDS
            for process in self._processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:
            # Also where a second Ctrl-C ends the wait.
            for process in self._processes:
                process.kill()
            for process in self._processes:
                process.join(1)

    def _ask(self, function: Callable[[Input], Output], part: list[Input]) -> Future[list[Output]]:
        if len(self._processes) < self._jobs:
            self._start()
        future: Future[list[Output]] = Future()
        self._requests.put((future, (function, part)))
        return future

    def _start(self) -> None:
        from multiprocessing import get_context, resource_tracker

        # Children start from nothing: a copy of this process could hold locks of its threads.
        context = get_context("spawn")
        # Started later, it would unblock the signals blocked below.
        resource_tracker.ensure_running()
        ours, theirs = context.Pipe()
        number = len(self._processes)
        process = context.Process(target=_serve, args=(theirs, number), daemon=True)
        feed = threading.Thread(target=_feed, args=(ours, self._requests), daemon=True)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            # A Ctrl-C must not meet a child that cannot yet leave it to this process, nor end its
            # start halfway; the thread inherits the mask, or it would take the signal meanwhile.
            signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS_SIGNALS)
            process.start()
            self._processes.append(process)
            feed.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # The child alone holds its end, so that whatever ends it is seen here.
        theirs.close()


_Request = tuple["Future[Any]", tuple[Callable[[Any], Any], list[Any]]]
_PARENTS_SIGNALS = (signal.SIGINT, signal.SIGHUP)


def _feed(connection: Connection, requests: SimpleQueue[_Request | None]) -> None:
    """Pass requests to one process, and its answers to those who wait for them."""
    with connection:
        while (request := requests.get()) is not None:
            future, question = request
            if not future.set_running_or_notify_cancel():
                continue
            try:
                connection.send(question)
                done, answer = connection.recv()
            except (EOFError, OSError):
                message = "a worker process was killed, perhaps for want of memory"
                future.set_exception(EnvironmentFailure(message, hint="try fewer --jobs"))
            except Exception as error:  # noqa: BLE001 whoever waits for the answer gets it
                future.set_exception(error)
            else:
                (future.set_result if done else future.set_exception)(answer)


def _serve(connection: Connection, number: int) -> None:
    """Be a worker: answer until nobody asks any more."""
    _NUMBER[0] = number
    _leave_signals_to_the_parent()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            answer = _answer(connection)
            try:
                connection.send(answer)
            except (TypeError, AttributeError, ValueError, RecursionError) as error:
                reason = f"an answer cannot be sent: {type(error).__name__}: {error}"
                connection.send((False, ScaffoldError(reason)))


def _answer(connection: Connection) -> tuple[bool, Any]:
    try:
        function, part = connection.recv()
    except (EOFError, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 a function that cannot be imported here, say
        return False, error
    try:
        return True, [function(item) for item in part]
    except Exception as error:  # noqa: BLE001 whatever it is, the parent raises it
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return False, error


def _leave_signals_to_the_parent() -> None:
    """Let Ctrl-C pass; the parent ends this process by SIGTERM, so that `finally` runs."""
    for number in _PARENTS_SIGNALS:
        # A handler, not SIG_IGN, which the programs started here would inherit.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _pass)
    signal.signal(signal.SIGTERM, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PARENTS_SIGNALS)


def _pass(number: int, frame: object) -> None:
    pass


def _end(number: int, frame: object) -> None:
    # Once is enough: a second signal must not cut the cleaning up short.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _on_ray(
    function: Callable[[Input], Output], inputs: Iterable[Input], address: str, jobs: int
) -> Generator[Output, None, None]:
    """Run tasks on a cluster; those that a lost worker held are run again elsewhere."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address, jobs)
    remote = ray.remote(max_retries=_RETRIES, num_cpus=1)(function)
    width = max(jobs, int(ray.cluster_resources().get("CPU", 1))) + 1
    waiting: deque[Any] = deque()
    try:
        for value in inputs:
            waiting.append(remote.remote(value))
            if len(waiting) > width:
                yield _fetch(ray, waiting.popleft())
        while waiting:
            yield _fetch(ray, waiting.popleft())
    finally:
        for task in waiting:
            ray.cancel(task, force=True)
        if ours:
            ray.shutdown()


_RETRIES = 5


def _connect(ray: Any, address: str, jobs: int) -> None:
    _require_somebody(address)
    where: dict[str, Any] = {"address": address} if address else {"num_cpus": jobs}
    # Ray would report usage to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(**where, include_dashboard=None if address else False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise EnvironmentFailure(
            f"no Ray cluster: {show(str(error).split(chr(10))[0], width=160)}",
            where=address or "--executor ray",
            hint="without --address a cluster is started on this machine",
        ) from None


def _require_somebody(address: str) -> None:
    """Knock first: where nobody answers, Ray's client ends the whole process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise EnvironmentFailure(
            f"no Ray cluster answers: {show(error, width=160)}",
            where=show(address, width=80),
            hint="without --address a cluster is started on this machine",
        ) from None


def _fetch(ray: Any, task: Any) -> Any:
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ScaffoldError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        reason = show(str(error).split("\n")[0], width=160)
        raise EnvironmentFailure(f"the Ray cluster lost a task: {reason}") from None


def call(bound: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> Any:
    """Call a function with its arguments, packed so that they can travel."""
    function, arguments, options = bound
    return function(*arguments, **options)
