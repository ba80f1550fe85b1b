"""Not too many rows of one kind: caps per repository, label and instance, first come first kept."""

from __future__ import annotations

from collections import Counter

from swe_scaffold.config import QualityConfig
from swe_scaffold.quality.stage import IndexStage, RowKey, Subject
from swe_scaffold.types import KEEP, Example, Verdict


def caps_stage(config: QualityConfig) -> IndexStage | None:
    """Return the stage, None where no cap is set; it counts what it keeps, for one build."""
    limits = {
        "repo": config.max_per_repo,
        "label": config.max_per_label,
        "instance": config.max_per_instance,
    }
    caps = {kind: limit for kind, limit in limits.items() if limit}
    return IndexStage("caps", _key, _Counts(caps).judge) if caps else None


def _key(example: Example, _: Subject) -> None:
    """Repository, label and id travel with every key already."""


class _Counts:
    def __init__(self, caps: dict[str, int]) -> None:
        self._caps = caps
        self._kept: Counter[tuple[str, str]] = Counter()

    def judge(self, row: RowKey) -> Verdict:
        named = {"repo": row.repo, "label": row.label, "instance": row.instance_id}
        # A row that names no repository is not of the same one as the next such row.
        own = {kind: named[kind] for kind in self._caps if named[kind]}
        for kind, name in own.items():
            if self._kept[kind, name] >= self._caps[kind]:
                what = f"{name} has its {self._caps[kind]}"
                return Verdict(f"over_max_per_{kind}", f"{kind} {what}")
        self._kept.update(own.items())
        return KEEP
