"""Splits: what belongs together stays together, rows keep their side, shares are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.rows import make_example
from swe_scaffold.splits import (
    MIN_LINKING_CHARS,
    Assignment,
    Side,
    SplitKeys,
    assign,
    content_groups,
    text_hash,
)
from swe_scaffold.types import Example, Message, Origin, SpeedrunLabel

names = st.integers(0, 12).map(str)
keys_of_rows = st.lists(
    st.builds(
        SplitKeys,
        repo=st.integers(0, 6).map("repo{}".format),
        links=st.tuples(names.map("prompt:{}".format), names.map("response:{}".format)),
    ),
    max_size=40,
)


def an_example(number: int = 1, **changes: object) -> Example:
    fields: dict[str, object] = {
        "instance_id": f"id-{number}",
        "repo": "a/b",
        "prompt": f"prompt {number}",
        "response": f"patch {number}",
        "response_source": "patch",
        "label": SpeedrunLabel.SUCCESS,
        "origin": Origin("s", number),
        **changes,
    }
    return make_example(**fields)  # type: ignore[arg-type]


def rows(*sizes: int) -> list[SplitKeys]:
    """Rows without links, `sizes[i]` of them in repository i."""
    return [
        SplitKeys(f"repo{repo:03}", (f"prompt:{repo}/{row}",))
        for repo, size in enumerate(sizes)
        for row in range(size)
    ]


def linked(left: Example, right: Example) -> bool:
    return len(set(content_groups([SplitKeys.of(left), SplitKeys.of(right)]))) == 1


@given(keys_of_rows, st.sampled_from(["auto", "repo", "row"]), st.integers(0, 3))
def test_linked_rows_never_straddle(keys: list[SplitKeys], split_by: str, seed: int) -> None:
    result = assign(keys, dev_split=0.7, split_by=split_by, seed=seed)  # type: ignore[arg-type]
    sides: dict[str, Side] = {}
    for key, side in zip(keys, result.sides, strict=True):
        for link in key.links:
            assert sides.setdefault(link, side) == side
    if result.method == "repo":
        assert set(result.held_out_repos) == {
            key.repo for key, side in zip(keys, result.sides, strict=True) if side == "test"
        }
        dev = {key.repo for key, side in zip(keys, result.sides, strict=True) if side == "dev"}
        assert dev.isdisjoint(result.held_out_repos)


def test_groups_close_over_chains_of_links() -> None:
    chain = [
        SplitKeys("r", ("prompt:a", "response:1")),
        SplitKeys("r", ("prompt:b", "response:2")),
        SplitKeys("r", ("prompt:c", "response:3")),
        SplitKeys("r", ("prompt:b", "response:1")),
    ]
    assert content_groups(chain) == (0, 0, 2, 0)


@given(st.integers(1, 200), st.integers(0, 50))
def test_added_rows_move_no_other_row(before: int, added: int) -> None:
    many = rows(before + added)
    first = assign(many[:before], dev_split=0.8, split_by="row").sides
    assert assign(many, dev_split=0.8, split_by="row").sides[:before] == first


def test_the_seed_moves_rows() -> None:
    many = rows(200)
    first, second = (assign(many, dev_split=0.5, split_by="row", seed=s).sides for s in (1, 2))
    assert first != second
    assert assign(many, dev_split=0.5, split_by="row", seed=1).sides == first


def test_rows_land_near_the_share() -> None:
    result = assign(rows(4000), dev_split=0.9, split_by="row")
    assert result.count("test") == pytest.approx(400, abs=80)


@pytest.mark.parametrize("split_by", ["auto", "repo", "row"])
def test_all_rows_are_dev_when_nothing_is_to_be_held_out(split_by: str) -> None:
    result = assign(rows(3, 4, 5), dev_split=1.0, split_by=split_by)  # type: ignore[arg-type]
    assert set(result.sides) == {"dev"}


def test_auto_holds_out_as_many_small_repositories_as_fit() -> None:
    result = assign(rows(60, 20, *[2] * 10), dev_split=0.9)
    assert result.method == "repo"
    # 100 rows, 10 wanted, 13 at most: six repositories of two rows
    assert len(result.held_out_repos) == 6
    assert result.count("test") == 12


def test_auto_splits_rows_where_too_few_repositories_fit() -> None:
    result = assign(rows(50, 40, 5, 5), dev_split=0.9)
    assert result.method == "row"
    assert "2 repositories" in result.note


def test_repo_reaches_the_share_with_a_larger_repository() -> None:
    result = assign(rows(1, 30, 69), dev_split=0.7, split_by="repo")
    assert result.held_out_repos == ("repo000", "repo001")
    result = assign(rows(20, 33, 47), dev_split=0.67, split_by="repo")
    assert result.held_out_repos == ("repo001",)


def test_linked_repositories_move_together() -> None:
    keys = [
        SplitKeys("a", ("prompt:1",)),
        SplitKeys("b", ("prompt:1",)),
        *(SplitKeys("c", (f"prompt:c{n}",)) for n in range(18)),
    ]
    result = assign(keys, dev_split=0.9, split_by="repo")
    assert result.held_out_repos == ("a", "b")


def known_of(keys: list[SplitKeys], result: Assignment) -> dict[str, Side]:
    return {link: side for key, side in zip(keys, result.sides, strict=True) for link in key.links}


def test_known_sides_win_over_seed_and_method() -> None:
    old = rows(50)
    first = assign(old, dev_split=0.5, split_by="row", seed=1)
    again = assign([*rows(60)], dev_split=0.5, seed=99, known=known_of(old, first))
    assert again.sides[:50] == first.sides
    assert again.method == "manifest"
    assert "10 rows" in again.note


def test_a_row_that_joins_both_sides_is_held_out() -> None:
    known: dict[str, Side] = {"prompt:a": "dev", "prompt:b": "test"}
    for links in (("prompt:a", "prompt:b"), ("prompt:b", "prompt:a")):
        assert assign([SplitKeys("r", links)], dev_split=0.9, known=known).sides == ("test",)


def test_new_rows_follow_their_held_out_repository() -> None:
    known: dict[str, Side] = {"repo:out": "test", "repo:in": "dev"}
    keys = [SplitKeys(repo, (f"prompt:{repo}{n}",)) for repo in ("out", "in") for n in range(20)]
    result = assign(keys, dev_split=0.5, known=known)
    assert result.sides == ("test",) * 20 + ("dev",) * 20
    assert result.held_out_repos == ("out",)


def test_new_repositories_stay_whole_beside_held_out_ones() -> None:
    keys = [
        SplitKeys(f"new{repo}", (f"prompt:{repo}/{n}",)) for repo in range(20) for n in range(5)
    ]
    result = assign(keys, dev_split=0.5, known={"repo:out": "test"})
    for start in range(0, 100, 5):
        assert len(set(result.sides[start : start + 5])) == 1
    assert set(result.sides) == {"dev", "test"}


def test_prompt_patch_and_id_link_rows() -> None:
    base = an_example(1)
    assert not linked(base, an_example(2))
    assert linked(base, an_example(2, prompt=" prompt 1\n"))
    assert linked(base, an_example(2, response="patch 1"))
    assert linked(base, an_example(2, instance_id="id-1"))
    summary = an_example(
        2,
        response="a summary",
        response_source="change_summary",
        meta={"patch_hash": text_hash("patch 1")},
    )
    assert linked(base, summary)


def test_blank_texts_and_short_answers_link_nothing() -> None:
    for texts in (
        {"prompt": " "},
        {"response": ""},
        {"response": "ok", "response_source": "response"},
    ):
        assert not linked(an_example(1, **texts), an_example(2, **texts))
    long = {"response": "x" * MIN_LINKING_CHARS, "response_source": "response"}
    assert linked(an_example(1, **long), an_example(2, **long))


def test_chats_are_linked_by_their_first_question_not_by_their_last_word() -> None:
    def chat(number: int, question: str) -> Example:
        messages = (Message("user", question), Message("assistant", "submit " * 50))
        return an_example(number, messages=messages, response="submit " * 50)

    assert not linked(chat(1, "first"), chat(2, "second"))
    assert linked(chat(1, "same"), chat(2, "same"))
