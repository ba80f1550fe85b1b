"""What the operators propose for each file of a tree, in this process or in several.

Files are the shards: what is drawn inside one depends on the seed, its path and its content only,
and results come back in the order of the tree, so that any number of processes gives the same.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.python_code import (
    Candidate,
    Place,
    Source,
    find_functions,
    function_of,
    parse,
)
from swe_scaffold.python_tree import (
    Include,
    ReadCounts,
    find_python_files,
    read_python_file,
)
from swe_scaffold.synthesis.operators import OPERATORS

_CHUNK = 8


class Shard(NamedTuple):
    """A file to propose mutations of: its path below the root, and where it is."""

    relative: str
    path: Path
    seed: int
    operators: tuple[str, ...]


class Proposal(NamedTuple):
    """A candidate with the index of its place; `rank` is its seeded position in its file."""

    rank: float
    place: int
    candidate: Candidate


@dataclass(slots=True)
class Proposals:
    """One file: its bytes, its eligible functions, what could be changed, and what was left out."""

    path: str
    data: bytes = b""
    skipped: str = ""
    unparsable: bool = False
    functions: Counter[str] = field(default_factory=Counter)
    places: list[Place] = field(default_factory=list)
    found: list[Proposal] = field(default_factory=list)


def propose_tree(
    root: Path,
    include: Include,
    *,
    seed: int,
    operators: tuple[str, ...],
    jobs: int,
    counts: ReadCounts,
) -> Iterator[Proposals]:
    """Yield the proposals of every Python file below `root`, in order.

    Raises:
        DataError: `root` is not a folder.
        EnvironmentFailure: A worker process died.
    """
    files = find_python_files(root, include, counts=counts)
    shards = [Shard(relative, path, seed, operators) for relative, path in files]
    with workers(min(jobs, len(shards) // _CHUNK)) as run:
        yield from run(propose, shards, _CHUNK)


def propose(shard: Shard) -> Proposals:
    """Read and parse one file and collect what the operators propose."""
    text, reason = read_python_file(shard.path)
    result = Proposals(shard.relative, skipped=reason)
    if reason:
        return result
    tree = parse(text)
    if tree is None:
        result.unparsable = True
        return result
    source = Source(text)
    result.data = source.data
    digest = hashlib.sha256(source.data).hexdigest()
    draw = random.Random(f"{shard.seed}:{shard.relative}:{digest}")
    for place, node in find_functions(tree, source):
        function = function_of(place, node)
        if isinstance(function, str):
            result.functions[function] += 1
            continue
        result.functions["eligible"] += 1
        result.places.append(place)
        for name in shard.operators:
            for candidate in OPERATORS[name](function, source):
                index = len(result.places) - 1
                result.found.append(Proposal(draw.random(), index, candidate))
    return result


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield `run(function, items, chunk)`: results in order, from `jobs` processes or this one.

    When the block ends by an error or a signal, the workers end with it.

    Raises:
        EnvironmentFailure: A worker process died.
    """
    if jobs <= 1:
        yield lambda function, items, chunk=1: map(function, items)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare_worker)
    before = set(multiprocessing.active_children())
    try:
        yield lambda function, items, chunk=1: pool.map(
            functools.partial(_call, function), items, chunksize=chunk
        )
    except BrokenProcessPool as error:
        hint = "it may have run out of memory; fewer --jobs need less"
        raise EnvironmentFailure("a worker process died", hint=hint) from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, which ends this process by SIGTERM, so that `finally` runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: object) -> None:
    # Once is enough: a second signal must not cut the cleaning up short.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except SystemExit:
        # The pool would report it and go on with the next item.
        os._exit(1)
