"""quickstart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swe_scaffold.cli.app import APP, Session, command
from swe_scaffold.cli.data import label_counts
from swe_scaffold.cli.model import comparison_lines
from swe_scaffold.cli.tables import number, table
from swe_scaffold.files import write_text
from swe_scaffold.terminal import show

if TYPE_CHECKING:
    from swe_scaffold.quickstart import QuickstartResult


@command(APP, "quickstart")
def quickstart(
    session: Session,
    output: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path(
        "artifacts/quickstart"
    ),
) -> None:
    """Run the whole pipeline on the embedded default: about three minutes, no GPU, no network."""
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
        f"{count['n']} unseen rows of {count['clusters']} held-out packages, 95 % intervals "
        f"({count['ci_method']}):",
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
        f"  swe-scaffold show {show(result.build.output)} --model {show(result.model)}",
        f"  swe-scaffold audit {show(result.build.output)} --model {show(result.model)}",
        "  swe-scaffold build --dataset YOUR_TASKS.jsonl --emit-test   (your own data)",
        "",
        f"report:  {show(page)}",
        f"adapter: {show(result.training.folder)}",
        f"data:    {show(result.build.output)}",
        f"tasks:   {show(result.tasks)}",
        f"model:   {show(result.model)}",
        f"config:  {show(result.config)}",
    ]
    return "\n".join(lines)
