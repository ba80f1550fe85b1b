"""An interrupted run found in its folder, verified, and put back; the leading process does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from swe_scaffold.config import dump_config
from swe_scaffold.errors import UsageError
from swe_scaffold.files import remove
from swe_scaffold.terminal import show
from swe_scaffold.training import folder as run_folder
from swe_scaffold.training import record

if TYPE_CHECKING:
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
    for change in run_folder.changed_versions(before):
        run.reporter.say(f"{show(change)}: the last bits may differ")
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
    _carry_over(run, before, checkpoint.step)
    # Looked at before anything is removed.
    run.take_over(checkpoint.state, where=str(checkpoint.folder))
    remove(run.folder / run_folder.MANIFEST)
    remove_newer(checkpoints, checkpoint.step)
    return dict(checkpoint.state)


def _carry_over(run: Run, before: Mapping[str, Any], step: int) -> None:
    """Put what `allow_change` let differ on the record."""
    new = record.changes(before["fingerprint"], run.fingerprint, step)
    run.changes = [*before["changes"], *new]
    run.trained_rows |= record.read_trained_rows(run.folder)
    if not new:
        return
    record.refuse_trained(run.data.held_out, run.trained_rows, where=str(run.folder))
    record.write_trained_rows(run.folder, run.trained_rows)
    config = dump_config(run.config)
    run_folder.write_run(
        run.folder, fingerprint=run.fingerprint, config=config, changes=run.changes
    )
    for change in new:
        run.reporter.say(
            f"changed from step {step} on: {change['key']} was {show(change['was'])}, "
            f"is {show(change['is'])}"
        )
