"""Answers: plain transformers' one row at a time, whatever the batch, and draws that are draws."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.generation import Generated, Sampling, draw_seed, generate
from swe_scaffold.errors import OutOfMemory, UsageError
from tests.engine.shapes import MODELS, VOCABULARY, make_model, with_adapter

CPU = Device("cpu", torch.float32)
STOP = 2
GREEDY = Sampling(max_new_tokens=12)
DRAWN = Sampling(max_new_tokens=12, temperature=0.8, top_p=0.9, seed=5)
CAUSAL = [name for name in MODELS if name != "bert-transformed-head"]


def make_prompts(lengths: tuple[int, ...] = (7, 3, 15, 1, 9, 9, 20, 4)) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


PROMPTS = make_prompts()
KEYS = [f"row-{number}" for number in range(len(PROMPTS))]


def answers(
    model: Any, prompts: list[list[int]] = PROMPTS, keys: list[str] = KEYS, **options: Any
) -> dict[tuple[str, int], Generated]:
    defaults: dict[str, Any] = {
        "sampling": GREEDY,
        "stop_ids": {STOP},
        "pad_id": 0,
        "device": CPU,
        "tokens_per_batch": 4096,
    }
    found = list(generate(model, prompts, keys=keys, **{**defaults, **options}))
    assert len(found) == len(prompts) * options.get("samples", 1)
    return {(keys[row.index], row.sample): row for row in found}


def texts(found: dict[tuple[str, int], Generated]) -> dict[tuple[str, int], tuple[Any, ...]]:
    return {key: (row.ids, row.stopped) for key, row in found.items()}


def one_by_one(model: Any, prompt: list[int], steps: int) -> tuple[tuple[int, ...], bool]:
    """The likeliest tokens from full passes, without a cache."""
    ids, new = list(prompt), []
    for _ in range(steps):
        with torch.no_grad():
            best = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if best == STOP:
            return tuple(new), True
        ids.append(best)
        new.append(best)
    return tuple(new), False


@pytest.fixture(scope="module")
def model() -> Any:
    return with_adapter(make_model())


@pytest.mark.parametrize("name", CAUSAL)
def test_greedy_answers_are_those_of_full_passes_row_by_row(name: str) -> None:
    model = make_model(name)
    found = texts(answers(model))
    wanted = {(key, 0): one_by_one(model, p, 12) for key, p in zip(KEYS, PROMPTS, strict=True)}
    assert found == wanted


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("tokens_per_batch", [1, 60, 100, 4096])
def test_batches_and_order_change_nothing(
    model: Any, sampling: Sampling, tokens_per_batch: int
) -> None:
    wanted = texts(answers(model, sampling=sampling, tokens_per_batch=1))
    order = random.Random(tokens_per_batch).sample(range(len(PROMPTS)), len(PROMPTS))
    prompts, keys = [PROMPTS[i] for i in order], [KEYS[i] for i in order]
    options = {"sampling": sampling, "tokens_per_batch": tokens_per_batch}
    assert texts(answers(model, prompts, keys, **options)) == wanted
    alone = texts(answers(model, prompts[:2], keys[:2], **options))
    assert alone == {key: wanted[key] for key in alone}


def test_an_answer_ends_before_its_stop_token_and_says_whether_it_stopped(model: Any) -> None:
    longest = texts(answers(model, stop_ids=()))
    assert all(len(ids) == 12 and not stopped for ids, stopped in longest.values())
    stop = longest["row-0", 0][0][5]
    for key, (ids, stopped) in texts(answers(model, stop_ids={stop})).items():
        whole = longest[key][0]
        assert stopped == (stop in whole)
        assert ids == (whole[: whole.index(stop)] if stopped else whole)


def test_samples_differ_by_number_key_and_seed_alone(model: Any) -> None:
    found = texts(answers(model, sampling=DRAWN, samples=4))
    assert len({found["row-2", sample] for sample in range(4)}) > 1
    assert texts(answers(model, sampling=DRAWN)).items() <= found.items()
    wanted = [[3, 1], [], *[[0]] * 6]
    some = generate(
        model,
        PROMPTS,
        sampling=DRAWN,
        keys=KEYS,
        stop_ids={STOP},
        pad_id=0,
        device=CPU,
        tokens_per_batch=100,
        samples=wanted,
    )
    chosen = {(KEYS[row.index], row.sample): (row.ids, row.stopped) for row in some}
    assert len(chosen) == 8
    assert chosen.items() <= found.items()
    renamed = texts(answers(model, keys=[f"other-{key}" for key in KEYS], sampling=DRAWN))
    assert list(renamed.values()) != [found[key, 0] for key in KEYS]
    seeded = Sampling(max_new_tokens=12, temperature=0.8, top_p=0.9, seed=6)
    assert texts(answers(model, sampling=seeded)) != texts(answers(model, sampling=DRAWN))


def test_draws_follow_the_softmax_that_temperature_and_top_p_leave(model: Any) -> None:
    draws, prompt = 3000, PROMPTS[0]
    sampling = Sampling(max_new_tokens=1, temperature=2.0, top_p=0.8)
    found = answers(
        model, [prompt], ["row"], sampling=sampling, samples=draws, stop_ids=()
    ).values()
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([prompt])).logits[0, -1] / 2
    order = scores.argsort(descending=True)
    before = scores[order].softmax(-1).cumsum(-1) - scores[order].softmax(-1)
    kept = order[before < 0.8]
    assert 2 < len(kept) < VOCABULARY
    shares = torch.zeros(VOCABULARY)
    shares[kept] = scores[kept].softmax(-1)
    counts = torch.bincount(torch.tensor([row.ids[0] for row in found]), minlength=VOCABULARY)
    assert int(counts[shares == 0].sum()) == 0
    chi_square = (((counts - draws * shares) ** 2)[kept] / (draws * shares[kept])).sum()
    degrees = len(kept) - 1
    assert float(chi_square) < degrees + 4 * (2 * degrees) ** 0.5


def test_the_seed_of_a_draw_is_fixed_for_all_time() -> None:
    assert draw_seed(0, "row", 0) == 5991162405303320309
    assert len({draw_seed(s, k, n) for s in (0, 1) for k in "ab" for n in (0, 1)}) == 8


def test_settings_of_the_checkpoint_are_not_used() -> None:
    model = make_model()
    wanted = texts(answers(model))
    own = model.generation_config
    own.update(
        do_sample=True,
        temperature=5.0,
        num_beams=3,
        repetition_penalty=9.0,
        suppress_tokens=[ids[0] for (ids, _) in wanted.values() if ids],
        min_new_tokens=12,
        eos_token_id=[7, 8, 9],
        max_length=5,
        prompt_lookup_num_tokens=3,
        use_cache=False,
    )
    assert texts(answers(model)) == wanted
    assert model.generation_config is own
    assert own.repetition_penalty == 9.0


def test_without_the_adapter_the_base_answers(model: Any) -> None:
    base = texts(answers(make_model()))
    assert texts(answers(model, without_adapter=True)) == base
    assert texts(answers(model)) != base


def test_no_random_state_is_used(model: Any) -> None:
    before = torch.get_rng_state()
    answers(model, sampling=DRAWN, samples=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_caller_keeps_gradients_and_adapter_while_answers_arrive(model: Any) -> None:
    options: dict[str, Any] = {"stop_ids": {STOP}, "pad_id": 0, "device": CPU}
    arriving = generate(
        model,
        PROMPTS,
        keys=KEYS,
        sampling=GREEDY,
        tokens_per_batch=1,
        without_adapter=True,
        **options,
    )
    next(arriving)
    assert torch.is_grad_enabled()
    del arriving
    assert texts(answers(model)) != texts(answers(model, without_adapter=True))


def refuse_more_than(model: Any, rows: int) -> list[int]:
    tried: list[int] = []

    def hook(_: Any, __: Any, arguments: dict[str, Any]) -> None:
        tried.append(len(arguments["input_ids"]))
        if tried[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.get_base_model().base_model.register_forward_pre_hook(hook, with_kwargs=True)
    return tried


def test_out_of_memory_means_smaller_batches_and_the_same_answers(model: Any) -> None:
    small = with_adapter(make_model())
    tried = refuse_more_than(small, 3)
    assert texts(answers(small, sampling=DRAWN)) == texts(answers(model, sampling=DRAWN))
    assert [size for size in tried if size > 3] == [8, 4]


def test_a_row_that_does_not_fit_is_an_error() -> None:
    model = with_adapter(make_model())
    refuse_more_than(model, 0)
    with pytest.raises(OutOfMemory, match="generating 1 answers of 12 tokens, longest prompt 20"):
        answers(model)


@pytest.mark.parametrize(
    "values",
    [{"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}],
)
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Sampling(**values)


def test_several_greedy_answers_are_refused(model: Any) -> None:
    with pytest.raises(UsageError, match="at temperature 0 all would be the same"):
        answers(model, samples=2)
    with pytest.raises(UsageError, match="a key and at least one token"):
        answers(model, prompts=[[]], keys=["a"])


def test_nothing_to_answer_yields_nothing(model: Any) -> None:
    assert answers(model, [], []) == {}
