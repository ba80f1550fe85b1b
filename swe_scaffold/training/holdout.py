"""The hold-out scored during a run, its passes divided among the processes."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING

from swe_scaffold.errors import DivergedError
from swe_scaffold.terminal import show

if TYPE_CHECKING:
    from swe_scaffold.training.run import Run


def hold_out_totals(run: Run) -> list[float]:
    """Return the NLL of each held-out row under the model as it is; a row's is the same anywhere.

    A signal ends it early, and the numbers are then of no use.

    Raises:
        DivergedError: A row's likelihood is not finite.
    """
    from swe_scaffold.engine.scoring import plan_passes, score

    rows, settings = run.data.held_out, run.config.evaluation
    lengths = [len(row.input_ids) for row in rows]
    passes = plan_passes(
        lengths, tokens_per_pass=settings.tokens_per_batch, rows_per_pass=settings.batch_size
    )
    own = passes[run.processes.rank :: run.processes.size]
    totals = [0.0] * len(rows)
    scored = score(
        run.loop.model, rows, passes=own, pad_id=run.renderer.pad_id, device=run.base.device
    )
    for row in chain.from_iterable(scored):
        if run.stop.asked:
            break
        if not math.isfinite(row.total):
            name = show(rows[row.index].instance_id, width=60)
            raise DivergedError(
                f"the hold-out NLL is not finite at step {run.loop.step}; row: {name}",
                hint="lower training.learning_rate, or train in another dtype",
            )
        totals[row.index] = row.total
    run.loop.keep_up()
    return run.processes.total(totals)
