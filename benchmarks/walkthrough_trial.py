"""Does the scripted guide name the files that real fixes changed?

    python benchmarks/walkthrough_trial.py --trees TREES --tasks FILE [FILE ...] [--check N]

TREES holds unpacked releases as NAME-VERSION; tasks are rows with `repo`, `problem_statement` and
`patch`. Every task of a repository with a tree, of whose patch a file is in it, is given to
`swe_scaffold.walkthrough.guide`; hits are ranks of the first such file in the report. The calls run
in this process, with files kept in memory, so no time is claimed; `--check N` walks the first N
tasks of every tree in the sandbox too, where the report must be the same, else the exit code is 9.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import shlex
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import pages  # noqa: E402

from swe_scaffold.changed_paths import is_test  # noqa: E402
from swe_scaffold.diffs import DEV_NULL, parse_patch  # noqa: E402
from swe_scaffold.metrics.localisation import first_hit_rank  # noqa: E402
from swe_scaffold.walkthrough import Subject, explore, require_agent, toolbox  # noqa: E402
from swe_scaffold.walkthrough.guide import NAME, ScriptedGuide  # noqa: E402
from swe_scaffold.walkthrough.seen import reported_files  # noqa: E402
from swe_scaffold.walkthrough.tools import REPORT  # noqa: E402

DEPTH = 10
PUBLISHED = ("instance_id", "moved", "steps", "rank", "shown")


@dataclass(frozen=True)
class Found:
    """What came of one task: ranks count from 1, None is beyond the report's ten."""

    instance_id: str
    tree: str
    moved: bool
    steps: int
    rank: int | None
    shown: bool
    gold: list[str]
    ranked: list[str]
    checked: bool | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Walk, count, write; 9 where the sandbox gave another report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trees", type=Path, required=True, help="folder of NAME-VERSION")
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="Parquet of tasks")
    parser.add_argument("--check", type=int, default=0, help="tasks of each tree in the sandbox")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="names of trees, with commas")
    parser.add_argument("--output", type=Path, help="page to write; numbers go beside it")
    given = parser.parse_args(argv)
    tasks = _tasks(given.tasks)
    work, left_out = [], defaultdict(int)
    for tree, rows in _by_tree(given.trees.resolve(), tasks, left_out):
        if not given.only or tree.name.rpartition("-")[0] in given.only.split(","):
            # One process a tree keeps its files in memory once; a large one is divided.
            work += [(tree, rows[part :: given.jobs], given.check) for part in range(given.jobs)]
    found: list[Found] = []
    with ProcessPoolExecutor(given.jobs, max_tasks_per_child=1) as pool:
        for part in pool.map(_walk_tree, work):
            found += part
            print(f"{len(found)} walked", file=sys.stderr, flush=True)
    found.sort(key=lambda item: (item.tree, item.instance_id))
    result = _result(found, dict(left_out), len(tasks), given)
    text = _page(result)
    if given.output:
        given.output.write_text(text, "utf-8")
        given.output.with_suffix(".json").write_text(
            json.dumps(result, indent=0, allow_nan=False) + "\n", "utf-8"
        )
    print(text)
    return 9 if any(item.checked is False for item in found) else 0


def _tasks(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    import pyarrow.parquet

    columns = ["instance_id", "repo", "problem_statement", "patch"]
    rows = [
        row
        for path in files
        for row in pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    ]
    return {row["instance_id"]: row for row in sorted(rows, key=lambda row: row["instance_id"])}


def _by_tree(
    trees: Path, tasks: Mapping[str, dict[str, Any]], left_out: dict[str, int]
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Yield each tree with its tasks, the files of whose patches are looked up in it."""
    rows: dict[Path, list[dict[str, Any]]] = defaultdict(list)
    there = {
        path.name.rpartition("-")[0]: path for path in sorted(trees.iterdir()) if path.is_dir()
    }
    listed = {path: _listed(path) for path in there.values()}
    for row in tasks.values():
        name = row["repo"].split("/")[-1]
        tree = there.get(name) or there.get(name.removesuffix("-python"))
        if tree is None:
            left_out["no tree of the repository"] += 1
            continue
        wanted = [file.old_path for file in parse_patch(row["patch"]) if file.old_path != DEV_NULL]
        gold = {_place(path, listed[tree]) for path in wanted if not is_test(path)} - {""}
        if not gold:
            left_out["no file of the patch is in the tree"] += 1
            continue
        moved = not gold <= set(wanted)
        rows[tree].append({**row, "gold": sorted(gold), "moved": moved})
    yield from sorted(rows.items())


def _listed(tree: Path) -> frozenset[str]:
    return frozenset(
        os.path.relpath(Path(folder, name), tree)
        for folder, _, names in os.walk(tree)
        for name in names
    )


def _place(path: str, listed: frozenset[str]) -> str:
    """Return where a file of a patch is in a tree: there, or below `src/` now."""
    return next((place for place in (path, f"src/{path}") if place in listed), "")


def _walk_tree(job: tuple[Path, list[dict[str, Any]], int]) -> list[Found]:
    tree, rows, check = job
    require_agent()
    os.chdir(tree)
    files = functools.cache(lambda path: tuple(real_files(path)))
    real_files, toolbox._files = toolbox._files, files
    toolbox._bytes = functools.cache(toolbox._bytes)
    call = functools.cache(lambda name, arguments: toolbox.call(name, json.loads(arguments)))
    found = []
    for number, row in enumerate(rows):
        report, steps, shown = _walk(row["problem_statement"], call)
        ranked = reported_files(report)[:DEPTH]
        found.append(
            Found(
                instance_id=row["instance_id"],
                tree=tree.name,
                moved=row["moved"],
                steps=steps,
                rank=first_hit_rank(ranked, row["gold"]),
                shown=not shown.isdisjoint(row["gold"]),
                gold=row["gold"],
                ranked=ranked,
                checked=_in_sandbox(tree, row["problem_statement"]) == report
                if number < check
                else None,
            )
        )
    return found


def _walk(task: str, call: Any) -> tuple[str, int, set[str]]:
    """Return the guide's report, its steps, and the files that it was shown lines of."""
    guide = ScriptedGuide()
    messages: list[Any] = [{"role": "user", "content": f"<task>\n{task}\n</task>"}]
    shown: set[str] = set()
    for steps in range(1, 1000):
        message = guide.query(messages[-1:] if steps > 1 else messages)
        (action,) = message["extra"]["actions"]
        if action["tool"] == REPORT:
            return str(action["arguments"]["text"]), steps, shown
        reply = call(action["tool"], json.dumps(action["arguments"], allow_nan=False))
        if "first" in reply:
            shown.add(reply["path"])
        output = {
            "output": reply["text"],
            "returncode": 0 if reply["ok"] else 1,
            "exception_info": "",
            "extra": {key: reply[key] for key in ("path", "first", "last") if key in reply},
            "hits": reply.get("hits", []),
        }
        messages += guide.format_observation_messages(message, [output])
    raise AssertionError("the guide comes to no end")


def _in_sandbox(tree: Path, task: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return explore(
            Subject(tree, task), ScriptedGuide, Path(folder) / "out", seconds=60.0
        ).report


def _result(
    found: Sequence[Found], left_out: Mapping[str, int], tasks: int, given: argparse.Namespace
) -> dict[str, Any]:
    by_tree: dict[str, list[Found]] = defaultdict(list)
    for item in found:
        by_tree[item.tree].append(item)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": pages.commit(ROOT),
        "guide": NAME,
        "command": shlex.join(["python", "benchmarks/walkthrough_trial.py", *sys.argv[1:]]),
        "tasks": tasks,
        "left_out": left_out,
        "checked": sum(item.checked is not None for item in found),
        "differing": [item.instance_id for item in found if item.checked is False],
        "trees": {name: _figures(items) for name, items in by_tree.items()},
        "all": _figures(found),
        # Which files were named for each is seen by running it again.
        "found": [
            {key: value for key, value in asdict(item).items() if key in PUBLISHED}
            for item in found
        ],
    }


def _figures(found: Sequence[Found]) -> dict[str, float]:
    count = len(found)
    ranks = [item.rank for item in found]
    return {
        "tasks": count,
        "moved": sum(item.moved for item in found),
        "hit_at_1": sum(rank == 1 for rank in ranks) / count,
        "hit_at_5": sum(rank is not None and rank <= 5 for rank in ranks) / count,
        "hit_at_10": sum(rank is not None for rank in ranks) / count,
        "mrr": sum(1 / rank for rank in ranks if rank) / count,
        "shown": sum(item.shown for item in found) / count,
        "steps": sum(item.steps for item in found) / count,
        "most_steps": max(item.steps for item in found),
    }


def _page(result: Mapping[str, Any]) -> str:
    means = list(result["trees"].values())
    rows = [*result["trees"].items(), ("all tasks", result["all"])]
    lines = [
        "# What the scripted guide finds",
        "",
        f"{result['date']}, commit {result['commit']}, {result['guide']}.",
        "",
        f"Again: `{result['command']}`",
        "",
        f"{result['all']['tasks']} of {result['tasks']} tasks; left out: "
        + (", ".join(f"{why} {count}" for why, count in result["left_out"].items()) or "none")
        + ".",
        "",
        "| tree | tasks (moved below src/) | hit@1 | hit@5 | hit@10 | MRR | shown | steps (most) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {figures['tasks']} ({figures['moved']}) | {figures['hit_at_1']:.3f} | "
        f"{figures['hit_at_5']:.3f} | {figures['hit_at_10']:.3f} | {figures['mrr']:.3f} | "
        f"{figures['shown']:.3f} | {figures['steps']:.1f} ({figures['most_steps']}) |"
        for name, figures in rows
    ]
    mean = {key: sum(item[key] for item in means) / len(means) for key in means[0]}
    differing = ", ".join(result["differing"]) or "none"
    lines += [
        f"| mean of trees | | {mean['hit_at_1']:.3f} | {mean['hit_at_5']:.3f} | "
        f"{mean['hit_at_10']:.3f} | {mean['mrr']:.3f} | {mean['shown']:.3f} | "
        f"{mean['steps']:.1f} |",
        "",
        "A hit is any file of the patch that is no test; MRR counts ranks beyond ten as nothing; "
        "shown: lines of such a file were read on the way. The trees are later releases than the "
        "tasks: the fix is in them, and code has moved.",
        "",
        f"In the sandbox too: {result['checked']} tasks; with another report: {differing}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
