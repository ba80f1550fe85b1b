"""The command that shows rows: the first ones of a file, or the whole path of one.

How a row is printed is left to `rows`, its path to `show_text`, scores and answers to `show_eval`;
what is known of the path to `dataset.tracing`, of the rest to `report.row_facts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import APP, Session, command
from swe_scaffold.cli.help import did_you_mean
from swe_scaffold.cli.inspecting import MaxLength, MinPromptTokens
from swe_scaffold.cli.options import TrustTemplate, require_page
from swe_scaffold.cli.show_text import FIELD_WIDTH, alone_text, no_manifest, traces_text
from swe_scaffold.errors import DataError, IntegrityError, UsageError
from swe_scaffold.files import write_text
from swe_scaffold.terminal import show as visible

if TYPE_CHECKING:
    from swe_scaffold.cli.rows import View
    from swe_scaffold.dataset.tracing import Trace, Traces
    from swe_scaffold.report.row_facts import RowFacts
    from swe_scaffold.report.row_scores import Evaluations
    from swe_scaffold.types import Example

MAX_LENGTH = 4096


@command(
    APP,
    "show",
    examples=(
        "swe-scaffold show rows.jsonl django__django-11099",
        "swe-scaffold show rows.jsonl --limit 1 --model Qwen/Qwen2.5-3B-Instruct",
        "swe-scaffold show rows.test.jsonl django__django-11099 --eval RUN/evaluation/HASH "
        "--html row.html",
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
    eval_: Annotated[
        list[Path] | None,
        typer.Option(
            "--eval",
            metavar="FOLDER",
            help="With ID: an evaluation that scored the row, NLL token by token; two for before "
            "and after.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With ID: predictions (JSONL), shown against the row."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With ID: write it all as a page, too.")
    ] = None,
    max_length: MaxLength = MAX_LENGTH,
    min_prompt_tokens: MinPromptTokens = 128,
    trust_template: TrustTemplate = False,
) -> int:
    """Print rows, with --model as training sees them; with ID, one row's whole path.

    The path: raw fields, response choice, each verdict, split, tokens. The row is made again from
    its source; where that differs from what the build recorded, the exit code is 5. Trained tokens
    are coloured on a terminal and stand between «« and »» elsewhere. Control and other invisible
    characters of the rows are spelt out. With --eval follows what models make of the row: the base
    before and the adapter after where the evaluation has both.
    """
    from swe_scaffold.cli.rows import chosen_rows, row_text, row_value
    from swe_scaffold.dataset.tracing import manifest_of

    asked = _Asked(eval_ or [], predictions, html)
    evaluations = asked.read(file, instance_id, max_length)
    view = None
    if model is not None or evaluations is not None:
        view = _view(session, evaluations, model, max_length, min_prompt_tokens, trust_template)
    if instance_id is None:
        rows = chosen_rows(file, None, limit)
        values = [row_value(row, view) for row in rows] if session.json else None
        text = "" if session.json else "\n\n".join(row_text(row, view) for row in rows)
        session.result(values, text)
        return 0
    manifest = manifest_of(file)
    traces = None if manifest is None else _traces(manifest, instance_id)
    rows = [] if traces else chosen_rows(file, instance_id, limit)
    found = [one.example for one in traces.traces if one.example] if traces else rows
    known = _known(found, evaluations, view, predictions, min_prompt_tokens) if asked else []
    if html is not None:
        _write_page(session, html, known, traces)
    if session.json:
        value = traces_value(traces, view, full=full) if traces else _alone_value(file, rows, view)
        session.result(value | {"evaluated": [one.to_dict() for one in known]}, "")
    else:
        session.result(None, _text(file, traces, rows, known, view, full=full))
    return 0 if traces is None or traces.agrees else IntegrityError.exit_code


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of a row besides its path."""

    places: list[Path]
    predictions: Path | None
    html: Path | None

    def __bool__(self) -> bool:
        return bool(self.places or self.predictions or self.html)

    def read(self, file: Path, instance_id: str | None, max_length: int) -> Evaluations | None:
        """Check what is asked, and read the evaluations.

        Raises:
            UsageError: No row is named, or the page would replace an input.
            IntegrityError: The evaluation was made with another length.
        """
        if not self:
            return None
        if instance_id is None:
            raise UsageError("goes with the ID of a row", where="--eval, --predictions and --html")
        if self.html is not None:
            inputs = [file, *self.places, *([self.predictions] if self.predictions else [])]
            require_page(self.html, inputs)
        if not self.places:
            return None
        from swe_scaffold.report.row_scores import Evaluations

        found = Evaluations.read(self.places)
        if max_length not in (MAX_LENGTH, found.max_length):
            raise IntegrityError(
                f"the evaluation was made with --max-length {found.max_length}, not {max_length}",
                where=visible(self.places[-1]),
                hint="leave --max-length out: the evaluation's own is used",
            )
        return found


def _view(
    session: Session,
    evaluations: Evaluations | None,
    model: str | None,
    max_length: int,
    min_prompt_tokens: int,
    trust_template: bool,
) -> View:
    from swe_scaffold.cli.rows import View
    from swe_scaffold.rendering import Renderer

    if evaluations is None:
        assert model is not None
        renderer = Renderer.load(model, offline=session.offline, trust_template=trust_template)
        return View(renderer, max_length, min_prompt_tokens)
    renderer = evaluations.renderer(model, offline=session.offline, trust_template=trust_template)
    return View(renderer, evaluations.max_length, evaluations.min_prompt_tokens(min_prompt_tokens))


def _known(
    examples: list[Example],
    evaluations: Evaluations | None,
    view: View | None,
    predictions: Path | None,
    min_prompt_tokens: int,
) -> list[RowFacts]:
    from swe_scaffold.report.row_facts import gather_rows

    return gather_rows(
        examples,
        evaluations,
        view.renderer if view and evaluations else None,
        predictions=predictions,
        min_prompt_tokens=min_prompt_tokens,
    )


def _text(
    file: Path,
    traces: Traces | None,
    rows: list[Example],
    known: list[RowFacts],
    view: View | None,
    *,
    full: bool,
) -> str:
    if traces:
        parts = [traces_text(traces, view, full=full)]
    else:
        parts = [alone_text(file, row, view, full=full) for row in rows]
    if known:
        from swe_scaffold.cli.show_eval import facts_text

        parts += [facts_text(one, full=full) for one in known]
    return "\n\n".join(parts)


def _write_page(session: Session, path: Path, known: list[RowFacts], traces: Traces | None) -> None:
    """Write the page of the one row that is meant.

    Raises:
        UsageError: Several rows are meant, or none that is whole.
    """
    from swe_scaffold.report.row_page import row_page

    if len(known) != 1:
        raise UsageError(
            f"a page shows one row, {len(known)} are meant",
            where="--html",
            hint="several rows have this id: build keeps one of them" if known else "",
        )
    found = traces.traces if traces else ()
    trace = next((one for one in found if one.example is known[0].example), None)
    write_text(path, row_page(known[0], trace))
    session.reporter.say(f"wrote {path}")


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


def _alone_value(file: Path, rows: list[Example], view: View | None) -> dict[str, Any]:
    from swe_scaffold.cli.rows import row_value

    places = [{"row": row_value(row, view)} for row in rows]
    return {"manifest": None, "note": no_manifest(file), "places": places}


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
