"""Rows from the cache: the rows that were kept, as parts of one mapping that outlives its file."""

from __future__ import annotations

import itertools
import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swe_scaffold.cache import Cache
from swe_scaffold.rendering import Renderer, render_rows
from swe_scaffold.types import Example, SpeedrunLabel, TokenizedExample, Verdict
from tests.chats import pair, rendered
from tests.tiny import tiny_tokenizer

LIMIT = 200
# What a process holds besides files: memory of its own, in KiB.
OWN_MEMORY = "int(open('/proc/self/status').read().split('RssAnon:')[1].split()[0])"


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer.load(tiny_tokenizer(tmp_path_factory.mktemp("kept")))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def example(number: int) -> Example:
    """One row in four has an answer that is too long."""
    answer = "return first + second\n" * (100 if number % 4 == 3 else 1 + number % 3)
    return pair(f"Mend it, number {number}.", answer, meta={"sha256": f"{number:064d}"})


EXAMPLES = [example(number) for number in range(12)]


def kept(renderer: Renderer, cache: Cache | None, examples: Any = EXAMPLES) -> list[Any]:
    return render_rows(renderer, examples, max_length=LIMIT, min_prompt_tokens=4, cache=cache)


def whole(rows: list[Any]) -> list[TokenizedExample]:
    return [row for row in rows if isinstance(row, TokenizedExample)]


def body(cache: Cache) -> Path:
    (found,) = cache.folder.glob("tokens/*/*.body")
    return found


def never(*_: object, **__: object) -> Any:
    raise AssertionError("rendered anew")


def test_rows_are_the_same_from_a_cold_and_a_warm_cache_and_from_none(
    renderer: Renderer, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, cold = kept(renderer, None), kept(renderer, cache)
    monkeypatch.setattr(renderer, "render_many", never)
    warm = kept(renderer, cache)
    assert plain == cold == warm
    assert [isinstance(row, Verdict) for row in warm] == [False, False, False, True] * 3
    for row, given in zip(whole(warm), whole(plain), strict=True):
        assert row.input_ids.tolist() == given.input_ids.tolist()
        assert row.loss_mask.tolist() == given.loss_mask.tolist()
        assert (row.input_ids.dtype, row.loss_mask.dtype) == (np.int32, np.bool_)


@pytest.mark.parametrize("warm", [False, True])
def test_kept_rows_are_read_only_parts_of_one_mapping(
    renderer: Renderer, cache: Cache, warm: bool
) -> None:
    if warm:
        kept(renderer, cache)
    rows = whole(kept(renderer, cache))
    assert len({id(mapping_of(array)) for row in rows for array in arrays(row)}) == 1
    for before, after in itertools.pairwise(rows):
        # One row's last token lies beside the next one's first.
        assert address(before.input_ids) + before.input_ids.nbytes == address(after.input_ids)
        assert address(before.loss_mask) + before.loss_mask.nbytes == address(after.loss_mask)
    for array in (array for row in rows for array in arrays(row)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def arrays(row: TokenizedExample) -> tuple[np.ndarray, np.ndarray]:
    return row.input_ids, row.loss_mask


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def mapping_of(array: Any) -> mmap.mmap:
    while not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else array.base
    return array


def test_a_damaged_body_is_made_again(renderer: Renderer, cache: Cache) -> None:
    first = kept(renderer, cache)
    damaged = bytearray(body(cache).read_bytes())
    damaged[0] ^= 1
    body(cache).unlink()
    (cache.folder / "new").write_bytes(damaged)
    (cache.folder / "new").rename(next(cache.folder.glob("tokens/*/*.head")).with_suffix(".body"))
    assert kept(renderer, cache) == first
    assert body(cache).read_bytes() != bytes(damaged)


def test_rows_outlive_the_entry_and_its_replacement(renderer: Renderer, cache: Cache) -> None:
    plain = kept(renderer, None)
    mapped = kept(renderer, cache)
    Cache(cache.folder, max_bytes=0).trim()
    assert not list(cache.folder.rglob("*.body"))
    assert mapped == plain
    again = kept(renderer, cache)
    head = next(cache.folder.glob("tokens/*/*.head"))
    cache.keep("tokens", head.stem, {}, bytes(body(cache).stat().st_size))
    assert mapped == again == plain


def test_rows_that_all_come_to_nothing_are_kept_too(
    renderer: Renderer, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept(renderer, cache, EXAMPLES[3:4])
    monkeypatch.setattr(renderer, "render_many", never)
    assert kept(renderer, cache, EXAMPLES[3:4]) == first
    assert [row.reason for row in first] == ["over_length"]


READER = f"""
import sys
from pathlib import Path
from tests import test_rendering_kept as material
from swe_scaffold.rendering import Renderer
from swe_scaffold.cache import Cache
renderer = Renderer.load(sys.argv[1])
renderer.render_many = material.never
def own_memory(): return {OWN_MEMORY}
examples = material.many(int(sys.argv[3]))
before = own_memory()
rows = material.kept(renderer, Cache(Path(sys.argv[2])), examples)
tokens = sum(int(row.input_ids.sum() > 0) * row.targets for row in rows)
print("ready", tokens, own_memory() - before, flush=True)
sys.stdin.read()
"""


def many(rows: int) -> list[Example]:
    return [pair("", "", meta={"sha256": f"{number:064d}"}) for number in range(rows)]


def test_two_processes_read_millions_of_tokens_without_memory_of_their_own(
    renderer: Renderer, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, length = 40, 100_000
    long = TokenizedExample(
        "x-1",
        np.arange(length, dtype=np.int32),
        np.ones(length, np.bool_),
        "o/x",
        "o/x",
        SpeedrunLabel.SUCCESS,
        response_bytes=length,
    )
    monkeypatch.setattr(renderer, "render_many", lambda *_, **__: [long] * rows)
    kept(renderer, cache, many(rows))
    assert body(cache).stat().st_size == rows * length * 5
    command = [sys.executable, "-c", READER]
    arguments = [str(renderer.tokenizer.folder), str(cache.folder), str(rows)]
    readers = [
        subprocess.Popen(
            [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for reader in readers:
            assert reader.stdout
            word, targets, grown = reader.stdout.readline().split()
            assert (word, int(targets)) == ("ready", rows * length)
            # As an array of its own the body would take 20 MB.
            assert int(grown) < 8 * 1024
    finally:
        for reader in readers:
            reader.communicate("")


def test_what_a_row_says_of_its_tokens(renderer: Renderer) -> None:
    row = rendered(renderer, EXAMPLES[0])
    mask = row.loss_mask.tolist()
    assert (row.length, row.targets) == (len(mask), sum(mask))
    assert row.target_positions.dtype == np.int64
    assert row.target_positions.tolist() == [n for n, target in enumerate(mask) if target]
    assert [mask[start:stop] for start, stop, _ in row.spans] == [
        [trained] * (stop - start) for start, stop, trained in row.spans
    ]
    assert [start for start, _, _ in row.spans[1:]] == [stop for _, stop, _ in row.spans[:-1]]


def test_a_first_token_is_a_target_that_nothing_predicts() -> None:
    row = made([5, 6, 7], [True, False, True])
    assert (row.targets, row.target_positions.tolist()) == (2, [2])
    assert row.spans == [(0, 1, True), (1, 2, False), (2, 3, True)]


def made(ids: Any, mask: Any, name: str = "x") -> TokenizedExample:
    arrays = np.array(ids, np.int32), np.array(mask, np.bool_)
    return TokenizedExample(name, *arrays, "r", "g", SpeedrunLabel.SUCCESS, 1)


def test_rows_are_equal_by_what_they_hold() -> None:
    row, mask = made([5, 6], [False, True]), [False, True]
    assert row == made([5, 6], mask)
    assert hash(row) == hash(made([5, 6], mask))
    for other in (made([5, 7], mask), made([5, 6], [True, True]), made([5, 6], mask, "y"), None):
        assert row != other


def test_arrays_of_another_shape_or_type_are_refused() -> None:
    ids, mask = np.array([5, 6], np.int32), np.array([False, True])
    for wrong in (
        (ids.astype(np.int64), mask),
        (ids, mask[:1]),
        (ids, ids),
        (ids[None], mask[None]),
    ):
        with pytest.raises(TypeError, match="int32 ids"):
            TokenizedExample("x", *wrong, "r", "g", SpeedrunLabel.SUCCESS, 1)  # type: ignore[arg-type]
