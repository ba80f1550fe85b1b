"""The command that makes tasks out of a history: tasks mine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import TASKS, Session, command
from swe_scaffold.cli.tables import counts, facts, place
from swe_scaffold.errors import DataError
from swe_scaffold.files import require_writable
from swe_scaffold.terminal import Track
from swe_scaffold.terminal import show as visible

if TYPE_CHECKING:
    from swe_scaffold.mining import Mining


@command(
    TASKS,
    "mine",
    examples=(
        "swe-scaffold tasks mine path/to/clone --output tasks.jsonl",
        "swe-scaffold tasks mine clone.git --repo owner/name --issues issues.json --output t.jsonl",
    ),
)
def mine(  # noqa: PLR0913 one parameter per option
    session: Session,
    repository: Annotated[
        Path, typer.Argument(metavar="REPO", help="Clone: a work tree or a bare mirror.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Tasks to write (JSONL).")],
    repo: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Name of the repository.",
            show_default="from the remote origin, else the folder",
        ),
    ] = None,
    start: Annotated[
        str, typer.Option(metavar="REV", help="Branch, tag or commit to begin at.")
    ] = "HEAD",
    max_commits: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Look at this many commits only, the newest."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Only commits from this day on (UTC), as 2024-01-31."),
    ] = None,
    issues: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Rows with number, title and body: the statement of commits that close one.",
        ),
    ] = None,
    max_patch_chars: Annotated[
        int, typer.Option(metavar="N", min=1, help="Longest patch, tests included.")
    ] = 20_000,
    max_files: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most files a commit may touch.")
    ] = 20,
    keep_docs: Annotated[
        bool, typer.Option("--keep-docs", help="Keep commits that change documentation only.")
    ] = False,
) -> None:
    """Make tasks from the history of a local clone, one per commit that fits.

    Nothing of the clone is run, checked out or fetched. The rows are SWE-bench-style, `build` reads
    them, and they say `validated: false`: no test was run. Every commit is counted: kept, or
    rejected with a reason.
    """
    require_writable(output.parent)
    from swe_scaffold.git import open_repository
    from swe_scaffold.jsonl import write_jsonl
    from swe_scaffold.mining import (
        Mining,
        MiningLimits,
        read_date,
        read_issues,
        repository_name,
    )

    limits = MiningLimits(
        max_commits=max_commits,
        since=None if since is None else read_date(since),
        max_patch_chars=max_patch_chars,
        max_files=max_files,
        keep_docs=keep_docs,
    )
    texts = None if issues is None else read_issues(issues)
    clone = open_repository(repository)
    name = repository_name(repo, clone.remote(), repository)
    session.reporter.say(f"reading {visible(repository)} as {visible(name)}")
    mining = Mining(clone, repo=name, start=start, limits=limits, issues=texts)
    with session.reporter.progress("mining", len(mining), unit="commits") as track:
        written = write_jsonl(output, _some(mining, track, repository))
    value = {
        "output": str(output),
        "sha256": written.sha256,
        "repo": name,
        "start": mining.start,
        "counts": mining.counts,
    }
    session.result(value, _text(value))


def _some(mining: Mining, track: Track, repository: Path) -> Iterator[dict[str, Any]]:
    """Pass the tasks on; a file without any would only fail later.

    Raises:
        DataError: There are none.
    """
    yield from mining.rows(track.advance)
    ledger = mining.counts
    if not ledger["kept"]:
        message = f"none of {ledger['seen']} commits makes a task"
        hint = f"rejected: {counts(ledger['rejected'])}"
        raise DataError(message, where=visible(repository), hint=hint)


def _text(value: Mapping[str, Any]) -> str:
    ledger = value["counts"]
    told = ledger["message_source"]
    rows: list[tuple[str, object]] = [
        ("repository", f"{value['repo']} at {value['start']}"),
        ("commits seen", ledger["seen"]),
        ("rejected", f"{sum(ledger['rejected'].values())} ({counts(ledger['rejected'])})"),
        ("kept", ledger["kept"]),
        ("told by", f"commit message {told['commit']}, issue {told['issue']}"),
        ("with tests", ledger["with_tests"]),
        ("by language", counts(ledger["kept_by_language"])),
        ("trailers removed", ledger["trailers_removed"]),
        ("written", value["output"]),
    ]
    return facts("tasks", rows) + f"\n\nnext: swe-scaffold build --dataset {place(value['output'])}"
