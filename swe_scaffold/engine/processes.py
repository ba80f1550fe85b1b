"""The processes of a run: which of them this one is, and the few things they do together.

A launcher starts them and says in the environment who is who. One process is the trivial case: it
does nothing here, and loads nothing. What is computed where is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from swe_scaffold.errors import (
    EnvironmentFailure,
    IntegrityError,
    ScaffoldError,
    Stopped,
    UsageError,
)
from swe_scaffold.signals import stop_by_exception

# A process may work alone for so long, at most: the first one renders all rows.
PATIENCE = timedelta(minutes=30)
# Elements of the gradient that are copied together, to be summed at once.
_BUCKET = 1 << 25
_SPEECH_SECONDS = 3.0
_FAILED, _SAID = "swe_scaffold/failed", "swe_scaffold/said"


class LostProcess(EnvironmentFailure):
    """Another process of the run is gone, or does not answer, and did not say why."""


class SaidElsewhere(ScaffoldError):
    """The run ends for a reason that another process tells people; here only its exit code."""

    said = True

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this run failed, and says why")
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Processes:
    """One of `size` processes, `local_rank` of `local_size` on its node.

    `shards` says whether the frozen base is to be divided among them. Every method must be called
    by all processes, in the same order.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    shards: bool = False

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def most(self, value: int) -> int:
        """Return the largest of the processes' numbers."""
        if self.size == 1:
            return value
        import torch

        found = torch.tensor([value], dtype=torch.int64)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found)

    def meet(self) -> None:
        """Wait until all processes are here."""
        self.most(0)

    def least(self, value: int) -> int:
        """Return the smallest of the processes' numbers."""
        return -self.most(-value)

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sum over the processes of each number, in float64."""
        if self.size == 1:
            return list(values)
        import torch

        found = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(found)
        return found.tolist()

    def add_gradients(self, parameters: Sequence[Any]) -> None:
        """Give every parameter the sum of the processes' gradients; what none has stays None."""
        if self.size == 1:
            return
        import torch

        held = self.total([float(parameter.grad is not None) for parameter in parameters])
        used = [parameter for parameter, times in zip(parameters, held, strict=True) if times]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in used]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            torch.distributed.all_reduce(flat)
            sizes = [gradient.numel() for gradient in bucket]
            for gradient, part in zip(bucket, flat.split(sizes), strict=True):
                gradient.copy_(part.view_as(gradient))

    def copy_first(self, tensors: Sequence[Any]) -> None:
        """Overwrite tensors with those of the first process."""
        for tensor in tensors if self.size > 1 else ():
            import torch

            torch.distributed.broadcast(tensor, 0)

    def share(self, value: Any) -> Any:
        """Return the JSON value of the first process; what the others pass does not matter."""
        if self.size == 1:
            return value
        import torch

        data = json.dumps(value, allow_nan=False).encode() if self.leads else b""
        length = torch.tensor([len(data)])
        torch.distributed.broadcast(length, 0)
        sent = torch.tensor(list(data), dtype=torch.uint8) if data else torch.empty(0)
        buffer = sent if self.leads else torch.empty(int(length), dtype=torch.uint8)
        torch.distributed.broadcast(buffer, 0)
        return json.loads(bytes(buffer.tolist()))

    def require_same(self, number: int, what: str) -> None:
        """Refuse to go on where the processes do not have the same number, 0 to 2^62 - 1.

        Raises:
            IntegrityError: They have not.
        """
        if self.most(number) != self.least(number):
            raise IntegrityError(
                f"{what} differ between the processes of this run",
                hint="every node needs the same data, base model, configuration and packages",
            )

    @contextlib.contextmanager
    def first_of_node_first(self) -> Iterator[None]:
        """Let the first process of a node go ahead: the others find in the cache what it made."""
        if self.local_rank:
            self.meet()
        yield
        if not self.local_rank:
            self.meet()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turn the errors of a broken connection into one that says what happened.

        Raises:
            SaidElsewhere: Another process failed and has said why.
            LostProcess: Another process is gone, or does not answer.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or isinstance(error, ScaffoldError) or not _is_of_connection(error):
                raise
            if code := _failed():
                raise SaidElsewhere(code) from error
            raise LostProcess(
                "another process of this run has died or does not answer",
                hint="its last complete step is kept where the first process lives: start all "
                "processes again, --resume added and --overwrite left out",
            ) from error


ALONE = Processes()


def launched() -> Processes:
    """Return which process the launcher's environment says that this is.

    Raises:
        UsageError: The environment makes no sense, or asks for what is not done here.
    """
    size = _number("WORLD_SIZE", 1)
    if size < 2:
        return ALONE
    for name, what in (("DEEPSPEED", "DeepSpeed"), ("MEGATRON_LM", "Megatron-LM")):
        if _is_on(f"ACCELERATE_USE_{name}"):
            raise UsageError(f"{what} is not supported", hint="launch with --multi_gpu, or FSDP2")
    shards = _is_on("ACCELERATE_USE_FSDP")
    if shards and os.environ.get("FSDP_VERSION", "1") != "2":
        raise UsageError("FSDP1 is not supported", hint="launch with --fsdp_version 2")
    if shards and _is_on("FSDP_OFFLOAD_PARAMS"):
        raise UsageError(
            "FSDP with parameters on the host is not supported",
            hint="launch with --fsdp_offload_params false",
        )
    return Processes(
        rank=_number("RANK", 0),
        size=size,
        local_rank=_number("LOCAL_RANK", 0),
        local_size=_number("LOCAL_WORLD_SIZE", 1),
        shards=shards,
    )


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Let one process of each node speak of an error that all of them meet before they join.

    Raises:
        SaidElsewhere: In the other processes, in place of the error.
    """
    try:
        # What one process fails at, the launcher ends the others for.
        with stop_by_exception():
            yield
    except ScaffoldError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            _let_speak()
            raise SaidElsewhere(error.exit_code) from error
        raise


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the other processes of a run, if it has any, and leave them in the end.

    Of an error one process speaks; all of them end with its exit code.

    Raises:
        SaidElsewhere: Another process has said, or says, why the run ends.
        LostProcess: Another process is gone, or does not answer.
        UsageError: As `launched`; or there are more processes than CUDA devices.
    """
    me = launched()
    if me.size == 1:
        yield me
        return
    import torch

    # Whoever calls, as Ray Train does, may have joined them before.
    opened = not torch.distributed.is_initialized()
    if opened:
        _join(me)
    try:
        with stop_by_exception(), me.watched():
            yield me
            # A launcher ends those who still write when another is gone.
            me.meet()
    except SaidElsewhere:
        _let_speak()
        raise
    except Exception as error:
        code = getattr(error, "exit_code", 1)
        if not _speaks(code):
            _let_speak()
            raise SaidElsewhere(code) from error
        raise
    finally:
        if opened:
            torch.distributed.destroy_process_group()


def _join(me: Processes) -> None:
    # First of all: defaults of its functions would hold on to what is joined here, whose threads
    # then outlive the interpreter, and end the process with SIGABRT.
    import torch.distributed.nn.functional

    cuda = torch.cuda.is_available()
    if cuda and me.local_size > torch.cuda.device_count():
        raise UsageError(
            f"{me.local_size} processes on a node with {torch.cuda.device_count()} CUDA devices",
            hint="start one process for each device",
        )
    if cuda:
        torch.cuda.set_device(me.local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        from swe_scaffold.engine.devices import share_processors

        share_processors(me.local_size)
    try:
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise EnvironmentFailure(
            f"the processes of this run cannot join: {reason}",
            hint="start them with accelerate launch or torchrun, see docs/scaling.md",
        ) from error


def _store() -> Any:
    """Return what the processes' launcher keeps for all of them, for a few words beside tensors."""
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def _failed() -> int:
    """Return the exit code of a process that failed and said so, else 0."""
    with contextlib.suppress(RuntimeError):
        if _store().check([_FAILED]):
            return int(_store().get(_FAILED))
    return 0


def _speaks(code: int) -> bool:
    """Leave word that this process fails; return whether it is the first to say why."""
    with contextlib.suppress(RuntimeError):
        _store().set(_FAILED, str(code))
        return bool(_store().add(_SAID, 1) == 1)
    return True


def _let_speak() -> None:
    """Wait for whoever says why: when one process has ended, a launcher ends the others."""
    with contextlib.suppress(Stopped), stop_by_exception():
        time.sleep(_SPEECH_SECONDS)


def _is_of_connection(error: RuntimeError) -> bool:
    import torch

    text = str(error).lower()
    named = any(word in text for word in ("gloo", "nccl", "connection", "socket"))
    return named or isinstance(error, torch.distributed.DistError)


def _buckets(tensors: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield tensors in order, as many at once as have few enough elements."""
    bucket: list[Any] = []
    for tensor in tensors:
        if bucket and sum(held.numel() for held in bucket) + tensor.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise UsageError(f"{name}={text!r} is no number", where="environment")
    return int(text)


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")
