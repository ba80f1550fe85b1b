"""What a model has read before: its manifest's packages against the groups of a file.

Only models that say what they were made from can be judged (the quickstart's tiny model does); of
downloaded ones nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from swe_scaffold.errors import IntegrityError
from swe_scaffold.manifest import read_manifest
from swe_scaffold.quality.findings import MAX_EVIDENCE, Finding


def judge_pretraining(model: Path, groups: Collection[str], where: str) -> Iterator[Finding]:
    """Compare the packages a model was made from with the groups of the rows in `where`."""
    packages = corpus_packages(model)
    if packages is None:
        return
    shared = sorted(packages & set(groups))
    if shared:
        yield Finding(
            "error",
            "pretraining_overlap",
            f"the model was made from {len(shared)} of the {len(set(groups))} packages these rows "
            "come from",
            where,
            tuple(shared[:MAX_EVIDENCE]),
        )
    else:
        yield Finding(
            "info",
            "pretraining_disjoint",
            f"none of the {len(packages)} packages the model was made from is among the "
            f"{len(set(groups))} these rows come from",
            where,
        )


def corpus_packages(model: Path) -> frozenset[str] | None:
    """Return the packages a model folder's manifest names, None where it says nothing."""
    try:
        corpus = read_manifest(model / "manifest.json").get("corpus")
    except IntegrityError:
        return None
    packages = corpus.get("packages") if isinstance(corpus, dict) else None
    return frozenset(map(str, packages)) if isinstance(packages, list) else None
