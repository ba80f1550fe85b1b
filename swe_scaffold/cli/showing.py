"""The command that shows rows: the first ones of a file, or the whole path of one.

How a row is printed is left to `rows`, its path to `show_text`, and what is known of the path to
`dataset.tracing`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import APP, Session, command
from swe_scaffold.cli.help import did_you_mean
from swe_scaffold.cli.inspecting import MaxLength, MinPromptTokens
from swe_scaffold.cli.options import TrustTemplate
from swe_scaffold.cli.show_text import FIELD_WIDTH, alone_text, no_manifest, traces_text
from swe_scaffold.errors import DataError, IntegrityError
from swe_scaffold.terminal import show as visible

if TYPE_CHECKING:
    from swe_scaffold.cli.rows import View
    from swe_scaffold.dataset.tracing import Trace, Traces


@command(
    APP,
    "show",
    examples=(
        "swe-scaffold show rows.jsonl django__django-11099",
        "swe-scaffold show rows.jsonl --limit 1 --model Qwen/Qwen2.5-3B-Instruct",
    ),
)
def show(  # noqa: PLR0913 one parameter per option
    session: Session,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Rows (JSONL); with ID any file of a build, its manifest too."
        ),
    ],
    instance_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="One row, or SOURCE:ROW; without it the first ones."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Tokenizer (folder or hub id); marks trained tokens."),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rows to show where no ID is given.")
    ] = 3,
    full: Annotated[bool, typer.Option("--full", help="With ID: cut no text and no list.")] = False,
    max_length: MaxLength = 4096,
    min_prompt_tokens: MinPromptTokens = 128,
    trust_template: TrustTemplate = False,
) -> int:
    """Print rows, with --model as training sees them; with ID, one row's whole path.

    The path: raw fields, response choice, each verdict, split, tokens. The row is made again from
    its source; where that differs from what the build recorded, the exit code is 5. Trained tokens
    are coloured on a terminal and stand between «« and »» elsewhere. Control and other invisible
    characters of the rows are spelt out.
    """
    from swe_scaffold.cli.rows import View, chosen_rows, row_text, row_value
    from swe_scaffold.dataset.tracing import manifest_of

    view = None
    manifest = None if instance_id is None else manifest_of(file)
    traces = None if manifest is None or instance_id is None else _traces(manifest, instance_id)
    rows = [] if traces else chosen_rows(file, instance_id, limit)
    if model is not None:
        from swe_scaffold.rendering import Renderer

        renderer = Renderer.load(model, offline=session.offline, trust_template=trust_template)
        view = View(renderer, max_length, min_prompt_tokens)
    if traces:
        value = traces_value(traces, view, full=full) if session.json else None
        session.result(value, "" if session.json else traces_text(traces, view, full=full))
        return 0 if traces.agrees else IntegrityError.exit_code
    if session.json:
        values = [row_value(row, view) for row in rows]
        session.result(values if instance_id is None else _alone_value(file, values), "")
    elif instance_id is None:
        session.result(None, "\n\n".join(row_text(row, view) for row in rows))
    else:
        session.result(None, "\n\n".join(alone_text(file, row, view, full=full) for row in rows))
    return 0


def _traces(manifest: Path, wanted: str) -> Traces:
    from swe_scaffold.dataset.tracing import UnknownRow, trace_rows

    try:
        return trace_rows(manifest, wanted)
    except UnknownRow as error:
        first = "some ids: " + ", ".join(visible(name, width=60) for name in error.near[:3])
        raise DataError(
            f"no row of the build has the id {visible(wanted, width=60)}",
            where=error.where,
            hint=did_you_mean(wanted, error.near) or first,
        ) from None


def _alone_value(file: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"manifest": None, "note": no_manifest(file), "places": [{"row": row} for row in rows]}


def traces_value(traces: Traces, view: View | None, *, full: bool) -> dict[str, Any]:
    """Return all that is known of the rows meant, as JSON values."""
    return {
        "manifest": str(traces.manifest),
        "agrees": traces.agrees,
        "findings": [finding.to_dict() for finding in traces.findings],
        "places": [_trace_value(trace, view, full) for trace in traces.traces],
    }


def _trace_value(trace: Trace, view: View | None, full: bool) -> dict[str, Any]:
    from swe_scaffold.cli.rows import row_value
    from swe_scaffold.dataset.origins import raw_fields, response_choice

    source, again, ended = trace.source, trace.again, trace.place
    row = row_value(trace.example, view) if trace.example else ended.row
    return {
        "ending": ended.ending,
        "where": ended.where,
        "instance_id": ended.instance_id,
        "source": {
            "path": source.origin.source,
            "row": source.origin.row,
            "state": source.state,
            "detail": source.detail,
            "read_from": source.read_from,
            "sha256": source.sha256,
            "fields": raw_fields(source, None if full else FIELD_WIDTH),
        },
        "response": response_choice(source, trace.example),
        "verdicts": [
            {
                "stage": verdict.stage,
                "compares_rows": verdict.compares,
                "outcome": verdict.outcome,
                "reason": verdict.reason,
                "detail": verdict.detail,
                "findings": dict(verdict.findings),
            }
            for verdict in trace.verdicts
        ],
        "judged_again": _again_value(again),
        "split": dict(trace.split),
        "row": dict(row) if row else None,
        "findings": [finding.to_dict() for finding in trace.findings],
    }


def _again_value(again: Any) -> dict[str, Any]:
    if isinstance(again, str):
        return {"done": False, "detail": again, "joined": [], "notes": []}
    return {
        "done": True,
        "detail": "",
        "joined": list(again.joined),
        "notes": list(again.notes),
    }
