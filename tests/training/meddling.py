"""What a launcher starts in tests: the command line, and something that happens in one process.

`meddling.py RANK STEP WHAT train ...`: in the middle of optimizer step STEP, process RANK dies
(`die`), has no finite loss (`diverge`), is asked to stop (`stop`: checkpoints are then written
slowly), or has its launcher terminated (`terminate`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from swe_scaffold.cli import run
from swe_scaffold.engine import checkpoint
from swe_scaffold.engine.loop import Loop
from swe_scaffold.errors import DivergedError
from swe_scaffold.manifest import write_manifest


def meddle(what: str) -> None:
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "diverge":
        raise DivergedError("the loss is not finite; rows: row-03", hint="look at these rows")
    elif what == "stop":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(2.0)


if __name__ == "__main__":
    rank, step, what, *arguments = sys.argv[1:]
    real = Loop._backward
    done: list[str] = []

    def backward(self: Loop, *passed: Any) -> float:
        if os.environ["RANK"] == rank and self.step + 1 == int(step) and not done:
            done.append(what)
            meddle(what)
        return real(self, *passed)

    def write_slowly(*given: Any) -> None:
        time.sleep(3.0)
        write_manifest(*given)

    Loop._backward = backward  # type: ignore[method-assign]
    if what == "stop":
        checkpoint.write_manifest = write_slowly
    run(arguments)
