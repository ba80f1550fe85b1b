"""Devices and dtypes: what `auto` means here, seeds, memory, and out-of-memory as an error."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from swe_scaffold.errors import OutOfMemory

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Device:
    """Where to compute, and with which base dtype."""

    name: str
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        """The dtype as configuration spells it."""
        return str(self.dtype).removeprefix("torch.")


def choose_device(dtype: str = "auto", number: int = 0) -> Device:
    """Take CUDA, else MPS, else the CPU; `auto` is bfloat16 on CUDA that has it, else float32.

    Of several CUDA devices, process `number` takes its own, beginning again where they run out.
    """
    if torch.cuda.is_available():
        name = f"cuda:{number % torch.cuda.device_count()}" if number else "cuda"
    elif torch.backends.mps.is_available():
        name = "mps"
    else:
        name = "cpu"
    if dtype == "auto":
        dtype = (
            "bfloat16" if name.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"
        )
    return Device(name, DTYPES[dtype])


def threads() -> int:
    """Return in how many threads this process computes; sums depend on it in the last bits."""
    return torch.get_num_threads()


def share_processors(processes: int) -> None:
    """Take this process's part of the processors, where several compute at once."""
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))


def peak_memory_bytes(device: Device) -> int:
    """Return the highest memory use so far: of the device on CUDA, of this process elsewhere."""
    if device.name.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device.name)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory(device: Device) -> None:
    """Let `peak_memory_bytes` begin anew on CUDA; a process's own peak stays."""
    if device.name.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def memory_held_bytes(device: Device) -> int:
    """Return the memory in use now: of the device on CUDA, of this process elsewhere."""
    if device.name.startswith("cuda"):
        return torch.cuda.memory_allocated(device.name)
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return peak_memory_bytes(device)


def memory_limit_bytes(device: Device, *, sharers: int = 1) -> int:
    """Return what `peak_memory_bytes` may reach: what others leave of the device or the machine.

    On CUDA the free memory and what this process holds; elsewhere the least of the machine's
    memory, the limit of this process's control group, and what is available beside what it holds,
    where `sharers` processes like this one share them.
    """
    if device.name.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved()
    page = os.sysconf("SC_PAGE_SIZE")
    limits = [os.sysconf("SC_PHYS_PAGES") * page // sharers]
    with contextlib.suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")) // sharers)
    with contextlib.suppress(OSError, ValueError, IndexError):
        facts = Path("/proc/meminfo").read_text("ascii").partition("MemAvailable:")[2]
        limits.append(int(facts.split()[0]) * 1024 // sharers + memory_held_bytes(device))
    return min(limits)


@contextlib.contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Turn a failed allocation into `OutOfMemory` that says what was being computed."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        if isinstance(error, OutOfMemory):
            raise
        raise _too_large(what) from None
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error).lower():
            raise _too_large(what) from None
        raise


def _too_large(what: str) -> OutOfMemory:
    return OutOfMemory(
        f"out of memory in {what}",
        hint="lower training.tokens_per_micro_batch (the result stays the same but for rounding), "
        "evaluation.tokens_per_batch or training.max_length",
    )
