"""Ask a model what rows and tasks ask: patches, or the next turns of chats, as predictions.

- `__init__.py`: the story: read, ask, keep, write.
- `questions.py`: what is asked.
- `answers.py`: what comes back, and an answer as a row.
- `local.py`: a model on this machine.
- `server.py`: a model behind an OpenAI-compatible server; `http.py` speaks to it.
- `code.py`: files of clones, for edits.
- `record.py`: predictions on disk, unfinished and finished.
- `report.py`: what the manifest says of them.

What an answer is worth is left to scoring; nothing that a model wrote is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.engine.sampling import Sampling
from swe_scaffold.errors import DataError
from swe_scaffold.files import folder_lock, require_different, require_writable
from swe_scaffold.jsonl import encode_row
from swe_scaffold.prediction.answers import Answer, Model, NoAnswer, Reply, to_row
from swe_scaffold.prediction.code import CodeFiles
from swe_scaffold.prediction.questions import Questions, ask_text, read_questions
from swe_scaffold.prediction.record import Place, PredictionFiles, Record
from swe_scaffold.prediction.report import code_found, describe, in_order
from swe_scaffold.terminal import Reporter

__all__ = [
    "Answer",
    "Model",
    "NoAnswer",
    "Predictions",
    "Questions",
    "Sampling",
    "ask_text",
    "predict",
    "read_questions",
]


@dataclass(frozen=True, slots=True)
class Predictions:
    """The rows, what the manifest says of them (strict JSON), and where they were written."""

    rows: tuple[dict[str, Any], ...]
    facts: dict[str, Any]
    path: Path | None


def predict(  # noqa: PLR0913 one argument per decision of the caller
    open_model: Callable[[], Model],
    questions: Questions,
    *,
    sampling: Sampling,
    samples: int = 1,
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    repos: Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Predictions:
    """Answer every question and write the predictions, one line for each answer.

    Answers are kept as they come, in `STEM.partial.jsonl` beside the output: an interrupted run of
    the same model, data and settings goes on where it stopped and ends with the same bytes. The
    rows are written in the order of the questions, at last a manifest, `STEM.manifest.json`.

    Args:
        open_model: Returns the model; called after all that can be refused without it.
        questions: What is asked.
        sampling: How tokens are chosen.
        samples: Answers to each question.
        output: The predictions (.jsonl); None writes nothing.
        settings: What else decides which rows are asked and how; part of the run's identity.
        repos: Folder of clones, in which search/replace edits find their files.
        overwrite: Replace earlier predictions, finished or not.
        reporter: Where messages and progress go.

    Raises:
        UsageError: The output is there already, or unfinished predictions are of another run.
        DataError: Not a single row could be answered.
        EnvironmentFailure: A server that cannot be reached; what was answered is kept.
        OutOfMemory: A single row does not fit.
    """
    sampling.require_samples(samples)
    reporter = reporter or Reporter(-1)
    code = None if repos is None else _code(repos)
    chosen = {**asdict(sampling), "samples": samples, "repos": code is not None}
    chosen |= settings or {}
    run = _Run(questions, sampling, samples, code, reporter)
    if output is None:
        model = open_model()
        return run.predictions(model, run.ask(model, {}, None), chosen, None)
    files = PredictionFiles.of(output)
    require_different(output, [Path(file.path) for file in questions.inputs])
    require_writable(output.parent)
    with folder_lock(output.parent, name=f".{output.stem}.lock"):
        files.refuse_finished(overwrite=overwrite)
        model = open_model()
        identity = {"model": model.identity(), "data": questions.identity(), "settings": chosen}
        with Record(files, identity, overwrite=overwrite) as record:
            entries = run.ask(model, record.entries, record)
            made = run.predictions(model, entries, chosen, output)
            record.finish(made.rows, made.facts)
        return made


def _code(repos: Path) -> CodeFiles:
    if not repos.is_dir():
        raise DataError("there is no such folder", where=str(repos))
    return CodeFiles(repos)


class _Run:
    """One run over all questions."""

    def __init__(
        self,
        questions: Questions,
        sampling: Sampling,
        samples: int,
        code: CodeFiles | None,
        reporter: Reporter,
    ) -> None:
        self.questions, self.sampling, self.samples = questions, sampling, samples
        self.code, self.reporter = code, reporter

    def ask(
        self, model: Model, before: Mapping[Place, dict[str, Any]], record: Record | None
    ) -> dict[Place, dict[str, Any]]:
        """Ask what was not answered before; return all entries."""
        entries = dict(before)
        wanted = {
            question.index: [s for s in range(self.samples) if (question.index, s) not in entries]
            for question in self.questions.asked
        }
        left = [question for question in self.questions.asked if wanted[question.index]]
        total = len(self.questions.asked) * self.samples
        if entries:
            self.reporter.say(f"going on: {len(entries)} of {total} answers are there")
        with self.reporter.progress("predicting", total, unit="answers") as track:
            if entries:
                track.advance(len(entries))
            replies = model.answer(left, wanted, self.sampling) if left else ()
            try:
                for reply in replies:
                    entry = self._entry(reply, model.name)
                    entries[reply.index, reply.sample] = entry
                    if record is not None:
                        record.add(reply.index, reply.sample, entry)
                    track.advance()
            except BaseException:
                if record is not None and entries:
                    kept = f"{len(entries)} of {total} answers are kept"
                    self.reporter.say(f"{kept}; the same command goes on from there")
                raise
        return entries

    def predictions(
        self,
        model: Model,
        entries: Mapping[Place, dict[str, Any]],
        settings: Mapping[str, Any],
        output: Path | None,
    ) -> Predictions:
        """Put the entries in order and describe them.

        Raises:
            DataError: There is not a single row.
        """
        ordered = in_order(self.questions, entries, self.samples)
        if not ordered.pairs:
            _, reason, detail = ordered.skipped[0]
            raise DataError(f"no row was answered; the first: {reason}, {detail}")
        facts = {
            "model": model.identity(),
            "settings": dict(settings),
            **describe(self.questions, ordered),
        }
        if self.code is not None:
            facts["code"] = code_found(entries)
        return Predictions(ordered.rows, facts, output)

    def _entry(self, reply: Reply, name: str) -> dict[str, Any]:
        question = self.questions.asked[reply.index]
        if isinstance(reply, NoAnswer):
            return {"skip": {"reason": reply.reason, "detail": reply.detail}}
        entry: dict[str, Any] = {}
        read_file = None
        if self.code is not None and not question.is_turn:
            read_file, entry["code"] = self.code.of(question.example)
        row = to_row(reply, question, model=name, samples=self.samples, read_file=read_file)
        try:
            # What the file cannot hold in the end is found out now.
            encode_row(row, "")
        except DataError as error:
            return {"skip": {"reason": "unwritable", "detail": error.message}}
        return {"row": row, **entry}
