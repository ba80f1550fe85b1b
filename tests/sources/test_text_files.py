"""JSON documents and CSV: every row arrives as it was written, every fault has its place."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.errors import DataError
from swe_scaffold.sources import Item, open_source
from swe_scaffold.types import Example, Skip, Task

ROWS = [
    {"instance_id": f"a__b-{n}", "problem_statement": f"p{n}", "patch": "x\n"} for n in (1, 2, 3)
]


def read(folder: Path, name: str, data: bytes | str) -> list[Item]:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    source = open_source(str(path))
    items = list(source)
    (entry,) = source.inputs
    assert (entry.path, entry.size, entry.rows) == (str(path), path.stat().st_size, len(items))
    return items


def refused(folder: Path, name: str, data: bytes | str) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, name, data)
    return str(caught.value).removeprefix(f"{folder}/")


def ids(items: list[Item]) -> list[str]:
    assert not any(isinstance(item, Skip) for item in items), items
    return [item.instance_id for item in items]


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
ALL = ["a__b-1", "a__b-2", "a__b-3"]


@pytest.mark.parametrize("name", ["f.json", "f.jsonl", "f.ndjson", "f.txt", "f", "f.json.gz"])
@pytest.mark.parametrize(
    "text",
    [
        LINES,
        LINES.replace("\n", "\r\n"),
        "\n\n" + LINES,
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "[" + ",\n".join(map(json.dumps, ROWS)) + "]\n",
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda data: b"\xef\xbb\xbf" + data])
def test_content_decides_the_format(tmp_path: Path, name: str, text: str, pack: Any) -> None:
    assert ids(read(tmp_path, name, pack(text.encode()))) == ALL


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["f.json", "f", "f.json.gz"])
def test_an_object_of_rows_is_read_by_id(tmp_path: Path, name: str, indent: int | None) -> None:
    table = {row["instance_id"]: row for row in ROWS}
    assert ids(read(tmp_path, name, json.dumps(table, indent=indent))) == ALL


def test_a_single_row_is_a_document(tmp_path: Path) -> None:
    for text in (json.dumps(ROWS[0]), json.dumps(ROWS[0], indent=2)):
        assert ids(read(tmp_path, "f.json", text)) == ["a__b-1"]


def test_rows_by_id_keep_their_own_id(tmp_path: Path) -> None:
    table = {"key": {**ROWS[0], "instance_id": "own"}, "other": {"problem_statement": "p"}}
    assert ids(read(tmp_path, "f.json", json.dumps(table))) == ["own", "other"]


def test_a_list_element_that_is_no_row_is_skipped(tmp_path: Path) -> None:
    first, bad, last = read(tmp_path, "f.json", json.dumps([ROWS[0], None, ROWS[1]]))
    assert isinstance(first, Task)
    assert isinstance(last, Task)
    assert isinstance(bad, Skip)
    assert bad.detail == f"{tmp_path / 'f.json'}: row 2: expected an object, got null"


def test_a_cut_first_line_does_not_hide_the_others(tmp_path: Path) -> None:
    for name in ("f.jsonl", "f.json"):
        bad, *good = read(tmp_path, name, '{"a":\n' + LINES)
        assert isinstance(bad, Skip)
        assert ":1: truncated JSON" in bad.detail
        assert ids(good) == ALL


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("f.json", '[\n{"a": 1},\n{"a": }]', "f.json:3: not valid JSON"),
        ("f.json", '[{"a": 1, "a": 2}]', 'f.json: duplicate key "a"'),
        ("f.json", "17", "f.json: expected a list of rows, got a number"),
        ("f.json", "[" * 100_000, "f.json: nested deeper than 64"),
        ("f.json", '{"a": [1,\n2', "f.json:2: truncated JSON"),
        ("f.json", b'[\n{"a": "\xff"}]', "f.json:2: invalid UTF-8"),
        (
            "f.json.gz",
            gzip.compress(b"[{}]", mtime=0)[:-4],
            "f.json.gz: the gzip data is cut short",
        ),
        ("f.json", "<html>", "f.json: looks like an HTML or XML page"),
        ("f.txt", "hello\n", "f.txt: not in a format that is read"),
        ("f.txt", "patch\rx" + "y" * 200_000, "f.txt: not in a format that is read"),
        ("f.yaml", "a: 1\n", "f.yaml: not in a format that is read"),
        ("f.csv", "a,b\n1,2\n", "f.csv:1: no known row with the keys a, b"),
        ("f.csv", "patch,patch\n", 'f.csv:1: column "patch" appears twice'),
        ("f.csv", 'problem_statement\n"a"b\n', "f.csv:2: not valid CSV"),
        ("f.csv", 'problem_statement\n"a\n\n', "f.csv:3: not valid CSV: unexpected end of data"),
        ("f.csv", b"problem_statement\na\n\xe9\n", "f.csv:3: invalid UTF-8: 0xe9 at byte 0"),
        ("f.csv", "instance_id,model_patch\n", "looks like a SWE-bench prediction"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(
    tmp_path: Path, name: str, data: bytes | str, message: str
) -> None:
    assert message in refused(tmp_path, name, data)


@pytest.mark.parametrize("name", ["f.json", "f.jsonl", "f.csv"])
@pytest.mark.parametrize("data", ["", "\n\n", "\ufeff"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str, data: str) -> None:
    assert read(tmp_path, name, data) == []


def write_csv(path: Path, rows: list[dict[str, str]], **options: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)


def test_csv_values_stay_the_text_they_are(tmp_path: Path) -> None:
    row = {
        "instance_id": "a__b-1",
        "problem_statement": 'a "quote"\r\nand, a line\n\n end \u2028\x0c',
        "patch": "+\t0.10\n",
        "version": "0.10",
        "language": "true",
        "resolved": "",
    }
    write_csv(tmp_path / "f.csv", [row, {**row, "instance_id": "a__b-2"}])
    first, second = open_source(str(tmp_path / "f.csv"))
    assert isinstance(first, Task)
    assert isinstance(second, Task)
    assert first.problem_statement == row["problem_statement"]
    assert first.patch == row["patch"]
    assert dict(first.extra) == {"version": "0.10", "language": "true"}
    assert first.outcome.resolved is None
    assert (first.origin.row, second.origin.row) == (2, 7)


def test_tabs_separate_too(tmp_path: Path) -> None:
    write_csv(tmp_path / "f.tsv", [{"prompt": "p, q", "response": "r"}], delimiter="\t")
    (item,) = open_source(str(tmp_path / "f.tsv"))
    assert isinstance(item, Example)
    assert (item.prompt, item.response) == ("p, q", "r")


def test_csv_rows_of_another_length_are_skipped(tmp_path: Path) -> None:
    text = "problem_statement,patch\na,b\n\nonly\nx,y,z\nc,d\n"
    good, short, long, last = read(tmp_path, "f.csv", text)
    assert isinstance(good, Task)
    assert isinstance(last, Task)
    assert isinstance(short, Skip)
    assert isinstance(long, Skip)
    assert short.detail.endswith("f.csv:4: expected 2 fields, got 1")
    assert long.detail.endswith("f.csv:5: expected 2 fields, got 3")


def test_big_csv_fields_are_read_and_endless_ones_refused(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (item,) = read(tmp_path, "f.csv", "problem_statement\n" + "x" * 1_000_000 + "\n")
    assert isinstance(item, Task)
    assert len(item.problem_statement) == 1_000_000
    endless = b'problem_statement\n"' + (b"x" * 999 + b"\n") * (17 << 10)
    assert "over the limit of 16 MiB" in refused(tmp_path, "f.csv", endless)
    assert csv.field_size_limit() == before


def test_a_row_over_the_limit_in_a_document_is_skipped(tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[1], "patch": "x" * (17 << 20)}, ROWS[2]]
    first, bad, last = read(tmp_path, "f.json", json.dumps(rows))
    assert isinstance(first, Task)
    assert isinstance(last, Task)
    assert isinstance(bad, Skip)
    assert "row 2: row is over the limit of 16 MiB" in bad.detail


def test_a_document_that_is_one_chat_is_one_row(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    for name in ("chat.json", "chat.traj.json"):
        (item,) = read(tmp_path, name, json.dumps(chat, indent=1))
        assert isinstance(item, Example)
        assert (item.prompt, item.response) == ("q", "a")
    items = read(tmp_path, "rows.json", json.dumps([*chat, ROWS[0]]))
    assert [type(item) for item in items] == [Skip, Skip, Task]
