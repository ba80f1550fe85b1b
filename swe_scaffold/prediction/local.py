"""A model on this machine: prompts as training renders them, answers from the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swe_scaffold.engine.sampling import Sampling
from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.models import find_model, renderer_of
from swe_scaffold.numbers import precision
from swe_scaffold.prediction.answers import Answer, NoAnswer, Reply, Wanted
from swe_scaffold.prediction.questions import Question
from swe_scaffold.rendering import Encoded, Renderer
from swe_scaffold.terminal import Reporter, show
from swe_scaffold.types import Verdict

if TYPE_CHECKING:
    from swe_scaffold.engine.loading import LoadedModel

TOKENS_PER_BATCH = 16_384


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model folder, hub id or adapter, loaded; made by `load_local`.

    `context` is the most tokens of a prompt and its answer, None where nothing limits them.
    """

    loaded: LoadedModel
    renderer: Renderer
    context: int | None
    tokens_per_batch: int

    @property
    def name(self) -> str:
        """The hub id, or the name of the run's or model's folder."""
        adapter = self.loaded.reference.adapter
        return adapter.resolve().name if adapter is not None else self.loaded.base.public_name

    def identity(self) -> dict[str, Any]:
        """Return names and hashes of base, adapter, tokenizer and template, and the limits."""
        reference, base = self.loaded.reference, self.loaded.base
        return {
            "kind": "local",
            "name": self.name,
            "base": base.public_name,
            "base_sha256": base.sha256,
            "adapter_sha256": reference.adapter_sha256 or self._adapter_sha256(),
            "tokenizer_sha256": self.renderer.tokenizer_sha256,
            "template_sha256": self.renderer.template_sha256,
            "device": base.device.name,
            "dtype": base.device.dtype_name,
            "quantization": base.quantization,
            "context": self.context,
            "min_prompt_tokens": reference.min_prompt_tokens,
        }

    def answer(
        self, questions: Sequence[Question], wanted: Wanted, sampling: Sampling
    ) -> Iterator[Reply]:
        """Yield the replies, the longest prompts first; prompts that cannot fit come before all.

        Raises:
            UsageError: The answers leave no room for a prompt.
            IntegrityError: A token that the model has no embedding for.
            OutOfMemory: A single row does not fit.
        """
        from swe_scaffold.engine.generation import generate

        prompts: dict[int, Encoded] = {}
        chosen: list[Question] = []
        for question in questions:
            prompt = self._prompt(question, sampling)
            if isinstance(prompt, Verdict):
                for sample in wanted[question.index]:
                    yield NoAnswer(question.index, sample, prompt.reason, prompt.detail)
            else:
                prompts[question.index] = prompt
                chosen.append(question)
        ids = [prompts[question.index].ids for question in chosen]
        self._require_embeddings(ids)
        for found in generate(
            self.loaded.module,
            ids,
            sampling=sampling,
            keys=[question.key for question in chosen],
            stop_ids=self.renderer.stop_ids,
            pad_id=self.renderer.pad_id,
            device=self.loaded.base.device,
            tokens_per_batch=self.tokens_per_batch,
            samples=[wanted[question.index] for question in chosen],
        ):
            index = chosen[found.index].index
            yield Answer(
                index=index,
                sample=found.sample,
                text=self.renderer.decode(found.ids),
                stopped=found.stopped,
                prompt_tokens=len(prompts[index].ids),
                completion_tokens=len(found.ids) + found.stopped,
                prompt_cut=prompts[index].prompt_cut,
            )

    def _prompt(self, question: Question, sampling: Sampling) -> Encoded | Verdict:
        room = None
        if self.context is not None:
            room = self.context - sampling.max_new_tokens
            if room < 1:
                raise UsageError(
                    f"{sampling.max_new_tokens} new tokens leave no room for a prompt in a context "
                    f"of {self.context} tokens",
                    hint="lower --max-new-tokens",
                )
        return self.renderer.prompt(
            question.example,
            max_length=room,
            min_prompt_tokens=self.loaded.reference.min_prompt_tokens,
        )

    def _require_embeddings(self, prompts: Sequence[Sequence[int]]) -> None:
        highest = max((max(ids) for ids in prompts), default=0)
        size = self.loaded.base.vocab_size
        if highest >= size:
            raise IntegrityError(
                f"token id {highest} is beyond the model's {size} embeddings",
                where=self.loaded.base.name,
            )

    def _adapter_sha256(self) -> str | None:
        from swe_scaffold.files import sha256_file
        from swe_scaffold.models import WEIGHTS

        adapter = self.loaded.reference.adapter
        return None if adapter is None else sha256_file(adapter / WEIGHTS)


def load_local(  # noqa: PLR0913 one argument per option of the command
    model: str,
    *,
    base: str | None = None,
    dtype: str = "auto",
    max_length: int | None = None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    offline: bool = False,
    trust_template: bool = False,
    reporter: Reporter | None = None,
) -> LocalModel:
    """Load a model and the renderer that its base was trained with.

    Args:
        model: A run folder (or any PEFT folder with `base`), a model folder or a hub id.
        base: Overrides the base that the adapter's manifest names; its hash must still match.
        dtype: As `evaluation.dtype`.
        max_length: Most tokens of a prompt and its answer, where the model could take more.
        tokens_per_batch: Most tokens of a batch; only speed and memory change.
        offline: Never ask the network.
        trust_template: Accept a chat template that is not a known one.
        reporter: Where messages go.

    Raises:
        IntegrityError: An adapter, base or tokenizer that is not what the manifest says.
        EnvironmentFailure: A hub id that cannot be fetched.
    """
    target = find_model(model, base=base)
    renderer = renderer_of(target, offline=offline, trust_template=trust_template)
    from swe_scaffold.engine.loading import load_model

    loaded = load_model(target, dtype=dtype, offline=offline)
    found = loaded.base
    if reporter is not None:
        reporter.say(
            f"base: {show(found.name)} (sha256 {found.sha256[:12]}), "
            f"{precision(found.device.dtype_name, found.quantization)}"
        )
    limits = [limit for limit in (max_length, found.context_length) if limit is not None]
    return LocalModel(loaded, renderer, min(limits, default=None), tokens_per_batch)
