"""What a read-only walkthrough costs: each command, and whole sessions, against mini-swe-agent.

    python benchmarks/bench_walkthrough.py commands [--repo FOLDER] [--pattern TEXT]
    python benchmarks/bench_walkthrough.py sessions [--repo FOLDER] [--task TEXT]

Without a command it says this. Stock mini-swe-agent runs without a sandbox (`local`) and in its own
(`bubblewrap`), ours in bubblewrap and in Landlock, all with the same script; typed tools and the
scripted guide come beside. Each writes a dated page to benchmarks/results/, with ratios, after
seeing to it that everyone is shown the same. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import pages  # noqa: E402
from measuring import Contender, Run, doubt, interleave, measure, summarize  # noqa: E402
from walkthrough_arms import ARMS  # noqa: E402

TITLES = {
    "commands": "What a sandbox costs a command",
    "sessions": "What a read-only session costs",
}
STOCK = ("mini, local", "mini, bubblewrap")
TIMES = {"nothing": 100, "read": 60, "search": 10}
WARM = 5
FRESH = ("wall_seconds", "cpu_seconds", "peak_pss")
TASK = "Where does `open_sandbox` choose a sandbox, and what happens if none works?"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 9 where somebody was shown something else."""
    arguments = _parser().parse_args(argv)
    if arguments.command is None:
        print(__doc__)
        return 0
    return Comparison(arguments).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command")
    for name in TITLES:
        command = commands.add_parser(name)
        command.add_argument("--repo", type=Path, default=ROOT, help="whose files are walked")
        command.add_argument("--pattern", default="open_sandbox", help="what is searched for")
        command.add_argument("--task", default=TASK, help="the guide's")
        command.add_argument("--repeats", type=int, default=5)
        command.add_argument("--cores", default="0,1")
        command.add_argument("--work", type=Path, default=Path("bench-work"))
        command.add_argument("--output", type=Path, help="page to write; numbers go beside it")
    return parser


class Comparison:
    """One comparison: its tree and script, its arms, its gate and its page."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.given = arguments
        self.what: str = arguments.command
        self.work: Path = arguments.work.resolve() / "walkthrough"
        self.cores = [int(core) for core in arguments.cores.split(",")]
        self.commit = pages.commit(ROOT)
        self.verdicts: list[dict[str, Any]] = []

    def run(self) -> int:
        """Copy the tree, check, measure, write."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        before = pages.load_average()
        self.tree = self.work / "tree"
        files = _copy(self.given.repo.resolve(), self.tree)
        self.file = _typical(self.tree, files)
        self.material = self.work / "material.json"
        self.material.write_text(json.dumps(self._material()), "utf-8")
        self._gate()
        runs = self._runs("commands" if self.what == "commands" else "warm")
        figures = {name: summarize(found) for name, found in runs.items()}
        if self.what == "sessions":
            for name, found in self._runs("once").items():
                runs[f"{name}, fresh"] = found
                summed = summarize(found)
                figures[name] |= {f"fresh_{key}": summed[key] for key in FRESH}
        self._write(files, figures, runs, before)
        return 0 if all(found["met"] for found in self.verdicts) else 9

    def _runs(self, what: str) -> dict[str, list[Run]]:
        return interleave(
            [self._contender(what, arm) for arm in ARMS],
            repeats=self.given.repeats,
            work=self.work,
            cores=self.cores,
        )

    def _material(self) -> dict[str, Any]:
        pattern, file = self.given.pattern, self.file
        wanted, place = shlex.quote(pattern), shlex.quote(file)
        search = f"grep -rnIF -- {wanted} . | LC_ALL=C sort | head -n 80"
        return {
            "commands": {"nothing": "true", "read": f"head -n 200 {place}", "search": search},
            "calls": {
                "read": {"tool": "read_file", "arguments": {"path": file, "lines": 200}},
                "search": {"tool": "grep_search", "arguments": {"pattern": pattern}},
            },
            "times": TIMES,
            "warm": WARM,
            "task": self.given.task,
            "script": [
                "ls",
                "find . -type f | wc -l",
                f"head -n 60 {place}",
                search,
                f"grep -rlIF -- {wanted} . | LC_ALL=C sort | head -n 20",
                *(f"sed -n '{first},{first + 39}p' {place}" for first in (1, 41, 81, 121)),
                f"grep -n 'def ' {place}",
                f"wc -l {place}",
                "find . -name '*.py' | LC_ALL=C sort | tail -n 20",
            ],
        }

    def _contender(self, what: str, arm: str) -> Contender:
        script = str(HERE / "walkthrough_arms.py")
        command = [sys.executable, script, what, arm, str(self.tree), str(self.material)]
        kind, backend = ARMS[arm]
        if (kind, what) == ("typed", "once"):
            command = [
                sys.executable,
                "-m",
                "swe_scaffold",
                "walkthrough",
                str(self.tree),
                "--quiet",
            ]
            command += ["--task", self.given.task, "--sandbox", backend, "--output"]
        settings = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
            "MSWEA_SILENT_STARTUP": "1",
            "MSWEA_GLOBAL_CONFIG_DIR": str(self.work / "mini"),
        }
        return Contender(arm, command, settings)

    def _gate(self) -> None:
        """See to it that all arms are shown the same, the tools' way of numbering lines aside."""
        shown: dict[str, dict[str, str]] = {}
        for arm in ARMS:
            folder = self.work / "observed" / arm
            measure(self._contender("observe", arm), folder, self.cores)
            shown[arm] = json.loads((folder / "found.json").read_bytes())
        right = shown[STOCK[0]]
        for arm, found in shown.items():
            if arm.startswith("typed"):
                met = _bare_lines(found["read"]) == right["read"].rstrip("\n").split("\n")
                met &= _bare_hits(found["search"]) == _hits(right["search"])
            else:
                met = found == right
            detail = f"({len(found)} commands, {sum(map(len, found.values())):,} characters)"
            self.verdicts.append(pages.holds(f"{arm} is shown what mini, local is", met, detail))

    def _write(
        self,
        files: Sequence[str],
        figures: Mapping[str, Any],
        runs: Mapping[str, Sequence[Run]],
        before: list[float],
    ) -> None:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        names = ("nothing", "read", "search")
        columns = (
            {f"{name}_ms": f"`{name}`, ms" for name in names}
            | {f"{name}_cpu_ms": f"`{name}`, CPU ms" for name in names}
            | {"open_ms": "to open (imports too), ms"}
            if self.what == "commands"
            else {
                "fresh_wall_seconds": "fresh process, s",
                "fresh_cpu_seconds": "fresh process, CPU s",
                "warm_s": "once warm, s",
                "warm_cpu_s": "once warm, CPU s",
                "checks_s": "of it self-test and digests, s",
            }
        )
        tables = {"Medians, and how far runs spread": _table(figures, columns)}
        for stock in STOCK:
            title = f"Times as long as {stock}"
            tables[title] = _ratios(figures, columns, stock)
        result = {
            "title": TITLES[self.what],
            "date": today,
            "command": shlex.join(["python", "benchmarks/bench_walkthrough.py", *sys.argv[1:]]),
            "commit": self.commit,
            "cores": self.given.cores,
            "load_before": before,
            "load_after": pages.load_average(),
            "machine": pages.machine({"ours": Path(sys.executable)}),
            "data": _describe(self.tree, files, self.given.repo.resolve().name),
            "contenders": figures,
            "timed": False,
            "runs": {name: [vars(run) for run in found] for name, found in runs.items()},
            "notes": self._notes(),
            "tables": tables,
            "verdicts": self.verdicts,
        }
        name = f"{today}-walkthrough-{self.what}.md"
        pages.write(self.given.output or HERE / "results" / name, result)
        print(pages.page(result))

    def _notes(self) -> dict[str, str]:
        material = self._material()
        notes = {
            "Runs": f"{self.given.repeats} of each arm, interleaved, each a fresh process. Where "
            "they spread by more than 5 %, or are fewer than five, a figure, and every ratio with "
            "it, is not measured (in brackets: the spread)."
        }
        bubblewrap = subprocess.run(
            ["bwrap", "--version"], capture_output=True, text=True, check=False
        ).stdout.strip()
        if self.what == "commands":
            told = "; ".join(f"`{name}`: `{line}`" for name, line in material["commands"].items())
            times = ", ".join(f"{name} {count}" for name, count in TIMES.items())
            notes["Commands"] = f"{told}; a run's figure is the median of so many: {times}."
            notes["Typed"] = (
                "`read_file` and `grep_search`, in a dialogue that is open; the same lines."
            )
        else:
            notes["Script"] = (
                f"{len(material['script'])} commands, by mini's `DefaultAgent` and "
                "`DeterministicModel`, a trajectory written after each."
            )
            notes["Once warm"] = f"Of {WARM} sessions after a first in one process, the median."
            notes["Typed"] = (
                "`swe-scaffold walkthrough` by the scripted guide, from command line to page: "
                f"{self._steps()} steps. Another session: ratios say how long one waits."
            )
        notes["Besides"] = (
            "ours tries to write before the first step, and hashes the tree before and after; to "
            "open it is that test and one hash. mini's bubblewrap lets the tree be written and "
            f"shares network and processes; neither of mini's hashes anything. {bubblewrap}."
        )
        return notes

    def _steps(self) -> str:
        folder = self.work / "counted"
        measure(self._contender("warm", "typed, bwrap"), folder, self.cores)
        return (folder / "steps").read_text("ascii")


def _copy(repo: Path, tree: Path) -> list[str]:
    """Copy the files that git knows, or all where there is no git; return their names."""
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(line, cwd=repo, capture_output=True, check=False)
    if done.returncode == 0 and (repo / ".git").exists():
        names = sorted(set(os.fsdecode(done.stdout).split("\0")) - {""})
    else:
        names = sorted(
            os.path.relpath(Path(folder, name), repo)
            for folder, _, found in os.walk(repo)
            for name in found
        )
    names = [name for name in names if (repo / name).is_file() and not (repo / name).is_symlink()]
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repo / name, tree / name)
    return names


def _typical(tree: Path, names: Sequence[str]) -> str:
    """Return the first file of Python of 200 lines or more, none of them cut by `read_file`."""
    for name in names:
        if name.endswith(".py"):
            lines = (tree / name).read_bytes().split(b"\n")[:200]
            if len(lines) == 200 and len(b"".join(lines)) < 8_000 and max(map(len, lines)) < 400:
                return name
    raise SystemExit("there is no file of Python with 200 lines to read")


def _describe(tree: Path, names: Sequence[str], title: str) -> str:
    known, size = hashlib.sha256(), 0
    for name in names:
        content = (tree / name).read_bytes()
        size += len(content)
        known.update(os.fsencode(name) + b"\0" + hashlib.sha256(content).digest())
    return f"a copy of {title}: {len(names):,} files, {size:,} bytes, SHA-256 `{known.hexdigest()}`"


def _bare_lines(text: str) -> list[str]:
    """Return the lines that `read_file` shows, without head and numbers."""
    return [line.split("\t", 1)[1] for line in text.split("\n")[1:]]


def _bare_hits(text: str) -> set[tuple[str, str]]:
    return {tuple(line.split(":", 2)[:2]) for line in text.split("\n")[1:]}  # type: ignore[misc]


def _hits(text: str) -> set[tuple[str, str]]:
    lines = text.rstrip("\n").split("\n")
    return {tuple(line.removeprefix("./").split(":", 2)[:2]) for line in lines}  # type: ignore[misc]


def _table(figures: Mapping[str, Any], columns: Mapping[str, str]) -> list[list[str]]:
    rows = [["", *columns.values()]]
    for arm, found in figures.items():
        cells = [
            f"{found[key]['median']:.3g} ({found[key]['spread']:.1%})"
            if key in found and found[key]["median"]
            else ""
            for key in columns
        ]
        rows.append([arm, *cells])
    return rows


def _ratios(figures: Mapping[str, Any], columns: Mapping[str, str], stock: str) -> list[list[str]]:
    """Return how many times as long each arm takes; marked where a figure is not measured."""
    keys = [key for key in columns if figures[stock].get(key, {}).get("median")]
    rows = [["", *(columns[key].rsplit(",", 1)[0] + _kind(columns[key]) for key in keys)]]
    for arm, found in figures.items():
        if arm != stock:
            cells = []
            for key in keys:
                if key not in found:
                    cells.append("")
                    continue
                value = found[key]["median"] / figures[stock][key]["median"]
                doubtful = doubt(found[key]) or doubt(figures[stock][key])
                cells.append(f"{value:.2f}" + (" (not measured)" if doubtful else ""))
            rows.append([arm, *cells])
    return rows


def _kind(title: str) -> str:
    return ", CPU" if "CPU" in title else ""


if __name__ == "__main__":
    sys.exit(main())
