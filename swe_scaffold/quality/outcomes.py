"""How an attempt ended: keep only trajectories known to have solved their task, or submitted.

Tasks and rows without a trajectory behind them are left alone. What is not known counts as no.
"""

from __future__ import annotations

from swe_scaffold.config import QualityConfig
from swe_scaffold.quality.stage import RowJudge, Subject
from swe_scaffold.types import KEEP, Example, SpeedrunLabel, Trajectory, Verdict

_UNKNOWN = "the source does not say"


def judge_outcome(config: QualityConfig) -> RowJudge | None:
    """Return the judge of trajectories that the configuration asks for, None for none."""
    if not (config.only_resolved or config.only_submitted):
        return None

    def judge(_: Example, subject: Subject) -> Verdict:
        if not isinstance(subject, Trajectory):
            return KEEP
        if config.only_submitted and not subject.submitted:
            ended = f"ended as {subject.exit_status}" if subject.exit_status else "no submission"
            return Verdict("not_submitted", _UNKNOWN if subject.submitted is None else ended)
        if config.only_resolved and not (resolved := _resolved(subject)):
            return Verdict("not_resolved", _UNKNOWN if resolved is None else "not resolved")
        return KEEP

    return judge


def _resolved(subject: Trajectory) -> bool | None:
    """What the outcome says, else the label the source gave."""
    if subject.outcome.resolved is not None or subject.label is None:
        return subject.outcome.resolved
    return subject.label == SpeedrunLabel.SUCCESS
