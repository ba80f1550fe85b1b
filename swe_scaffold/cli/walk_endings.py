"""How the commands that walk through a repository end: page, result, exit code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swe_scaffold.cli.app import Session
from swe_scaffold.errors import CheckFailed, IntegrityError, ScaffoldError
from swe_scaffold.terminal import show

if TYPE_CHECKING:
    from swe_scaffold.walkthrough import Walk


def finish(session: Session, walked: Walk, output: Path) -> int:
    """Print the result of one walkthrough, and say what is wrong with it."""
    from swe_scaffold.cli.walking_text import one_text, one_value

    session.result(one_value(walked, output), one_text(walked, output))
    return end(session, _problem(walked))


def end(session: Session, problem: ScaffoldError | None) -> int:
    """Return the exit code of a command whose result is printed, or raise what is wrong."""
    if problem is None:
        return 0
    # With --json the one document has said it.
    if session.json:
        return problem.exit_code
    raise problem


def page_of(trajectory: Mapping[str, Any]) -> str:
    """Return the HTML page of a trajectory of ours."""
    from dataclasses import asdict

    from swe_scaffold.report.walk_page import walk_page
    from swe_scaffold.walkthrough.seen import inspected, steps_of
    from swe_scaffold.walkthrough.summary import verdict

    steps = [asdict(step) for step in steps_of(trajectory)]
    files = [asdict(file) for file in inspected(trajectory)]
    info = trajectory["info"]
    return walk_page(info, verdict(info["repository"]), steps, files)


def _problem(walked: Walk) -> ScaffoldError | None:
    """Return what is wrong with a walkthrough that has come to its end."""
    if not walked.unchanged:
        return IntegrityError(
            f"the repository is not what it was: {', '.join(map(show, walked.changed[:5]))}",
            hint="if nothing else works in this folder, please report this",
        )
    if walked.exit_status != "Submitted":
        more = "raise --max-steps, or choose another model; " if _was_limited(walked) else ""
        return CheckFailed(
            f"the walkthrough ended without a report ({show(walked.exit_status)})",
            hint=f"{more}what it saw is kept",
        )
    return None


def _was_limited(walked: Walk) -> bool:
    return walked.exit_status in ("LimitsExceeded", "exit_cost", "RepeatedFormatError")
