"""Who is held out: content groups, and their assignment to dev (training) or test (hold-out).

Rows that share a prompt, a response, a patch or an id form one content group, and a group never
straddles the split.
Pure functions over short keys; reading rows and writing manifests is left to others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from swe_scaffold.types import Example

Side = Literal["dev", "test"]
MIN_HELD_OUT_REPOS = 5
# Shorter answers ("yes", "done") are shared by rows that have nothing else in common.
MIN_LINKING_CHARS = 100
TOLERANCE = 0.03


@dataclass(frozen=True, slots=True)
class SplitKeys:
    """What the split needs of one row: its repository and the links that tie it to other rows.

    `links` begins with the prompt's (the id's where the prompt is blank); rows with a link in
    common belong together.
    """

    repo: str
    links: tuple[str, ...]

    @classmethod
    def of(cls, example: Example) -> SplitKeys:
        """Make the keys of one example: prompt, id, response and patch.

        Blank texts link nothing, nor do last messages of chats or short responses without patch.
        """
        links = [f"id:{example.instance_id}"]
        if example.prompt.strip():
            links.insert(0, f"prompt:{text_hash(example.prompt.strip())}")
        response = example.response.strip()
        if not example.messages and (_is_patch(example) or len(response) >= MIN_LINKING_CHARS):
            links.append(f"response:{text_hash(response)}")
        if patch := example.meta.get("patch_hash"):
            links.append(f"response:{patch}")
        first = next((m.content for m in example.messages if m.role == "user"), "")
        if first.strip():
            links.append(f"prompt:{text_hash(first.strip())}")
        return cls(example.repo or example.group, tuple(links))


@dataclass(frozen=True, slots=True)
class Assignment:
    """The side of every row (in order), and how it came about."""

    sides: tuple[Side, ...]
    method: Literal["repo", "row", "manifest"]
    content_groups: tuple[int, ...]
    note: str = ""
    held_out_repos: tuple[str, ...] = field(default=())

    def count(self, side: Side) -> int:
        """Number of rows on one side."""
        return sum(1 for value in self.sides if value == side)


def text_hash(text: str) -> str:
    """Return 32 hex digits identifying a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _is_patch(example: Example) -> bool:
    return example.response_source in {"patch", "test_patch"} and bool(example.response.strip())


def content_groups(keys: Sequence[SplitKeys]) -> tuple[int, ...]:
    """Return for each row the index of the first row of its content group.

    Two rows are in one group when they share a link, directly or through others.
    """
    parent = list(range(len(keys)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[str, int] = {}
    for index, key in enumerate(keys):
        for link in key.links:
            low, high = sorted((find(first.setdefault(link, index)), find(index)))
            parent[high] = low
    return tuple(find(index) for index in range(len(keys)))


def assign(
    keys: Sequence[SplitKeys],
    *,
    dev_split: float,
    split_by: Literal["auto", "repo", "row"] = "auto",
    seed: int = 42,
    known: Mapping[str, Side] | None = None,
) -> Assignment:
    """Assign every row to dev or test.

    Args:
        keys: One per row, in source order.
        dev_split: Share of rows that should land in dev.
        split_by: `row` hashes the prompt of each content group's first row with the seed, so that
            appended rows move no other row. `repo` holds whole repositories out, small ones first,
            within three points of the wanted share. `auto` takes `repo` where that lands with at
            least five held-out repositories.
        seed: Seed of the hash.
        known: Link to side, from an earlier manifest; it wins, new groups are hashed. Links of the
            form `repo:NAME` say that whole repositories were held out: new rows follow theirs, and
            new repositories are hashed as a whole.
    """
    groups = content_groups(keys)
    if known is not None:
        return _from_known(keys, groups, dev_split=dev_split, seed=seed, known=known)
    if split_by == "row" or dev_split >= 1:
        return _by_row(keys, groups, dev_split=dev_split, seed=seed)
    by_repo, lands = _by_repo(keys, groups, dev_split=dev_split)
    if split_by == "repo" or (lands and len(by_repo.held_out_repos) >= MIN_HELD_OUT_REPOS):
        return by_repo
    row = _by_row(keys, groups, dev_split=dev_split, seed=seed)
    note = (
        f"by repository the hold-out would be {by_repo.count('test')} of {len(keys)} rows from "
        f"{len(by_repo.held_out_repos)} repositories"
    )
    return Assignment(row.sides, row.method, groups, note)


def _hashed_side(key: str, dev_split: float, seed: int) -> Side:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return "dev" if int.from_bytes(digest[:8], "big") / 2**64 < dev_split else "test"


def _by_row(
    keys: Sequence[SplitKeys], groups: Sequence[int], *, dev_split: float, seed: int
) -> Assignment:
    sides = tuple(_hashed_side(keys[group].links[0], dev_split, seed) for group in groups)
    return Assignment(sides, "row", tuple(groups))


def _from_known(
    keys: Sequence[SplitKeys],
    groups: Sequence[int],
    *,
    dev_split: float,
    seed: int,
    known: Mapping[str, Side],
) -> Assignment:
    decided: dict[int, Side] = {}
    fresh = set(groups)
    for key, group in zip(keys, groups, strict=True):
        for link in key.links:
            side = known.get(link)
            if side is not None:
                fresh.discard(group)
                # A new row can join old groups of both sides; training on a held-out row is worse.
                decided[group] = "test" if "test" in (side, decided.get(group)) else side
    held_out = tuple(sorted(link[5:] for link in known if link.startswith("repo:")))
    if held_out:
        for key, group in zip(keys, groups, strict=True):
            if group in fresh:
                side = known.get(f"repo:{key.repo}") or _hashed_side(key.repo, dev_split, seed)
                decided[group] = "test" if "test" in (side, decided.get(group)) else side
    sides = tuple(
        decided.get(group) or _hashed_side(keys[group].links[0], dev_split, seed)
        for group in groups
    )
    new = sum(1 for group in groups if group in fresh)
    note = f"{new} rows were not in the manifest"
    repos = tuple(name for name in held_out if known[f"repo:{name}"] == "test")
    return Assignment(sides, "manifest", tuple(groups), note, repos)


def _by_repo(
    keys: Sequence[SplitKeys], groups: Sequence[int], *, dev_split: float
) -> tuple[Assignment, bool]:
    """Hold out the most repositories, smallest first; linked repositories move together."""
    cluster = _linked_repos(keys, groups)
    rows = Counter(cluster[key.repo] for key in keys)
    members: dict[str, list[str]] = {}
    for repo, name in sorted(cluster.items()):
        members.setdefault(name, []).append(repo)
    wanted = (1 - dev_split) * len(keys)
    slack = TOLERANCE * len(keys)
    held: list[str] = []
    size = 0
    for name in sorted(rows, key=lambda name: (rows[name], name)):
        if size + rows[name] > wanted + slack:
            break
        held.append(name)
        size += rows[name]
    if size < wanted - slack:
        held, size = _reach(rows, held, size, low=wanted - slack, high=wanted + slack)
    out = set(held)
    sides: tuple[Side, ...] = tuple("test" if cluster[key.repo] in out else "dev" for key in keys)
    repos = tuple(sorted(repo for name in held for repo in members[name]))
    lands = abs(size - wanted) <= slack
    return Assignment(sides, "repo", tuple(groups), held_out_repos=repos), lands


def _reach(
    rows: Mapping[str, int], held: list[str], size: int, *, low: float, high: float
) -> tuple[list[str], int]:
    """Swap the largest held-out repositories for one larger one where that reaches the share."""
    rest = sorted((name for name in rows if name not in set(held)), key=lambda n: (rows[n], n))
    kept, total = list(held), size
    while True:
        for name in rest:
            if low <= total + rows[name] <= high:
                return [*kept, name], total + rows[name]
        if not kept:
            return held, size
        total -= rows[kept.pop()]


def _linked_repos(keys: Sequence[SplitKeys], groups: Sequence[int]) -> dict[str, str]:
    """Map each repository to the name of its cluster: those that share a content group are one."""
    parent = {key.repo: key.repo for key in keys}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for key, group in zip(keys, groups, strict=True):
        low, high = sorted((find(keys[group].repo), find(key.repo)))
        parent[high] = low
    return {name: find(name) for name in parent}
