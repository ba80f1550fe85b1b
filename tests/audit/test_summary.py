"""Summary: the numbers of a file, built or not, or an error with the line that is at fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swe_scaffold.audit.summary import summarize
from swe_scaffold.errors import DataError


def test_numbers_of_generic_rows(tmp_path: Path) -> None:
    rows = [
        {"prompt": "abc", "response": "12345", "repo": "a/b"},
        {"prompt": "abcde", "response": "", "repo": "a/b"},
        {"prompt": "abc", "response": "12345", "repo": "a/b"},
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]},
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = summarize(path)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["rows"] == 4
    assert summary["labels"] == {"failure": 1, "success": 3}
    assert summary["response_sources"] == {"messages": 1, "response": 3}
    assert (summary["chats"], summary["empty_responses"], summary["repeated_rows"]) == (1, 1, 1)
    assert summary["top_repos"]["a/b"] == 3
    assert summary["repos"] == 2
    assert (summary["response_chars"]["maximum"], summary["response_chars"]["minimum"]) == (5, 0)


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": 1, "response": "b"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2"):
        summarize(path)


def test_the_seed_output(shared_data: Path) -> None:
    summary = summarize(shared_data / "seed-output" / "swe-speedrun.jsonl")
    assert summary["rows"] == 23
    assert summary["labels"] == {"failure": 23}
    assert summary["empty_responses"] == 23
