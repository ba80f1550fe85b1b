"""One optimizer step over fixed rows, and the loop around it.

The loss of a step is the summed NLL over all its response tokens ÷ their number, whatever the
micro-batches, so that packing and accumulation change the memory and never the mathematics. Rows
travel as streams without padding where the model's attention can be replaced, and padded otherwise.
Several processes divide the rows of a step, add up their gradients once, and step alike.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from swe_scaffold.engine.attention import within_documents
from swe_scaffold.engine.batches import Batch, RowOrder, make_batch, make_stream
from swe_scaffold.engine.devices import Device, out_of_memory
from swe_scaffold.engine.dropout import DroppedRow, drop_by_rows, row_key
from swe_scaffold.engine.loss import token_nll
from swe_scaffold.engine.masters import Masters
from swe_scaffold.engine.passes import MicroBatches, deal
from swe_scaffold.engine.processes import ALONE, Processes
from swe_scaffold.engine.products import fast_float32
from swe_scaffold.errors import DivergedError
from swe_scaffold.terminal import show
from swe_scaffold.types import TokenizedExample

if TYPE_CHECKING:
    from swe_scaffold.engine.sharding import Lockstep

_NAMED_ROWS = 16


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What the loop needs to know of a run."""

    steps: int
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
    `batch_seconds` is the part of `wall_seconds` in which rows were made into tensors.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float | None
    targets: int
    tokens: int
    wall_seconds: float
    batch_seconds: float


class Loop:
    """A model under training: parameters, optimizer and schedule, advanced one step at a time.

    Args:
        model: A causal language model or a PEFT model around one; what requires gradients is
            trained.
        settings: What the loop needs to know of the run.
        device: Where the model is, and the dtype that it computes in.
        cut: How the rows of a step become micro-batches.
        processes: Who computes a step; each has a loop like this one.
        lockstep: What keeps their passes together, where the base is divided among them.
    """

    def __init__(
        self,
        model: Any,
        settings: LoopSettings,
        device: Device,
        cut: MicroBatches,
        processes: Processes = ALONE,
        lockstep: Lockstep | None = None,
    ) -> None:
        from transformers import get_scheduler

        self.model, self.settings, self.device, self.cut = model, settings, device, cut
        self.processes, self._lockstep = processes, lockstep
        self.masters = Masters(model, device.dtype)
        self.parameters = self.masters.parameters
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
        self._dropout = drop_by_rows(model)
        self.step = 0

    def take(self, rows: Sequence[TokenizedExample]) -> StepMetrics:
        """Do one optimizer step over `rows`.

        Raises:
            DivergedError: The loss, a gradient or a weight is not finite.
            OutOfMemory: A micro-batch does not fit.
        """
        start = time.perf_counter()
        rate = self.settings.learning_rate * self._factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        targets = sum(len(row.target_positions) for row in rows)
        nll, making = 0.0, 0.0
        with self._training():
            for part in self.cut.of(deal(rows, self.processes.size)[self.processes.rank]):
                began = time.perf_counter()
                batch = self._batch(part)
                making += time.perf_counter() - began
                nll += self._backward(part, batch, targets)
            self.keep_up(backward=True)
        (nll,) = self.processes.total([nll])
        with out_of_memory("the optimizer step"):
            self.processes.add_gradients(list(self.parameters.values()))
            norm = self._update(rows)
        self.step += 1
        return StepMetrics(
            step=self.step,
            loss=nll / targets,
            lr=rate,
            grad_norm=norm,
            targets=targets,
            tokens=sum(row.length for row in rows),
            wall_seconds=time.perf_counter() - start,
            batch_seconds=making,
        )

    def rehearse(self, rows: Sequence[TokenizedExample], *, backward: bool = True) -> None:
        """Compute one micro-batch and change nothing; without `backward`, the body's forward alone.

        Raises:
            DivergedError: The loss is not finite.
            OutOfMemory: It does not fit.
        """
        try:
            with self._training():
                batch = self._batch(rows)
                if backward:
                    self._backward(rows, batch, sum(batch.counts))
                else:
                    with out_of_memory(_described(rows)):
                        self.cut.causal.base_model(
                            input_ids=batch.input_ids, use_cache=False, **batch.stream
                        )
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def keep_up(self, *, backward: bool = False) -> None:
        """Take part in the passes that other processes still have to do, where they need all."""
        if self._lockstep is not None:
            self._lockstep.keep_up(backward=backward)

    def checksum(self) -> int:
        """Return a number below 2^62 that tells whether two processes have the same weights."""
        found = 0
        for weight in self.parameters.values():
            bits = weight.detach().contiguous().view(torch.int32).sum(dtype=torch.int64)
            found = (found * 31 + int(bits)) % (1 << 62)
        return found

    @contextlib.contextmanager
    def _training(self) -> Iterator[None]:
        """Put the model into the mode and the attention of a step."""
        self.model.train()
        # What dropout the base itself has is drawn from here: again the same after a resume.
        torch.manual_seed(_mixed(self.settings.seed, self.step))
        packed = within_documents(self.cut.causal) if self.cut.packs else contextlib.nullcontext()
        with packed, fast_float32():
            yield

    def _batch(self, rows: Sequence[TokenizedExample]) -> Batch:
        """Bring a micro-batch to the device, and tell the adapter's dropout which rows it holds."""
        with out_of_memory(_described(rows)):
            if self.cut.packs:
                batch = make_stream(rows, device=self.device.name)
            else:
                batch = make_batch(rows, pad_id=self.settings.pad_id, device=self.device.name)
        if self._dropout is not None:
            width = 0 if self.cut.packs else batch.input_ids.shape[1]
            held, start = [], 0
            for row in rows:
                key = row_key(row, seed=self.settings.seed, step=self.step)
                held.append(DroppedRow(start, row.length, key))
                start += width or row.length
            self._dropout.announce(held, batch.input_ids.numel())
        return batch

    def _backward(self, rows: Sequence[TokenizedExample], batch: Batch, targets: int) -> float:
        with out_of_memory(_described(rows)):
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
        self.masters.publish()
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


def _described(rows: Sequence[TokenizedExample]) -> str:
    longest = max(row.length for row in rows)
    return f"a micro-batch of {len(rows)} rows, longest {longest} tokens"


def _mixed(seed: int, step: int) -> int:
    """Return one seed for both numbers: neighbours must not share streams."""
    return (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03) % (1 << 63)


def _is_finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _decay_groups(parameters: dict[str, Any], decay: float) -> list[dict[str, Any]]:
    """Matrices decay, vectors (biases, norms) do not."""
    matrices = [tensor for tensor in parameters.values() if tensor.ndim > 1]
    vectors = [tensor for tensor in parameters.values() if tensor.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}]
    return [*groups, {"params": vectors, "weight_decay": 0.0}] if vectors else groups
