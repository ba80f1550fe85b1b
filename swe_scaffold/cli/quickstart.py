"""quickstart."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swe_scaffold.cli.app import APP, Session, command
from swe_scaffold.cli.data import label_counts
from swe_scaffold.cli.evaluation_text import comparison_lines
from swe_scaffold.cli.tables import level, number, place, table
from swe_scaffold.files import write_text

if TYPE_CHECKING:
    from swe_scaffold.quickstart import QuickstartResult


@command(APP, "quickstart", examples=("swe-scaffold quickstart",))
def quickstart(
    session: Session,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for everything it makes.")
    ] = Path("artifacts/quickstart"),
) -> None:
    """Run the whole pipeline on the embedded default.

    Tasks are made from Python's own library, a tiny model on the spot: no account, no GPU and no
    network, and a few minutes on two cores.
    """
    from swe_scaffold.quickstart import quickstart as run
    from swe_scaffold.quickstart import result_value
    from swe_scaffold.report import run_page

    result = run(output, reporter=session.reporter)
    page = output / "report.html"
    facts = {"ledger": result.build.counts}
    html = run_page(
        result.training.folder, result.evaluation.report, title="Quickstart", facts=facts
    )
    write_text(page, html)
    value = {**result_value(result), "report": str(page)}
    session.result(value, _text(result, page))


def _text(result: QuickstartResult, page: Path) -> str:
    report = result.evaluation.report
    base, tuned, ledger = report["base"], report["unseen"], result.build.counts
    program = _program()
    rows = [
        [title, number(base[key]), number(tuned[key])]
        for key, title in (
            ("nll", "NLL, nats per response token"),
            ("perplexity", "perplexity"),
            ("bits_per_byte", "bits per byte"),
        )
    ]
    classes = [
        [name, number(base["by_class"][name]), number(metric)]
        for name, metric in tuned["by_class"].items()
    ]
    count = tuned["nll"]
    lines = [
        f"{count['n']} unseen rows of {count['clusters']} held-out packages, "
        f"{level(count)} intervals ({count['ci_method']}):",
        table(["", "base", "tuned"], rows),
        "",
        "NLL by token class:",
        table(["", "base", "tuned"], classes),
        "",
        *comparison_lines("tuned - base", report["comparison"]),
    ]
    control = report["shuffled_prompts"]["comparison"]
    if control:
        lines += comparison_lines("control: own prompt - another prompt of the package", control)
    lines += [
        "",
        f"rows: read {ledger['read']} = dev {ledger['dev']} + test {ledger['test']} + skipped "
        f"{ledger['skipped']}; labels: {label_counts(ledger)}; audit: {result.audit.verdict}",
        "time: " + ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items()),
        "",
        "next:",
        f"  {program} show {place(result.build.output)} --model {place(result.model)}",
        f"  {program} audit {place(result.build.output)} --model {place(result.model)}",
        f"  {program} build --dataset YOUR_TASKS.jsonl --emit-test",
        "",
        f"report:  {place(page)}",
        f"adapter: {place(result.training.folder)}",
        f"data:    {place(result.build.output)}",
        f"tasks:   {place(result.tasks)}",
        f"model:   {place(result.model)}",
        f"config:  {place(result.config)}",
    ]
    return "\n".join(lines)


def _program() -> str:
    """Return how this program is called here; `make` does not put it on the path."""
    if shutil.which("swe-scaffold"):
        return "swe-scaffold"
    return os.path.relpath(Path(sys.executable).with_name("swe-scaffold"))
