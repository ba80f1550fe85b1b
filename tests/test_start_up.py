"""The start of a program: collected rarely, then as usual, and nothing is left changed."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from swe_scaffold.start_up import started, starting

ROOT = Path(__file__).resolve().parents[1]


class Knot:
    """Only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """A collector that is easily told from Python's own settings."""
    before = gc.get_threshold()
    gc.set_threshold(600, 7, 8)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def is_collected_soon() -> bool:
    """Whether a thousand new objects are enough for the collector to look at the young ones."""
    knot = weakref.ref(Knot())
    young = [[number] for number in range(1000)]
    return len(young) == 1000 and knot() is None


def test_a_start_is_not_collected_and_what_follows_is() -> None:
    with starting():
        assert not is_collected_soon()
        assert gc.get_freeze_count() == 0
        started()
        assert is_collected_soon()
        assert gc.get_freeze_count() > 10_000
        started()
        assert gc.get_threshold() == (600, 7, 8)


def fail_after_the_start(knots: list[weakref.ref[Knot]]) -> None:
    with starting():
        knots.append(weakref.ref(Knot()))
        started()
        raise ValueError("in the middle")


def test_after_the_block_the_collector_is_as_it_was() -> None:
    knots: list[weakref.ref[Knot]] = []
    with pytest.raises(ValueError, match="in the middle"):
        fail_after_the_start(knots)
    assert (gc.get_threshold(), gc.get_freeze_count()) == ((600, 7, 8), 0)
    gc.collect()
    assert [knot() for knot in knots] == [None]


def test_a_program_of_others_is_left_alone() -> None:
    started()
    assert (gc.get_threshold(), gc.get_freeze_count()) == ((600, 7, 8), 0)


def test_a_program_that_ends_looks_for_no_garbage() -> None:
    code = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 10_000))\n"
        "from swe_scaffold.cli import main\n"
        "sys.exit(main(['--version']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[-2] == "True"
