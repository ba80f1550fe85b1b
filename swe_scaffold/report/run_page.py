"""The page of a run: what came out, how it went, where every row went, how to do it again.

It is made of files and dictionaries alone, so that a page can be made again long after the run,
without its model. Times are left out: the same run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swe_scaffold.numbers import counted, pick, texts, whole, wording
from swe_scaffold.report.accounts import commands, configuration, labels, ledger, lengths
from swe_scaffold.report.html import NOTHING, Html, element, join_lines, page, paragraph
from swe_scaffold.report.material import Material, gather
from swe_scaffold.report.progress import training
from swe_scaffold.report.result import groups, result, token_classes
from swe_scaffold.report.slices import run_health, run_slices


def run_page(
    folder: Path,
    evaluation: Mapping[str, Any] | None = None,
    *,
    title: str = "",
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Return one self-contained HTML page about a run folder; what is missing is left out.

    Args:
        folder: Run folder; metrics.jsonl, manifest.json and evaluation/*/ as far as they are there.
        evaluation: A report of `evaluate`; None takes the newest below the folder, if any.
        title: Heading of the page; the folder's name where empty.
        facts: What the caller knows besides, all optional: `lengths` {prompt, response: tokens of
            each row}, `ledger` (the counts of a build: read, dev, test, beyond_limit,
            skipped_by_reason), `commands` and `notes` (lists of text); any other key is listed
            with the configuration.

    Raises:
        UsageError: There is no such folder.
        EnvironmentFailure: A file that is there cannot be read.
    """
    material = gather(folder, evaluation, facts)
    heading = title or material.name
    sections = (
        result(material),
        training(material),
        token_classes(material),
        groups(material),
        run_slices(material),
        run_health(material),
        lengths(material),
        ledger(material),
        labels(material),
        commands(material),
        configuration(material),
    )
    body = element("main", _header(material, heading), join_lines(sections), _notes(material))
    return page(heading, body)


def _header(material: Material, heading: str) -> Html:
    manifest, report = material.manifest, material.evaluation
    base = wording(manifest, "base", "name") or wording(report, "model", "base")
    about = [
        f"base {base}" if base else "",
        _counted(pick(manifest, "result", "steps"), "optimizer step"),
        _counted(pick(manifest, "counts", "trained"), "row", " trained"),
        _counted(pick(manifest, "counts", "held_out"), "row", " held out"),
    ]
    return element(
        "header",
        element("p", "SWE Speedrun Scaffold · run report", class_="kind"),
        element("h1", heading),
        paragraph(" · ".join(filter(None, about)), kind="about"),
    )


def _counted(value: object, noun: str, rest: str = "") -> str:
    number = whole(value)
    return "" if number is None else counted(number, noun) + rest


def _notes(material: Material) -> Html:
    given = material.facts.get("notes")
    told = material.manifest.get("notes")
    notes = [*material.notes, *texts(told), *texts(given)]
    if not notes:
        return NOTHING
    return element("footer", *(paragraph(note, kind="foot") for note in notes))
