"""The rows of a run: every one trained, held out or skipped with a reason, and none twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.cache import Cache
from swe_scaffold.config import SpeedrunConfig
from swe_scaffold.errors import DataError, IntegrityError
from swe_scaffold.rendering import Renderer
from swe_scaffold.training.data import RunData, prepare
from swe_scaffold.types import Example, Message
from tests.tiny_runs import (
    FAILURE,
    example,
    examples,
    flip_byte,
    make_config,
    read_json,
    renamed,
    write_rows,
    write_split,
)


@pytest.fixture(scope="module")
def renderer(model: Path) -> Renderer:
    return Renderer.load(model)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Twelve rows, six held out, and their manifest: free to be broken."""
    return write_split(tmp_path / "rows.jsonl", examples(0, 12), examples(12, 18))


def config(model: Path, tree: dict[str, Any] | None = None, /, **training: Any) -> SpeedrunConfig:
    return make_config(model, Path("unused"), tree, **training)


def names(rows: Any) -> list[str]:
    return [row.instance_id for row in rows]


def assert_adds_up(data: RunData) -> None:
    assert data.rows == len(data.trained) + len(data.held_out) + len(data.skipped)
    everywhere = [*names(data.trained), *names(data.held_out), *names(data.skipped)]
    assert len(set(everywhere)) == data.rows


def test_the_hold_out_is_the_sibling_that_the_manifest_names(
    path: Path, model: Path, renderer: Renderer
) -> None:
    data = prepare(path, config(model), renderer)
    assert names(data.trained) == [f"row-{n:02d}" for n in range(12)]
    assert names(data.held_out) == [f"row-{n:02d}" for n in range(12, 18)]
    assert data.notes == ("hold-out: rows.test.jsonl, 6 rows, as the manifest names it",)
    assert data.proof["rows"] == 18
    assert_adds_up(data)


def test_a_changed_sibling_is_refused(path: Path, model: Path, renderer: Renderer) -> None:
    write_rows(path.with_name("rows.test.jsonl"), examples(12, 17))
    with pytest.raises(IntegrityError, match=r"is not the hold-out that rows.jsonl.manifest") as e:
        prepare(path, config(model), renderer)
    assert e.value.exit_code == 5
    assert e.value.where.endswith("rows.test.jsonl")


@pytest.mark.parametrize(
    "outputs", [{}, None, [], {"rows.test.jsonl": None}, {"rows.test.jsonl": {"sha256": "0"}}]
)
def test_a_sibling_that_the_manifest_does_not_name_is_refused(
    path: Path, model: Path, renderer: Renderer, outputs: Any
) -> None:
    manifest = path.with_name("rows.jsonl.manifest.json")
    manifest.write_text(json.dumps({**read_json(manifest), "outputs": outputs}), "utf-8")
    with pytest.raises(IntegrityError, match="is not the hold-out"):
        prepare(path, config(model), renderer)


def test_a_damaged_manifest_is_refused(path: Path, model: Path, renderer: Renderer) -> None:
    flip_byte(path.with_name("rows.jsonl.manifest.json"), 0)
    with pytest.raises(IntegrityError, match="damaged"):
        prepare(path, config(model), renderer)


def test_without_a_manifest_the_sibling_is_checked_for_leaks(
    path: Path, model: Path, renderer: Renderer
) -> None:
    path.with_name("rows.jsonl.manifest.json").unlink()
    data = prepare(path, config(model), renderer)
    assert data.notes == ("hold-out: rows.test.jsonl, 6 rows (no manifest; leak check passed)",)
    write_rows(path.with_name("rows.test.jsonl"), [*examples(12, 14), example(3)])
    with pytest.raises(DataError, match=r"row row-03 shares its \w+ with a training row") as error:
        prepare(path, config(model), renderer)
    assert error.value.where.endswith("rows.test.jsonl:3")
    assert error.value.exit_code == 3


def test_rows_put_into_the_training_file_later_are_checked_too(
    path: Path, model: Path, renderer: Renderer
) -> None:
    """The manifest still names the hold-out, and no longer speaks of this training file."""
    write_rows(path, [*examples(0, 12), example(20)])
    data = prepare(path, config(model), renderer)
    assert "rows.jsonl was changed since it was built; leak check passed" in data.notes[0]
    leaked = renamed(example(13), instance_id="new-name")
    write_rows(path, [*examples(0, 12), leaked])
    with pytest.raises(DataError, match="row row-13 shares its prompt"):
        prepare(path, config(model), renderer)


def test_without_a_sibling_whole_groups_are_held_out(
    tmp_path: Path, model: Path, renderer: Renderer
) -> None:
    twins = [renamed(example(n), instance_id=f"twin-{n:02d}") for n in range(20)]
    path = write_rows(tmp_path / "alone.jsonl", [*examples(0, 20), *twins])
    data = prepare(path, config(model, {"dataset": {"dev_split": 0.7}}), renderer)
    assert data.held_out
    assert_adds_up(data)
    assert f"{len(data.held_out)} of 40 rows held out" in data.notes[0]
    sides = [{name[-2:] for name in names(part)} for part in (data.trained, data.held_out)]
    assert not sides[0] & sides[1]
    again = prepare(path, config(model, {"dataset": {"dev_split": 0.7}}), renderer)
    assert names(again.held_out) == names(data.held_out)
    for changes in ({"seed": 1}, {"dev_split": 0.6}):
        other = prepare(path, config(model, {"dataset": {"dev_split": 0.7, **changes}}), renderer)
        assert other.fingerprint != data.fingerprint


def test_without_evaluation_every_row_is_trained(
    tmp_path: Path, model: Path, renderer: Renderer
) -> None:
    path = write_rows(tmp_path / "alone.jsonl", examples(0, 9))
    data = prepare(path, config(model, eval_strategy="no"), renderer)
    assert len(data.trained) == 9
    assert data.notes == ("eval_strategy is no: every row of the file is trained",)


def test_a_hold_out_that_takes_every_row_is_an_error_with_a_way_out(
    tmp_path: Path, model: Path, renderer: Renderer
) -> None:
    path = write_rows(tmp_path / "one.jsonl", [example(1)])
    tree = {"dataset": {"dev_split": 1e-9, "split_by": "row"}}
    with pytest.raises(DataError, match="the hold-out would take every row") as error:
        prepare(path, config(model, tree), renderer)
    assert "eval_strategy" in error.value.hint
    assert len(prepare(path, config(model, eval_strategy="no"), renderer).trained) == 1


def test_failures_and_rows_too_long_are_counted(
    path: Path, model: Path, renderer: Renderer
) -> None:
    bad = [example(number, label=FAILURE) for number in (30, 31)]
    long = renamed(example(40), response="long " * 200)
    empty = renamed(example(41), response=" ", label=FAILURE)
    write_split(path, [*examples(0, 8), *bad, long, empty], examples(12, 18))
    data = prepare(path, config(model), renderer)
    wanted = Counter({"failure_label": 2, "over_length": 1, "empty_response": 1})
    assert Counter(row.reason for row in data.skipped) == wanted
    assert data.counts()["skipped"] == dict(wanted)
    assert {row.side for row in data.skipped} == {"dev"}
    assert_adds_up(data)
    both = prepare(path, config(model, include_failures=True), renderer)
    assert {row.reason for row in both.skipped} == {"over_length", "empty_response"}
    assert_adds_up(both)


def test_no_rows_left_is_an_error_with_the_reasons(
    tmp_path: Path, model: Path, renderer: Renderer
) -> None:
    rows = [example(number, label=FAILURE) for number in range(3)]
    path = write_rows(tmp_path / "bad.jsonl", rows)
    with pytest.raises(DataError, match=r"no rows left to train \(3 read.*failure_label") as error:
        prepare(path, config(model, eval_strategy="no"), renderer)
    assert error.value.exit_code == 3
    assert "include_failures" in error.value.hint
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")
    with pytest.raises(DataError, match=r"no usable rows \(0 read\)"):
        prepare(tmp_path / "empty.jsonl", config(model), renderer)


def test_a_bad_row_stops_with_its_line(path: Path, model: Path, renderer: Renderer) -> None:
    path.write_bytes(path.read_bytes() + b'{"prompt": "p"}\n')
    with pytest.raises(DataError) as error:
        prepare(path, config(model), renderer)
    assert error.value.where == f"{path}:13"


def chat(number: int) -> Example:
    """A chat of two answers, the first of them not to be trained."""
    messages = (
        Message("system", f"You look at issue {number}."),
        Message("user", "What does add return?"),
        Message("assistant", "A wrong value.", train=False),
        Message("user", f"Mend it, number {number}."),
        Message("assistant", f"return first + second, {number}"),
    )
    return renamed(example(number), prompt="", response="", messages=messages)


def test_chats_train_the_answers_that_are_to_be_trained(
    tmp_path: Path, model: Path, renderer: Renderer
) -> None:
    path = write_rows(tmp_path / "chats.jsonl", [chat(number) for number in range(6)])
    data = prepare(path, config(model, eval_strategy="no"), renderer)
    assert len(data.trained) == 6
    for number, row in enumerate(data.trained):
        text = renderer.tokenizer.official.decode(row.input_ids[row.loss_mask].tolist())
        assert text == f"return first + second, {number}<|im_end|>"


def test_the_ledger_is_in_the_order_of_the_file(
    path: Path, model: Path, renderer: Renderer
) -> None:
    counts = prepare(path, config(model), renderer).counts()
    assert list(counts)[:4] == ["rows", "trained", "held_out", "skipped"]
    assert counts["rows"] == 18


def test_rows_from_the_cache_are_the_rows(
    path: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept and found again, also the ones that cannot be trained; other limits are other rows."""
    cache, renderer = Cache(tmp_path / "cache"), Renderer.load(model)
    drawn = Counter[str]()
    encode = renderer._encode

    def counted(texts: Any) -> Any:
        drawn["calls"] += 1
        return encode(texts)

    monkeypatch.setattr(renderer, "_encode", counted)
    for limit in (4096, 60, 40):
        settings = config(model, max_length=limit, min_prompt_tokens=4)
        try:
            plain = prepare(path, settings, renderer)
        except DataError:
            with pytest.raises(DataError, match="no rows left"):
                prepare(path, settings, renderer, cache)
            continue
        before = drawn["calls"]
        first = prepare(path, settings, renderer, cache)
        made = drawn["calls"]
        again = prepare(path, settings, renderer, cache)
        assert before < made == drawn["calls"]
        assert plain == first == again
        assert_adds_up(again)


def test_a_changed_row_is_rendered_anew(path: Path, model: Path, tmp_path: Path) -> None:
    cache, renderer = Cache(tmp_path / "cache"), Renderer.load(model)
    first = prepare(path, config(model), renderer, cache)
    rows = [renamed(example(0), response="other words"), *(example(n) for n in range(1, 12))]
    write_rows(path, rows)
    second = prepare(path, config(model), renderer, cache)
    assert second == prepare(path, config(model), renderer)
    assert second.trained[0] != first.trained[0]


def test_kept_tokens_leave_room_for_others(path: Path, model: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=0)
    prepare(path, config(model), Renderer.load(model), cache)
    assert not list(cache.folder.rglob("tokens/*/*.body"))
