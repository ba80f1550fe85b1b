"""Stopping: what a signal interrupts, what it lets finish, and that handlers come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType

import pytest

from swe_scaffold.errors import Stopped
from swe_scaffold.files import atomic_folder, atomic_write, write_bytes
from swe_scaffold.signals import StopRequest, stop_after_step, stop_by_exception

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
BLOCKS: list[Callable[[], AbstractContextManager[StopRequest | None]]] = [
    stop_by_exception,
    stop_after_step,
]


def theirs(_number: int, _frame: FrameType | None) -> None:
    raise AssertionError("the handler from before was called inside the block")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Known handlers before each test, the process's own ones after it."""
    before = {number: signal.signal(number, theirs) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def send_inside(block: AbstractContextManager[object], *numbers: int) -> None:
    with block:
        for number in numbers:
            send(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_unwinds_the_block(number: signal.Signals) -> None:
    with pytest.raises(Stopped) as caught:
        send_inside(stop_by_exception(), number)
    assert caught.value.exit_code == 128 + number
    assert str(caught.value).startswith("stopped")


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_sets_a_flag(number: signal.Signals) -> None:
    with stop_after_step() as stop:
        before = (stop.asked, stop.signal_number)
        send(number)
        assert (before, stop.asked, stop.signal_number) == ((False, 0), True, number)
    with stop_after_step() as again:
        assert not again.asked


def test_the_second_signal_stops_at_once() -> None:
    with pytest.raises(Stopped, match="at once") as caught:
        send_inside(stop_after_step(), signal.SIGTERM, signal.SIGINT)
    assert caught.value.exit_code == 130


def swallow(log: list[str]) -> None:
    for _ in range(3):
        try:
            send(signal.SIGTERM)
        except Exception:  # noqa: BLE001 what libraries do around their optional parts
            log.append("swallowed")
        finally:
            log.append("cleaned")


@pytest.mark.parametrize("block", BLOCKS)
def test_no_library_can_swallow_a_stop(
    block: Callable[[], AbstractContextManager[object]],
) -> None:
    log: list[str] = []
    with pytest.raises(Stopped), block():
        swallow(log)
    assert log == ["cleaned"] * (1 if block is stop_by_exception else 2)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, Stopped])
def test_handlers_come_back_however_the_block_ends(
    block: Callable[[], AbstractContextManager[object]], error: type[BaseException] | None
) -> None:
    def run() -> None:
        with block():
            assert all(signal.getsignal(number) is not theirs for number in SIGNALS)
            if error is Stopped:
                send(signal.SIGTERM)
                send(signal.SIGTERM)
            elif error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    assert all(signal.getsignal(number) is theirs for number in SIGNALS)


def test_a_step_inside_a_command_hands_back_to_the_command() -> None:
    def run() -> None:
        with stop_by_exception():
            with stop_after_step() as stop:
                send(signal.SIGTERM)
            assert stop.asked
            send(signal.SIGINT)

    with pytest.raises(Stopped) as caught:
        run()
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is theirs


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_ignored_stays_ignored(
    block: Callable[[], AbstractContextManager[object]],
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with block() as stop:
        send(signal.SIGHUP)
        send(signal.SIGHUP)
        assert not (isinstance(stop, StopRequest) and stop.asked)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_other_threads_run_without_handlers() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_by_exception(), stop_after_step() as stop:
            seen.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def interrupted(path: Path, number: int) -> None:
    with stop_by_exception(), atomic_folder(path / "step-1") as folder:
        write_bytes(folder / "a", b"new")
        with atomic_write(path / "out") as stream:
            stream.write(b"new")
            send(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_unfinished_files_are_gone_when_the_block_has_unwound(
    tmp_path: Path, number: signal.Signals
) -> None:
    write_bytes(tmp_path / "out", b"old")
    with pytest.raises(Stopped):
        interrupted(tmp_path, number)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_bytes() == b"old"


WORK = """
import sys, time
from pathlib import Path
from swe_scaffold.errors import ScaffoldError
from swe_scaffold.files import atomic_write
from swe_scaffold.signals import stop_by_exception
try:
    with stop_by_exception():
        for number in range(100_000):
            with atomic_write(Path(sys.argv[1], "out")) as stream:
                stream.write(b"%d" % number * 1000)
            if number == 0:
                print("working", flush=True)
except ScaffoldError as error:
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.01, 0.03, 0.06])
def test_a_process_stopped_at_any_moment_cleans_up_and_says_so(
    tmp_path: Path, delay: float
) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", WORK, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"working\n"
        time.sleep(delay)
        child.terminate()
    assert child.returncode == 143
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
