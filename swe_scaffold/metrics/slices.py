"""Which rows stand together in the tables of a report: the same names for one model and for two.

What is said of a slice is decided in `likelihood` and `comparison`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from swe_scaffold.types import ExampleScore

UNKNOWN = "unknown"
DECILES = 10
# Rows of one group are its own examples; every other slice holds several clusters.
GROUP = "group"


def slices(rows: Sequence[ExampleScore], cluster_by: str) -> dict[str, dict[str, list[int]]]:
    """Return the row numbers of every slice, by table and name.

    The tables are `group` (the repository where that is the cluster), `label`, `response_source`,
    `length` (deciles of response tokens) and `language` (of the files a response changes).
    """
    return {
        GROUP: members(group_labels(rows, cluster_by)),
        "label": members(row.label.value for row in rows),
        "response_source": members(row.response_source or UNKNOWN for row in rows),
        "length": length_deciles([row.tokens for row in rows]),
        "language": members(row.language or UNKNOWN for row in rows),
    }


def cluster_labels(rows: Sequence[ExampleScore], cluster_by: str) -> tuple[str, ...]:
    """Return the cluster of each row; rows that name none stand for themselves."""
    if cluster_by == "row":
        # Padded, so that sorted labels keep the order of the rows.
        return tuple(f"{index:012d}" for index in range(len(rows)))
    return group_labels(rows, cluster_by)


def group_labels(rows: Sequence[ExampleScore], cluster_by: str) -> tuple[str, ...]:
    """Return the name under which each row stands in a table by group (or repository)."""
    if cluster_by == "repo":
        return tuple(row.repo or row.group or row.instance_id for row in rows)
    return tuple(row.group or row.repo or row.instance_id for row in rows)


def members(labels: Iterable[str]) -> dict[str, list[int]]:
    """Return the row indices of each label, labels in sorted order."""
    found: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        found.setdefault(label, []).append(index)
    return dict(sorted(found.items()))


def length_deciles(tokens: Sequence[int]) -> dict[str, list[int]]:
    """Return rows by decile of their response tokens, shortest first.

    Bounds are the lengths at the 10 %, 20 %, ... of the sorted rows; rows of one length are never
    parted, so that few rows or many equal lengths make fewer slices.
    """
    ordered = np.sort(np.asarray(tokens))
    ends = sorted({int(ordered[-(-len(tokens) * k // DECILES) - 1]) for k in range(1, DECILES + 1)})
    groups: dict[int, list[int]] = {}
    for index, number in enumerate(np.searchsorted(ends, tokens).tolist()):
        groups.setdefault(number, []).append(index)
    found = {}
    for number in sorted(groups):
        inside = [tokens[index] for index in groups[number]]
        low, high = min(inside), max(inside)
        found[f"{low}-{high} tokens" if low < high else f"{low} tokens"] = groups[number]
    return found
