"""Answers of a model: batched, left-padded, greedy or sampled; a row never depends on its batch.

Prompts come as ids, answers leave as ids; what they say is left to others. Of a checkpoint's own
generation settings nothing is used: they are a stranger's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from swe_scaffold.engine.devices import Device, out_of_memory
from swe_scaffold.engine.products import fast_float32
from swe_scaffold.engine.sampling import Sampling, draw_seed
from swe_scaffold.errors import OutOfMemory, UsageError

__all__ = ["Generated", "Sampling", "draw_seed", "generate"]


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer: the row it is for, which sample of it, its ids without the token that ended it.

    `stopped` says that it ended by itself, within `max_new_tokens`.
    """

    index: int
    sample: int
    ids: tuple[int, ...]
    stopped: bool


class _Request(NamedTuple):
    row: int
    sample: int
    prompt: Sequence[int]
    key: str


def generate(  # noqa: PLR0913 one argument per thing that decides an answer
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    keys: Sequence[str],
    stop_ids: Collection[int],
    pad_id: int,
    device: Device,
    tokens_per_batch: int,
    samples: int | Sequence[Sequence[int]] = 1,
    without_adapter: bool = False,
) -> Iterator[Generated]:
    """Yield answers to every prompt, the longest prompts first; no random state is used.

    An answer depends on its prompt, the sampling, its key and its number alone, not on the rows it
    is computed with. This is exact as long as the arithmetic is: the batch changes the last digits
    of the logits, and two tokens that differ in no other may change places, which float32 makes
    rare and bfloat16 does not.

    Args:
        model: A causal language model, or a PEFT model around one.
        prompts: Token ids, up to where the answer begins; none may be empty.
        sampling: How tokens are chosen.
        keys: One text for each prompt; together with `sampling.seed` it decides what is drawn.
        stop_ids: Tokens that end an answer.
        pad_id: Token that fills the padding.
        device: Where the model is.
        tokens_per_batch: Most tokens of a batch, prompts, padding and room for answers included; a
            row that is longer goes alone.
        samples: How many answers to each prompt, or the numbers of those wanted of each.
        without_adapter: Ask the base below a PEFT model.

    Raises:
        UsageError: Several samples without drawing, or not one key for each prompt.
        OutOfMemory: A single row does not fit; larger batches are halved first.
    """
    if isinstance(samples, int):
        sampling.require_samples(samples)
        samples = [range(samples)] * len(prompts)
    if len(keys) != len(prompts) or not all(map(len, prompts)):
        raise UsageError("every prompt needs a key and at least one token")
    model.eval()
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    requests = [
        _Request(index, sample, prompts[index], keys[index])
        for index in order
        for sample in samples[index]
    ]
    start, most = 0, len(requests)
    while start < len(requests):
        # The first of a batch is its longest.
        width = len(requests[start].prompt) + sampling.max_new_tokens
        part = requests[start : start + min(most, max(1, tokens_per_batch // width))]
        try:
            with _adapter(model, off=without_adapter), out_of_memory(_what(part, sampling)):
                found = _answer(model, part, sampling, sorted(stop_ids), pad_id, device)
        except OutOfMemory as error:
            if len(part) == 1:
                hint = "lower the number of new tokens, or the length of the prompts"
                raise OutOfMemory(error.message, hint=hint) from None
            most = len(part) // 2
            continue
        for request, ids in zip(part, found, strict=True):
            yield _generated(request, ids, stop_ids)
        start += len(part)


def _what(part: Sequence[_Request], sampling: Sampling) -> str:
    longest = len(part[0].prompt)
    new = sampling.max_new_tokens
    return f"generating {len(part)} answers of {new} tokens, longest prompt {longest} tokens"


def _generated(request: _Request, ids: Sequence[int], stop_ids: Collection[int]) -> Generated:
    end = next((place for place, token in enumerate(ids) if token in stop_ids), None)
    return Generated(request.row, request.sample, tuple(ids[:end]), end is not None)


def _adapter(model: Any, *, off: bool) -> contextlib.AbstractContextManager[Any]:
    return model.disable_adapter() if off else contextlib.nullcontext()


def _answer(
    model: Any,
    part: Sequence[_Request],
    sampling: Sampling,
    stop_ids: Sequence[int],
    pad_id: int,
    device: Device,
) -> list[list[int]]:
    """Return the new ids of each request, what follows a stop token included."""
    # The adapter's layers are inside the base: its own `generate` uses them.
    bare = model.get_base_model() if hasattr(model, "peft_config") else model
    longest = max(len(request.prompt) for request in part)
    ids = torch.full((len(part), longest), pad_id, dtype=torch.long)
    seen = torch.zeros((len(part), longest), dtype=torch.long)
    for line, request in enumerate(part):
        ids[line, longest - len(request.prompt) :] = torch.tensor(request.prompt)
        seen[line, longest - len(request.prompt) :] = 1
    settings = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=pad_id,
    )
    with _no_settings_of_its_own(bare), torch.no_grad(), fast_float32():
        output = bare.generate(
            input_ids=ids.to(device.name),
            attention_mask=seen.to(device.name),
            generation_config=settings,
            logits_processor=_processors(part, sampling, device),
        )
    new: list[list[int]] = output[:, longest:].tolist()
    return new


@contextlib.contextmanager
def _no_settings_of_its_own(module: Any) -> Iterator[None]:
    """Keep transformers from filling in what the checkpoint's generation_config.json says."""
    own = module.generation_config
    module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        module.generation_config = own


def _processors(
    part: Sequence[_Request], sampling: Sampling, device: Device
) -> LogitsProcessorList:
    if not sampling.temperature:
        return LogitsProcessorList()
    processors: list[LogitsProcessor] = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    seeds = [draw_seed(sampling.seed, request.key, request.sample) for request in part]
    return LogitsProcessorList([*processors, _GumbelNoise(seeds, device)])


class _GumbelNoise(LogitsProcessor):
    """Adds to each row's scores noise of its own, so that their largest is a draw from the softmax.

    argmax(score - log e) with e ~ Exp(1) is the Gumbel-max trick. Every step takes one number for
    each token of the vocabulary, whichever tokens are still possible.
    """

    def __init__(self, seeds: Sequence[int], device: Device) -> None:
        self._generators = [torch.Generator(device.name).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.empty_like(scores, dtype=torch.float32)
        for line, generator in enumerate(self._generators):
            noise[line].exponential_(generator=generator)
        return scores - noise.log()
