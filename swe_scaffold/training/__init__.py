"""Fine-tune: the whole story of a run, readable top to bottom.

- `__init__.py`: the story: claim the folder, prepare the rows, load the base, step, finish.
- `plan.py`: steps, and what a resumed run must share.
- `data.py`: which rows are trained and held out.
- `machinery.py`: the base, checked against the rows, and the loop.
- `preflight.py`: what can be known before a run, with `checks.py` (ends, prompts, tokens),
  `starts.py` (first tokens) and `decisions.py` (every choice, in words).
- `resuming.py`: an interrupted run found and put back; `holdout.py`: the hold-out scored.
- `record.py`: rows trained so far, and what changed along the way.
- `telemetry.py`: how fast it goes.
- `run.py`: what happens between the steps: logs, evaluation, checkpoints, the end.
- `folder.py`: the run folder and what it says.
- `outcome.py`: what was trained, put into the folder.

Where a launcher has started several processes, each goes through all of it; the first one alone
writes and speaks.

What a step computes is the engine's; what the hold-out number means is evaluation's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from swe_scaffold.cache import Cache
from swe_scaffold.config import SpeedrunConfig, TrainingConfig
from swe_scaffold.engine.read_ahead import hashing_ahead
from swe_scaffold.errors import UsageError
from swe_scaffold.files import folder_lock, remove_leftovers, require_writable
from swe_scaffold.rendering import Renderer
from swe_scaffold.signals import stop_after_step
from swe_scaffold.terminal import Reporter
from swe_scaffold.training import folder as run_folder
from swe_scaffold.training.data import prepare
from swe_scaffold.training.machinery import load_base
from swe_scaffold.training.plan import plan_steps
from swe_scaffold.training.record import TrainingResult
from swe_scaffold.training.run import Run

__all__ = ["TrainingResult", "plan_steps", "train_lora_model"]


def train_lora_model(  # noqa: PLR0913 one story, each option named
    config: SpeedrunConfig,
    data: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_change: Sequence[str] = (),
    offline: bool = False,
    trust_template: bool = False,
    origins: Mapping[str, str] | None = None,
    cache: Cache | None = None,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Train an adapter, or every weight, on the rows of `data`; leave a folder anyone can verify.

    Args:
        config: The resolved configuration; `training.output_dir` is the run folder.
        data: A built JSONL file, or rows with `messages` or `prompt` and `response`.
        resume: Go on from the newest checkpoint that verifies, bit-identically.
        overwrite: Replace an earlier run in the folder.
        allow_change: Parts of the run's fingerprint that may differ when it goes on, such as
            `training.learning_rate`; each change is put on the record.
        offline: Never ask the network.
        trust_template: Accept a chat template that is not a known one.
        origins: Who decided each key that is not a default, for the manifest's decisions.
        cache: Where rendered rows are looked for and kept.
        reporter: Where messages and progress go.

    Raises:
        UsageError: The folder is not empty and neither `resume` nor `overwrite` was given.
        MissingExtra: A tracker, or what quantises the base, is not installed.
        DataError: Rows that cannot be read, or none left to train.
        IntegrityError: Hashes, fingerprints or the mask proof do not match.
        DivergedError: A loss or gradient is not finite.
        OutOfMemory: A pass does not fit.
        Stopped: A signal arrived; a checkpoint was saved.
    """
    if allow_change and not resume:
        raise UsageError("goes with --resume alone", where="--allow-change")
    from swe_scaffold.engine.processes import joined
    from swe_scaffold.engine.trackers import require_trackers

    start = time.monotonic()
    folder = Path(config.training.output_dir)
    with joined() as processes, contextlib.ExitStack() as held:
        reporter = reporter if reporter and processes.leads else Reporter(-1)
        require_trackers(config.training.report_to)
        _require_quantizer(config.training)
        if processes.leads:
            held.enter_context(_claimed(folder, resume=resume, overwrite=overwrite))
        renderer = Renderer.load(
            config.training.model_name, offline=offline, trust_template=trust_template
        )
        with hashing_ahead(config.training.model_name) as sha256:
            with processes.first_of_node_first():
                prepared = prepare(Path(data), config, renderer, cache)
            for note in prepared.notes:
                reporter.say(note)
            base = load_base(config.training, prepared, offline=offline, sha256=sha256)
        run = held.enter_context(
            closing(Run(config, prepared, base, renderer, reporter, processes))
        )
        run.resume(allow_change) if resume else run.begin()
        with stop_after_step() as stop:
            run.train(stop)
        return run.finish(time.monotonic() - start, origins or {})


def _require_quantizer(training: TrainingConfig) -> None:
    """Refuse what cannot be quantised here; torch is imported only where something is to be."""
    if training.quantization != "none":
        from swe_scaffold.engine.devices import choose_device
        from swe_scaffold.engine.quantization import require_quantizer

        require_quantizer(training.quantization, choose_device(training.dtype))


@contextlib.contextmanager
def _claimed(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Hold the run folder, once it is certain that this run may write there."""
    require_writable(folder)
    with folder_lock(folder):
        run_folder.claim(folder, resume=resume, overwrite=overwrite)
        for place in (folder, folder / run_folder.CHECKPOINTS):
            remove_leftovers(place)
        yield
