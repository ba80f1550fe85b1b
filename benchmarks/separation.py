"""Does a metric that needs no container tell resolved patches from unresolved ones?

    swe-scaffold score PREDICTIONS TASKS --output SCORED/NAME.scored.jsonl      # for every system
    python benchmarks/separation.py --data DATA --scored SCORED [--output PAGE]

DATA is a folder of published predictions and evaluation reports, SCORED one of scored predictions;
`SYSTEMS` names both. AUC with intervals by repository, per system, pooled, and within tasks; the
page and its numbers are dated. What is not published (outcomes, clones) is said on the page.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from swe_scaffold.metrics.clustered import Settings  # noqa: E402
from swe_scaffold.metrics.discrimination import (  # noqa: E402
    Separation,
    separation,
    separation_within,
)
from swe_scaffold.sources.outcomes import read_outcomes  # noqa: E402

Row = Mapping[str, Any]

MINI = "trajectories/mini-swe-agent-deepseek/deepseek__deepseek-chat.deepseek_chat"
EVALUATIONS = "swe-bench-lite/lite_all_evaluations.json.gz"


@dataclass(frozen=True)
class System:
    """One system on one set of tasks; `judged` says where its outcomes are published."""

    name: str
    title: str
    predictions: str
    report: str = ""
    run: str = ""
    pooled: bool = False


SYSTEMS = (
    System(
        "sweagent-gpt4",
        "SWE-agent, GPT-4 (Lite)",
        "predictions/20240402_sweagent_gpt4_predictions.jsonl.gz",
        report="predictions/20240402_sweagent_gpt4_report.json",
        pooled=True,
    ),
    System(
        "aider",
        "aider, GPT-4o and Opus (Lite)",
        "predictions/aider_all_preds.jsonl.gz",
        run="20240523_aider",
        pooled=True,
    ),
    System(
        "deepseek-lite-100",
        "mini-swe-agent, DeepSeek (100 of Lite)",
        "trajectories/mini-swe-agent-deepseek/deepseek_chat_test_1-100/preds.json",
        report=f"{MINI}_test_1-100.json",
        pooled=True,
    ),
    System(
        "deepseek-dev",
        "mini-swe-agent, DeepSeek (Lite dev)",
        "trajectories/mini-swe-agent-deepseek/deepseek_chat_dev/preds.json",
        report=f"{MINI}_dev.json",
    ),
    System(
        "deepseek-dev-rerun",
        "the same, run again",
        "trajectories/mini-swe-agent-deepseek/deepseek_chat_dev_rerun/preds.json",
        report=f"{MINI}_dev_rerun.json",
    ),
)


def near_gold(row: Row) -> float | None:
    """Return how near a patch's size is to the gold patch's: 0 at equal, falling to both sides."""
    ratio = row["size_ratio"]
    return -abs(math.log(ratio)) if ratio else None


# What gold knows, then what the patch alone shows, then what is known without any patch.
METRICS: dict[str, Callable[[Row], float | None]] = {
    **{
        name: (lambda row, name=name: row[name])
        for name in (
            *("file_precision", "file_recall", "file_f1", "function_precision"),
            *("function_recall", "function_f1", "hunk_precision", "hunk_recall", "hunk_f1"),
            *("similarity", "exact_match", "same_lines"),
        )
    },
    "size near gold's": near_gold,
    "size_ratio": lambda row: row["size_ratio"],
    "parses": lambda row: row["parses"],
    "applies": lambda row: row["applies"],
    "touches_tests": lambda row: row["touches_tests"],
    "fewer lines changed": lambda row: -(row["lines_added"] + row["lines_removed"]),
    "fewer files changed": lambda row: -len(row["files"]),
    "gold patch is short (no patch looked at)": lambda row: (
        -(row["gold_lines_added"] + row["gold_lines_removed"])
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Join scores and outcomes, compute every AUC, write page and numbers."""
    arguments = _parser().parse_args(argv)
    result = study(arguments.data, arguments.scored, SYSTEMS)
    result["date"] = arguments.date
    text = page(result)
    if arguments.output is None:
        print(text, end="")
        return 0
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(result, indent=1, allow_nan=False) + "\n"
    arguments.output.with_suffix(".json").write_text(numbers, "utf-8")
    arguments.output.write_text(text, "utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scored", type=Path, required=True)
    parser.add_argument("--date", default=datetime.datetime.now(tz=datetime.UTC).date().isoformat())
    parser.add_argument("--output", type=Path, help="page to write; numbers go beside it")
    return parser


def study(data: Path, scored: Path, systems: Sequence[System]) -> dict[str, Any]:
    """Return every AUC as JSON: systems, then pools."""
    settings = Settings(cluster_by="repo")
    columns, pool = [], []
    for system in systems:
        judged = outcomes(data, system)
        path = scored / f"{system.name}.scored.jsonl"
        rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        known = [{**row, "yes": judged[row["instance_id"]]} for row in rows if _known(row, judged)]
        told = [row for row in known if not row["empty"]]
        pool += told if system.pooled else []
        columns.append(
            {
                "title": system.title,
                "kind": "system",
                "scored_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "predictions": len(rows),
                "outcome_known": len(known),
                "empty": len(known) - len(told),
                "empty_and_resolved": sum(row["yes"] for row in known if row["empty"]),
                **_counts(told),
                "auc": {name: _auc(told, value, settings) for name, value in METRICS.items()},
            }
        )
    within = {name: _auc(pool, value, settings, tasks=True) for name, value in METRICS.items()}
    pooled = {name: _auc(pool, value, settings) for name, value in METRICS.items()}
    columns.append({"title": "Lite, pooled", "kind": "pool", **_counts(pool), "auc": pooled})
    columns.append({"title": "Lite, within tasks", "kind": "pool", **_counts(pool), "auc": within})
    return {"columns": columns}


def outcomes(data: Path, system: System) -> dict[str, bool]:
    """Return which tasks a system resolved, as published.

    A list of runs has resolved tasks only; it counts for a system whose patches it quotes, and then
    the other tasks of that run are unresolved.
    """
    if system.report:
        found = read_outcomes([data / system.report]).resolved
        return {name: yes for name, (yes, _) in found.items()}
    patches = read_outcomes([data / system.predictions]).patches
    resolved = set()
    for task in json.loads(gzip.decompress((data / EVALUATIONS).read_bytes())):
        for attempt in task["resolved_by"]:
            if attempt["name"] == system.run:
                ours, _ = patches[task["instance_id"]]
                if ours.strip() != attempt["patch"].strip():
                    raise SystemExit(f"{task['instance_id']}: another patch was judged")
                resolved.add(task["instance_id"])
    return {name: name in resolved for name in patches}


def _known(row: Row, judged: Mapping[str, bool]) -> bool:
    return row["instance_id"] in judged


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    return {
        "patches": len(rows),
        "resolved": sum(row["yes"] for row in rows),
        "tasks": len({row["instance_id"] for row in rows}),
        "repositories": len({row["repo"] for row in rows}),
    }


def _auc(
    rows: Sequence[Row],
    value: Callable[[Row], float | None],
    settings: Settings,
    *,
    tasks: bool = False,
) -> dict[str, Any]:
    known = [(float(score), row) for row in rows if (score := value(row)) is not None]
    scores = [score for score, _ in known]
    flags = [bool(row["yes"]) for _, row in known]
    repos = [row["repo"] for _, row in known]
    if tasks:
        names = [row["instance_id"] for _, row in known]
        found = separation_within(scores, flags, names, repos, settings)
    else:
        found = separation(scores, flags, repos, settings)
    return _as_json(found, len(known), len(set(scores)))


def _as_json(found: Separation, patches: int, distinct: int) -> dict[str, Any]:
    return {**asdict(found), "patches": patches, "distinct_scores": distinct}


def page(result: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    columns = result["columns"]
    lines = [
        "# Which metrics without containers separate resolved from unresolved patches?",
        "",
        f"{result['date']}. Again: `swe-scaffold score PREDICTIONS TASKS --output "
        "SCORED/NAME.scored.jsonl` for every system, then `python benchmarks/separation.py --data "
        "DATA --scored SCORED --output PAGE`.",
        "",
        "AUC: the share of pairs (resolved patch, unresolved patch) that a metric puts in order, "
        "ties counted half; 0.5 is chance. 95 % intervals by repository (placements, CR2, "
        "Bell-McCaffrey; see the page on coverage). Empty predictions are left out: nobody needs a "
        "metric for them. **Bold**: the interval excludes 0.5. *few*: fewer than 8 repositories, "
        "or a few that hold nearly all pairs: the interval is a rough guide and no claim.",
        "",
        "| | predictions | outcome known | empty | patches | resolved | tasks | repositories |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_ledger(column) for column in columns),
        "",
        f"| | {' | '.join(column['title'] for column in columns)} |",
        f"| --- |{' --- |' * len(columns)}",
        *(
            f"| {name} | {' | '.join(_cell(column['auc'][name]) for column in columns)} |"
            for name in METRICS
        ),
        "",
        "A dash: no patch has a value, or all have the same. *No interval*: the reason is in the "
        "numbers beside this page.",
        "",
        *_words(columns),
        *CAUTION,
    ]
    return "\n".join(lines) + "\n"


def _ledger(column: Mapping[str, Any]) -> str:
    names = ("predictions", "outcome_known", "empty", "patches", "resolved", "tasks")
    cells = [str(column.get(name, "")) for name in (*names, "repositories")]
    return f"| {column['title']} | {' | '.join(cells)} |"


def _cell(auc: Mapping[str, Any]) -> str:
    metric = auc["auc"]
    if auc["distinct_scores"] < 2 or metric["value"] is None:
        return "-"
    value = f"{metric['value']:.2f}"
    if metric["ci"] is None:
        return f"{value} *no interval*"
    low, high = metric["ci"]
    text = f"{value} [{low:.2f}, {high:.2f}]"
    if metric["reason"]:
        return f"{text} *few*"
    return f"**{text}**" if low > 0.5 or high < 0.5 else text


def _plain(auc: Mapping[str, Any]) -> str:
    return _cell(auc).replace("*few*", "(few)").replace("**", "")


def _words(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    within = next(column for column in columns if column["title"] == "Lite, within tasks")["auc"]
    pooled = next(column for column in columns if column["title"] == "Lite, pooled")["auc"]
    ranked = sorted(
        (name for name in METRICS if within[name]["auc"]["ci"] is not None),
        key=lambda name: -within[name]["auc"]["value"],
    )
    best = ", ".join(f"{name} {_plain(within[name])}" for name in ranked[:3])
    short = "gold patch is short (no patch looked at)"
    return [
        "## In words",
        "",
        f"- Within tasks ({within['similarity']['auc']['n']} tasks on which two or three systems "
        f"differ), the best are {best}.",
        f"- How short the gold patch is separates at {_plain(pooled[short])} in the pool "
        "without looking at any patch: part of what a metric shows across tasks is that easy tasks "
        "are easy. Within tasks it is worth nothing, by construction.",
    ]


CAUTION = [
    "- Every metric of place or similarity knows the gold patch. These figures say how far such a "
    "metric can stand in for tests where gold is known (filtering, rejection sampling, a first "
    "look at a run); none of them replaces running the tests.",
    "- **Selection.** The systems were chosen because their predictions *and* outcomes are "
    "published. moatless (2024-11-17, 299 predictions) is not here: no list of what it resolved is "
    "among the data. aider's outcomes are the 79 patches that a public evaluation lists as "
    "resolved under its run; all 79 equal its predictions, and its other tasks count as not "
    "resolved. The 100 tasks of mini-swe-agent are two repositories (astropy, django): its "
    "intervals are nearly empty statements. Lite dev has 23 tasks, scored twice.",
    "- Within tasks most pairs are django's (92 of 127 here): the intervals rest on little, and "
    "may be far too wide or too narrow.",
    "- The published patches are what each system submitted after its own checks; patches that a "
    "system discarded are not seen. All of them parse, so `parses` has nothing to separate.",
    "- `applies` and the function metrics need clones of the repositories, which were not at hand: "
    "they are dashes, not zeros.",
    "- Many intervals stand on this page and none is adjusted for that: one in twenty would "
    "exclude 0.5 by chance.",
]


if __name__ == "__main__":
    raise SystemExit(main())
