"""Preflight: everything that can be known of a run before hours are spent on it; nothing is kept.

Cheap refusals come first: the folder, the rows, the render, the model's limits, each as a run would
raise it. Then the model is loaded and asked: does its largest pass fit, how would it have begun
these responses, how long will the steps take. The weights trained on the way are thrown away, and
nothing is written but what the cache keeps. Each check has a file of its own: `checks`, `starts`,
`decisions`; `engine.probe` measures.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.cache import Cache
from swe_scaffold.config import SpeedrunConfig
from swe_scaffold.errors import CheckFailed, EnvironmentFailure, OutOfMemory
from swe_scaffold.numbers import gibibytes
from swe_scaffold.rendering import Renderer
from swe_scaffold.terminal import Reporter, show
from swe_scaffold.training import folder as run_folder
from swe_scaffold.training.checks import (
    Finding,
    MaskCheck,
    VocabularyCheck,
    check_mask,
    check_vocabulary,
    findings_of,
)
from swe_scaffold.training.data import RunData, prepare
from swe_scaffold.training.decisions import Decision, decide
from swe_scaffold.training.machinery import load_base, make_machinery
from swe_scaffold.training.plan import evaluation_steps
from swe_scaffold.training.starts import StartReport, listed, look_at_starts, spelling
from swe_scaffold.types import TokenizedExample

if TYPE_CHECKING:
    from swe_scaffold.engine.batches import RowOrder
    from swe_scaffold.engine.loop import Loop
    from swe_scaffold.engine.probe import MemoryProbe, PassCost, RunShape

# Where in the order of passes by size time is taken, and when no further pass is begun.
TIMED_QUANTILES, MOST_SECONDS = (0.5, 0.25, 0.75), 120.0


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """What the run will take, from a few passes; loading and checkpoints are not counted.

    `tokens` are those of all passes, padding included; `seconds` divides them by the speed of the
    timed passes together, `low` and `high` by that of the fastest and the slowest one.
    """

    steps: int
    passes: int
    tokens: int
    timed: tuple[PassCost, ...]
    seconds: float
    low: float
    high: float
    evaluations: int
    evaluation_seconds: float


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found; `time` is None where the largest pass does not fit."""

    rows: Mapping[str, object]
    notes: tuple[str, ...]
    mask: MaskCheck
    vocabulary: VocabularyCheck
    memory: MemoryProbe
    starts: StartReport
    time: TimeEstimate | None
    findings: tuple[Finding, ...]
    decisions: tuple[Decision, ...]

    @property
    def exit_code(self) -> int:
        """0 ready, 7 the largest pass does not fit, 9 training would be pointless."""
        if not self.memory.fits:
            return OutOfMemory.exit_code
        pointless = any(finding.level == "stop" for finding in self.findings)
        return CheckFailed.exit_code if pointless else 0

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values, the first tokens with their texts."""
        value = {"ready": self.exit_code == 0, "exit_code": self.exit_code, **asdict(self)}
        texts = value["starts"].pop("texts")
        for name in ("of_data", "of_model"):
            value["starts"]["summary"][name] = listed(getattr(self.starts.summary, name), texts)
        return value


def preflight(  # noqa: PLR0913 one story, each option named
    config: SpeedrunConfig,
    data: Path | str,
    *,
    overwrite: bool = False,
    offline: bool = False,
    trust_template: bool = False,
    origins: Mapping[str, str] | None = None,
    cache: Cache | None = None,
    reporter: Reporter | None = None,
) -> Preflight:
    """Look at a run before it: what would be refused is refused, the rest is measured.

    Args:
        config: The resolved configuration.
        data: As for `train_lora_model`.
        overwrite: An earlier run in the folder would be replaced.
        offline: Never ask the network.
        trust_template: Accept a chat template that is not a known one.
        origins: Who decided each key that is not a default, as `config_origins` says.
        cache: Where rendered rows are looked for and kept.
        reporter: Where messages and progress go.

    Raises:
        UsageError: As a run: the folder is not empty, a row is beyond the model's context.
        DataError: Rows that cannot be read, or none left to train.
        EnvironmentFailure: The folder could not be written.
        IntegrityError: Hashes, ids or the mask proof do not match.
        DivergedError: A loss or gradient is not finite.
        OutOfMemory: The base itself, or one row without gradients, does not fit.
    """
    from swe_scaffold.engine.trackers import require_trackers

    reporter, training = reporter or Reporter(-1), config.training
    require_trackers(training.report_to)
    _require_free(Path(training.output_dir), overwrite=overwrite)
    renderer = Renderer.load(training.model_name, offline=offline, trust_template=trust_template)
    prepared = prepare(Path(data), config, renderer, cache)
    mask = check_mask(prepared, renderer)
    reporter.say(f"loading {show(training.model_name)}")
    base = load_base(training, prepared, offline=offline)
    vocabulary = check_vocabulary(prepared, renderer, base, max_length=training.max_length)
    machinery = make_machinery(training, prepared, base, pad_id=renderer.pad_id)
    loop = machinery.loop
    passes = _Passes(loop, machinery.order, prepared.trained, reporter)
    # Before any step is taken: it asks the base.
    starts = look_at_starts(
        loop.model,
        prepared.trained,
        renderer,
        seed=training.seed,
        device=base.device,
        evaluation=config.evaluation,
        reporter=reporter,
    )
    memory = passes.probe_memory()
    return Preflight(
        rows=prepared.counts(),
        notes=prepared.notes,
        mask=mask,
        vocabulary=vocabulary,
        memory=memory,
        starts=starts,
        time=_estimate(config, prepared, passes, starts) if memory.fits else None,
        findings=(
            *findings_of(mask, vocabulary),
            *_about_fights(starts, renderer),
            *_too_large(memory),
        ),
        decisions=(
            *decide(config, prepared, renderer, base, machinery, origins=origins or {}),
            _about_cache(cache),
        ),
    )


def _about_cache(cache: Cache | None) -> Decision:
    if cache is None:
        return Decision("cache", "off", "--no-cache", "rows are rendered and proven anew")
    return Decision("cache", str(cache.folder), "default", "rendered rows and proofs are kept")


def _require_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a run would refuse, without making or writing anything.

    Raises:
        UsageError: It is not empty, and nothing says that it may be replaced.
        EnvironmentFailure: It is no folder, or cannot be written.
    """
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        problem = "cannot be written" if there.is_dir() else "is no folder"
        raise EnvironmentFailure(problem, where=str(there), hint="--output chooses another folder")
    if folder.is_dir():
        run_folder.claim(folder, resume=False, overwrite=overwrite)


class _Passes:
    """The passes of a run: which there will be, and what they cost."""

    def __init__(
        self,
        loop: Loop,
        order: RowOrder,
        rows: Sequence[TokenizedExample],
        reporter: Reporter,
    ) -> None:
        from swe_scaffold.engine.probe import run_shape

        self.loop, self.order, self.rows, self.reporter = loop, order, rows, reporter
        self.shape: RunShape = run_shape(
            order,
            [len(row.input_ids) for row in rows],
            steps=loop.settings.steps,
            cut=loop.cut,
        )

    def probe_memory(self) -> MemoryProbe:
        """Run the largest pass of the run; of two that are largest in different ways, both."""
        from swe_scaffold.engine.probe import probe_memory

        found = []
        for number in self.shape.largest():
            rows, longest = int(self.shape.rows[number]), int(self.shape.longest[number])
            self.reporter.say(
                f"one step over the largest micro-batch: {rows} rows, longest {longest} tokens"
            )
            found.append(probe_memory(self.loop, self._take(number)))
        return max(found, key=lambda probe: (not probe.fits, probe.needed_bytes or 0))

    def time(self) -> list[PassCost]:
        """Measure passes of usual size."""
        from swe_scaffold.engine.probe import time_passes

        numbers = self.shape.at_quantiles(TIMED_QUANTILES)
        self.reporter.say(f"{len(numbers)} steps over passes of usual size, for their speed")
        chosen = [self._take(number) for number in numbers]
        return time_passes(self.loop, chosen, most_seconds=MOST_SECONDS)

    def _take(self, number: int) -> list[TokenizedExample]:
        from swe_scaffold.engine.probe import pass_rows

        return pass_rows(self.rows, self.order, self.shape, number, cut=self.loop.cut)


def _estimate(
    config: SpeedrunConfig, data: RunData, passes: _Passes, starts: StartReport
) -> TimeEstimate:
    from swe_scaffold.engine.scoring import plan_passes

    timed = passes.time()
    tokens, steps = int(passes.shape.tokens.sum()), passes.loop.settings.steps
    speeds = [cost.tokens / cost.seconds for cost in timed]
    speed = sum(cost.tokens for cost in timed) / math.fsum(cost.seconds for cost in timed)
    per_epoch = passes.order.steps_per_epoch
    scored = evaluation_steps(config.training, steps, per_epoch) if data.held_out else []
    lengths = [len(row.input_ids) for row in data.held_out]
    plan = plan_passes(
        lengths,
        tokens_per_pass=config.evaluation.tokens_per_batch,
        rows_per_pass=config.evaluation.batch_size,
    )
    held_out = sum(len(part) * max(lengths[row] for row in part) for part in plan)
    return TimeEstimate(
        steps=steps,
        passes=len(passes.shape.rows),
        tokens=tokens,
        timed=tuple(timed),
        seconds=tokens / speed,
        low=tokens / max(speeds),
        high=tokens / min(speeds),
        evaluations=len(scored),
        evaluation_seconds=len(scored) * held_out * starts.seconds / starts.tokens,
    )


def _about_fights(starts: StartReport, renderer: Renderer) -> Iterator[Finding]:
    """Yield what the rules of `metrics.positions` found; a control token makes it a stop."""
    for fight in starts.fights:
        text = show(json.dumps(spelling(renderer, fight.token), allow_nan=False))
        if fight.kind == "blank":
            yield Finding(
                "warning",
                "blank_first_token",
                f"{fight.rows} of {starts.rows} responses begin with white space (often {text}), "
                f"to which the base gives a probability of {fight.probability:.1e}",
                hint="strip the responses: the template's header ends in a newline of its own",
            )
            continue
        control = fight.token in renderer.tokenizer.added.values()
        yield Finding(
            "stop" if control else "warning",
            "fights_the_template",
            f"the base begins {fight.rows} of {starts.rows} responses with {text} (probability "
            f"{fight.probability:.2f}), and the data hardly ever do: the loss can fall while "
            "answers stay of the base's kind",
            hint="write the data as this model answers, or take a model that answers as they do",
        )


def _too_large(memory: MemoryProbe) -> Iterator[Finding]:
    """Yield what does not fit, with the arithmetic and what was tried instead."""
    if memory.fits:
        return
    limit = gibibytes(memory.limit_bytes)
    need = f"ran out of {limit}"
    if memory.needed_bytes is not None:
        need = f"needs {gibibytes(memory.needed_bytes)} of {limit}"
    if memory.foreseen:
        need += ", by a quarter and a half of it, which were run"
    part, hint = memory.fitting, "use a smaller model, or a device with more memory"
    if part is not None and part.longest == memory.longest:
        hint = (
            f"{part.tokens} tokens fit ({gibibytes(part.peak_bytes)}): set "
            f"training.tokens_per_micro_batch to {part.tokens}"
        )
    elif part is not None:
        hint = (
            f"{part.longest} tokens fit ({gibibytes(part.peak_bytes)}): set training.max_length "
            f"to {part.longest}, which shortens prompts or skips rows"
        )
    yield Finding(
        "stop",
        "does_not_fit",
        f"the largest micro-batch, {memory.tokens} tokens in {memory.rows} rows of up to "
        f"{memory.longest}, {need}",
        hint=hint,
    )
