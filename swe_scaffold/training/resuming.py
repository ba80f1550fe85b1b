"""An interrupted run found in its folder, verified, and put back; the leading process does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.files import remove, require_lines
from swe_scaffold.manifest import provenance
from swe_scaffold.terminal import show
from swe_scaffold.training import folder as run_folder
from swe_scaffold.training import record

if TYPE_CHECKING:
    from swe_scaffold.engine.checkpoint import Checkpoint
    from swe_scaffold.training.run import Run


def restored(run: Run, allow_change: Sequence[str]) -> dict[str, Any] | None:
    """Put the newest checkpoint that verifies into a run's loop.

    Returns:
        What the run itself kept in it; None where there is no checkpoint.

    Raises:
        IntegrityError: Data, base, tokenizer or configuration are not those of the run.
        UsageError: The run has finished, and its checkpoints are gone; a key to change that is
            none.
    """
    from swe_scaffold.engine.checkpoint import (
        newest_checkpoint,
        remove_newer,
        require_same_run,
        restore,
    )

    before = run_folder.read_run(run.folder)
    record.require_known(allow_change, {*before["fingerprint"], *run.fingerprint})
    require_same_run(
        before["fingerprint"], run.fingerprint, where=str(run.folder), allowed=allow_change
    )
    checkpoints = run.folder / run_folder.CHECKPOINTS
    # A change on the record was allowed before the checkpoints it came after were written.
    allowed = {*allow_change, *(change["key"] for change in before["changes"])}
    checkpoint, passed = newest_checkpoint(
        checkpoints, fingerprint=run.fingerprint, allowed=allowed
    )
    for reason in passed:
        run.reporter.say(f"passed over {show(reason, width=400)}")
    if checkpoint is None and (run.folder / run_folder.MANIFEST).is_file():
        raise UsageError(
            "this run has finished, and no checkpoint is left to go on from",
            where=str(run.folder),
            hint="--overwrite trains it again",
        )
    if checkpoint is None:
        run.reporter.say("no usable checkpoint: starting from step 0")
        return None
    restore(run.loop, checkpoint)
    state = dict(checkpoint.state)
    # All of it is looked at before anything is written or removed.
    metrics_bytes = run.take_over(state, where=str(checkpoint.folder))
    require_lines(run.folder / run_folder.METRICS, metrics_bytes)
    if reason := _best_is_lost(run, checkpoint):
        state["best"] = run.best = None
        run.reporter.say(f"the best step so far is forgotten: {show(reason, width=400)}")
    _carry_over(run, before, checkpoint)
    remove(run.folder / run_folder.MANIFEST)
    remove_newer(checkpoints, checkpoint.step)
    return state


def _best_is_lost(run: Run, checkpoint: Checkpoint) -> str:
    """Say why the lowest NLL so far, or the weights that had it, are of no use any more."""
    from swe_scaffold.engine.checkpoint import open_checkpoint

    if run.best is None:
        return ""
    if checkpoint.fingerprint.get("holdout") != run.fingerprint.get("holdout"):
        return "it was that of another hold-out"
    if not run.training.load_best:
        return ""
    try:
        open_checkpoint(checkpoint.folder.with_name(f"step-{run.best[1]}"))
    except IntegrityError as error:
        return str(error)
    return ""


def _carry_over(run: Run, before: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """Put what `allow_change` let differ on the record, and what may change the last bits."""
    from swe_scaffold.engine.devices import threads

    step, now = checkpoint.step, {**provenance(), "threads": threads()}
    # What came after a checkpoint that was passed over comes after this one now.
    known = [{**change, "step": min(change["step"], step)} for change in before["changes"]]
    new = record.changes(before["fingerprint"], run.fingerprint, step)
    others = record.changes(
        {**run_folder.circumstances(before), "processes": checkpoint.state.get("processes", 1)},
        {**run_folder.circumstances(now), "processes": run.processes.size},
        step,
    )
    if any(change["key"] == "data" for change in (*known, *new)):
        run.trained_rows |= record.read_trained_rows(run.folder)
    if new:
        record.refuse_trained(run.data.held_out, run.trained_rows, where=str(run.folder))
    # Interrupted before its next checkpoint, a run sees the same differences again.
    run.changes = [*known, *new, *(change for change in others if change not in known)]
    for change in new:
        run.reporter.say(f"changed from step {step} on: {record.in_words(change)}")
    for change in others:
        run.reporter.say(f"{record.in_words(change)}: the last bits may differ")
    if run.changes != before["changes"]:
        record.write_trained_rows(run.folder, run.trained_rows)
        run.write_record()
