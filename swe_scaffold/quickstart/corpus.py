"""Two halves of a Python tree: one is read by the tiny model, tasks are made from the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swe_scaffold.errors import DataError
from swe_scaffold.python_tree import python_files, top_level
from swe_scaffold.quickstart.tiny_model import Corpus
from swe_scaffold.synthesis import Recipe, synthesize
from swe_scaffold.synthesis.operators import FIRST_OPERATORS

CODE_CHARACTERS = 600_000
FILE_CHARACTERS = 40_000
# Large packages of tables (encodings) would otherwise be most of what is read.
PACKAGE_CHARACTERS = 80_000
DIFFS = 3000
# Four operators and no caps: what the numbers in docs/quickstart.md were measured with.
RECIPE = Recipe(operators=FIRST_OPERATORS, max_per_file=0, max_per_operator=0)
# Modules of one family are near twins of each other and must not stand on both sides.
FAMILIES = (("ntpath", "posixpath", "genericpath"), ("json", "tomllib"), ("pydoc", "pydoc_data"))


def halves(root: Path) -> tuple[list[str], list[str]]:
    """Divide the top-level packages into two lists of about equal size, largest first, in turn.

    Raises:
        DataError: There are fewer than two packages.
    """
    sizes: Counter[str] = Counter()
    for path, text in python_files(root):
        sizes[top_level(path)] += len(text)
    families = {name: group[0] for group in FAMILIES for name in group}
    clusters: dict[str, list[str]] = {}
    for name in sorted(sizes):
        clusters.setdefault(families.get(name, name), []).append(name)
    if len(clusters) < 2:
        raise DataError("needs at least two packages or modules", where=str(root))
    weight = {key: sum(sizes[name] for name in names) for key, names in clusters.items()}
    sides: tuple[list[str], list[str]] = ([], [])
    totals = [0, 0]
    for key in sorted(clusters, key=lambda key: (-weight[key], key)):
        side = 0 if totals[0] <= totals[1] else 1
        sides[side].extend(clusters[key])
        totals[side] += weight[key]
    return sorted(sides[0]), sorted(sides[1])


def read_corpus(root: Path, packages: Sequence[str], *, seed: int) -> Corpus:
    """Return code of these packages, and tasks of theirs: a statement, a function and its diff.

    Packages of code are taken in a seeded order until there is enough to read. The model has seen
    diffs before it is tuned, so that what tuning gains is not merely a diff's syntax.
    """
    order = np.random.default_rng(seed).permutation(len(packages))
    code: list[str] = []
    left = CODE_CHARACTERS
    for index in order:
        if left <= 0:
            break
        room = PACKAGE_CHARACTERS
        for _, text in python_files(root, [packages[index]]):
            if room <= 0:
                break
            code.append(text[:FILE_CHARACTERS])
            room -= len(code[-1])
        left -= PACKAGE_CHARACTERS - max(room, 0)
    made = synthesize(root, count=DIFFS, seed=seed, include=list(packages), recipe=RECIPE)
    return Corpus(tuple(code), tuple(map(_task_text, made.tasks)), tuple(packages))


def _task_text(task: Mapping[str, Any]) -> str:
    pieces = [f"{piece['path']}\n{piece['text']}" for piece in task["context"]]
    return "\n".join([f"{task['problem_statement']}\n", *pieces, task["patch"]])
