"""A walkthrough for people, in Markdown: task, verdict, files, calls, and the report as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_scaffold.terminal import show, show_block
from swe_scaffold.walkthrough.seen import Inspected, inspected, steps_of


def summary(trajectory: Mapping[str, Any]) -> str:
    """Return the page `walkthrough.md` of a trajectory of ours.

    What the repository and the model wrote stands in code, so that it can make neither links nor
    images nor headings of the page: a picture's address can carry away what a model has read.
    """
    info = trajectory["info"]
    repository, steps = info["repository"], steps_of(trajectory)
    config = info["config"]
    lines = [f"# Walkthrough of {_code(config['environment']['repo'])}", ""]
    lines += [
        f"- Task: {_code(info['task'])}",
        f"- Model: {_code(config['model']['model_name'])}",
        f"- Ended: {_code(info['exit_status'] or 'without a report')}, {len(steps)} calls in "
        f"{info['seconds']:.1f} s",
        f"- Sandbox: {info['sandbox']['backend']}, no network",
        f"- Repository: {_code(verdict(repository))} ({repository['files']:,} files, SHA-256 "
        f"`{repository['sha256_before'][:16]}`)",
        "",
        "## Files inspected",
        "",
    ]
    lines += [f"- {_code(file.path)}: {_ranges(file)}" for file in inspected(trajectory)] or [
        "None."
    ]
    lines += ["", "## Calls", ""]
    for step in steps:
        seconds = "" if step.seconds is None else f" ({step.seconds:.2f} s)"
        failed = "" if step.returncode in (0, None) else f", ended with {step.returncode}"
        lines.append(f"{step.number}. {_code(step.command)}{seconds}{failed}")
    report = str(info.get("submission") or "")
    lines += ["", "## Report", ""]
    lines += [_block(report)] if report else ["There is none."]
    return "\n".join(lines).rstrip("\n") + "\n"


def verdict(repository: Mapping[str, Any]) -> str:
    """Say whether the tree is what it was."""
    if repository["unchanged"] is None:
        return "not looked at in the end"
    if repository["unchanged"]:
        return "unchanged"
    names = ", ".join(show(name, width=60) for name in repository.get("changed", [])[:5])
    return f"CHANGED: {names}"


def _ranges(file: Inspected) -> str:
    parts = [f"{first}-{last}" if last > first else str(first) for first, last in file.ranges]
    return f"lines {', '.join(parts)}"


def _block(text: str) -> str:
    """Return foreign text as a block of code, whatever backticks it has."""
    shown = show_block(text)
    fence = "`" * max(3, _longest_run(shown) + 1)
    return f"{fence}markdown\n{shown}\n{fence}"


def _longest_run(text: str) -> int:
    """Return the length of the longest run of backticks."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest


def _code(text: object) -> str:
    """Return foreign text as inline code on one line, whatever backticks it has."""
    shown = show(" ".join(str(text).split()), width=300)
    fence = "`" * (_longest_run(shown) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"
