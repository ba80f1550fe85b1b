"""Build: every row read is kept, skipped or beyond the limit, and the files never lie about it."""

from __future__ import annotations

import gzip
import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_scaffold.audit.ledger import check_ledger, load_file
from swe_scaffold.config import DatasetConfig
from swe_scaffold.dataset import BuildResult, build_dataset
from swe_scaffold.errors import DataError, EnvironmentFailure, LockedError, UsageError
from swe_scaffold.files import folder_lock
from swe_scaffold.rows import BuiltFiles
from swe_scaffold.terminal import Reporter, Track

ALL = DatasetConfig(max_examples=None, split_by="row", dev_split=0.7)


def task(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "instance_id": f"a__b-{number}",
        "repo": f"a/b{number % 7}",
        "problem_statement": f"problem {number}",
        "patch": f"diff --git a/f{number} b/f{number}\n",
        **changes,
    }


def source(folder: Path, rows: list[Any], name: str = "tasks.jsonl") -> str:
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def build(
    folder: Path, rows: list[Any], config: DatasetConfig = ALL, **options: Any
) -> tuple[BuildResult, BuiltFiles]:
    output = options.pop("output", folder / "out" / "x.jsonl")
    options.setdefault("emit_test", True)
    result = build_dataset(config, output=output, sources=[source(folder, rows)], **options)
    return result, BuiltFiles.of(output)


def add_up(counts: dict[str, Any]) -> bool:
    parts = ("dev", "test", "skipped", "beyond_limit")
    return bool(counts["read"] == sum(counts[part] for part in parts))


MIXED: list[Any] = [
    *(task(n) for n in range(30)),
    task(3),
    task(4, patch="another patch"),
    task(40, patch=" "),
    task(41, patch="", test_patch="tests"),
    task(42, change_summary="what was done"),
    {"prompt": "why", "completion": "because"},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
    "{not json",
    '{"unknown": 1}',
    {"problem_statement": "", "patch": "x"},
]


def test_every_row_ends_in_one_place(tmp_path: Path) -> None:
    result, files = build(tmp_path, MIXED)
    assert result.counts["read"] == len(MIXED)
    assert add_up(result.counts)
    assert result.counts["skipped_by_reason"] == {
        "duplicate": 2,
        "empty_response": 1,
        "invalid_row": 3,
    }
    rows = [*read(files.dev), *read(files.test), *read(files.skipped)]
    places = [row["meta"]["row"] if "meta" in row else row["row"] for row in rows]
    assert sorted(places) == list(range(1, len(MIXED) + 1))
    kept = {row["instance_id"]: row for row in [*read(files.dev), *read(files.test)]}
    assert kept["a__b-41"]["response_source"] == "test_patch"
    assert kept["a__b-41"]["label"] == "failure"
    assert kept["a__b-42"]["response"] == "what was done"
    details = {row["row"]: row["detail"] for row in read(files.skipped)}
    assert details[31].endswith("tasks.jsonl:4, identical content")
    assert details[32].endswith("tasks.jsonl:5, different content")


def test_the_manifest_describes_what_stands_there(tmp_path: Path) -> None:
    result, files = build(tmp_path, MIXED, resolved_config={"dataset": {"split_by": "row"}})
    manifest = json.loads(files.manifest.read_text("utf-8"))
    assert manifest["schema"] == 1
    assert manifest["config"] == {"dataset": {"split_by": "row"}}
    assert manifest["counts"] == result.counts
    assert set(manifest["outputs"]) == {"x.jsonl", "x.test.jsonl", "x.skipped.jsonl"}
    assert manifest["inputs"][0]["rows"] == len(MIXED)
    sides = manifest["split"]["assignment"]
    assert {row["instance_id"] for row in read(files.dev)} == {
        k for k in sides if sides[k] == "dev"
    }
    assert manifest["times"]["started"].endswith("Z")
    ledger, findings = check_ledger(load_file(files.dev), load_file(files.test))
    assert ledger is not None
    assert ledger.holds
    assert ledger.recounted_inputs == 1
    assert findings == []


def test_no_linked_rows_straddle(tmp_path: Path) -> None:
    rows = [task(n, problem_statement=f"problem {n // 2}") for n in range(60)]
    _, files = build(tmp_path, rows)
    dev, test = ({row["prompt"] for row in read(path)} for path in (files.dev, files.test))
    assert dev
    assert test
    assert dev.isdisjoint(test)


def test_the_limit_takes_the_first_dev_rows_and_counts_the_rest(tmp_path: Path) -> None:
    rows = [*(task(n) for n in range(100)), "{bad"]
    whole, files = build(tmp_path, rows)
    all_dev, all_test = read(files.dev), read(files.test)
    config = DatasetConfig(max_examples=20, split_by="row", dev_split=0.7)
    result, files = build(tmp_path, rows, config)
    assert read(files.dev) == all_dev[:20]
    assert read(files.test) == all_test[:9]  # 20 * 0.3 / 0.7, rounded
    assert result.counts["beyond_limit"] == len(all_dev) + len(all_test) - 29
    assert result.counts["skipped"] == whole.counts["skipped"] == 1
    assert add_up(result.counts)
    assert len(result.split["assignment"]) == 100


def test_a_small_limit_keeps_one_row_to_test(tmp_path: Path) -> None:
    config = DatasetConfig(max_examples=1, split_by="row", dev_split=0.9)
    result, _ = build(tmp_path, [task(n) for n in range(100)], config)
    assert (result.counts["dev"], result.counts["test"]) == (1, 1)


def test_short_patches_are_skipped_and_summaries_are_not(tmp_path: Path) -> None:
    config = DatasetConfig(max_examples=None, min_patch_chars=20)
    rows = [task(1, patch="short"), task(2, patch="short", change_summary="s"), task(3)]
    result, files = build(tmp_path, rows, config)
    assert result.counts["skipped_by_reason"] == {"short_patch": 1}
    (skipped,) = read(files.skipped)
    assert (skipped["instance_id"], skipped["patch_len"]) == ("a__b-1", 5)
    assert skipped["source_fields"] == {
        "has_change_summary": False,
        "has_patch": True,
        "has_test_patch": False,
    }


def test_empty_responses_are_kept_as_failures_when_asked_for(tmp_path: Path) -> None:
    config = DatasetConfig(max_examples=None, include_empty=True, dev_split=1.0)
    empty = [
        task(2, patch="\n", resolved=True),
        {"prompt": "p", "response": "", "label": "success"},
    ]
    result, files = build(tmp_path, [task(1), *empty], config)
    assert [row["label"] for row in read(files.dev)] == ["success", "failure", "failure"]
    assert read(files.dev)[1]["response_source"] == "none"
    assert result.counts["skipped"] == 0
    assert not files.skipped.exists()


def test_the_skipped_report_is_written_when_needed_or_forced(tmp_path: Path) -> None:
    rows = [task(n) for n in range(5)]
    _, files = build(tmp_path, rows)
    assert not files.skipped.exists()
    build(tmp_path, rows, force_skipped_report=True)
    assert files.skipped.read_bytes() == b""
    elsewhere = tmp_path / "reports" / "skipped.jsonl"
    build(tmp_path, [*rows, "{"], skipped_report=elsewhere)
    assert len(read(elsewhere)) == 1
    assert not files.skipped.exists()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_test_rows_are_counted_even_when_they_are_not_written(tmp_path: Path) -> None:
    rows = [task(n) for n in range(50)]
    written, files = build(tmp_path, rows)
    result, _ = build(tmp_path, rows, emit_test=False)
    assert not files.test.exists()
    assert result.outputs["x.test.jsonl"] == {
        "role": "test",
        "rows": written.counts["test"],
        "written": False,
    }
    assert files.test not in result.written


def test_a_rebuild_removes_its_own_siblings_and_nothing_else(tmp_path: Path) -> None:
    rows = [task(n) for n in range(50)]
    _, files = build(tmp_path, [*rows, "{bad"])
    assert files.test.exists()
    assert files.skipped.exists()
    mine = files.dev.with_name("notes.jsonl")
    mine.write_text("mine")
    build(tmp_path, rows, emit_test=False)
    assert not files.test.exists()
    assert not files.skipped.exists()
    assert mine.read_text() == "mine"


def test_a_foreign_sibling_is_left_and_pointed_out(tmp_path: Path) -> None:
    files = BuiltFiles.of(tmp_path / "out" / "x.jsonl")
    files.test.parent.mkdir()
    files.test.write_text("theirs")
    result, _ = build(tmp_path, [task(n) for n in range(50)], emit_test=False)
    assert files.test.read_text() == "theirs"
    assert any("x.test.jsonl" in note for note in result.notes)


def test_a_manifest_that_names_foreign_files_removes_none(tmp_path: Path) -> None:
    _, files = build(tmp_path, [task(n) for n in range(9)])
    outside = tmp_path / "victim.jsonl"
    outside.write_text("mine")
    manifest = json.loads(files.manifest.read_text())
    manifest["outputs"]["../victim.jsonl"] = {"role": "skipped"}
    files.manifest.write_text(json.dumps(manifest))
    build(tmp_path, [task(n) for n in range(9)])
    assert outside.read_text() == "mine"


def test_same_input_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        build(tmp_path, MIXED, output=folder / "x.jsonl")
    for name in ("x.jsonl", "x.test.jsonl", "x.skipped.jsonl"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_gzipped_source_gives_the_same_rows(tmp_path: Path) -> None:
    plain = source(tmp_path, MIXED)
    packed = tmp_path / "packed" / "tasks.jsonl.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(Path(plain).read_bytes()))
    build_dataset(ALL, output=tmp_path / "a.jsonl", sources=[plain])
    build_dataset(ALL, output=tmp_path / "b.jsonl", sources=[str(packed)])
    prompts = [[row["prompt"] for row in read(tmp_path / name)] for name in ("a.jsonl", "b.jsonl")]
    assert prompts[0] == prompts[1]


def test_several_sources_are_read_in_order_and_repeats_found_across_them(tmp_path: Path) -> None:
    first = source(tmp_path, [task(1), task(2)], "first.jsonl")
    second = source(tmp_path, [task(2), task(3)], "second.jsonl")
    config = DatasetConfig(max_examples=None, dev_split=1.0)
    result = build_dataset(config, output=tmp_path / "x.jsonl", sources=[first, second])
    ids = [row["instance_id"] for row in read(tmp_path / "x.jsonl")]
    assert ids == ["a__b-1", "a__b-2", "a__b-3"]
    assert result.counts["skipped_by_reason"] == {"duplicate": 1}
    with pytest.raises(UsageError, match="twice"):
        build_dataset(config, output=tmp_path / "x.jsonl", sources=[first, first])


def test_a_built_file_builds_again_to_the_same_rows(tmp_path: Path) -> None:
    _, files = build(tmp_path, MIXED)
    config = DatasetConfig(max_examples=None, dev_split=1.0)
    again = tmp_path / "again.jsonl"
    build_dataset(config, output=again, sources=[str(files.dev)])
    assert again.read_bytes() == files.dev.read_bytes()


@settings(max_examples=30)
@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("text")
    text += "\u2028\u2029\x85\x0b\x0c\x1c\x1e"
    _, files = build(folder, [task(1, problem_statement=text, patch=text)])
    (row,) = read(files.dev)
    assert (row["prompt"], row["response"]) == (text, text)


def test_old_sides_are_kept_when_rows_are_added(tmp_path: Path) -> None:
    _, files = build(tmp_path, [task(n) for n in range(50)])
    dev, test = ({row["instance_id"] for row in read(path)} for path in (files.dev, files.test))
    more = [task(n) for n in range(90)]
    config = DatasetConfig(max_examples=None, seed=7, dev_split=0.5)
    for given_path in (files.manifest, files.dev):
        result, again = build(
            tmp_path, more, config, output=tmp_path / "again.jsonl", split_from=given_path
        )
        new_dev, new_test = (
            {row["instance_id"] for row in read(path)} for path in (again.dev, again.test)
        )
        assert dev <= new_dev
        assert test <= new_test
        assert result.split["method"] == "manifest"


def test_a_held_out_prompt_stays_held_out_under_any_name(tmp_path: Path) -> None:
    _, files = build(tmp_path, [task(n) for n in range(50)])
    prompts = [row["prompt"] for row in read(files.test)]
    renamed = [task(100 + n, problem_statement=prompt) for n, prompt in enumerate(prompts)]
    config = DatasetConfig(max_examples=None, dev_split=0.99, split_by="row")
    rows = [*renamed, *(task(n) for n in range(200, 220))]
    _, again = build(tmp_path, rows, config, split_from=files.manifest)
    assert set(prompts) <= {row["prompt"] for row in read(again.test)}
    assert set(prompts).isdisjoint(row["prompt"] for row in read(again.dev))


def test_held_out_repositories_stay_held_out(tmp_path: Path) -> None:
    config = DatasetConfig(max_examples=None, split_by="repo", dev_split=0.7)
    result, files = build(tmp_path, [task(n) for n in range(70)], config)
    held = set(result.split["held_out_repos"])
    assert held
    _, again = build(tmp_path, [task(n) for n in range(140)], config, split_from=files.manifest)
    assert {row["repo"] for row in read(again.test)} == held
    assert held.isdisjoint(row["repo"] for row in read(again.dev))


def test_a_manifest_without_a_split_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "manifest.json"
    other.write_text('{"schema": 1}')
    with pytest.raises(DataError, match="records no split"):
        build(tmp_path, [task(1)], split_from=other)


@pytest.mark.parametrize("rows", [[], ["", " "], ["{bad"], [task(1, patch="")]], ids=str)
def test_no_usable_rows_is_an_error_and_writes_no_dataset(tmp_path: Path, rows: list[Any]) -> None:
    with pytest.raises(DataError, match="no usable rows") as caught:
        build(tmp_path, rows)
    assert caught.value.exit_code == 3
    files = BuiltFiles.of(tmp_path / "out" / "x.jsonl")
    assert not files.dev.exists()
    assert not files.manifest.exists()
    assert files.skipped.exists() == any(str(row).strip() for row in rows)


def state(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.endswith(".lock")
    }


def test_a_failed_build_leaves_the_old_one_alone(tmp_path: Path) -> None:
    build(tmp_path, [*(task(n) for n in range(20)), "{bad"])
    before = state(tmp_path / "out")
    with pytest.raises(DataError):
        build(tmp_path, ["{bad"])
    stop = DatasetConfig(on_bad_row="stop")
    with pytest.raises(DataError, match=r"tasks\.jsonl:2"):
        build(tmp_path, [task(1), "{bad"], stop)
    assert state(tmp_path / "out") == before


def test_an_interrupt_leaves_the_old_build_alone(tmp_path: Path) -> None:
    class Interrupting(Reporter):
        @contextmanager
        def progress(self, title: str, total: int | None, *, unit: str = "") -> Iterator[Track]:
            class Bomb(Track):
                def advance(self, amount: int = 1, note: str = "") -> None:
                    raise KeyboardInterrupt

            yield Bomb()

    build(tmp_path, [task(n) for n in range(20)])
    before = state(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, [task(n) for n in range(30)], reporter=Interrupting())
    assert state(tmp_path / "out") == before


class _Killed(BaseException):
    """Stands for SIGKILL: nothing of this process touches the disk afterwards."""


def kill_at(monkeypatch: pytest.MonkeyPatch, event: int) -> Callable[[], bool]:
    """Let the `event`-th rename or removal, and all after it, never happen."""
    count = 0

    def guard(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count >= event:
                raise _Killed
            return real(*args, **kwargs)

        return call

    for name in ("replace", "rename", "unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, guard(getattr(os, name)))
    return lambda: count >= event


@pytest.mark.slow
@pytest.mark.parametrize("killed_before", [False, True])
def test_a_kill_at_any_moment_leaves_no_mixed_build(tmp_path: Path, killed_before: bool) -> None:
    old_rows = [*(task(n) for n in range(40)), "{bad"]
    new_rows = [*(task(n) for n in range(20, 70)), "{bad", "{worse"]
    output = tmp_path / "out" / "x.jsonl"
    states = []
    for rows in (new_rows, old_rows):
        build(tmp_path, rows)
        states.append({k: v for k, v in state(output.parent).items() if "manifest" not in k})
    new, old = states
    for event in range(1, 60):
        build(tmp_path, old_rows)
        if killed_before:
            BuiltFiles.of(output).manifest.unlink()
        with pytest.MonkeyPatch.context() as patch:
            died = kill_at(patch, event)
            with suppress(_Killed):
                build(tmp_path, new_rows)
            killed = died()
        present = {k: v for k, v in state(output.parent).items() if "x." in k and ".tmp" not in k}
        manifest = present.pop("x.jsonl.manifest.json", None)
        assert "x.jsonl" in present
        assert present.items() <= new.items() or present.items() <= old.items()
        if manifest is not None:
            ledger, _ = check_ledger(load_file(output), load_file(BuiltFiles.of(output).test))
            assert ledger is not None
            assert ledger.holds
        build(tmp_path, new_rows)
        assert {k: v for k, v in state(output.parent).items() if "manifest" not in k} == new
        assert not list(output.parent.glob(".tmp-*"))
        if not killed:
            return
    pytest.fail("the build never ended")


def test_a_full_disk_is_said_and_harms_nothing(tmp_path: Path) -> None:
    build(tmp_path, [task(n) for n in range(20)])
    before = state(tmp_path / "out")
    rows = [task(n, problem_statement="x" * 500 + str(n)) for n in range(200)]
    name = source(tmp_path, rows, "big.jsonl")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(EnvironmentFailure, match="file size limit") as caught:
            build_dataset(ALL, output=tmp_path / "out" / "x.jsonl", sources=[name])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == 4
    assert state(tmp_path / "out") == before
    assert not list((tmp_path / "out").glob(".tmp-*"))


def test_outputs_are_never_inputs(tmp_path: Path) -> None:
    name = source(tmp_path, [task(1)], "x.jsonl")
    before = Path(name).read_bytes()
    for output, options in (
        (Path(name), {}),
        (tmp_path / "y.jsonl", {"skipped_report": Path(name)}),
        (tmp_path / "y.jsonl", {"skipped_report": tmp_path / "y.jsonl"}),
    ):
        with pytest.raises(UsageError):
            build_dataset(ALL, output=output, sources=[name], **options)  # type: ignore[arg-type]
    assert Path(name).read_bytes() == before


def test_an_output_inside_the_folder_that_is_read_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    source(folder, [task(1)], "x.jsonl")
    with pytest.raises(UsageError, match="its own input"):
        build_dataset(ALL, output=folder / "x.jsonl", sources=[str(folder)])


def test_an_output_that_cannot_be_written_is_refused_before_reading(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailure):
        build_dataset(ALL, output=tmp_path / "file" / "x.jsonl", sources=["no/such-source"])
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        build_dataset(ALL, output=tmp_path / "folder.jsonl", sources=["no/such-source"])


def test_one_build_per_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with folder_lock(tmp_path / "out", name=".x.lock"), pytest.raises(LockedError):
        build(tmp_path, [task(1)])
    build(tmp_path, [task(1)])


def test_nothing_is_held_out_where_all_rows_hang_together(tmp_path: Path) -> None:
    config = DatasetConfig(max_examples=None, dev_split=0.1)
    rows = [task(n, problem_statement="the same") for n in range(10)]
    result, _ = build(tmp_path, rows, config)
    assert (result.counts["dev"], result.counts["test"]) == (10, 0)
    assert any("nothing is held out" in note for note in result.notes)


def test_no_secret_of_the_environment_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"):
        monkeypatch.setenv(name, "canary-4711")
    build(tmp_path, MIXED)
    written = [path for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert written
    assert not any(b"canary-4711" in path.read_bytes() for path in written)


@pytest.mark.parametrize(
    ("name", "read_rows", "dev", "test"),
    [
        ("swe-bench-lite/test.parquet", 300, 270, 30),
        ("swe-bench-lite/origin-crlf.jsonl.gz", 300, 270, 30),
        ("swe-bench-lite/swe_bench_lite_dev.csv.gz", 23, 19, 4),
        ("loc-bench/locbench-shared.jsonl.gz", 345, 301, 44),
    ],
)
def test_real_files_build(
    shared_data: Path, tmp_path: Path, name: str, read_rows: int, dev: int, test: int
) -> None:
    config = DatasetConfig(max_examples=None)
    output = tmp_path / "x.jsonl"
    result = build_dataset(config, output=output, sources=[str(shared_data / name)])
    counts = result.counts
    assert (counts["read"], counts["dev"], counts["test"]) == (read_rows, dev, test)
    assert add_up(counts)


@pytest.mark.slow
def test_all_real_tasks_build_together(shared_data: Path, tmp_path: Path) -> None:
    names = [
        "swe-bench-lite/test.parquet",
        "swe-bench-dev/dev.parquet",
        "swe-bench-verified/test-shared.parquet",
        "swe-bench-multilingual/test-shared.parquet",
        "swe-bench-multimodal/dev-shared.parquet",
        "loc-bench/locbench-shared.jsonl.gz",
        "django-oscar/django-oscar-tasks.json.gz",
        "swe-bench-candidates/candidates_swe_bench.json.gz",
        "swe-bench-lite/dev.parquet",
        "swe-bench-lite/lite_all_evaluations.json.gz",
    ]
    config = DatasetConfig(max_examples=None)
    sources = [str(shared_data / name) for name in names]
    result = build_dataset(config, output=tmp_path / "x.jsonl", sources=sources, emit_test=True)
    counts = result.counts
    assert counts["dev"] + counts["test"] == 1332
    assert counts["skipped_by_reason"] == {"duplicate": 93 + 23 + 300}
    assert counts["dev_repos"] + counts["test_repos"] == 132
    assert add_up(counts)
