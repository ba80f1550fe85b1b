"""The dated page of a comparison: JSON with every run, and a page for people made from it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring import LEAST_RUNS, doubt

MB = 1e6


def machine(pythons: Mapping[str, Path]) -> dict[str, Any]:
    """Return what decides speed here: processor, memory, versions of every package."""
    cpu = _field("/proc/cpuinfo", "model name")
    return {
        "processor": cpu or platform.machine(),
        "cores": os.cpu_count(),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "packages": {name: _versions(path) for name, path in pythons.items() if path.exists()},
    }


def device(python: Path) -> list[str]:
    """Return name and driver of each GPU, and the CUDA that a Python's torch was built for."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    code = "import torch; print('CUDA', torch.version.cuda)"
    found: list[str] = []
    for command in (query, [str(python), "-c", code]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            found.append(f"{command[0]} says nothing ({type(error).__name__})")
            continue
        found += [line.replace(", ", ", driver ") for line in done.stdout.strip().split("\n")]
    return found


def commit(root: Path) -> str:
    """Return what git calls the state of a checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def load_average() -> list[float]:
    """Return the load of the last one, five and fifteen minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write the page and, beside it, the numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(
        json.dumps(result, indent=1, allow_nan=False) + "\n", "utf-8"
    )
    path.write_text(page(result), "utf-8")


def page(result: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    here = result["machine"]
    lines = [
        f"# {result['title']}",
        "",
        f"{result['date']}, commit {result['commit']}, {here['processor']}, cores "
        f"{result['cores']} of {here['cores']}, {here['memory']}, {here['system']}"
        f"{''.join(f', {part}' for part in here.get('device', ()))}. Load "
        f"average before {result['load_before']}, after {result['load_after']}.",
        "",
        f"Again: `{result['command']}`",
        "",
        f"Data: {_data(result['data'])}.",
        "",
        *(_timings(result) if result.get("timed", True) else ()),
        *(line for name, text in result["notes"].items() for line in (f"**{name}.** {text}", "")),
        *(line for item in result.get("tables", {}).items() for line in _section(*item)),
        "## Verdict",
        "",
        *(f"- {verdict(found)}" for found in result["verdicts"]),
        "",
        "## Packages",
        "",
        *(f"- {name}: {', '.join(found)}" for name, found in here["packages"].items()),
        "",
    ]
    return "\n".join(lines)


def _timings(result: Mapping[str, Any]) -> list[str]:
    return [
        *_table(result),
        "",
        "Median (least to most) of the runs, interleaved, each a fresh process in a folder of its "
        "own. Memory is the largest sum of the processes' proportional set sizes, in brackets the "
        "part that no file backs. Where runs spread by more than 5 %, or are fewer than five, the "
        "figure is not measured.",
        "",
    ]


def _section(title: str, rows: Sequence[Sequence[str]]) -> list[str]:
    heading, *body = (f"| {' | '.join(row)} |" for row in rows)
    return [f"## {title}", "", heading, "|---" * len(rows[0]) + "|", *body, ""]


def ratio(
    goal: str,
    *,
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    least: float,
    names: tuple[str, str] = ("ours", "theirs"),
) -> dict[str, Any]:
    """Judge that their figure is at least so many times ours; it needs both to be measured."""
    pairs = zip(names, (ours, theirs), strict=True)
    doubts = [f"{name}: {doubt(figure)}" for name, figure in pairs if doubt(figure)]
    value = theirs["median"] / ours["median"]
    return {
        "goal": goal,
        "value": value,
        # Neighbours on a shared machine slow things down and never speed them up.
        "fastest": theirs["min"] / ours["min"],
        "least": least,
        "doubt": "; ".join(doubts),
        "met": not doubts and value >= least,
    }


def holds(goal: str, met: bool, detail: str = "") -> dict[str, Any]:
    """Judge something that is no ratio."""
    return {"goal": goal, "met": met, "detail": detail}


def level(
    goal: str, figure: Mapping[str, Any], value: float, asked: float, *, most: bool
) -> dict[str, Any]:
    """Judge a value that follows from a figure; it needs the figure to be measured."""
    word = "at most" if most else "at least"
    detail = f"({value:.3g}, asked {word} {asked:g})"
    if doubt(figure):
        return {**holds(goal, False, detail), "doubt": doubt(figure)}
    return holds(goal, value <= asked if most else value >= asked, detail)


def verdict(found: Mapping[str, Any]) -> str:
    """Return a verdict as a line of a page."""
    goal, word = found["goal"], "met" if found["met"] else "missed"
    if "value" not in found:
        if doubtful := found.get("doubt"):
            return f"{goal}: **not measured** ({doubtful}) {found['detail']}"
        return f"{goal}: **{word}** {found['detail']}".rstrip()
    figure = f"{found['value']:.2f} times, asked {found['least']:g}; "
    figure += f"of the least of each, {found['fastest']:.2f}"
    if found["doubt"]:
        return f"{goal}: **not measured** ({found['doubt']}; {figure})"
    return f"{goal}: **{word}** ({figure})"


def _table(result: Mapping[str, Any]) -> list[str]:
    rows = result["rows"]
    if any("scoring_seconds" in figures for figures in result["contenders"].values()):
        return _scoring_table(result)
    lines = [
        "| | rows/s | wall s | CPU s | peak MB | spread of wall |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in result["contenders"].items():
        wall, cpu = figures["wall_seconds"], figures["cpu_seconds"]
        pss, anonymous = figures["peak_pss"], figures["peak_anonymous"]
        spread = told_spread(wall)
        lines.append(
            f"| {name} | {rows / wall['median']:,.0f} | {span(wall)} | {span(cpu)} | "
            f"{pss['median'] / MB:,.0f} ({anonymous['median'] / MB:,.0f}) | {spread} |"
        )
    return lines


def _scoring_table(result: Mapping[str, Any]) -> list[str]:
    """Rows a second between a loaded model and its numbers, and the whole process beside it."""
    lines = [
        "| | rows/s | scoring s | its CPU s | process s | peak MB | spread of scoring |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in result["contenders"].items():
        wall, cpu = figures["scoring_seconds"], figures["scoring_cpu_seconds"]
        pss, anonymous = figures["peak_pss"], figures["peak_anonymous"]
        spread = told_spread(wall)
        lines.append(
            f"| {name} | {result['rows'] / wall['median']:,.2f} | {span(wall)} | {span(cpu)} | "
            f"{span(figures['wall_seconds'])} | "
            f"{pss['median'] / MB:,.0f} ({anonymous['median'] / MB:,.0f}) | {spread} |"
        )
    return lines


def span(figure: Mapping[str, Any]) -> str:
    """Return a figure as its median and range."""
    return f"{figure['median']:.2f} ({figure['min']:.2f} to {figure['max']:.2f})"


def told_spread(figure: Mapping[str, Any]) -> str:
    """Return the spread of a figure, and why it does not count where it does not."""
    if figure["runs"] == 1:
        return "one run: **not measured**"
    few = f", {figure['runs']} runs" if figure["runs"] < LEAST_RUNS else ""
    missing = ": **not measured**" if doubt(figure) else ""
    return f"{figure['spread']:.1%}{few}{missing}"


def _data(data: Mapping[str, Any] | str) -> str:
    if isinstance(data, str):
        return data
    quantiles = ", ".join(f"{k} {v:,}" for k, v in data["quantiles_bytes"].items())
    return (
        f"{data['rows']:,} rows, {data['bytes'] / MB:,.0f} MB, SHA-256 `{data['sha256']}`, "
        f"made from {data['base']} (seed {data['seed']}); bytes of a row: {quantiles}"
    )


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text("utf-8", "replace").split("\n")
    except OSError:
        return ""
    found: Sequence[str] = [
        line.partition(":")[2].strip() for line in lines if line[: len(name)] == name
    ]
    return found[0] if found else ""


def _versions(python: Path) -> list[str]:
    code = (
        "import sys, importlib.metadata as m\n"
        "print('python', sys.version.split()[0])\n"
        "print('\\n'.join(sorted({f'{d.name}=={d.version}' for d in m.distributions()})))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip().split("\n")
