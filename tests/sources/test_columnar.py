"""Parquet and Arrow: the same rows as JSON, damage and bombs refused before memory is gone."""

from __future__ import annotations

import contextlib
import tracemalloc
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import DataError
from swe_scaffold.sources import Item, open_source
from swe_scaffold.types import Example, Skip, Task, ToolCall

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TASK = {"instance_id": "a__b-1", "problem_statement": "p", "patch": "x"}


def parquet(folder: Path, rows: list[dict[str, Any]] | Any, **options: Any) -> Path:
    path = folder / "f.parquet"
    pq.write_table(pa.Table.from_pylist(rows) if isinstance(rows, list) else rows, path, **options)
    return path


def read(path: Path) -> list[Item]:
    source = open_source(str(path))
    items = list(source)
    assert source.inputs[0].rows == len(items)
    return items


def test_row_groups_and_batches_lose_nothing(tmp_path: Path) -> None:
    rows = [{**TASK, "instance_id": f"a__b-{n}", "patch": f"x{n % 7}"} for n in range(1000)]
    items = read(parquet(tmp_path, rows, row_group_size=300))
    assert [item.instance_id for item in items] == [row["instance_id"] for row in rows]
    assert isinstance(items[999], Task)
    assert (items[999].patch, items[999].origin.row) == ("x5", 1000)


def test_only_columns_that_make_rows_are_read(tmp_path: Path) -> None:
    rows = [{**TASK, "PASS_TO_PASS": ["t"], "created_at": datetime(2024, 5, 6, 7, 8), "version": 3}]
    (task,) = read(parquet(tmp_path, rows))
    assert isinstance(task, Task)
    assert task.created_at == "2024-05-06T07:08:00"
    assert dict(task.extra) == {"version": 3}


def test_nested_messages_come_without_filler_nulls(tmp_path: Path) -> None:
    def turn(arguments: dict[str, Any]) -> dict[str, Any]:
        call = {"function": {"name": "f", "arguments": arguments}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    messages = [{"role": "user", "content": "q"}, turn({"path": "a"}), turn({"line": 3})]
    (item,) = read(parquet(tmp_path, [{"messages": messages}]))
    assert isinstance(item, Example)
    assert item.messages[0].tool_calls == ()
    assert item.messages[1].tool_calls == (ToolCall("f", {"path": "a"}),)
    assert item.messages[2].tool_calls == (ToolCall("f", {"line": 3}),)


def test_wrong_column_types_are_named_row_by_row(tmp_path: Path) -> None:
    (item,) = read(parquet(tmp_path, [{**TASK, "patch": b"bytes"}]))
    assert isinstance(item, Skip)
    assert item.detail.endswith("f.parquet: row 1: patch is bytes, not text")


def test_columns_that_make_no_row_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no known row with the keys a, b; expected messages"):
        read(parquet(tmp_path, [{"a": 1, "b": "x"}]))


@pytest.mark.parametrize("cut", [10, 200, -9, -1])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, cut: int) -> None:
    path = parquet(tmp_path, [TASK] * 50)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError) as caught:
        read(path)
    assert "f.parquet: not a readable Parquet file: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damage_anywhere_never_crashes(tmp_path: Path) -> None:
    path = parquet(tmp_path, [{**TASK, "patch": "x" * n} for n in range(50)])
    whole = path.read_bytes()
    for position in range(4, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            assert all(isinstance(item, Task | Skip) for item in read(path))


def test_invalid_utf8_costs_its_row_only(tmp_path: Path) -> None:
    patches = pa.array([b"a", b"\xff", b"c"]).cast(pa.binary())
    texts = pa.StringArray.from_buffers(3, patches.buffers()[1], patches.buffers()[2])
    table = pa.table({"problem_statement": ["p"] * 3, "patch": texts})
    good, bad, last = read(parquet(tmp_path, table))
    assert isinstance(good, Task)
    assert isinstance(last, Task)
    assert isinstance(bad, Skip)
    assert bad.detail.endswith("row 2: a text is not valid UTF-8")


def folded(values: int, size: int) -> Any:
    """A column of `values` texts of `size` characters that are all the same one."""
    indices = pa.array([0] * values, pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(["x" * size]))


def test_a_dictionary_bomb_is_stopped_before_it_unfolds(tmp_path: Path) -> None:
    table = pa.table({"problem_statement": folded(2000, 1 << 20), "patch": ["x"] * 2000})
    path = parquet(tmp_path, table, compression="zstd")
    assert path.stat().st_size < 10_000
    tracemalloc.start()
    with pytest.raises(DataError, match="unfolds to more than 200 times its size"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20


def test_a_bomb_within_one_row_is_passed_over(tmp_path: Path) -> None:
    nested = pa.ListArray.from_arrays([0, 40], folded(40, 1 << 20))
    table = pa.table({"prompt": ["p"], "response": ["r"], "tools": nested})
    (item,) = read(parquet(tmp_path, table, compression="zstd"))
    assert isinstance(item, Skip)
    assert item.detail.endswith("row 1: row is over the limit of 16 MiB")


def test_rows_over_the_limit_are_passed_over(tmp_path: Path) -> None:
    rows = [TASK, {**TASK, "patch": "x" * (17 << 20)}, TASK]
    first, bad, last = read(parquet(tmp_path, rows))
    assert isinstance(first, Task)
    assert isinstance(bad, Skip)
    assert isinstance(last, Task)


@pytest.mark.parametrize("form", ["new_stream", "new_file"])
def test_arrow_files_are_read(tmp_path: Path, form: str) -> None:
    table = pa.Table.from_pylist([{**TASK, "instance_id": f"a__b-{n}"} for n in range(20)])
    path = tmp_path / "f.arrow"
    with getattr(pa.ipc, form)(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=6)
    assert [item.instance_id for item in read(path)] == [f"a__b-{n}" for n in range(20)]
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match="not a readable Arrow file"):
        read(path)


def test_arrow_offsets_are_checked_before_they_are_followed(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["abcd"] * 4, "response": ["r"] * 4})
    path = tmp_path / "f.arrow"
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    good = b"".join(n.to_bytes(4, "little") for n in (0, 4, 8, 12, 16))
    data = path.read_bytes()
    assert good in data
    bad = good[:16] + (1 << 30).to_bytes(4, "little")
    path.write_bytes(data.replace(good, bad))
    with pytest.raises(DataError, match="not a readable Arrow file"):
        read(path)
