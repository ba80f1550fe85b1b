"""Overlap: repeats within a file and what two files share, seen as the split sees it."""

from __future__ import annotations

from swe_scaffold.quality.overlap import (
    Pair,
    repeated_rows,
    reused_ids,
    shared_links,
    shared_repos,
)
from swe_scaffold.rows import make_example
from swe_scaffold.types import Example, Origin, SpeedrunLabel


def row(name: str, prompt: str, response: str, repo: str = "a/b") -> Example:
    return make_example(
        instance_id=name,
        repo=repo,
        prompt=prompt,
        response=response,
        response_source="patch",
        label=SpeedrunLabel.SUCCESS,
        origin=Origin("s", 1),
    )


def test_repeats_point_at_the_first_row() -> None:
    examples = [row("a", "p", "r"), row("b", "q", "r"), row("c", "p", "r"), row("d", "p", "r")]
    assert repeated_rows(examples) == [Pair(0, 2), Pair(0, 3)]


def test_an_id_may_come_again_only_with_the_same_content() -> None:
    examples = [row("a", "p", "r"), row("a", "p", "r"), row("a", "q", "r")]
    assert reused_ids(examples) == [Pair(0, 2)]


def test_shared_links_say_what_is_shared() -> None:
    dev = [row("a", "p", "r"), row("b", "q", "s")]
    assert shared_links(dev, [row("c", "x", "y")]) == {}
    assert shared_links(dev, [row("b", "x", "y")]) == {"id": [Pair(1, 0)]}
    assert shared_links(dev, [row("c", " q ", "y")]) == {"prompt": [Pair(1, 0)]}
    assert shared_links(dev, [row("c", "x", "y"), row("d", "x", "r\n")]) == {
        "response": [Pair(0, 1)]
    }
    assert set(shared_links(dev, dev)) == {"id", "prompt", "response"}


def test_shared_repositories() -> None:
    left = [row("a", "p", "r", "x/y"), row("b", "q", "s", "x/z")]
    assert shared_repos(left, [row("c", "u", "v", "x/z")]) == ["x/z"]
    assert shared_repos(left, [row("c", "u", "v", "w/w")]) == []
