"""Where parts are made ready: in this process, in several, or on Ray; results come in order."""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from typing import Any, Literal, TypeVar

from swe_scaffold.errors import EnvironmentFailure, MissingExtra, ScaffoldError
from swe_scaffold.terminal import show

Input = TypeVar("Input")
Output = TypeVar("Output")


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
    # Children start from nothing: a copy of this process could hold locks of its threads.
    context = get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_leave_signals_to_the_parent)
    waiting: deque[Future[Output]] = deque()
    strangers = set(active_children())
    done = False
    try:
        for value in inputs:
            waiting.append(pool.submit(function, value))
            if len(waiting) > jobs + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        done = True
    except BrokenProcessPool:
        raise EnvironmentFailure(
            "a worker process was killed, perhaps for want of memory", hint="try fewer --jobs"
        ) from None
    finally:
        # Nothing waits for workers whose results nobody wants: a second Ctrl-C would find the pool
        # half closed, and the interpreter would wait for it for ever.
        for worker in () if done else set(active_children()) - strangers:
            worker.kill()
        pool.shutdown(wait=done, cancel_futures=True)


def _leave_signals_to_the_parent() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


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
