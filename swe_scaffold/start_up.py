"""The start of a program, in which the garbage collector has nothing to find.

A start is imports and large files: half a million objects that stay. The collector would look
through all of them again and again, and once more when the program ends.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator

# Enough for the imports of a run; bounds what rows read meanwhile could leave behind.
_NEW_OBJECTS = 1_000_000
_USUAL: list[tuple[int, int, int]] = []


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Collect hardly ever until `started` is called; after the block as before it."""
    usual = gc.get_threshold()
    _USUAL.append(usual)
    gc.set_threshold(_NEW_OBJECTS, *usual[1:])
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        _USUAL.clear()
        gc.set_threshold(*usual)
        gc.unfreeze()


def started() -> None:
    """Look no more at what is loaded by now, and collect as usual from here on.

    Does nothing outside of `starting`: in another's program the collector is the other's.
    """
    if _USUAL:
        gc.freeze()
        gc.set_threshold(*_USUAL.pop())
