"""What happens between the steps of a run: logs, evaluation, checkpoints, and the end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.config import SpeedrunConfig, dump_config
from swe_scaffold.errors import IntegrityError, OutOfMemory, Stopped
from swe_scaffold.files import AppendLog, utc_now
from swe_scaffold.jsonl import write_jsonl
from swe_scaffold.rendering import Renderer
from swe_scaffold.signals import StopRequest
from swe_scaffold.terminal import Reporter
from swe_scaffold.training import folder as run_folder
from swe_scaffold.training import record
from swe_scaffold.training.data import RunData
from swe_scaffold.training.decisions import decide
from swe_scaffold.training.holdout import hold_out_totals
from swe_scaffold.training.machinery import make_machinery
from swe_scaffold.training.outcome import save_outcome
from swe_scaffold.training.plan import base_entry, binding, data_entries
from swe_scaffold.training.record import NoLog, TrainingResult, as_number
from swe_scaffold.training.resuming import restored
from swe_scaffold.training.telemetry import Telemetry

if TYPE_CHECKING:
    from swe_scaffold.engine.loop import StepMetrics
    from swe_scaffold.engine.model import BaseModel
    from swe_scaffold.engine.processes import Processes


class Run:
    """The moving parts of one run, and the few decisions after each step; close it in the end."""

    def __init__(
        self,
        config: SpeedrunConfig,
        data: RunData,
        base: BaseModel,
        renderer: Renderer,
        reporter: Reporter,
        processes: Processes,
    ) -> None:
        training = config.training
        self.config, self.training, self.folder = config, training, Path(training.output_dir)
        self.processes = processes
        self.data, self.base, self.renderer, self.reporter = data, base, renderer, reporter
        self.fingerprint = {
            **data.fingerprint,
            "base": base.sha256,
            "tokenizer": renderer.tokenizer_sha256,
            "template": renderer.template_sha256,
            "rendering": renderer.digest(),
            "device": f"{base.device.name}/{base.device.dtype_name}",
            **dict(binding(config)),
        }
        processes.require_same(as_number(self.fingerprint), "data, base or configuration")
        self._machinery = make_machinery(
            training, data, base, pad_id=renderer.pad_id, processes=processes
        )
        self.loop, self.order = self._machinery.loop, self._machinery.order
        self.telemetry = Telemetry(self.loop, measured=training.measure_mfu)
        # Ids and hashes, and what `allow_change` let differ along the way.
        self.trained_rows = {(row.instance_id, row.sha256) for row in data.trained}
        self.changes: list[dict[str, Any]] = []
        self.best: tuple[float, int] | None = None
        self.eval_nll: float | None = None
        self.losses: tuple[float, int] = (0.0, 0)
        self.window: list[tuple[float, int]] = []
        # Whether the last step's evaluation was due and a signal came first.
        self.pending = False
        self.stop = StopRequest()
        self._opened = contextlib.ExitStack()

    def close(self) -> None:
        """Close logs and trackers, whatever happened."""
        self._opened.close()

    def begin(self) -> None:
        """Record the run, in place of an earlier one, and open its logs."""
        if self.processes.leads:
            run_folder.clear(self.folder)
            self.write_record()
            record.write_trained_rows(self.folder, self.trained_rows)
        self._open_logs(0, 0)
        if self.training.eval_strategy != "no":
            self.evaluate()

    def resume(self, allow_change: Sequence[str] = ()) -> None:
        """Go on from the newest checkpoint that verifies, or from the start if there is none.

        Raises:
            IntegrityError: Data, base, tokenizer or configuration are not those of the run.
            UsageError: The run has finished, and its checkpoints are gone; a key to change that
                is none.
        """
        from swe_scaffold.engine.checkpoint import copy_first

        state = self.processes.share(restored(self, allow_change) if self.processes.leads else None)
        if state is None:
            self.begin()
            return
        copy_first(self.loop)
        keep = self.take_over(state, where=str(self.folder))
        self._open_logs(keep, self.loop.step)
        self._cut_as_before(state.get("chosen_tokens"))
        self.reporter.say(f"going on from step {self.loop.step}")

    def write_record(self) -> None:
        """Write what this run is, for those who resume it."""
        from swe_scaffold.engine.devices import threads

        run_folder.write_run(
            self.folder,
            fingerprint=self.fingerprint,
            config=dump_config(self.config),
            threads=threads(),
            changes=self.changes,
        )

    def _cut_as_before(self, tokens: int | None) -> None:
        """Cut micro-batches as before this run was interrupted, whatever memory is free now."""
        fitting = self._machinery.budget.tokens
        if tokens in (None, fitting) or self.training.tokens_per_micro_batch != "auto":
            return
        try:
            self._machinery = self._machinery.cut_into(tokens, self.training, self.data.trained)
        except OutOfMemory:
            found = {"tokens_per_micro_batch": tokens}, {"tokens_per_micro_batch": fitting}
            (change,) = record.changes(*found, self.loop.step)
            self.reporter.say(f"{record.in_words(change)}: the last bits may differ")
            if self.processes.leads and change not in self.changes:
                self.changes.append(change)
                self.write_record()

    def take_over(self, state: Mapping[str, Any], *, where: str) -> int:
        """Put a checkpoint's sums in place; return how many bytes of the metrics it has seen."""
        try:
            best = state["best"]
            self.best = (float(best[0]), int(best[1])) if best else None
            self.eval_nll = state["eval_nll"]
            self.losses = (state["losses"][0], state["losses"][1])
            self.window = [(nll, targets) for nll, targets in state["window"]]
            self.pending = bool(state["pending_evaluation"])
            return int(state["metrics_bytes"])
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise IntegrityError(f"malformed state: {error}", where=where) from None

    def _open_logs(self, keep: int, step: int) -> None:
        from swe_scaffold.engine.trackers import Trackers

        self.metrics: AppendLog | NoLog = NoLog()
        self.timing: AppendLog | NoLog = NoLog()
        if not self.processes.leads:
            self.trackers = Trackers((), self.folder, {})
            return
        metrics, timing = self.folder / run_folder.METRICS, self.folder / run_folder.TIMING
        self.metrics = self._opened.enter_context(closing(AppendLog(metrics, keep=keep)))
        known, lines = run_folder.timing_so_far(timing, step)
        self.telemetry.go_on(lines)
        self.timing = self._opened.enter_context(closing(AppendLog(timing, keep=known)))
        tracking = self.folder / "tracking"
        self.trackers = Trackers(self.training.report_to, tracking, dump_config(self.config))
        self._opened.callback(self.trackers.finish)

    def train(self, stop: StopRequest) -> None:
        """Take the remaining steps.

        Raises:
            Stopped: A signal arrived; a checkpoint was saved.
            LostProcess: Another process is gone; the last complete step was saved.
        """
        from swe_scaffold.engine.processes import LostProcess

        self.stop = stop
        try:
            with self.processes.watched():
                self._take_steps()
        except LostProcess:
            # Weights change after all have added their part, so that those here are whole.
            if self.processes.leads and self.loop.step:
                self._write_checkpoint()
            raise

    def _take_steps(self) -> None:
        from swe_scaffold.engine.loop import run

        total = self.loop.settings.steps
        with self.reporter.progress("training", total, unit="steps") as track:
            track.advance(self.loop.step)
            if self.pending:
                self._after_step()

            def after_step(metrics: StepMetrics) -> None:
                self._log(metrics)
                speed = metrics.tokens / max(metrics.wall_seconds, 1e-9)
                track.advance(1, f"loss {metrics.loss:.4f}, {speed:,.0f} tokens/s")
                self._after_step()

            run(self.loop, self.data.trained, self.order, after_step)

    def _after_step(self) -> None:
        step, last = self.loop.step, self.loop.step == self.loop.settings.steps
        self.pending = self._due(self.training.eval_strategy, self.training.eval_steps) or (
            last and self.training.eval_strategy != "no"
        )
        improved = self.pending and self.evaluate()
        save = last or self._due(self.training.save_strategy, self.training.save_steps)
        stop = self._asked_to_stop()
        if save or (improved and self.training.load_best) or stop:
            self.save()
        if stop and (self.pending or not last):
            # Once one process has ended, the launcher ends all; the first may still be writing.
            self.processes.meet()
            raise Stopped(
                self.stop.signal_number,
                f"stopped at step {step}, a checkpoint was saved",
                hint="resume with the same command, --resume added and --overwrite left out",
            )

    def _asked_to_stop(self) -> bool:
        """Whether a signal has reached any process: all of them hear of it at the same point."""
        if number := self.processes.most(self.stop.signal_number):
            self.stop.signal_number = number
        return number != 0

    def _due(self, strategy: str, every: int) -> bool:
        if strategy == "steps":
            return self.loop.step % every == 0
        return strategy == "epoch" and self.loop.step % self.order.steps_per_epoch == 0

    def _log(self, metrics: StepMetrics) -> None:
        line = asdict(metrics)
        del line["wall_seconds"], line["batch_seconds"]
        self.metrics.append(line)
        rows = [self.data.trained[row] for row in self.order.at(metrics.step - 1)]
        self.timing.append(self.telemetry.line(metrics, rows))
        self.trackers.log({key: line[key] for key in ("loss", "lr", "grad_norm")}, metrics.step)
        self.losses = (
            self.losses[0] + metrics.loss * metrics.targets,
            self.losses[1] + metrics.targets,
        )
        self.window.append((metrics.loss * metrics.targets, metrics.targets))
        if metrics.step % self.training.logging_steps == 0:
            nll, targets = (math.fsum(part) for part in zip(*self.window, strict=True))
            self.window.clear()
            norm = metrics.grad_norm
            shown = "float16 overflow, step skipped" if norm is None else f"grad norm {norm:.3f}"
            self.reporter.say(
                f"step {metrics.step}/{self.loop.settings.steps}  loss {nll / targets:.4f}  "
                f"lr {metrics.lr:.2e}  {shown}"
            )

    def evaluate(self) -> bool:
        """Score the hold-out; return whether it is the best so far.

        Where a signal comes first, nothing is recorded and it stays `pending`.

        Raises:
            DivergedError: A row's likelihood is not finite.
        """
        if self.data.held_out:
            with self._as_saved():
                totals = hold_out_totals(self)
            if self._asked_to_stop():
                return False
        self.pending = False
        if not self.data.held_out:
            return False
        tokens = sum(row.targets for row in self.data.held_out)
        self.eval_nll = math.fsum(totals) / tokens
        step = self.loop.step
        self.metrics.append({"step": step, "eval_nll": self.eval_nll, "eval_tokens": tokens})
        self.trackers.log({"eval_nll": self.eval_nll}, step)
        self.reporter.say(f"step {step}  hold-out NLL {self.eval_nll:.4f} ({tokens} tokens)")
        if step and (self.best is None or self.eval_nll < self.best[0]):
            self.best = (self.eval_nll, step)
            return True
        return False

    def _as_saved(self) -> contextlib.AbstractContextManager[None]:
        """Let the model hold the weights as they will be saved: adapters in float32."""
        if self.training.finetuning == "full":
            return contextlib.nullcontext()
        return self.loop.masters.in_model()

    def save(self) -> None:
        """Write a checkpoint and remove those beyond the limit.

        Raises:
            IntegrityError: The processes do not have the same weights.
        """
        if self.processes.size > 1:
            self.processes.require_same(self.loop.checksum(), f"weights at step {self.loop.step}")
        if self.processes.leads:
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        from swe_scaffold.engine.checkpoint import prune, save_checkpoint

        folder = self.folder / run_folder.CHECKPOINTS
        chosen = self.training.tokens_per_micro_batch == "auto"
        state = {
            "metrics_bytes": self.metrics.sync(),
            "best": list(self.best) if self.best else None,
            "eval_nll": self.eval_nll,
            "losses": list(self.losses),
            "window": self.window,
            "pending_evaluation": self.pending,
            "processes": self.processes.size,
            "chosen_tokens": self._machinery.budget.tokens if chosen else None,
        }
        save_checkpoint(folder, self.loop, fingerprint=self.fingerprint, state=state)
        best = self.best[1] if self.best and self.training.load_best else None
        prune(folder, keep=self.training.save_total_limit, also=best)

    def finish(self, wall_seconds: float, origins: Mapping[str, str]) -> TrainingResult:
        """Write adapter, tokenizer, ledger, card and, last, the manifest with every decision."""
        if not self.processes.leads:
            return self._result(wall_seconds)
        if self.training.load_best and self.best:
            self._load_best(self.best[1])
        with self._as_saved():
            outcome = save_outcome(self.training, self.base, self.loop.model, self.folder)
        tokenizer_files = run_folder.copy_files(self.renderer.tokenizer.files, self.folder)
        record.write_trained_rows(self.folder, self.trained_rows)
        write_jsonl(self.folder / run_folder.SKIPPED, (asdict(row) for row in self.data.skipped))
        self.metrics.sync()
        self.close()
        result = self._result(wall_seconds)
        decisions = decide(
            self.config, self.data, self.renderer, self.base, self._machinery, origins=origins
        )
        facts = {
            "base_name": self.base.public_name,
            "base": base_entry(self.base, self.folder),
            **data_entries(self.data, self.folder),
            "config": dump_config(self.config),
            "fingerprint": self.fingerprint,
            "changes": self.changes,
            "decisions": [asdict(decision) for decision in decisions],
            "counts": result.counts,
            "result": {
                "steps": result.steps,
                "epochs": result.epochs,
                "train_loss": result.train_loss,
                "eval_nll": result.eval_nll,
                "best_step": result.best_step,
            },
            "notes": list(result.notes),
            "finished": utc_now(),
            "wall_seconds": round(wall_seconds, 1),
            "speed": result.speed,
            **outcome.facts,
        }
        run_folder.write_card(self.folder, facts, kind=outcome.kind)
        names = [*outcome.names, "README.md", *tokenizer_files]
        names += [run_folder.METRICS, run_folder.TRAINED_ROWS, run_folder.SKIPPED]
        run_folder.finish(self.folder, facts, names=names, kind=outcome.kind)
        return result

    def _load_best(self, step: int) -> None:
        from swe_scaffold.engine.checkpoint import open_checkpoint, put_weights

        path = self.folder / run_folder.CHECKPOINTS / f"step-{step}"
        put_weights(self.loop, open_checkpoint(path))
        self.reporter.say(f"ending with step {step}, the lowest hold-out NLL")

    def _result(self, wall_seconds: float) -> TrainingResult:
        nll, targets = self.losses
        best = self.best if self.training.load_best else None
        return TrainingResult(
            folder=self.folder,
            steps=self.loop.step,
            epochs=round(self.loop.step / self.order.steps_per_epoch, 4),
            train_loss=nll / targets,
            eval_nll=best[0] if best else self.eval_nll,
            best_step=best[1] if best else None,
            counts=self.data.counts(),
            wall_seconds=wall_seconds,
            speed=self.telemetry.summary(),
            notes=self.data.notes,
        )
