"""Score models on rows: likelihoods with their uncertainty, base against tuned.

- `__init__.py`: the story: find the models, render the rows, score each, report.
- `rows.py`: rows rendered, with their own and with other prompts.
- `scoring.py`: rows scored by one model, in one process or several.
- `work.py`: one model's evaluation while it is made.
- `answers.py`: what it answers to some of the prompts.
- `parts.py`: files that are written as rows come, and taken up again.
- `reporting.py`: what `evaluation.json` says.
- `folder_names.py`: names of models as names of folders.

Rows a model was trained on are reported apart from unseen ones. Likelihoods come from the
engine, the numbers made from them from metrics; evaluations that are there are compared elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.cache import Cache, key_of
from swe_scaffold.config import EvaluationConfig
from swe_scaffold.errors import UsageError
from swe_scaffold.evaluation.folder_names import safe_name
from swe_scaffold.evaluation.parts import finished
from swe_scaffold.evaluation.scoring import Scorer, Subject
from swe_scaffold.evaluation.work import Evaluation, Plan, Work
from swe_scaffold.executors import workers
from swe_scaffold.files import folder_lock, remove_leftovers, require_writable
from swe_scaffold.manifest import file_entries
from swe_scaffold.models import ModelReference, below, find_model, renderer_of, was_trained
from swe_scaffold.numbers import precision
from swe_scaffold.sources.examples import read_examples
from swe_scaffold.terminal import Reporter, show

if TYPE_CHECKING:
    from swe_scaffold.engine.model import BaseFiles

__all__ = ["Evaluation", "evaluate_model", "evaluate_models"]

# Raise it when the same model and rows come to other scores.
RULES = 1
BASE = "base"


def evaluate_model(model: str | Path, data: Path | str, **options: Any) -> Evaluation:
    """Score one model.

    Args:
        model: A run folder (or any PEFT folder with `base`), a model folder or a hub id.
        data: Rows as `train` takes them.
        options: Those of `evaluate_models`, whose errors are raised too.
    """
    return evaluate_models([model], data, **options)[0]


def evaluate_models(  # noqa: PLR0913 one argument per flag of the command
    models: Sequence[str | Path],
    data: Path | str,
    *,
    config: EvaluationConfig | None = None,
    base: str | None = None,
    compare_base: bool = False,
    shuffled_control: bool = False,
    generate: int = 0,
    processes: int = 1,
    output: Path | None = None,
    fresh: bool = False,
    offline: bool = False,
    trust_template: bool = False,
    cache: Cache | None = None,
    reporter: Reporter | None = None,
) -> tuple[Evaluation, ...]:
    """Score models on the same rows and leave `evaluation.json` and `scores.jsonl` for each.

    Scores are kept as they come: an interrupted evaluation goes on, and one that is there already
    for the same model, data and settings is used as it is.

    Args:
        models: Run folders (or any PEFT folders with `base`), model folders or hub ids.
        data: Rows as `train` takes them.
        config: Budget of a pass, dtype and statistics; the budget never changes the numbers.
        base: Overrides the base that a manifest names; its hash must still match.
        compare_base: Also score what each model was trained on, into `base/`, and pair the two.
        shuffled_control: Also score each row's response after another prompt of the same group.
        generate: Also let each model answer so many prompts, and look at the answers' health.
        processes: How many processes score; on CUDA each takes a device of its own.
        output: Folder of the results, below which several models have folders of their own;
            default `evaluation/<data hash>` below a run folder.
        fresh: Use nothing that an earlier evaluation left.
        offline: Never ask the network.
        trust_template: Accept a chat template that is not a known one.
        cache: Where rendered rows are looked for and kept.
        reporter: Where messages and progress go.

    Returns:
        One evaluation per model, in their order.

    Raises:
        DataError: Rows that cannot be read, or none that can be scored.
        IntegrityError: An adapter, base or tokenizer that is not what the manifest says.
        UsageError: A comparison with a base that is not known, or a model named twice.
    """
    names = [str(model) for model in models]
    if len(set(names)) < len(names):
        raise UsageError("a model is named twice", where=" ".join(map(show, names)))
    # Beside what was trained, the base it is compared with needs no base itself.
    mixed = any(map(was_trained, names))
    references = [
        find_model(name, base=base if was_trained(name) or not mixed else None) for name in names
    ]
    for reference in references:
        if compare_base and below(reference) is None:
            raise _nothing_below(reference)
    settings, file = config or EvaluationConfig(), read_examples(data)
    if settings.quantization != "auto":
        references = [replace(one, quantization=settings.quantization) for one in references]
    plan = Plan(
        file=file,
        settings=settings,
        shuffled_control=shuffled_control,
        generate=generate,
        fresh=fresh,
        offline=offline,
        trust_template=trust_template,
        cache=cache,
        reporter=reporter or Reporter(-1),
    )
    session = _Session(plan)
    subjects = session.subjects(references)
    with session.scorer(processes) as scorer:
        evaluations = []
        for subject, reference in zip(subjects, references, strict=True):
            folder = _folder(subject, reference, file.sha256, output, several=len(names) > 1)
            evaluations.append(session.evaluate(subject, scorer, folder, compare_base=compare_base))
    return tuple(evaluations)


class _Session:
    """Every model's turn."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def subjects(self, references: Sequence[ModelReference]) -> list[Subject]:
        """Return each model with its files and renderer, and limits that all of them share."""
        from swe_scaffold.engine.devices import choose_device
        from swe_scaffold.engine.model import find_base
        from swe_scaffold.engine.quantization import require_quantizer

        renderers = [
            renderer_of(one, offline=self.plan.offline, trust_template=self.plan.trust_template)
            for one in references
        ]
        files = {
            name: find_base(name, offline=self.plan.offline)
            for name in dict.fromkeys(one.base for one in references)
        }
        # The same rows for all: what one model cannot read, or was not trained to, none is shown.
        contexts = [length for one in files.values() if (length := one.context_length)]
        # A base was not trained to any length: beside what was, that decides.
        tuned = [one for one in references if one.adapter is not None or one.trained] or references
        max_length = min([*contexts, *(one.max_length for one in tuned)])
        floor = max(one.min_prompt_tokens for one in tuned)
        device = choose_device(self.plan.settings.dtype)
        for one in references:
            require_quantizer(one.quantization, device)
        subjects = []
        for one, renderer in zip(references, renderers, strict=True):
            model = replace(one, max_length=max_length, min_prompt_tokens=floor)
            key = key_of(
                RULES,
                files[one.base].sha256,
                _adapter_sha256(one),
                self.plan.file.sha256,
                renderer.digest(),
                max_length,
                floor,
                device.name,
                precision(device.dtype_name, one.quantization),
            )
            sha256 = files[one.base].sha256
            self.plan.reporter.say(
                f"base: {show(one.base)} (sha256 {sha256[:12]}), "
                f"{precision(device.dtype_name, one.quantization)}"
            )
            subjects.append(Subject(model, files[one.base], renderer, key))
        return subjects

    @contextlib.contextmanager
    def scorer(self, processes: int) -> Iterator[Scorer]:
        """Yield what scores, in this process or several."""
        with workers(processes) as run:
            yield Scorer(
                self.plan.settings,
                offline=self.plan.offline,
                run=run if processes > 1 else None,
                processes=processes,
                reporter=self.plan.reporter,
            )

    def evaluate(
        self, subject: Subject, scorer: Scorer, folder: Path, *, compare_base: bool
    ) -> Evaluation:
        """Score one model, and the base below it where asked, and write what was found."""
        require_writable(folder)
        with contextlib.ExitStack() as opened:
            opened.enter_context(folder_lock(folder))
            remove_leftovers(folder)
            pair = None
            work = opened.enter_context(
                contextlib.closing(Work(self.plan, subject, scorer, folder))
            )
            # The model first: what is wrong with it is said before its base is scored.
            work.scores()
            base, key = below(subject.model), key_of(subject.key, BASE)
            there = not self.plan.fresh and _is_there(folder / BASE, key)
            if base is not None and (compare_base or there):
                plain = replace(subject, model=base, files=self._files(subject, base), key=key)
                pair = self.evaluate(plain, scorer, folder / BASE, compare_base=False)
            return work.finish(pair)

    def _files(self, subject: Subject, base: ModelReference) -> BaseFiles:
        """Return the files of what a model was trained on; an adapter's are there already."""
        from swe_scaffold.engine.model import find_base

        if base.base == subject.model.base:
            return subject.files
        return find_base(base.base, offline=self.plan.offline)


def _is_there(folder: Path, key: str) -> bool:
    """Whether a finished evaluation under this key stands in a folder."""
    before = finished(folder)
    return before is not None and before.report.get("key") == key


def _nothing_below(model: ModelReference) -> UsageError:
    if model.origin_sha256 is None:
        return UsageError("there is no adapter to compare with its base", where=model.name)
    return UsageError(
        "what this model was trained on is not where it was",
        where=model.name,
        hint="give its folder with --base",
    )


def _adapter_sha256(model: ModelReference) -> str | None:
    """Return the hash of an adapter's weights and options."""
    if model.adapter is None:
        return None
    from swe_scaffold.engine.adapter import WEIGHTS
    from swe_scaffold.engine.adapter_config import CONFIG

    return key_of(file_entries(model.adapter, (WEIGHTS, CONFIG)))


def _folder(
    subject: Subject,
    reference: ModelReference,
    data_sha256: str,
    output: Path | None,
    *,
    several: bool,
) -> Path:
    """Return where an evaluation goes; other limits than a run's own have a place of their own."""
    model = subject.model
    if output is not None:
        return output / safe_name(model.name) if several else output
    name = data_sha256[:16]
    home = model.run or model.adapter
    if home is None:
        return Path("artifacts/evaluation") / safe_name(model.name) / name
    own = min([reference.max_length, *filter(None, [subject.files.context_length])])
    if (model.max_length, model.min_prompt_tokens) != (own, reference.min_prompt_tokens):
        name += f"-{model.max_length}-{model.min_prompt_tokens}"
    return home / "evaluation" / name
