"""Files of examples: read whole and in order, or refused at the first line that is none."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import DataError
from swe_scaffold.jsonl import write_jsonl
from swe_scaffold.rows import example_to_row, make_example
from swe_scaffold.sources import read_examples
from swe_scaffold.types import Example, Origin, SpeedrunLabel


def built(number: int) -> Example:
    return make_example(
        instance_id=f"a__b-{number}",
        repo="a/b",
        prompt=f"p{number}\u2028",
        response="r",
        response_source="patch",
        label=SpeedrunLabel.SUCCESS,
        origin=Origin("tasks.jsonl", number),
    )


def refusal(folder: Path, data: bytes | str, name: str = "f.jsonl") -> DataError:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert caught.value.where.startswith(str(path))
    return caught.value


def test_built_rows_come_back_in_order(tmp_path: Path) -> None:
    examples = tuple(built(number) for number in range(5))
    path = tmp_path / "f.jsonl"
    written = write_jsonl(path, map(example_to_row, examples))
    file = read_examples(path)
    assert file.examples == examples
    assert (file.size, file.sha256, file.rows, file.path) == (
        written.size,
        written.sha256,
        5,
        str(path),
    )
    packed = tmp_path / "f.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_examples(str(packed)).examples == examples
    assert read_examples(packed).sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()


def test_generic_rows_are_examples_too(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    write_jsonl(path, [{"prompt": "p", "completion": "c"}, {"messages": chat}])
    first, second = read_examples(path).examples
    assert (first.prompt, first.response) == ("p", "c")
    assert len(second.messages) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("null", "expected an object, got null"),
        ('{"prompt": "p"', "truncated JSON"),
        ('{"prompt": 1, "response": "r"}', "prompt is a number, not text"),
        ('{"foo": 1}', "no known row with the keys foo"),
    ],
)
def test_the_first_bad_line_stops(tmp_path: Path, line: str, message: str) -> None:
    error = refusal(tmp_path, f'{{"prompt":"p","response":"r"}}\n\n{line}\nnull\n')
    assert error.where.endswith("f.jsonl:3")
    assert message in error.message


def test_tasks_are_sent_to_build(tmp_path: Path) -> None:
    row: dict[str, Any] = {"instance_id": "a__b-1", "problem_statement": "p", "patch": "x"}
    error = refusal(tmp_path, json.dumps(row))
    assert error.where.endswith(":1")
    assert "a task, not a training row: a__b-1" in error.message
    assert error.hint == f"build it first: swe-scaffold build --dataset {tmp_path / 'f.jsonl'}"


def test_other_formats_are_sent_to_build(tmp_path: Path) -> None:
    for data in (b"PAR1....", b"[\n"):
        error = refusal(tmp_path, data, "f.parquet")
        assert "swe-scaffold build --dataset" in error.hint


@pytest.mark.parametrize("data", ["", "\n \n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path: Path, data: str) -> None:
    assert refusal(tmp_path, data).message == "no usable rows (0 read)"


def test_a_missing_file_offers_a_near_name(tmp_path: Path) -> None:
    (tmp_path / "swe-speedrun.jsonl").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_examples(tmp_path / "swe-spedrun.jsonl")
    assert caught.value.message == "no such file"
    assert caught.value.hint == f"did you mean {tmp_path / 'swe-speedrun.jsonl'}?"
    with pytest.raises(DataError, match="is a folder"):
        read_examples(tmp_path)
