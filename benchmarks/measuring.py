"""One measured run: a fresh process on pinned cores, its time, and the memory of all its processes.

Wall time is from start to exit. Processor seconds are the larger of two sums: those of the process
and of all children it waited for, and those last seen of each process of its session (some peers
never wait for their workers). Memory is the largest sum, over these processes, of their
proportional set sizes (PSS: a page that several share is counted once), read from smaps_rollup;
what of it is not backed by files is given apart, as pages of mapped files can be taken back. It is
read every 50 ms, less often where reading takes more than a twentieth of that time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

INTERVAL = 0.05
MAX_SPREAD = 0.05
# Fewer runs say nothing of how far they spread.
LEAST_RUNS = 5


@dataclass(frozen=True)
class Run:
    """One process: seconds, and bytes at the peak; `inside` is what it measured of itself."""

    wall_seconds: float
    cpu_seconds: float
    peak_pss: int
    peak_anonymous: int
    sampling_seconds: float
    inside: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """A command that does the work in the folder it is given as its last argument.

    What it made in the last run stays where `keep` says so; `warm` asks for one unmeasured run
    before all others, as it has a cache that outlives a run. What takes long and decides nothing
    runs `once`. What is still there after `limit` seconds is killed, and has failed.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    keep: bool = False
    warm: bool = False
    once: bool = False
    limit: float | None = None


class CommandFailed(RuntimeError):
    """A measured command did not end with 0."""

    @property
    def last_line(self) -> str:
        """The last line of its log."""
        return str(self).strip().split("\n")[-1]


def measure(contender: Contender, folder: Path, cores: Sequence[int]) -> Run:
    """Run once; output of the command goes to `folder/log`, its own figures come from inside.json.

    Raises:
        CommandFailed: With the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pinned = ["taskset", "-c", ",".join(map(str, cores)), *contender.command, str(folder)]
    with (folder / "log").open("wb") as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            pinned,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **contender.environment, "TMPDIR": str(folder)},
            start_new_session=True,
        )
        sampler = _Sampler(process.pid)
        sampler.start()
        alarm = threading.Timer(contender.limit or 0, os.killpg, (process.pid, signal.SIGKILL))
        if contender.limit:
            alarm.start()
        _, status, usage = os.wait4(process.pid, 0)
        alarm.cancel()
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    sampler.stop()
    if process.returncode:
        end = (folder / "log").read_bytes()[-3000:].decode("utf-8", "replace")
        if contender.limit and wall >= contender.limit:
            end += f"\nkilled after {contender.limit:g} s"
        raise CommandFailed(f"{contender.name} ended with {process.returncode}:\n{end}")
    noted = folder / "inside.json"
    return Run(
        wall_seconds=wall,
        cpu_seconds=max(usage.ru_utime + usage.ru_stime, sum(sampler.processor.values())),
        peak_pss=sampler.peak,
        peak_anonymous=sampler.peak_anonymous,
        sampling_seconds=sampler.seconds,
        inside=json.loads(noted.read_bytes()) if noted.is_file() else {},
    )


def interleave(
    contenders: Sequence[Contender],
    *,
    repeats: int,
    work: Path,
    cores: Sequence[int],
    failed: Callable[[str, CommandFailed], None] | None = None,
    after: Callable[[Mapping[str, list[Run]]], None] | None = None,
) -> dict[str, list[Run]]:
    """Run all contenders in turn, `repeats` times; folders are removed, save where kept.

    Args:
        contenders: Who takes part.
        repeats: How many turns there are.
        work: Where folders lie.
        cores: The processors everyone is pinned to.
        failed: Hears of a contender that fails, which is then left out, its runs too; without it
            one that fails ends everything.
        after: Hears of all runs so far, after each.
    """
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for turn in range(repeats):
        for contender in contenders:
            name = contender.name
            if name not in runs or (contender.once and turn):
                continue
            try:
                runs[name].append(_turn(contender, work, cores))
            except CommandFailed as error:
                if failed is None:
                    raise
                del runs[name]
                failed(name, error)
                continue
            print(f"  {turn + 1}/{repeats} {name}: {runs[name][-1]}", flush=True)
            if after is not None:
                after({name: found for name, found in runs.items() if found})
    return runs


def _turn(contender: Contender, work: Path, cores: Sequence[int]) -> Run:
    kept = work / "kept" / contender.name
    shutil.rmtree(kept, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        folder = Path(scratch) / "run"
        run = measure(contender, folder, cores)
        if contender.keep:
            # Caches are larger than all results, and nobody looks at them again.
            shutil.rmtree(folder / "cache", ignore_errors=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder, kept)
    return run


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return median, range and spread.

    Beyond 5 % spread, or of fewer than five runs, a figure counts as not measured.
    """
    median = statistics.median(values)
    spread = (max(values) - min(values)) / median if median else 0.0
    return {
        "median": median,
        "min": min(values),
        "max": max(values),
        "spread": spread,
        "runs": len(values),
        "measured": len(values) >= LEAST_RUNS and spread <= MAX_SPREAD,
    }


def doubt(figure: Mapping[str, Any]) -> str:
    """Return why a figure counts as not measured; nothing where it is."""
    if figure["measured"]:
        return ""
    if figure["spread"] > MAX_SPREAD:
        return f"spread {figure['spread']:.1%}"
    return "one run" if figure["runs"] == 1 else f"{figure['runs']} runs"


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the summary of each figure of some runs."""
    rows = []
    for run in runs:
        row = asdict(run)
        inside = row.pop("inside")
        rows.append({**row, **inside})
    return {name: summary([row[name] for row in rows]) for name in rows[0]}


class _Sampler(threading.Thread):
    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self._session, self._done = session, threading.Event()
        self.peak = self.peak_anonymous = 0
        self.seconds = 0.0
        self.processor: dict[str, float] = {}

    def run(self) -> None:
        wait = INTERVAL
        while not self._done.wait(wait):
            start = time.thread_time()
            seen = _members(self._session)
            self.processor.update(seen)
            sizes = [_sizes(pid) for pid in seen]
            self.peak = max(self.peak, sum(size for size, _ in sizes))
            self.peak_anonymous = max(self.peak_anonymous, sum(size for _, size in sizes))
            took = time.thread_time() - start
            self.seconds += took
            wait = max(INTERVAL, 20 * took)

    def stop(self) -> None:
        self._done.set()
        self.join()


def _members(session: int) -> dict[str, float]:
    """Return the processes of a session and the processor seconds of each."""
    found = {}
    tick = os.sysconf("SC_CLK_TCK")
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                text = Path(entry.path, "stat").read_text("utf-8", "replace")
            except OSError:
                continue
            # After the name, which may hold anything: state, parent, group, session.
            fields = text.rpartition(")")[2].split()
            if fields[3] == str(session):
                found[entry.name] = (int(fields[11]) + int(fields[12])) / tick
    return found


def _sizes(pid: str) -> tuple[int, int]:
    """Return proportional set size, and the anonymous part of it, in bytes."""
    try:
        text = Path("/proc", pid, "smaps_rollup").read_text("ascii", "replace")
    except OSError:
        return 0, 0
    values = dict(line.split(":", 1) for line in text.split("\n") if ":" in line)
    return tuple(  # type: ignore[return-value]
        int(values.get(name, "0 kB").split()[0]) * 1024 for name in ("Pss", "Pss_Anon")
    )
