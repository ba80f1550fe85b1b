"""What rows have in common: repeats within a file, leaks between two.

Two rows are linked as the split links them (`splits.SplitKeys`), so that what a build keeps apart
is exactly what is looked for here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swe_scaffold.splits import SplitKeys
from swe_scaffold.types import Example


@dataclass(frozen=True, slots=True)
class Pair:
    """Positions of two rows that share something."""

    left: int
    right: int


def repeated_rows(examples: Sequence[Example]) -> list[Pair]:
    """Return each row whose content stood in an earlier row, with that row."""
    first: dict[object, int] = {}
    pairs = []
    for index, example in enumerate(examples):
        earlier = first.setdefault(example.meta["sha256"], index)
        if earlier != index:
            pairs.append(Pair(earlier, index))
    return pairs


def reused_ids(examples: Sequence[Example]) -> list[Pair]:
    """Return each row whose id an earlier row with other content has."""
    first: dict[str, int] = {}
    pairs = []
    for index, example in enumerate(examples):
        earlier = first.setdefault(example.instance_id, index)
        if example.meta["sha256"] != examples[earlier].meta["sha256"]:
            pairs.append(Pair(earlier, index))
    return pairs


def shared_links(left: Sequence[Example], right: Sequence[Example]) -> dict[str, list[Pair]]:
    """Return the rows of `right` that share an id, prompt or response with one of `left`.

    Keys are `id`, `prompt` and `response` (patches too); only kinds that occur are there.
    """
    places: dict[str, int] = {}
    for index, example in enumerate(left):
        for link in SplitKeys.of(example).links:
            places.setdefault(link, index)
    shared: dict[str, list[Pair]] = {}
    for index, example in enumerate(right):
        kinds: dict[str, int] = {}
        for link in SplitKeys.of(example).links:
            if link in places:
                kinds.setdefault(link.partition(":")[0], places[link])
        for kind, place in kinds.items():
            shared.setdefault(kind, []).append(Pair(place, index))
    return shared


def shared_repos(left: Sequence[Example], right: Sequence[Example]) -> list[str]:
    """Return the repositories, as the split names them, that have rows on both sides, sorted."""
    sides = [{SplitKeys.of(example).repo for example in side} for side in (left, right)]
    return sorted(sides[0] & sides[1])
