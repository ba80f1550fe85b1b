"""The page of a walkthrough: verdict, report, files, and every step to unfold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swe_scaffold.report.html import (
    NOTHING,
    Html,
    block,
    code,
    details,
    element,
    join_lines,
    page,
    paragraph,
    section,
    table,
)
from swe_scaffold.terminal import show

_MOST_OUTPUT, _WIDE = 20_000, 120


def walk_page(
    info: Mapping[str, Any],
    verdict: str,
    steps: Sequence[Mapping[str, Any]],
    files: Sequence[Mapping[str, Any]],
) -> str:
    """Return one self-contained HTML page about a walkthrough.

    Args:
        info: `info` of its trajectory.
        verdict: Whether the repository is what it was, in words.
        steps: `number`, `thought`, `command`, `output`, `returncode`, `seconds` of each call.
        files: `path` and `ranges` of each file of which lines were shown.
    """
    name = str(info["config"]["environment"]["repo"])
    sections = (_about(info, verdict, steps), _report(info), _files(files), _steps(steps))
    body = element("main", _header(info, name), join_lines(sections))
    return page(f"Walkthrough of {name}", body)


def _header(info: Mapping[str, Any], name: str) -> Html:
    ended = info["exit_status"] or "without a report"
    return element(
        "header",
        element("p", "SWE Speedrun Scaffold · walkthrough", class_="kind"),
        element("h1", name),
        paragraph(f"{ended} · {info['seconds']:.1f} s", kind="about"),
    )


def _about(info: Mapping[str, Any], verdict: str, steps: Sequence[Mapping[str, Any]]) -> Html:
    repository, sandbox = info["repository"], info["sandbox"]
    limits = sandbox["limits"]
    rows: list[tuple[str, object]] = [
        ("repository", f"{verdict}; {repository['files']:,} files, {repository['bytes']:,} bytes"),
        ("SHA-256 before", code(repository["sha256_before"])),
        ("model", code(info["config"]["model"]["model_name"])),
        ("calls", f"{len(steps):,}"),
        (
            "sandbox",
            f"{sandbox['backend']}, no network, {limits['seconds']:g} s and "
            f"{limits['memory_bytes'] >> 20:,} MiB for each call",
        ),
    ]
    about = table(["what", "value"], rows, caption="The session", text_columns=2)
    return section("about", "Walkthrough", block(str(info["task"])), about)


def _report(info: Mapping[str, Any]) -> Html:
    report = str(info.get("submission") or "")
    text = block(report) if report else paragraph("There is none: it ended without one.")
    return section("report", "Report", text)


def _files(files: Sequence[Mapping[str, Any]]) -> Html:
    if not files:
        return NOTHING
    rows = [
        (code(file["path"]), ", ".join(f"{first}-{last}" for first, last in file["ranges"]))
        for file in files
    ]
    shown = table(["file", "lines shown"], rows, caption="In the order of reading", text_columns=2)
    return section("files", "Files inspected", shown)


def _steps(steps: Sequence[Mapping[str, Any]]) -> Html:
    parts = []
    for step in steps:
        seconds = "" if step["seconds"] is None else f" · {step['seconds']:.2f} s"
        failed = "" if step["returncode"] in (0, None) else f" · ended with {step['returncode']}"
        parts.append(
            details(
                f"{step['number']}. {show(step['command'], width=_WIDE)}{seconds}{failed}",
                paragraph(step["thought"]),
                block(str(step["output"]), most=_MOST_OUTPUT),
            )
        )
    return section("steps", "Steps", *parts)
