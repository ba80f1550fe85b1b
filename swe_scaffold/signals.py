"""SIGINT, SIGTERM and SIGHUP: an exception where nothing needs finishing, a flag where a step does.

What is saved on the way out is left to the code that is interrupted.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from swe_scaffold.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Says whether a signal asked to stop; `signal_number` is 0 until then."""

    signal_number = 0

    @property
    def asked(self) -> bool:
        """Whether a signal arrived."""
        return self.signal_number != 0


class _Interrupt(BaseException):
    """Travels from the handler to the end of the block; no `except Exception` stops it."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(signal_number, message)
        self.signal_number, self.message = signal_number, message


@contextlib.contextmanager
def stop_by_exception() -> Iterator[None]:
    """Unwind the block where a signal arrives, so that unfinished files are cleaned up.

    Raises:
        Stopped: A signal arrived.
    """

    def handle(number: int, _: FrameType | None) -> None:
        raise _Interrupt(number, "stopped, nothing half-written was left")

    with _stopping(handle):
        yield


@contextlib.contextmanager
def stop_after_step() -> Iterator[StopRequest]:
    """Yield a flag that the first signal sets; a second signal unwinds the block at once.

    Raises:
        Stopped: A second signal arrived.
    """
    request = StopRequest()

    def handle(number: int, _: FrameType | None) -> None:
        if request.asked:
            raise _Interrupt(number, "stopped at once; the last complete checkpoint is intact")
        request.signal_number = number

    with _stopping(handle):
        yield request


@contextlib.contextmanager
def _stopping(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    try:
        with _handlers(handle):
            yield
    except _Interrupt as interrupt:
        raise Stopped(interrupt.signal_number, interrupt.message) from None


@contextlib.contextmanager
def _handlers(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python sets handlers in the main thread only
        return
    with contextlib.ExitStack() as restore:
        for number in _SIGNALS:
            before = signal.getsignal(number)
            # What is ignored (SIGHUP under nohup) stays ignored; None was not set by Python.
            if before is not signal.SIG_IGN and before is not None:
                restore.callback(signal.signal, number, before)
                signal.signal(number, handle)
        yield
