"""Predictions of a model on this machine: the engine's answers, whatever stops or batches it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.engine.sampling import Sampling
from swe_scaffold.errors import UsageError
from swe_scaffold.prediction import Predictions, ask_text, predict, read_questions
from swe_scaffold.prediction.local import LocalModel, load_local
from tests.prediction.fake import chat, read_rows, task, write_rows
from tests.tiny_runs import example, make_config, train
from tests.tiny_runs import write_rows as write_examples

GREEDY = Sampling(max_new_tokens=24)
DRAWN = Sampling(max_new_tokens=24, temperature=1.0, top_p=0.95, seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        task(number, problem_statement="wrong value " * (3 * number + 1)) for number in range(6)
    ]
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", [*rows, chat(1)])


def load(folder: Path, **options: Any) -> LocalModel:
    return load_local(str(folder), offline=True, **options)


def run(model: LocalModel, data: Path, output: Path | None = None, **options: Any) -> Predictions:
    options = {"sampling": GREEDY, **options}
    return predict(lambda: model, read_questions(str(data)), output=output, **options)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_batches_change_nothing(model_folder: Path, data: Path, sampling: Sampling) -> None:
    samples = 1 if sampling is GREEDY else 3
    found = [
        run(load(model_folder, tokens_per_batch=size), data, sampling=sampling, samples=samples)
        for size in (1, 400, 100_000)
    ]
    assert found[0].rows == found[1].rows == found[2].rows
    assert len({row["raw_output"] for row in found[0].rows}) > 3
    assert found[0].facts == found[2].facts


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_resumed_run_writes_the_same_bytes(
    tmp_path: Path, model_folder: Path, data: Path, sampling: Sampling
) -> None:
    model = load(model_folder, tokens_per_batch=200)
    options: dict[str, Any] = {"sampling": sampling, "samples": 1 if sampling is GREEDY else 2}
    run(model, data, tmp_path / "whole.jsonl", **options)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(_Stopping(model, after=4), data, tmp_path / "p.jsonl", **options)  # type: ignore[arg-type]
    assert len(read_rows(tmp_path / "p.partial.jsonl")) == 5
    run(load(model_folder), data, tmp_path / "p.jsonl", **options)
    assert (tmp_path / "p.jsonl").read_bytes() == whole


class _Stopping:
    """The model, until so many answers were given."""

    def __init__(self, model: LocalModel, after: int) -> None:
        self.name, self.identity, self._model, self._after = (
            model.name,
            model.identity,
            model,
            after,
        )

    def answer(self, *arguments: Any) -> Any:
        for number, reply in enumerate(self._model.answer(*arguments)):
            if number == self._after:
                raise KeyboardInterrupt
            yield reply


def test_prompts_are_shortened_to_leave_room_and_counted(
    model_folder: Path, tmp_path: Path
) -> None:
    lines = "".join(f"The function add returns {number}, a wrong value.\n" for number in range(60))
    data = write_rows(tmp_path / "d.jsonl", [task(0, problem_statement=lines), task(1)])
    model = load(model_folder, max_length=300)
    made = run(model, data)
    long, short = made.rows
    assert long["prompt_cut"] > 0 == short["prompt_cut"]
    assert long["prompt_tokens"] <= 300 - 24
    assert made.facts["counts"]["prompts_shortened"] == 1
    with pytest.raises(UsageError, match="leave no room for a prompt"):
        run(load(model_folder, max_length=24), data)


def test_a_prompt_that_cannot_fit_is_skipped(model_folder: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", [task(0, problem_statement="add " * 900), task(1)])
    made = run(load(model_folder, max_length=160), data)
    assert made.facts["counts"]["skipped"] == {"over_length": 1}
    assert [row["instance_id"] for row in made.rows] == ["owner__repo-1"]


def test_settings_and_stop_tokens_of_the_folder_do_not_steer(
    model_folder: Path, data: Path, tmp_path: Path
) -> None:
    wanted = run(load(model_folder), data).rows
    folder = Path(shutil.copytree(model_folder, tmp_path / model_folder.name))
    hostile = {
        "do_sample": True,
        "temperature": 9.0,
        "repetition_penalty": 5.0,
        "num_beams": 4,
        "max_new_tokens": 1,
        "bad_words_ids": [[5]],
        "eos_token_id": [*range(5, 300)],
    }
    (folder / "generation_config.json").write_text(json.dumps(hostile), "utf-8")
    assert run(load(folder), data).rows == wanted


def test_an_adapter_is_named_by_its_folder_and_hashed(model_folder: Path, tmp_path: Path) -> None:
    rows = write_examples(tmp_path / "rows.jsonl", [example(number) for number in range(10)])
    train(make_config(model_folder, tmp_path / "mine", max_steps=2, learning_rate=0.3), rows)
    model = load(tmp_path / "mine")
    identity = model.identity()
    assert model.name == identity["name"] == "mine"
    assert identity["adapter_sha256"]
    assert str(tmp_path) not in json.dumps(identity)
    tuned = run(model, rows).rows
    assert {row["model_name_or_path"] for row in tuned} == {"mine"}
    base = run(load(model_folder), rows).rows
    assert [row["raw_output"] for row in tuned] != [row["raw_output"] for row in base]


def test_one_text_is_answered(model_folder: Path) -> None:
    made = predict(lambda: load(model_folder), ask_text("add returns"), sampling=GREEDY)
    assert made.rows[0]["completion_tokens"] > 0
