"""One optimizer step over fixed rows, and the loop around it.

The loss of a step is the summed NLL over all its response tokens ÷ their number, whatever the
number of passes, so accumulation and batch size change the memory and never the mathematics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from swe_scaffold.engine.batches import RowOrder, make_batch, passes
from swe_scaffold.engine.devices import Device, out_of_memory
from swe_scaffold.engine.loss import token_nll
from swe_scaffold.errors import DivergedError
from swe_scaffold.terminal import show
from swe_scaffold.types import TokenizedExample

_NAMED_ROWS = 16


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What the loop needs to know of a run."""

    steps: int
    rows_per_pass: int
    learning_rate: float
    scheduler: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float | None
    seed: int
    pad_id: int


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One line of metrics.jsonl and its timing; `loss` is nats per target token of this step.

    `grad_norm` is None where float16 overflowed and the loss scaler left the weights as they were.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float | None
    targets: int
    tokens: int
    wall_seconds: float


class Loop:
    """A model under training: parameters, optimizer and schedule, advanced one step at a time."""

    def __init__(self, model: Any, settings: LoopSettings, device: Device) -> None:
        from transformers import get_scheduler

        self.model, self.settings, self.device = model, settings, device
        self.parameters = {
            name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad
        }
        self.optimizer = torch.optim.AdamW(
            _decay_groups(self.parameters, settings.weight_decay), lr=settings.learning_rate
        )
        schedule = get_scheduler(
            settings.scheduler,
            self.optimizer,
            num_warmup_steps=settings.warmup_steps,
            num_training_steps=settings.steps,
        )
        self._factor: Callable[[int], float] = schedule.lr_lambdas[0]
        self.scaler = torch.amp.GradScaler(
            device.name, enabled=device.dtype == torch.float16, init_scale=2.0**12
        )
        self.step = 0
        # Dropout draws from this state: set once, saved with checkpoints.
        torch.manual_seed(settings.seed)

    def take(self, rows: Sequence[TokenizedExample]) -> StepMetrics:
        """Do one optimizer step over `rows`.

        Raises:
            DivergedError: The loss, a gradient or a weight is not finite.
            OutOfMemory: A pass does not fit.
        """
        start = time.perf_counter()
        rate = self.settings.learning_rate * self._factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        targets = sum(sum(row.loss_mask[1:]) for row in rows)
        nll = math.fsum(
            self._backward(part, targets) for part in passes(rows, self.settings.rows_per_pass)
        )
        with out_of_memory("the optimizer step"):
            norm = self._update(rows)
        self.step += 1
        return StepMetrics(
            step=self.step,
            loss=nll / targets,
            lr=rate,
            grad_norm=norm,
            targets=targets,
            tokens=sum(len(row.input_ids) for row in rows),
            wall_seconds=time.perf_counter() - start,
        )

    def _backward(self, rows: Sequence[TokenizedExample], targets: int) -> float:
        shape = f"a pass of {len(rows)} rows, longest {max(len(r.input_ids) for r in rows)} tokens"
        with out_of_memory(shape):
            batch = make_batch(rows, pad_id=self.settings.pad_id, device=self.device.name)
            nll = token_nll(self.model, batch)
            total = float(nll.detach().cpu().double().sum())
            if not math.isfinite(total):
                parts = zip(rows, nll.detach().split(batch.counts), strict=True)
                self._diverged("the loss", [row for row, nll in parts if not _is_finite(nll)])
            self.scaler.scale(nll.sum() / targets).backward()
        return total

    def _update(self, rows: Sequence[TokenizedExample]) -> float | None:
        """Clip, step, and look at the outcome; return the gradient's norm before clipping."""
        parameters = list(self.parameters.values())
        self.scaler.unscale_(self.optimizer)
        limit = self.settings.max_grad_norm
        clip = math.inf if limit is None else limit
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip))
        finite = math.isfinite(norm)
        # In float16 an overflow is expected now and then: the scaler skips the step and halves the
        # scale. At a scale of one there is nothing left to halve.
        if not finite and not (self.scaler.is_enabled() and self.scaler.get_scale() > 1.0):
            self._diverged("the gradient", rows)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not _is_finite(torch.nn.utils.get_total_norm(parameters)):
            self._diverged("a weight", rows)
        return norm if finite else None

    def _diverged(self, what: str, rows: Sequence[TokenizedExample]) -> NoReturn:
        names = ", ".join(show(row.instance_id, width=60) for row in rows[:_NAMED_ROWS])
        more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
        raise DivergedError(
            f"{what} is not finite at step {self.step + 1}; rows: {names}{more}",
            hint="the last checkpoint is intact; lower training.learning_rate, look at these rows",
        )


def run(
    loop: Loop,
    rows: Sequence[TokenizedExample],
    order: RowOrder,
    after_step: Callable[[StepMetrics], None],
) -> None:
    """Take steps until the settings' last one; `after_step` logs, evaluates, saves or stops."""
    while loop.step < loop.settings.steps:
        after_step(loop.take([rows[index] for index in order.at(loop.step)]))


def _is_finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _decay_groups(parameters: dict[str, torch.Tensor], decay: float) -> list[dict[str, Any]]:
    """Matrices decay, vectors (biases, norms) do not."""
    matrices = [tensor for tensor in parameters.values() if tensor.ndim > 1]
    vectors = [tensor for tensor in parameters.values() if tensor.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}]
    return [*groups, {"params": vectors, "weight_decay": 0.0}] if vectors else groups
