"""One model's evaluation while it is made: what is there, what is missing, what is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swe_scaffold.cache import Cache, key_of
from swe_scaffold.config import EvaluationConfig
from swe_scaffold.evaluation.answers import answer, chosen, health_report
from swe_scaffold.evaluation.parts import Part, finished
from swe_scaffold.evaluation.reporting import Facts, comparison_with_base, control, report_of
from swe_scaffold.evaluation.rows import Rendered, render, shuffled_pairs
from swe_scaffold.evaluation.scoring import Scored, Scorer, Subject
from swe_scaffold.files import remove, write_bytes, write_json
from swe_scaffold.jsonl import write_jsonl
from swe_scaffold.manifest import file_entries
from swe_scaffold.scores import (
    GENERATIONS,
    REPORT,
    SCORES,
    SHUFFLED,
    TOKEN_NLL,
    score_from_row,
    score_row,
    token_nll_bytes,
)
from swe_scaffold.sources.examples import ExampleFile
from swe_scaffold.terminal import Reporter, show
from swe_scaffold.types import ExampleScore, TokenizedExample


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The report (strict JSON), the per-example scores, and the folder where both stand."""

    report: dict[str, Any]
    scores: tuple[ExampleScore, ...]
    path: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows, and what is asked of every model."""

    file: ExampleFile
    settings: EvaluationConfig
    shuffled_control: bool
    generate: int
    fresh: bool
    offline: bool
    trust_template: bool
    cache: Cache | None
    reporter: Reporter


class Work:
    """One model's evaluation while it is made."""

    def __init__(self, plan: Plan, subject: Subject, scorer: Scorer, folder: Path) -> None:
        self.plan, self.subject, self.scorer, self.folder = plan, subject, scorer, folder
        self.before = None if plan.fresh else finished(folder)
        self.rendered: Rendered = render(plan.file, subject.model, subject.renderer, plan.cache)
        self._parts: list[Part] = []
        self._scored: list[Scored] | None = None

    def close(self) -> None:
        """Close what is being written; an evaluation that stops here goes on another time."""
        for part in self._parts:
            part.close()

    def scores(self) -> list[Scored]:
        """Return the rows' scores, made or found."""
        if self._scored is None:
            self._scored = self._found() or self._score("scoring", SCORES, self.subject.key)
        return self._scored

    def finish(self, below: Evaluation | None) -> Evaluation:
        """Write the files of the evaluation, the report last."""
        plan, scored = self.plan, self.scores()
        scores = tuple(one.score for one in scored)
        facts = Facts(self.subject, plan.file, self.rendered, plan.settings)
        names = [SCORES, TOKEN_NLL]
        write_jsonl(self.folder / SCORES, map(score_row, scores))
        write_bytes(self.folder / TOKEN_NLL, token_nll_bytes([one.token_nll for one in scored]))
        report = report_of(facts, scores, key=self.subject.key)
        before = self.before.report if self.before else {}
        shuffled_key = self._key(scores, SHUFFLED)
        if plan.shuffled_control or before.get("shuffled_key") == shuffled_key:
            others = self._shuffled(scores, shuffled_key)
            report |= {"shuffled_prompts": control(facts, scores, others)}
            if others:
                write_jsonl(self.folder / SHUFFLED, map(score_row, others.values()))
                names.append(SHUFFLED)
                report["shuffled_key"] = shuffled_key
        # What an earlier evaluation of the same asked for is not lost where this one does not ask.
        prompts = plan.generate or (before.get("health") or {}).get("prompts", 0)
        answers_key = self._key(scores, GENERATIONS, prompts, plan.settings.max_new_tokens)
        if plan.generate or before.get("answers_key") == answers_key:
            rows = self._answers(scores, prompts, answers_key)
            report |= {"health": health_report(rows, prompts, plan.settings)}
            report["answers_key"] = answers_key
            write_jsonl(self.folder / GENERATIONS, rows)
            names.append(GENERATIONS)
        if below is not None:
            report |= comparison_with_base(facts, scores, below.scores)
        report["files"] = file_entries(self.folder, names)
        write_json(self.folder / REPORT, report)
        # Of another model or other settings, they would speak of what is no longer here.
        for name in {SHUFFLED, GENERATIONS}.difference(names):
            remove(self.folder / name)
        for part in self._parts:
            part.drop()
        return Evaluation(report, scores, self.folder)

    def _found(self) -> list[Scored] | None:
        """Return the scores of an evaluation that is there under the same key."""
        before = self.before
        if before is None:
            return None
        if before.report.get("key") != self.subject.key:
            self.plan.reporter.say(
                f"replacing an evaluation of another model, data or settings: {show(self.folder)}"
            )
            return None
        self.plan.reporter.say(f"already scored: {show(self.folder)}")
        known = self.subject.model.trained
        # What a model was trained on may have become known since.
        return [
            Scored(replace(score, seen_in_training=score.sha256 in known if known else None), nll)
            for score, nll in zip(before.scores, before.token_nll(), strict=True)
        ]

    def _score(self, title: str, name: str, key: str) -> list[Scored]:
        part = self._part(name, key)
        return self.scorer.run(title, self.subject, self.rendered.pairs, part)

    def _part(self, name: str, key: str) -> Part:
        part = Part(self.folder, name, key, fresh=self.plan.fresh)
        if part.foreign:
            self.plan.reporter.say("replacing what an interrupted run of another kind left")
        if part.found:
            self.plan.reporter.say(f"going on: {len(part.found)} rows are scored already")
        self._parts.append(part)
        return part

    def _key(self, scores: Sequence[ExampleScore], name: str, *settings: int) -> str:
        """Return the key of a further file, whose rows are drawn from the unseen ones."""
        seen = [bool(row.seen_in_training) for row in scores]
        return key_of(self.subject.key, name, self.plan.settings.seed, seen, *settings)

    def _answers(
        self, scores: Sequence[ExampleScore], prompts: int, key: str
    ) -> list[dict[str, Any]]:
        """Return the answers to some of the prompts, made or found."""
        if self.before is not None and self.before.report.get("answers_key") == key:
            return self.before.rows(GENERATIONS)
        rows = chosen(scores, prompts, seed=self.plan.settings.seed)
        part = self._part(GENERATIONS, key)
        return answer(self.subject, self.rendered.pairs, rows, self.scorer, part)

    def _shuffled(self, scores: Sequence[ExampleScore], key: str) -> dict[int, ExampleScore]:
        """Return scores after other prompts of the same group, by row.

        Rows seen in training are left out where there are unseen ones.
        """
        subject, settings = self.subject, self.plan.settings
        unseen = [index for index, row in enumerate(scores) if not row.seen_in_training]
        swapped = shuffled_pairs(
            self.rendered.pairs, unseen or range(len(scores)), seed=settings.seed
        )
        results = subject.renderer.render_many(
            [example for _, example in swapped],
            max_length=subject.model.max_length,
            min_prompt_tokens=subject.model.min_prompt_tokens,
        )
        kept = [
            (index, example, row)
            for (index, example), row in zip(swapped, results, strict=True)
            if isinstance(row, TokenizedExample)
        ]
        if not kept:
            return {}
        before = self.before
        if before is not None and before.report.get("shuffled_key") == key:
            rows = before.rows(SHUFFLED)
            found = [score_from_row(row, str(self.folder / SHUFFLED)) for row in rows]
            return {index: score for (index, _, _), score in zip(kept, found, strict=True)}
        pairs = [(example, row) for _, example, row in kept]
        title = "scoring with other prompts"
        part = self._part(SHUFFLED, key)
        others = self.scorer.run(title, subject, pairs, part, classes=False)
        return {index: one.score for (index, _, _), one in zip(kept, others, strict=True)}
