"""Dataset splits as the seed uses them: Hugging Face datasets named dev and test, and a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.dataset import DatasetSplit, SpeedrunDatasetBuilder, load_conversation_dataset
from swe_scaffold.errors import DataError, IntegrityError, UsageError

datasets = pytest.importorskip("datasets")


def jsonl(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def pairs(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": f"problem {n}", "response": f"solution {n}", "label": "success", **changes}
        for n in range(count)
    ]


def tasks(count: int) -> list[dict[str, Any]]:
    return [
        {
            "instance_id": f"a__b-{n}",
            "repo": f"a/b{n % 3}",
            "problem_statement": f"problem {n}",
            "patch": f"diff {n}" if n % 5 else "",
        }
        for n in range(count)
    ]


def test_ten_rows_make_a_dev_and_a_test_split(tmp_path: Path) -> None:
    split = SpeedrunDatasetBuilder(tmp_path / "cache", seed=42).from_jsonl(
        jsonl(tmp_path, pairs(10))
    )
    assert isinstance(split, DatasetSplit)
    assert len(split.dev) > 0
    assert len(split.test) > 0
    assert len(split.dev) + len(split.test) == 10
    assert {"prompt", "response", "label"} <= set(split.dev.column_names)
    assert split.dev.column_names == split.test.column_names


def test_the_split_is_stable_and_follows_the_seed(tmp_path: Path) -> None:
    path = jsonl(tmp_path, pairs(200))

    def test_prompts(seed: int) -> set[str]:
        return set(
            SpeedrunDatasetBuilder(tmp_path / "c", seed=seed).from_jsonl(path).test["prompt"]
        )

    assert test_prompts(1) == test_prompts(1)
    assert test_prompts(1) != test_prompts(2)


def test_rows_with_one_prompt_stay_together(tmp_path: Path) -> None:
    rows = [{**row, "prompt": f"problem {n // 4}"} for n, row in enumerate(pairs(200))]
    split = SpeedrunDatasetBuilder(tmp_path / "c").from_jsonl(jsonl(tmp_path, rows))
    assert len(split.test) > 0
    assert set(split.dev["prompt"]).isdisjoint(split.test["prompt"])


def test_labels_of_rows_are_kept_and_missing_ones_made(tmp_path: Path) -> None:
    rows = [
        *pairs(1, label="failure", pass_rate=1.0, turns=1),
        {"prompt": "a", "response": "b"},
        {"prompt": "c", "response": "d", "resolved": False},
    ]
    split = SpeedrunDatasetBuilder(tmp_path / "c").from_jsonl(jsonl(tmp_path, rows))
    labels = dict(
        zip(
            [*split.dev["prompt"], *split.test["prompt"]],
            [*split.dev["label"], *split.test["label"]],
            strict=True,
        )
    )
    assert labels == {"problem 0": "failure", "a": "success", "c": "failure"}


def test_a_bad_row_stops_with_its_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path, pairs(2))
    path.write_text(path.read_text() + "{bad\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:3"):
        SpeedrunDatasetBuilder(tmp_path / "c").from_jsonl(path)


def test_the_cache_holds_dev_and_test(tmp_path: Path) -> None:
    builder = SpeedrunDatasetBuilder(tmp_path / "deep" / "cache")
    split = builder.from_jsonl(jsonl(tmp_path, pairs(30)))
    builder.hydrate_cache(split)
    loaded = datasets.load_from_disk(str(tmp_path / "deep" / "cache"))
    assert set(loaded) == {"dev", "test"}
    assert loaded["dev"]["prompt"][:] == split.dev["prompt"][:]
    builder.hydrate_cache(split)


def test_load_or_build_builds_once(tmp_path: Path) -> None:
    builder = SpeedrunDatasetBuilder(tmp_path / "cache")
    calls: list[int] = []

    def build() -> DatasetSplit:
        calls.append(1)
        return builder.from_jsonl(jsonl(tmp_path, pairs(30)))

    first, second = builder.load_or_build(build), builder.load_or_build(build)
    assert len(calls) == 1
    assert first.test["prompt"][:] == second.test["prompt"][:]


def test_a_damaged_cache_is_refused_not_rebuilt(tmp_path: Path) -> None:
    builder = SpeedrunDatasetBuilder(tmp_path / "cache")
    builder.hydrate_cache(builder.from_jsonl(jsonl(tmp_path, pairs(30))))
    (tmp_path / "cache" / "dataset_dict.json").write_text('{"splits": ["dev"]}')
    with pytest.raises(IntegrityError, match="cache is damaged"):
        builder.load_or_build(lambda: pytest.fail("built again"))


def test_a_cache_never_replaces_other_files(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.txt").write_text("years of work")
    builder = SpeedrunDatasetBuilder(tmp_path / "cache")
    split = builder.from_jsonl(jsonl(tmp_path, pairs(10)))
    with pytest.raises(UsageError, match="not a dataset cache"):
        builder.load_or_build(lambda: split)
    assert (tmp_path / "cache" / "thesis.txt").read_text() == "years of work"


def test_conversation_dataset_from_tasks(tmp_path: Path) -> None:
    path = jsonl(tmp_path, tasks(50))
    split = load_conversation_dataset(str(path))
    assert set(split.dev.column_names) == {
        *("instance_id", "repo", "prompt", "response"),
        *("response_source", "label"),
    }
    assert len(split.dev) + len(split.test) == 40
    assert set(split.dev["label"]) == {"success"}
    kept = load_conversation_dataset(str(path), include_empty=True, limit=20)
    assert len(kept.dev) == 20
    assert "failure" in set(kept.dev["label"])
    assert len(load_conversation_dataset(str(path), dev_split=1.0).test) == 0


def test_a_split_without_test_rows_keeps_its_columns(tmp_path: Path) -> None:
    split = load_conversation_dataset(str(jsonl(tmp_path, tasks(5))), dev_split=1.0)
    assert split.test.column_names == split.dev.column_names
    assert split.test.features == split.dev.features


def test_a_saved_dataset_loads_again(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    columns = {key: [row[key] for row in tasks(9)] for key in tasks(1)[0]}
    datasets.Dataset.from_dict(columns).save_to_disk(str(saved))
    split = load_conversation_dataset(str(saved), dev_split=1.0)
    assert len(split.dev) == 7


def test_real_lite_rows_load(shared_data: Path) -> None:
    path = shared_data / "swe-bench-lite" / "test.parquet"
    split = load_conversation_dataset(str(path))
    assert (len(split.dev), len(split.test)) == (270, 30)
    assert set(split.dev["repo"]).isdisjoint(split.test["repo"])
