"""Rows scored by one model: in this process or several, from where an earlier run stopped."""

from __future__ import annotations

import base64
import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from swe_scaffold.config import EvaluationConfig
from swe_scaffold.errors import IntegrityError
from swe_scaffold.evaluation.parts import Part
from swe_scaffold.evaluation.rows import language_of
from swe_scaffold.executors import RunInOrder, worker_number
from swe_scaffold.metrics.likelihood import require_usable
from swe_scaffold.models import ModelReference
from swe_scaffold.rendering import Renderer, target_classes
from swe_scaffold.scores import score_row
from swe_scaffold.terminal import Reporter
from swe_scaffold.types import Example, ExampleScore, TokenizedExample

if TYPE_CHECKING:
    from swe_scaffold.engine.loading import LastBase
    from swe_scaffold.engine.model import BaseFiles

Floats = np.ndarray[Any, Any]
Pair = tuple[Example, TokenizedExample]


@dataclass(frozen=True, slots=True)
class Scored:
    """One row's score, and the NLL of each of its response tokens (nats, float32)."""

    score: ExampleScore
    token_nll: Floats


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated, and how its rows are rendered; `key` names model, data and settings."""

    model: ModelReference
    files: BaseFiles
    renderer: Renderer
    key: str


@dataclass(frozen=True, slots=True)
class _Pass:
    """The rows of one forward pass, and all that a process needs to score them."""

    model: ModelReference
    files: BaseFiles
    rows: tuple[TokenizedExample, ...]
    pad_id: int
    dtype: str
    offline: bool
    processes: int


_Answer = tuple[list[Floats], str | None]


class Scorer:
    """Scores rows under one model after the other.

    Args:
        settings: Budget of a pass, and the dtype.
        offline: Never ask the network.
        run: Runs passes in several processes; None takes this one.
        processes: How many they are.
        reporter: Where progress goes.
    """

    def __init__(
        self,
        settings: EvaluationConfig,
        *,
        offline: bool,
        run: RunInOrder | None,
        processes: int,
        reporter: Reporter,
    ) -> None:
        self.settings, self.reporter = settings, reporter
        self._offline, self._run, self._processes = offline, run, processes
        self._last: LastBase | None = None
        self._padded: set[str] = set()

    @property
    def last_base(self) -> LastBase:
        """What loads models in this process."""
        from swe_scaffold.engine.loading import LastBase

        if self._last is None:
            self._last = LastBase(dtype=self.settings.dtype, offline=self._offline)
        return self._last

    def run(
        self,
        title: str,
        subject: Subject,
        pairs: Sequence[Pair],
        part: Part,
        *,
        classes: bool = True,
    ) -> list[Scored]:
        """Return one result per row, in their order; `part` keeps each as soon as it is known."""
        from swe_scaffold.engine.scoring import plan_passes

        passes = plan_passes(
            [row.length for _, row in pairs],
            tokens_per_pass=self.settings.tokens_per_batch,
            rows_per_pass=self.settings.batch_size,
        )
        found = _kept(part, pairs)
        # A pass is repeated whole, so that a run that was interrupted has the bits of one that
        # was not.
        left = [rows for rows in passes if not found.keys() >= set(rows)]
        again = {row for rows in left for row in rows}
        results = {
            row: self._scored(subject, pairs[row], nll, classes)
            for row, nll in found.items()
            if row not in again
        }
        with self.reporter.progress(title, len(pairs)) as track:
            track.advance(len(results))
            try:
                for rows, answer in zip(left, self._passes(subject, pairs, left), strict=True):
                    values, refusal = answer
                    self._say_once(subject, refusal)
                    for row, nll in zip(rows, values, strict=True):
                        results[row] = self._scored(subject, pairs[row], nll, classes)
                        part.add(row, _partial_row(results[row]))
                        track.advance()
            except BaseException:
                if results:
                    kept = f"{len(results)} of {len(pairs)} rows are kept"
                    self.reporter.say(f"{kept}; the same command goes on from there")
                raise
        return [results[row] for row in range(len(pairs))]

    def _passes(
        self, subject: Subject, pairs: Sequence[Pair], passes: Sequence[Sequence[int]]
    ) -> Iterator[_Answer]:
        asked = (
            _Pass(
                model=replace(subject.model, trained=frozenset()),
                files=subject.files,
                rows=tuple(pairs[row][1] for row in rows),
                pad_id=subject.renderer.pad_id,
                dtype=self.settings.dtype,
                offline=self._offline,
                processes=self._processes,
            )
            for rows in passes
        )
        if self._run is not None:
            return self._run(_score_in_worker, asked)
        return (_score_pass(self.last_base, one) for one in asked)

    def _say_once(self, subject: Subject, refusal: str | None) -> None:
        """Say why a model's rows are padded, where they are."""
        if refusal is not None and subject.key not in self._padded:
            self._padded.add(subject.key)
            self.reporter.say(f"rows are padded: {refusal}")

    def _scored(self, subject: Subject, pair: Pair, nll: Floats, classes: bool) -> Scored:
        example, row = pair
        names = target_classes(subject.renderer, example, row) if classes else []
        known = subject.model.trained
        score = ExampleScore(
            instance_id=row.instance_id,
            repo=row.repo,
            group=row.group,
            label=row.label,
            nll_sum=float(nll.astype(np.float64).sum()),
            tokens=len(nll),
            bytes=row.response_bytes,
            prompt_tokens=row.length - len(nll),
            sha256=row.sha256,
            nll_by_class=_by_class(names, nll),
            response_source=example.response_source,
            language=language_of(example),
            prompt_cut=row.prompt_cut,
            seen_in_training=row.sha256 in known if known else None,
        )
        require_usable(score)
        return Scored(score, nll)


def _by_class(names: Sequence[str], nll: Floats) -> dict[str, tuple[float, int]]:
    found: dict[str, list[float]] = {}
    for name, value in zip(names, nll.tolist(), strict=True) if names else ():
        found.setdefault(name, []).append(value)
    return {name: (math.fsum(values), len(values)) for name, values in sorted(found.items())}


def _kept(part: Part, pairs: Sequence[Pair]) -> dict[int, Floats]:
    """Return the token NLLs that an interrupted run left, by row, where they are whole."""
    found = {}
    for number, row in part.found.items():
        with contextlib.suppress(KeyError, TypeError, ValueError):
            values = np.frombuffer(base64.b64decode(row["token_nll"], validate=True), "<f4")
            if 0 <= number < len(pairs) and len(values) == pairs[number][1].targets:
                found[number] = values
    return found


def _partial_row(result: Scored) -> dict[str, Any]:
    nll = base64.b64encode(result.token_nll.astype("<f4").tobytes()).decode("ascii")
    return {**score_row(result.score), "token_nll": nll}


# The model that a worker process keeps between passes.
_IN_WORKER: list[LastBase] = []


def _score_in_worker(asked: _Pass) -> _Answer:
    from swe_scaffold.engine.devices import share_processors
    from swe_scaffold.engine.loading import LastBase

    if not _IN_WORKER:
        share_processors(asked.processes)
        number = worker_number()
        _IN_WORKER.append(LastBase(dtype=asked.dtype, offline=asked.offline, number=number))
    return _score_pass(_IN_WORKER[0], asked)


def _score_pass(last: LastBase, asked: _Pass) -> _Answer:
    """Return the token NLLs of each row, and why the rows were padded, if they were."""
    from swe_scaffold.engine.scoring import packing_refusal, score

    loaded = last.take(asked.model, asked.files)
    highest = max(int(row.input_ids.max()) for row in asked.rows)
    if highest >= loaded.base.vocab_size:
        raise IntegrityError(
            f"token id {highest} is beyond the model's {loaded.base.vocab_size} embeddings",
            where=loaded.base.name,
        )
    one_pass = [tuple(range(len(asked.rows)))]
    found = score(
        loaded.module,
        asked.rows,
        passes=one_pass,
        pad_id=asked.pad_id,
        device=loaded.base.device,
    )
    return [row.nll for row in next(found)], packing_refusal(loaded.module, asked.rows)
